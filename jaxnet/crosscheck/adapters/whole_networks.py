"""Networks whose backward is of their parameters alone: it returns nothing, or a list like that of the parameters.

A loop over layers, `for layer in reversed(self.layers): delta = layer.backward(delta)`, has no gradient of the input.
"""

import functools
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, called, has_method, parameters_of, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of, layers_within
from jaxnet.crosscheck.inspect.trees import is_float

PARAMETERS, GRADIENTS = "params", "grads"
NOTE = "backward of {} leaves no gradient of its input, so {} is held fixed"


def adapt(style: Style) -> Style | None:
    """Holds the inputs of such a network fixed."""
    net = style.thing
    if isinstance(net, tuple | list | type) or not (has_method(net, "forward") and has_method(net, "backward")):
        return None
    kind: Any = type(net)
    may_be_whole = _holds_layers(net) or isinstance(attributes_of(net).get(PARAMETERS), list)
    if not may_be_whole or len(parameters_of(net.backward)) != 1:
        return None
    trial: Any = duplicate(net)
    y = called(trial.forward, *style.inputs)
    returned = called(trial.backward, np.ones_like(y)) if is_float(y) else y
    is_list = _is_like_parameters(net, returned)
    if not is_list and (returned is not None or not _holds_layers(net)):
        return None

    @functools.wraps(kind.backward)
    def backward(self: Any, *dout: Any) -> dict[str, Any]:
        gradients = kind.backward(self, *dout)
        if is_list:
            setattr(self, GRADIENTS, gradients)
        return {}

    names = [n for n, x in zip(parameters_of(net.forward), style.inputs, strict=False) if is_float(x)]
    note = "; ".join(filter(None, (style.note, NOTE.format(kind.__name__, ", ".join(names)))))
    return style._replace(thing=with_methods(net, {"backward": backward}), note=note, data=tuple(names))


def _is_like_parameters(net: Any, returned: Any) -> bool:
    """Returns whether backward returns a list of arrays of the shapes of those in the list of parameters."""
    held = attributes_of(net).get(PARAMETERS)
    if not isinstance(held, list) or not isinstance(returned, list | tuple) or len(held) < 2:
        return False
    if not all(map(is_float, (*held, *returned))):
        return False
    return [np.shape(array) for array in held] == [np.shape(gradient) for gradient in returned]


def _holds_layers(net: Any) -> bool:
    """Returns whether an object is a network of several layers."""
    return sum(layer is not net for _, layer in layers_within(net)) > 1
