"""Adapts functions of a network that read its parameters from globals: `forward(X)` and `backward(X, y, A1, A2)`.

A cost may stand beside them: `check((forward, cost, backward), X, y)`. The functions become the methods of a network
that holds the arrays.
"""

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.networks import found_costs, outside_costs, passes_by_role, standard_costs
from jaxnet.crosscheck.adapters.networks.model_functions import BACKWARD
from jaxnet.crosscheck.adapters.style import Style, parameters_of, required_parameters_of, with_parameters
from jaxnet.crosscheck.inspect.closures import CapturedArrays
from jaxnet.crosscheck.inspect.pair import COST

NOTE = "the arrays that {} reads are its parameters: {}"


def adapt(style: Style) -> Style | None:
    """Makes a network of such functions, and a function of that with its cost."""
    functions: Any = style.thing
    if not isinstance(functions, tuple | list) or len(functions) not in (2, 3) or len(style.inputs) != 2:
        return None
    if not all(isinstance(function, FunctionType) for function in functions):
        return None
    costs = [function for function in functions[1:] if COST.search(function.__name__)]
    passes = [function for function in functions if function not in costs]
    if len(passes) != 2 or not BACKWARD.search(passes[1].__name__) or len(required_parameters_of(passes[0])) != 1:
        return None
    captured = CapturedArrays((*passes, *costs))
    names = [n for n in captured.of_first if n in captured.replaceable and n.isidentifier()]
    if not names:
        return None
    network = _network(captured, names)
    note = NOTE.format(passes[0].__name__, ", ".join(names))
    alone = style._replace(thing=network)
    if costs:
        adapted = outside_costs.adapt(style._replace(thing=(network, getattr(network, costs[0].__name__))))
    else:
        adapted = found_costs.adapt(alone) or standard_costs.adapt(alone) or passes_by_role.adapt(alone)
    return adapted and adapted._replace(note=f"{note}; {adapted.note}")


def _network(captured: CapturedArrays, names: list[str]) -> Any:
    """Returns a network that holds captured arrays, and runs functions as its methods."""

    def as_method(at: int, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(self: Any, *args: Any, **named: Any) -> Any:
            held = {name: getattr(self, name) for name in names}
            moved: Any = captured.rebuild(held)[at]
            returned = moved(*args, **named)
            for name, array in held.items():  # `global W; W = W - rate * dW`
                after = moved.__globals__.get(name, array)
                if after is not array and after is not captured.arrays[name] and isinstance(after, np.ndarray):
                    setattr(self, name, after)
            return returned

        return with_parameters(run, ["self", *parameters_of(function)])

    first, *_ = functions = captured.callables
    method_names = ("forward", "backward", *(cost.__name__ for cost in functions[2:]))
    methods = {name: as_method(at, functions[at]) for at, name in enumerate(method_names)}
    kind: Any = type(first.__name__, (), {"__module__": first.__module__, **methods})
    network = kind()
    vars(network).update({name: np.array(captured.arrays[name]) for name in names})
    return network
