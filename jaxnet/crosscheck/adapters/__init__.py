"""Translates the styles in which people write gradients into those that the checker takes.

`adapt` tries them in order. An adapter returns None if the code is not in its style. It copies what it changes, and
never changes numbers: which of several readings is meant is decided by names, shapes and, at last, by difference
quotients.
"""

from typing import Any

from jaxnet.crosscheck.adapters import methods
from jaxnet.crosscheck.adapters.functions import (
    bound_arguments,
    contexts,
    derivatives,
    inputs_of_pairs,
    listed_outputs,
    loss_and_gradients,
    loss_objects,
    method_pairs,
    only_methods,
    pre_activations,
    returned_order,
    unpaired_outputs,
    upstream_pairs,
)
from jaxnet.crosscheck.adapters.layers import (
    bound_inputs,
    called_layers,
    dict_values,
    dout_shapes,
    gradient_dicts,
    inputs_again,
    kept_values,
    number_lists,
    plain_numbers,
    returned_parameters,
    structured_inputs,
    unread_arguments,
)
from jaxnet.crosscheck.adapters.networks import (
    backprop_networks,
    found_costs,
    function_pairs,
    global_parameters,
    held_losses,
    losses_beside,
    model_functions,
    model_losses,
    named_values,
    network_losses,
    outside_costs,
    passes_by_role,
    self_training,
    standard_costs,
    training_methods,
    two_methods,
    whole_networks,
)
from jaxnet.crosscheck.adapters.optimizers import held_optimizers, updates
from jaxnet.crosscheck.adapters.style import Style
from jaxnet.crosscheck.adapters.tensors import scalar_engines, tensor_containers

__all__ = ["Style", "adapt"]

LAYER_STYLES = (
    methods.adapt,
    kept_values.adapt,
    called_layers.adapt,
    number_lists.adapt,
    dout_shapes.adapt,
    method_pairs.adapt,
    structured_inputs.adapt,
    listed_outputs.adapt,
    gradient_dicts.adapt_filled_pair,
    unpaired_outputs.adapt,
    returned_order.adapt,
    gradient_dicts.adapt_filled,
    inputs_of_pairs.adapt,
    bound_arguments.adapt,
    inputs_again.adapt,
    held_optimizers.adapt,
    updates.adapt,
    whole_networks.adapt,
    unread_arguments.adapt,
    gradient_dicts.adapt_returned,
    gradient_dicts.adapt_lists,
    plain_numbers.adapt,
    returned_parameters.adapt_beside_arrays,
    returned_parameters.adapt,
)
OTHER_STYLES = (
    contexts.adapt,
    dict_values.adapt,
    bound_inputs.adapt,
    loss_objects.adapt,
    held_losses.adapt,
    losses_beside.adapt,
    backprop_networks.adapt,
    global_parameters.adapt,
    model_functions.adapt,
    function_pairs.adapt,
    network_losses.adapt,
    model_losses.adapt,
    two_methods.adapt,
    named_values.adapt,
    loss_and_gradients.adapt,
    only_methods.adapt,
    training_methods.adapt,
    pre_activations.adapt,
    derivatives.adapt,
    upstream_pairs.adapt,
    scalar_engines.adapt,
    scalar_engines.adapt_arrays,
    outside_costs.adapt_own_cost,
    found_costs.adapt,
    standard_costs.adapt,
    self_training.adapt,
    passes_by_role.adapt,
    loss_and_gradients.reject_other_shape,
)


def adapt(thing: Any, inputs: tuple[Any, ...], drawn: tuple[int, ...] = ()) -> Style:
    """Returns the code in a style that the checker takes; unchanged if it is in no other.

    Args:
        thing: The object, function or pair of functions that is checked.
        inputs: The arguments that it is called with.
        drawn: The places of those that were drawn. Defaults to none.
    """
    style = Style(thing, inputs, drawn=drawn)
    style = tensor_containers.adapt(style) or style
    for adapter in OTHER_STYLES:
        if (adapted := adapter(style)) is not None:
            return adapted
    for adapter in LAYER_STYLES:
        style = adapter(style) or style
    return style
