"""Adapts networks whose backward starts from labels, with their cost: `check((net, cost), X, y)`, `check(net, X, y)`.

The cost takes the output and the labels: a function beside the network, a method of it, or of one object that it holds.
Backward takes by name what forward and the cost take and what forward returns, in whichever order, and a learning rate
is 1. The parameters are the arrays of the network that move the cost; `model_gradients` finds theirs.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from types import FunctionType, MappingProxyType, MethodType
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.adapters.functions.bound_arguments import UPSTREAM
from jaxnet.crosscheck.adapters.functions.derivatives import VALUES
from jaxnet.crosscheck.adapters.methods import VALUE, in_snake_case, names_of
from jaxnet.crosscheck.adapters.networks.model_gradients import Sources, find_sources, gradients_from, with_own_rates
from jaxnet.crosscheck.adapters.optimizers.plain_descent import COUNTS, RATES
from jaxnet.crosscheck.adapters.style import (
    Style,
    called,
    has_method,
    parameters_of,
    required_parameters_of,
    with_methods,
)
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of, walk
from jaxnet.crosscheck.inspect.plain_numbers import numbers_by_place
from jaxnet.crosscheck.inspect.returned_names import returned_names
from jaxnet.crosscheck.inspect.role_heuristics import LABELS, base_name, is_label_name, looks_constant
from jaxnet.crosscheck.inspect.trees import distinct, is_float

NOTE = "{} of {} is checked as the gradient of {} by its parameters, so {} is held fixed"
LATE = "; the update of {} is not proportional to the learning rate, as if other parameters were updated before it"
LABEL_WORDS = LABELS - {"y", "ys"}  # within a name: y_onehot, target_seq
COST_FUNCTION = re.compile(r"_?(\w+_)?(loss|cost|error)_?(fn|func|function)|_(\w+_)?(loss|cost)|criterion")
PRE_ACTIVATION = re.compile(r"z(_?\w)?|logits?|net_?in\w*|pre_?act\w*", re.IGNORECASE)
BIAS = re.compile(r"_?(b|bias|intercept|offset)_?\d?_?", re.IGNORECASE)
RATE = 1.0
Places = dict[str, Any]


class Network(NamedTuple):
    """A network, the names of its passes, its cost, and the names of the values that they exchange."""

    net: Any
    passes: tuple[str, str]
    cost: Callable[[Any], Callable[..., Any]]  # of a copy of the network
    outputs: list[str]
    of_cost: tuple[str, str]  # output, labels
    labels: str
    after: str = ""  # a method that computes the gradients after backward
    whole: str = ""  # the name under which forward returns a list of the activations of all layers, the output last
    fixed: Mapping[str, float] = MappingProxyType({})  # further arguments of backward
    of_samples: bool = True  # whether a cost of a value named as the input of forward takes that, and runs forward

    def run(self, replaced: Mapping[int, Any], x: Any, t: Any) -> tuple[Any, dict[str, Any], Any]:
        """Returns a copy of the network after a forward pass, the values by name, and the cost."""
        net = duplicate(self.net, replaced)
        forward = getattr(net, self.passes[0])
        result = forward(x)
        parts = _parts(result)
        output, labels = self.of_cost
        named = dict(zip(self.outputs, parts, strict=False))
        values = named | {parameters_of(forward)[0]: x, labels: t, self.labels: t}  # forward may call its output x, too
        y = named[output] if output in named else parts[-1] if self.whole else self._output_of(parts, np.shape(t))
        y = x if self.of_samples and output.lower() == parameters_of(forward)[0].lower() else y
        values.setdefault(output, y)
        values |= {self.whole: result} if self.whole else {}
        total = self.cost(net)(**{output: y, labels: t})
        first = total[0] if isinstance(total, tuple) else total  # beside it an accuracy, say
        rest = [name for name in required_parameters_of(getattr(net, self.passes[1])) if name not in values]
        cache = result if isinstance(result, Mapping) else parts[-1]
        values |= {name: RATE if RATES.fullmatch(name) else cache for name in rest}
        values |= {name: len(x) for name in rest if COUNTS.fullmatch(name)}
        return net, values, np.asarray(first, float).sum()

    def _output_of(self, parts: Any, shape: tuple[int, ...]) -> Any:
        """Returns the output: it has the shape of the labels, and is A2 of `Z1, A1, Z2, A2`."""
        alike = [i for i, part in enumerate(parts) if is_float(part) and np.shape(part) == shape]
        activations = [i for i in alike if not self.outputs[i : i + 1] or not PRE_ACTIVATION.fullmatch(self.outputs[i])]
        found = activations or alike or [0]
        return parts[0 if 0 in found else found[-1]]

    def run_back(self, net: Any, values: Mapping[str, Any], rate: float = RATE) -> Any:
        """Runs the backward pass of a copy, and returns what it returns."""
        backward = getattr(net, self.passes[1])
        takes = [*required_parameters_of(backward), *_optional_rates(backward)]
        with_own_rates(net, rate)
        rates = {name: rate for name in takes if RATES.fullmatch(name)}
        returned = backward(**{name: values[name] for name in takes if name not in rates}, **rates, **self.fixed)
        if not self.after:
            return returned
        last = getattr(net, self.after)
        return last(**{name: values[name] for name in required_parameters_of(last)})


def _optional_rates(backward: Any) -> list[str]:
    required = required_parameters_of(backward)
    return [name for name in parameters_of(backward) if RATES.fullmatch(name) and name not in required]


class Reading(NamedTuple):
    """A network, its parameters by place, and where its backward leaves their gradients."""

    network: Network
    arrays: Places
    sources: Sources


def adapt(style: Style) -> Style | None:
    """Turns a network and a cost, which stands beside it or belongs to an object in it, into a function."""
    thing = style.thing
    is_pair = isinstance(thing, tuple | list) and len(thing) == 2
    net, cost = thing if is_pair else (thing, None)
    if isinstance(net, FunctionType | MethodType | type | tuple | list) or (is_pair and not callable(cost)):
        return None
    if isinstance(cost, MethodType) and cost.__self__ is net:
        method = cost.__name__
        return _adapted(style, net, lambda own: getattr(own, method), is_known=True)
    if is_pair:
        return _adapted(style, net, lambda _: cost, is_known=True)
    if (held := _held_cost(net)) is None:
        return None
    place, name = held
    return _adapted(style, net, lambda own: getattr(getattr(own, place), name), is_known=False)


def adapt_own_cost(style: Style) -> Style | None:
    """Turns a network with a method that computes its cost of output and labels into a function."""
    net: Any = style.thing
    if isinstance(net, FunctionType | MethodType | type | tuple | list):
        return None
    functions = [name for name in _functions_of(net) if len(required_parameters_of(getattr(net, name))) == 2]
    costs = [name for name in functions if VALUE.fullmatch(name) and has_method(net, name)]
    costs = costs or [name for name in functions if COST_FUNCTION.fullmatch(in_snake_case(name))]
    return _adapted(style, net, lambda own: getattr(own, costs[0]), is_known=False) if len(costs) == 1 else None


def adapt_reconstruction(style: Style) -> Style | None:
    """Turns an autoencoder, whose `backward(X)` starts from its own samples, and its cost into a function."""
    net: Any = style.thing
    if isinstance(net, FunctionType | MethodType | type | tuple | list) or len(style.inputs) != 1:
        return None
    takes = [required_parameters_of(getattr(net, name, None)) for name in ("forward", "backward")]
    if len(takes[0]) != 1 or takes[0] != takes[1] or UPSTREAM.fullmatch(takes[0][0]):
        return None
    samples, kind = takes[0][0], type(net)
    costs = [name for name in dir(kind) if VALUE.fullmatch(name) and has_method(net, name)]
    if len(costs) != 1 or samples not in (of_cost := required_parameters_of(getattr(net, costs[0]))):
        return None

    def backward(self: Any, targets: Any) -> Any:
        return kind.backward(self, targets)

    def cost(net: Any) -> Callable[..., Any]:
        own = getattr(net, costs[0])

        def reconstruction(output: Any, targets: Any) -> Any:
            return own(**{name: targets if name == samples else output for name in of_cost})

        reconstruction.__name__ = costs[0]
        return reconstruction

    with_targets = with_methods(net, {"backward": backward})
    network = network_of(with_targets, cost, (*style.inputs, *style.inputs), is_known=True)
    reading = read(network, (*style.inputs, *style.inputs)) if network is not None else None
    return as_function(style._replace(inputs=(*style.inputs, *style.inputs)), reading) if reading is not None else None


def _functions_of(net: Any) -> list[str]:
    """Returns the names of the methods of an object, and of the functions that it holds."""
    held = [name for name, value in attributes_of(net).items() if isinstance(value, FunctionType | MethodType)]
    return [*(name for name in dir(type(net)) if not name.startswith("__") and has_method(net, name)), *held]


def _adapted(style: Style, net: Any, cost: Callable[[Any], Any], *, is_known: bool) -> Style | None:
    network = network_of(net, cost, style.inputs, is_known=is_known)
    reading = read(network, style.inputs) if network is not None else None
    return as_function(style, reading) if reading is not None else None


def read(network: Network, inputs: tuple[Any, ...]) -> Reading | None:
    """Returns the parameters of a network and where its backward leaves their gradients; None if it has none.

    Numbers with the name of a bias are parameters too if backward leaves a gradient for them.

    Args:
        network: The network and its cost.
        inputs: The samples and the labels.
    """
    net = duplicate(network.net)
    numbers = [number for number in numbers_by_place(net).values() if BIAS.fullmatch(str(number.key))]
    for number in numbers:
        number.put(np.asarray(number.value, float))
    reading = called(lambda: _read(network._replace(net=net), inputs)) if numbers else None
    if isinstance(reading, Reading):
        found = {p: a for p, a in reading.arrays.items() if a.ndim or p in reading.sources.by_place}
        return reading._replace(arrays=found)
    return _read(network, inputs)


def _read(network: Network, inputs: tuple[Any, ...]) -> Reading | None:
    net, (x, t) = network.net, inputs
    arrays = {place: part for place, part in walk(net) if isinstance(part, np.ndarray) and is_float(part)}
    moving = called(lambda: _that_move(network, arrays, x, t))
    if isinstance(moving, Exception) or not moving:
        name = parameters_of(getattr(net, network.passes[0]))[0]
        again = (
            network.of_samples and network.of_cost[0].lower() == name.lower()
        )  # a cost of the output under the name of the input
        return _read(network._replace(of_samples=False), inputs) if again else None
    arrays = moving
    for way in (network, *(network._replace(after=name) for name in _further_methods(network))):
        sources = called(lambda way=way: find_sources(way, arrays, x, t))
        if not isinstance(sources, Exception) and sources.by_place:
            return Reading(way, arrays, sources)
    return None


def _further_methods(network: Network) -> list[str]:
    """Returns the names of the methods that speak of a gradient, other than backward, and take what forward takes."""
    net: Any = network.net
    named = [name for name in dir(type(net)) if "grad" in name.lower() and not name.startswith("__")]
    takes = parameters_of(getattr(net, network.passes[0]))
    methods = [name for name in named if has_method(net, name) and name not in network.passes]
    return [name for name in methods if set(required_parameters_of(getattr(net, name))) <= set(takes)]


def as_function(style: Style, reading: Reading) -> Style:
    """Returns a network as a function of its parameters, samples and labels, with its gradient.

    Args:
        style: The network as it was passed in, with its inputs.
        reading: The network, its parameters and their gradients.
    """
    network, arrays, sources = reading

    def value(*args: Any) -> Any:
        *values, x, t = args
        replaced = {id(array): np.array(new) for array, new in zip(arrays.values(), values, strict=True)}
        return network.run(replaced, x, t)[2]

    def gradient(*args: Any) -> Any:
        *values, x, t = args
        replaced = {id(array): np.array(new) for array, new in zip(arrays.values(), values, strict=True)}
        gradients = gradients_from(network, sources, replaced, x, t)
        return {name: gradients[place] for name, place in zip(names, arrays, strict=False) if place in gradients}

    forward = getattr(network.net, network.passes[0])
    of_x = parameters_of(forward)[0]
    names = distinct([*short_names(list(arrays)), of_x, network.labels])
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])
    value.__signature__ = gradient.__signature__ = signature  # type: ignore[attr-defined]
    cost = network.cost(network.net)
    value.__name__ = type(network.net).__name__
    words = (network.passes[1], type(network.net).__name__, getattr(cost, "__name__", "the cost"), of_x)
    inputs = (*(np.array(array) for array in arrays.values()), *style.inputs)
    lacking = [
        name
        for name, (place, array) in zip(names, arrays.items(), strict=False)
        if place not in sources.by_place and not looks_constant(place, array, is_input=False)
    ]
    late = [name for name, place in zip(names, arrays, strict=False) if place in sources.late]
    note = NOTE.format(*words) + (LATE.format(", ".join(late)) if late else "")
    adapted = style._replace(thing=value, inputs=inputs, gradient=gradient, takes_dout=False)
    return adapted._replace(data=tuple(names[-2:]), lacking=tuple(lacking), note=note)


def short_names(places: list[str]) -> list[str]:
    """Returns the last names of places, or their whole names as identifiers where the last ones are not all different.

    Examples:
        >>> short_names(["p['W']", "p['b']"]), short_names(["layers[0].W", "layers[1].W"])
        (['W', 'b'], ['layers_0_W', 'layers_1_W'])
    """
    short = [base_name(place) for place in places]
    if len(set(short)) == len(short) and all(name.isidentifier() for name in short):
        return short
    return [re.sub(r"\W+", "_", place).strip("_") for place in places]


def network_of(net: Any, cost: Callable[[Any], Any], inputs: tuple[Any, ...], *, is_known: bool) -> Network | None:
    """Returns how the values of a network and a cost are exchanged; None if the names do not tell.

    Args:
        net: The network.
        cost: Returns the cost of a copy of the network.
        inputs: The samples and the labels.
        is_known: Whether the cost was passed with the network, so that any name may be that of the labels.
    """
    of_forward, of_backward = names_of(net)
    of_cost = required_parameters_of(cost(net))
    if len(inputs) != 2 or not of_forward or not of_backward or len(of_cost) != 2:
        return None
    forward, backward = getattr(net, of_forward), getattr(net, of_backward)
    if len(required_parameters_of(forward)) != 1:
        return None
    result = called(getattr(duplicate(net), of_forward), inputs[0])
    if isinstance(result, Exception):
        return None
    count = len(_parts(result))
    outputs = returned_names(getattr(type(net), of_forward), count, type(net), partly=True)
    whole = _name_of_activations(net, of_forward, result)
    if isinstance(result, Mapping):
        outputs = list(map(str, result))
    takes = required_parameters_of(backward)
    if not any(is_of_labels(name) and name not in outputs for name in takes):  # forward returns `self.y`, too
        outputs = ["" if name in takes and is_of_labels(name) else name for name in outputs]
    first, second = of_cost
    if first not in outputs and (second in outputs or (is_of_labels(first) and not is_of_labels(second))):
        first, second = second, first
    known = {parameters_of(forward)[0], *outputs, whole, first}
    rest = [name for name in required_parameters_of(backward) if name not in known and not RATES.fullmatch(name)]
    rest = [name for name in rest if not (count > 1 and "cache" in name.lower()) and not COUNTS.fullmatch(name)]
    labels = [name for name in rest if not UPSTREAM.fullmatch(name)]
    if len(labels) == len(rest) == 2:  # the other is the output, or a list of activations, under a name of its own
        others = [name for name in rest if not is_of_labels(name)]
        labels = rest = [name for name in rest if is_of_labels(name)]
        if whole:
            whole = next(iter(others), whole)
        elif others and not isinstance(result, Mapping):
            outputs = [others[0], *outputs[1:]]
    if len(labels) != 1 or len(rest) != 1:
        return None
    if not is_known and labels[0] != second and not is_of_labels(labels[0]):
        return None
    return Network(net, (of_forward, of_backward), cost, outputs, (first, second), labels[0], whole=whole)


def _name_of_activations(net: Any, forward: str, result: Any) -> str:
    """Returns the name of a list of arrays that forward returns as a whole, `return activations`; empty for others."""
    if not isinstance(result, list) or len(result) < 2 or not all(map(is_float, result)):
        return ""
    return next(iter(returned_names(getattr(type(net), forward), 1, type(net))), "")


def _parts(result: Any) -> tuple[Any, ...] | list[Any]:
    """Returns the values that forward returns: one, several, or those of a dict of activations by their names."""
    if isinstance(result, Mapping):
        return list(result.values())
    return result if isinstance(result, tuple | list) else (result,)


def is_of_labels(name: str) -> bool:
    """Returns whether a name is one of labels or has a word of them: `y`, `y_onehot`, `target_seq`."""
    return is_label_name(name) or bool(LABEL_WORDS & set(name.lower().split("_")))


def _that_move(network: Network, arrays: Places, x: Any, t: Any) -> Places:
    """Returns the arrays of which the cost is a function, and not those that forward writes itself."""
    start = network.run({}, x, t)[2]
    rng = np.random.default_rng(0)

    def moves(array: Any) -> bool:
        moved = array + rng.standard_normal(array.shape).astype(array.dtype)
        return bool(network.run({id(array): moved}, x, t)[2] != start)

    return {place: array for place, array in arrays.items() if moves(array)}


def _held_cost(net: Any) -> tuple[str, str] | None:
    """Returns the place and the name of the method of a value of two arrays in an object's parts; None if several."""
    costs = [
        (place, name)
        for place, part in attributes_of(net).items()
        if hasattr(part, "__dict__")
        for name in VALUES
        if has_method(part, name) and len(required_parameters_of(getattr(part, name))) == 2
    ]
    return costs[0] if len(costs) == 1 else None
