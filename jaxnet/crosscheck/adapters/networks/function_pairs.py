"""Adapts networks of two functions: `forward_prop(W1, b1, W2, X)` and `backward_prop(Z1, A1, A2, W1, W2, X, Y)`.

The second one takes labels, which are passed after the arguments of the first, and no cost stands beside them. They
become the methods of a network that holds the other arguments of forward. `standard_costs` finds its cost.
"""

import functools
import re
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.networks import model_functions, standard_costs
from jaxnet.crosscheck.adapters.networks.outside_costs import is_of_labels
from jaxnet.crosscheck.adapters.optimizers.plain_descent import COUNTS
from jaxnet.crosscheck.adapters.style import Style, called, parameters_of, required_parameters_of, with_parameters
from jaxnet.crosscheck.inspect.errors import CostError
from jaxnet.crosscheck.inspect.pair import COST
from jaxnet.crosscheck.inspect.returned_names import returned_names
from jaxnet.crosscheck.inspect.trees import is_float

NO_COST = (
    "{backward}: takes {labels} and no upstream gradient, and its gradients fit no usual cost of what {forward} "
    "returns; pass the cost, too: check(({forward}, cost, {backward}), {inputs})"
)
BESIDE = "it is the only cost in their module"
DATA = re.compile(r"x|x_?(train|batch|data)|inputs?|data|features|images?|samples|a_?0", re.IGNORECASE)


def adapt(style: Style) -> Style | None:
    """Turns two such functions into a network, and that into a function of its arrays, samples and labels."""
    thing: Any = style.thing
    is_pair = isinstance(thing, tuple | list) and len(thing) == 2
    if not is_pair or not all(isinstance(function, FunctionType) for function in thing):
        return None
    forward, backward = thing
    names = parameters_of(forward)[: len(style.inputs) - 1]
    data = [name for name in names if DATA.fullmatch(name)]
    labels = [n for n in required_parameters_of(backward) if is_of_labels(n) and n not in names]
    if len(names) != len(style.inputs) - 1 or len(data) != 1 or len(labels) != 1:
        return None
    if costs := _costs_beside(forward, backward):
        triples = (style._replace(thing=(forward, cost, backward)) for cost in costs)
        adapted = [model for triple in triples if (model := model_functions.adapt(triple)) is not None]
        return adapted[0]._replace(note=f"{adapted[0].note}; {BESIDE}") if len(adapted) == 1 else None
    given = {name: _as_array(value) for name, value in zip(names, style.inputs, strict=False)}
    result = called(lambda: forward(**given))
    if isinstance(result, Exception):
        return None
    for output, part in reversed(list(enumerate(_parts(result)))):
        network = _network(forward, backward, given, data[0], labels[0], output)
        inputs = given[data[0]], style.inputs[-1]
        if is_float(part) and (found := standard_costs.adapt(style._replace(thing=network, inputs=inputs))):
            return found
    words = {"forward": forward.__name__, "backward": backward.__name__, "labels": labels[0]}
    raise CostError(NO_COST.format(inputs=", ".join([*names, labels[0]]), **words))


def _costs_beside(forward: Any, backward: Any) -> list[Any]:
    """Returns the functions in the module of two others that are named as a cost and take labels."""
    beside = [value for value in list(forward.__globals__.values()) if isinstance(value, FunctionType)]
    named = [function for function in beside if COST.search(function.__name__) and function not in (forward, backward)]
    return [function for function in named if any(map(is_of_labels, required_parameters_of(function)[:2]))]


def _network(
    forward: Callable[..., Any], backward: Callable[..., Any], given: Mapping[str, Any], data: str, labels: str, at: int
) -> Any:
    """Returns a network whose attributes are the arguments of forward but the samples, and which returns one output."""
    result = called(lambda: forward(**given))
    outputs = list(result) if isinstance(result, Mapping) else returned_names(forward, len(_parts(result)), partly=True)
    others = [name for name in given if name != data]

    @functools.wraps(forward)
    def run_forward(self: Any, *samples: Any, **named: Any) -> Any:
        (self.samples,) = (*samples, *named.values())
        self.result = forward(**{data: self.samples}, **{name: getattr(self, name) for name in others})
        return _parts(self.result)[at]

    @functools.wraps(backward)
    def run_backward(self: Any, *targets: Any, **named: Any) -> Any:
        (target,) = (*targets, *named.values())
        values = {name: getattr(self, name) for name in others} | {data: self.samples, labels: target}
        parts = _parts(self.result)
        values |= {name: part for name, part in zip(outputs, parts, strict=False) if name and name not in values}
        cache = self.result if isinstance(self.result, Mapping) else parts[-1]
        rest = [name for name in required_parameters_of(backward) if name not in values]
        values |= {name: np.size(target) if COUNTS.fullmatch(name) else cache for name in rest}
        gradients = backward(**{name: values[name] for name in parameters_of(backward) if name in values})
        return tuple(map(_as_array, gradients)) if isinstance(gradients, tuple) else gradients

    methods = {
        "forward": with_parameters(run_forward, ["self", data]),
        "backward": with_parameters(run_backward, ["self", labels]),
    }
    network = type(forward.__name__, (), methods)()
    vars(network).update({name: given[name] for name in others})
    return network


def _parts(result: Any) -> tuple[Any, ...]:
    """Returns the values that a function returns: one, several, or those in a dict."""
    return tuple(result.values()) if isinstance(result, Mapping) else result if isinstance(result, tuple) else (result,)


def _as_array(value: Any) -> Any:
    return np.array(value) if isinstance(value, float) else value
