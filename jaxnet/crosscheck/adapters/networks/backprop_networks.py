"""Adapts networks with lists of parameters whose `backprop(x, y)` returns lists of gradients: `(nabla_b, nabla_w)`.

Such a network may have a cost, `cost.fn(a, y)`, or only the derivative of one, `cost_derivative(a, y)`. A cost is then
the integral of its derivative, along the line from the output at the given parameters to the present output.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.methods import FORWARD
from jaxnet.crosscheck.adapters.style import Style, called, has_method, parameters_of, required_parameters_of
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.trees import is_float

BACKPROP = ("backprop", "back_prop", "backpropagate", "backpropagation", "back_propagation", "backward", "gradients")
DERIVATIVES = ("cost_derivative", "loss_derivative", "cost_prime", "loss_prime", "cost_gradient", "loss_gradient")
NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)
Lists = dict[str, int]


class _ListNetwork:
    """A network whose lists of parameters are a dict, with a loss and its gradient."""

    def __init__(self, network: Any, lists: Lists, run: tuple[str, str], cost: Callable[..., Any]) -> None:
        self._network, self._lists, self._run, self._cost = network, lists, run, cost
        self.params = {f"{name}[{i}]": getattr(network, name)[i] for name, n in lists.items() for i in range(n)}

    def loss(self, x: Any, t: Any) -> Any:
        """Returns the cost of the output."""
        network = self._filled()
        return self._cost(network, getattr(network, self._run[0])(x), t)

    def gradient(self, x: Any, t: Any) -> dict[str, Any]:
        """Returns the gradients in the lists that the network returns."""
        groups = _groups(getattr(self._filled(), self._run[1])(x, t))
        pairs = zip(self._lists, groups, strict=True)
        return {f"{name}[{i}]": gradient for name, group in pairs for i, gradient in enumerate(group)}

    def _filled(self) -> Any:
        network = copy.copy(self._network)
        for name, count in self._lists.items():
            setattr(network, name, [self.params[f"{name}[{i}]"] for i in range(count)])
        return network


def adapt(style: Style) -> Style | None:
    """Turns a network with lists of parameters into one with a dict of them."""
    network, inputs = style.thing, style.inputs
    if isinstance(network, tuple | list | type) or len(inputs) != 2 or hasattr(network, "params"):
        return None
    forward = next((n for n in ("feedforward", "forward", *FORWARD) if _takes(network, n, 1)), None)
    backprop = next((n for n in BACKPROP if _takes(network, n, 2)), None)
    if forward is None or backprop is None:
        return None
    lists = _lists(network, called(getattr(duplicate(network), backprop), *inputs))
    output = called(getattr(duplicate(network), forward), inputs[0])
    cost = _cost(network, output) if lists and is_float(output) else None
    if lists is None or cost is None:
        return None
    kind = type(type(network).__name__, (_ListNetwork,), {"__module__": type(network).__module__})
    return style._replace(thing=kind(network, lists, (forward, backprop), cost[0]), note=cost[1])


def _takes(network: Any, name: str, count: int) -> bool:
    return has_method(network, name) and len(required_parameters_of(getattr(network, name))) == count


def _groups(returned: Any) -> list[list[Any]]:
    """Returns the lists of gradients: one for each list of parameters."""
    if not isinstance(returned, tuple | list):
        return []
    nested = [list(part) for part in returned if isinstance(part, tuple | list)]
    return nested if len(nested) == len(returned) else [list(returned)]


def _lists(network: Any, returned: Any) -> Lists | None:
    """Returns the lists of parameters that have the shapes of the lists of gradients, in their order."""
    lists: Lists = {}
    attributes = attributes_of(network)
    for group in _groups(returned):
        shapes = [np.shape(g) for g in group if is_float(g)]
        name = next((n for n, value in attributes.items() if n not in lists and _shapes(value) == shapes), None)
        if name is None or len(shapes) != len(group) or not shapes:
            return None
        lists[name] = len(group)
    return lists or None


def _shapes(value: Any) -> list[tuple[int, ...]] | None:
    return [np.shape(part) for part in value] if isinstance(value, list) and all(map(is_float, value)) else None


def _cost(network: Any, output: Any) -> tuple[Callable[..., Any], str] | None:
    """Returns the cost as a function of the network, its output and the labels, and a note on where it is from."""
    if callable(getattr(getattr(network, "cost", None), "fn", None)):
        return lambda network, a, t: network.cost.fn(a, t), "the loss is cost.fn of the network's output"
    name = next((n for n in DERIVATIVES if callable(getattr(network, n, None))), None)
    if name is None or len(parameters_of(getattr(network, name))) != 2:
        return None
    start = np.array(output, np.float64)

    def integral(network: Any, a: Any, t: Any) -> Any:
        way = np.asarray(a) - start
        slopes = [np.vdot(getattr(network, name)(start + (s + 1) / 2 * way, t), way) for s in NODES]
        return np.dot(WEIGHTS / 2, slopes)

    return integral, f"the network has no loss, so the loss is the integral of {name}"
