"""Adapts networks and the loss from which their backward starts: `check((net, loss), X, y)`.

The network has `forward(X)` and `backward(dout)`. The loss is an object with a value of output and labels, and with a
gradient of both or, after the value, of nothing: `loss.forward(output, y)` and `loss.backward()`.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.functions.derivatives import DERIVATIVES, VALUES
from jaxnet.crosscheck.adapters.methods import names_of
from jaxnet.crosscheck.adapters.style import Style, called, has_method, required_parameters_of
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.role_heuristics import is_label_name, label_rank
from jaxnet.crosscheck.inspect.trees import is_float

NOTE = "{}.{} starts from {}.{}, and is checked as the gradient of {}.{} by the parameters{}"
AND_INPUT, WITHOUT_INPUT = " and the input", ", since it returns nothing for the input"


class _Trained:
    """A network with its loss, as a layer of samples and labels."""

    def __init__(self, net: Any, loss: Any, run: Callable[..., Any], run_back: Callable[..., Any]) -> None:
        self.net, self.loss = net, loss
        self._run, self._run_back = run, run_back

    def forward(self, X: Any, y: Any) -> Any:
        return self._run(self.net, self.loss, X, y)

    def backward(self) -> Any:
        return self._run_back(self.net, self.loss)


def adapt(style: Style) -> Style | None:
    """Turns such a network and loss into one object whose forward returns the loss."""
    thing = style.thing
    if not isinstance(thing, tuple | list) or len(thing) != 2 or len(style.inputs) != 2:
        return None
    net, loss = thing
    passes = names_of(net)
    methods = _methods(loss)
    if not all(passes) or methods is None or isinstance(net, type):
        return None
    takes = required_parameters_of(getattr(net, passes[1]))
    if len(takes) != 1 or is_label_name(takes[0]) or len(required_parameters_of(getattr(net, passes[0]))) != 1:
        return None
    value, gradient = methods
    names = required_parameters_of(getattr(loss, value))
    labels_first = label_rank(names[0]) > label_rank(names[1])

    def run(net: Any, loss: Any, X: Any, y: Any) -> Any:
        output = getattr(net, passes[0])(X)
        loss.__dict__["_recall_arguments"] = args = (y, output) if labels_first else (output, y)
        return getattr(loss, value)(*args)

    def run_back(net: Any, loss: Any) -> Any:
        count = len(required_parameters_of(getattr(loss, gradient)))
        dout = getattr(loss, gradient)(*loss.__dict__["_recall_arguments"][:count])
        returned = getattr(net, passes[1])(dout)
        return {} if returned is None else returned  # None would stand for a gradient of the input that is forgotten

    trained = _Trained(net, copy.copy(loss), run, run_back)
    trial = duplicate(trained)
    total = called(trial.forward, *style.inputs)
    if not isinstance(total, float) and not (is_float(total) and np.size(total) == 1):
        return None
    if isinstance(returned := called(trial.backward), Exception):
        return None
    is_of_input = not isinstance(returned, dict) or bool(returned)
    trained.__class__ = type(type(net).__name__, (_Trained,), {"__module__": type(net).__module__})
    of_net, of_loss = type(net).__name__, type(loss).__name__
    leaves = AND_INPUT if is_of_input else WITHOUT_INPUT
    note = NOTE.format(of_net, passes[1], of_loss, gradient, of_loss, value, leaves)
    return style._replace(thing=trained, note=note, data=("y",) if is_of_input else ("X", "y"))


def _methods(loss: Any) -> tuple[str, str] | None:
    """Returns the names of the value of two arrays and of its gradient, which takes both or none; None for others."""
    if isinstance(loss, type) or not hasattr(loss, "__dict__"):
        return None
    values = [name for name in VALUES if has_method(loss, name)]
    values = [name for name in values if len(required_parameters_of(getattr(loss, name))) == 2]
    gradients = [name for name in ("backward", *DERIVATIVES) if has_method(loss, name)]
    gradients = [name for name in gradients if len(required_parameters_of(getattr(loss, name))) in (0, 2)]
    return (values[0], gradients[0]) if values and gradients else None
