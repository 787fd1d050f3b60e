"""Adapts networks whose backward computes the gradients of the parameters alone, and not those of the inputs.

A loop over layers, `for layer in reversed(self.layers): delta = layer.backward(delta)`, has no gradient of the input,
nor has `backward()` of a network whose `forward(X, y)` returns its loss.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.methods import VALUE
from jaxnet.crosscheck.adapters.style import (
    Style,
    called,
    has_method,
    of_class,
    parameters_of,
    required_parameters_of,
    with_methods,
)
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of, layers_within
from jaxnet.crosscheck.inspect.stored_gradients import gradients_by_place
from jaxnet.crosscheck.inspect.trees import is_float

PARAMETERS, GRADIENTS = "params", "grads"
NOTE = "backward of {} leaves no gradient of its input, so {} is held fixed"


def adapt(style: Style) -> Style | None:
    """Holds the inputs of such a network fixed."""
    net = style.thing
    if isinstance(net, tuple | list | type) or not (has_method(net, "forward") and has_method(net, "backward")):
        return None
    kind: Any = type(net)
    if not parameters_of(net.backward):
        of_loss = _with_loss_as_forward(style)
        if _is_of_loss(of_loss):
            return _held_fixed(of_loss, kind.backward)
    may_be_whole = _holds_layers(net) or isinstance(attributes_of(net).get(PARAMETERS), list)
    if not may_be_whole or len(parameters_of(net.backward)) != 1:
        return None
    trial: Any = duplicate(net)
    y = called(trial.forward, *style.inputs)
    returned = called(trial.backward, np.ones_like(y)) if is_float(y) else y
    is_list = _is_like_parameters(net, returned)
    is_empty = returned is None or (isinstance(returned, tuple) and not returned)
    if not is_list and not (is_empty and _holds_layers(net)):
        return None

    def run(self: Any, *dout: Any) -> None:
        gradients = kind.backward(self, *dout)
        if is_list:
            setattr(self, GRADIENTS, gradients)

    return _held_fixed(style, run)


def _held_fixed(style: Style, run: Callable[..., Any]) -> Style:
    """Returns a network whose backward runs a function and returns no gradient, and whose inputs are data."""
    net, kind = style.thing, type(style.thing)

    @functools.wraps(kind.backward)
    def backward(self: Any, *dout: Any) -> dict[str, Any]:
        run(self, *dout)
        return {}

    names = [n for n, x in zip(parameters_of(net.forward), style.inputs, strict=False) if is_float(x)]
    note = "; ".join(filter(None, (style.note, NOTE.format(kind.__name__, ", ".join(names)))))
    return style._replace(thing=with_methods(net, {"backward": backward}), note=note, data=tuple(names))


def _with_loss_as_forward(style: Style) -> Style:
    """Returns a network whose forward is its `loss(X, y)`, if its own takes no labels and that is its only cost."""
    net: Any = style.thing
    costs = [name for name in dir(type(net)) if VALUE.fullmatch(name) and has_method(net, name)]
    costs = [name for name in costs if len(required_parameters_of(getattr(net, name))) == 2]
    if len(style.inputs) != 2 or len(required_parameters_of(net.forward)) != 1 or len(costs) != 1:
        return style
    kind = type(net)
    cost = getattr(kind, costs[0])

    @functools.wraps(cost)
    def forward(self: Any, *inputs: Any) -> Any:
        with of_class(self, kind):
            return cost(self, *inputs)

    return style._replace(thing=with_methods(net, {"forward": forward}))


def _is_of_loss(style: Style) -> bool:
    """Returns whether forward takes labels and returns a number, and backward stores gradients of parameters alone."""
    trial: Any = duplicate(style.thing)
    loss = called(trial.forward, *style.inputs)
    if len(style.inputs) < 2 or not is_float(loss) or np.size(loss) != 1:
        return False
    before = {name: id(value) for name, value in attributes_of(trial).items()}
    if called(trial.backward) is not None:
        return False
    stored = {name: value for name, value in attributes_of(trial).items() if before.get(name) != id(value)}
    gradients = gradients_by_place(trial)
    shapes = {np.shape(x) for x in style.inputs}
    others = [value for value in stored.values() if not any(value is gradient for gradient in gradients.values())]
    return any(map(is_float, gradients.values())) and not any(is_float(v) and np.shape(v) in shapes for v in others)


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
