"""Finds the float arrays that a layer and the layers within it hold."""

from collections.abc import Iterator, MutableMapping
from typing import Any, NamedTuple

from jaxnet.crosscheck.adapters.optimizers.plain_descent import RATES
from jaxnet.crosscheck.inspect.objects import attributes_of, layers_within
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES
from jaxnet.crosscheck.inspect.stored_gradients import PARAMETER_DICTS
from jaxnet.crosscheck.inspect.trees import is_float


class HeldArray(NamedTuple):
    """A layer, the mapping that holds an array of it, the name of the array there, and its place in the whole.

    The mapping is that of the layer's attributes, or a dict of parameters among them.
    """

    layer: Any
    held: MutableMapping[str, Any]
    name: str
    place: str


def held_arrays(whole: Any) -> Iterator[HeldArray]:
    """Yields the float arrays of a layer and of those within it, without learning rates and strictly named gradients.

    Args:
        whole: The layer.
    """
    for prefix, layer in layers_within(whole):
        if not hasattr(layer, "__dict__"):  # slots
            continue
        attributes = attributes_of(layer)
        gradients = {form.format(name) for name in attributes for form in GRADIENT_NAMES}
        for name, value in attributes.items():
            if is_float(value) and not RATES.fullmatch(name) and name not in gradients:
                yield HeldArray(layer, vars(layer), name, f"{prefix}{name}")
            elif isinstance(value, MutableMapping) and PARAMETER_DICTS.fullmatch(name):
                entries = ((key, part) for key, part in value.items() if is_float(part))
                yield from (HeldArray(layer, value, key, f"{prefix}{name}[{key!r}]") for key, part in entries)
