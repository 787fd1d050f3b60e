"""Finds the cost from which the backward of a network starts, under any name: `net.J`, `energy(y, t)` in its module.

The cost is an attribute of the network that is a function, a method of it, or a function of its module. It takes the
output and the labels, in either order, and returns one number. Functions that train, print or draw are not called.
The adapter prefers functions with which all gradients agree, and otherwise takes those with which at least one does.
Several that differ are an error. Gradients that do not agree with the chosen function are wrong. A function is not
chosen if backward is a multiple of its gradient: it may be a metric that is only printed.
"""

import dis
import functools
import operator
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from types import CodeType, FunctionType, MethodType
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.adapters.methods import VALUE, names_of
from jaxnet.crosscheck.adapters.networks.model_gradients import gradients_from
from jaxnet.crosscheck.adapters.networks.outside_costs import (
    Network,
    Reading,
    as_function,
    is_of_labels,
    network_of,
    read,
)
from jaxnet.crosscheck.adapters.style import Style, called, has_method, required_parameters_of
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.errors import CostError
from jaxnet.crosscheck.inspect.held_parameters import proposal_for_cost
from jaxnet.crosscheck.inspect.objects import attributes_of

EFFECTS = frozenset({"close", "dump", "figure", "input", "open", "plot", "print", "save", "savefig", "show", "write"})
STEP = 2.0**-12
AGREEMENT = 1e-3  # of a gradient with a quotient, relative to its norm
SEVERAL = (
    "{net}.{backward}: takes {labels} and no upstream gradient, and starts from one of {names}, which agree; for "
    "net = {net}(...), pass the one that is meant: check((net, {first}), X, {labels})"
)


class _Candidate(NamedTuple):
    """A cost that may be meant: its name as one writes it, and what returns it, given a copy of the network."""

    name: str
    of: Callable[[Any], Callable[..., Any]]


def adapt(style: Style) -> Style | None:
    """Finds the cost of a network whose backward takes labels, and turns both into a function with its gradient.

    Raises:
        CostError: If several functions agree with backward.
    """
    net: Any = style.thing
    if (passes := passes_from_labels(style)) is None:
        return None
    if (returned := _with_returned_loss(net, style.inputs)) is not None:
        return as_function(style, returned)
    readings = [(c, reading) for c in _candidates(net, passes) for reading in _readings(net, c, style.inputs)]
    found = [called(lambda r=r: agreements(r, style.inputs)) for _, r in readings]
    fitting = [(c, r, all(a)) for (c, r), a in zip(readings, found, strict=True) if isinstance(a, list) and any(a)]
    fitting = [entry for entry in fitting if entry[2]] or fitting
    by_name = {candidate.name: reading for candidate, reading, _ in reversed(fitting)}
    if not by_name:
        return None
    values = [reading.network.run({}, *style.inputs)[2] for reading in by_name.values()]
    if np.allclose(values, values[0], rtol=1e-12, atol=0):  # one cost, which calls another by its name
        own = next((reading for name, reading in by_name.items() if name.startswith("net.")), None)
        return as_function(style, own or next(iter(by_name.values())))
    words = {"net": type(net).__name__, "backward": passes[1], "labels": fitting[0][1].network.labels}
    raise CostError(SEVERAL.format(names=" and ".join(by_name), first=next(iter(by_name)), **words))


class _ReturnsLoss(Network):
    """A network whose backward returns the loss beside the gradients."""

    def run(self, replaced: Mapping[int, Any], x: Any, t: Any) -> tuple[Any, dict[str, Any], Any]:
        """Returns a copy of the network after a forward pass, the values by name, and the loss."""
        net, values, _ = super().run(replaced, x, t)
        return net, values, _loss_in(self.run_back(duplicate(net), values))


def _loss_in(returned: Any) -> float:
    """Returns the only number beside gradients in what backward returns; nan if there is none."""
    numbers = [part for part in returned if isinstance(part, float | np.floating)] if _is_several(returned) else []
    return float(numbers[0]) if len(numbers) == 1 else np.nan


def _is_several(returned: Any) -> bool:
    return isinstance(returned, tuple | list) and len(returned) > 1


def _with_returned_loss(net: Any, inputs: tuple[Any, ...]) -> Reading | None:
    """Returns a network with the loss that its backward returns; None if that returns none."""

    def returned_loss(output: Any, labels: Any) -> float:  # noqa: ARG001
        return 0.0

    network = called(lambda: network_of(net, _always(returned_loss), inputs, is_known=False))
    if not isinstance(network, Network):
        return None
    network = _ReturnsLoss(*network)
    value = called(lambda: network.run({}, *inputs)[2])
    if isinstance(value, Exception) or not np.isfinite(value):
        return None
    reading = called(lambda: read(network, inputs))
    return reading if isinstance(reading, Reading) else None


def passes_from_labels(style: Style) -> tuple[str, str] | None:
    """Returns the names of the two passes of a network whose backward takes labels; None for other code."""
    net: Any = style.thing
    if isinstance(net, FunctionType | MethodType | type | tuple | list) or len(style.inputs) != 2:
        return None
    passes = names_of(net)
    return passes if all(passes) and proposal_for_cost(net, *passes) else None


def has_costs(style: Style) -> bool:
    """Returns whether there are functions of output and labels that the parameters of a network change smoothly."""
    net, passes = style.thing, passes_from_labels(style)
    if passes is None:
        return False
    readings = (reading for c in _candidates(net, passes) for reading in _readings(net, c, style.inputs))
    return any(called(lambda r=r: _has_slopes(r, style.inputs)) is True for r in readings)


def _has_slopes(reading: Reading, inputs: tuple[Any, ...]) -> bool:
    rng = np.random.default_rng(0)
    arrays = reading.arrays.values()
    return any(_slopes(reading.network, array, [rng.standard_normal(array.shape)], inputs) != [0] for array in arrays)


def _candidates(net: Any, passes: tuple[str, str]) -> Iterator[_Candidate]:
    """Yields the functions that take two values: attributes, methods, and functions of the module; each once."""
    known: set[int] = set()
    kind: Any = type(net)
    own = [name for name in attributes_of(net) if callable(getattr(net, name))]
    methods = [name for name in dir(kind) if not name.startswith("__") and has_method(net, name) and name not in passes]
    for name in (*own, *methods):
        function = getattr(net, name)
        known.add(id(getattr(function, "__func__", function)))
        if _may_be_cost(function, net, passes):
            yield _Candidate(f"net.{name}", operator.attrgetter(name))
        elif name in methods and VALUE.fullmatch(name) and _may_be_cost(function, net, passes, count=1):
            yield _Candidate(f"net.{name}", _of_labels_alone(name))
    for name, function in list(getattr(sys.modules.get(kind.__module__), "__dict__", {}).items()):
        if isinstance(function, FunctionType) and id(function) not in known:
            known.add(id(function))
            if _may_be_cost(function, net, passes):
                yield _Candidate(name, _always(function))


def _of_labels_alone(name: str) -> Callable[[Any], Callable[..., Any]]:
    """Returns what makes a cost of a method that reads the output that forward stored: `net.compute_loss(labels)`."""

    def of(net: Any) -> Callable[..., Any]:
        def cost(output: Any, labels: Any) -> Any:  # noqa: ARG001
            return getattr(net, name)(labels)

        cost.__name__ = name
        return cost

    return of


def _may_be_cost(function: Any, net: Any, passes: tuple[str, str], count: int = 2) -> bool:
    """Returns whether a function takes so many values, one named like labels, and neither trains nor acts."""
    takes = [] if isinstance(function, type) else required_parameters_of(function)
    if len(takes) != count or not any(map(is_of_labels, takes)):
        return False
    return not reaches(function, type(net), EFFECTS | {*passes, "__call__"})


def reaches(function: Any, kind: type, names: Collection[str], known: set[Any] | None = None) -> bool:
    """Returns whether the code of a function, or of one that it calls, has one of these names.

    Args:
        function: The function.
        kind: The class of which it may call methods.
        names: The names.
        known: The code that was searched before. Defaults to none.
    """
    known = set() if known is None else known
    called_by = function if hasattr(function, "__code__") or hasattr(function, "__func__") else type(function).__call__
    code = getattr(called_by, "__code__", None)
    if code is None or code in known:
        return False
    known.add(code)
    codes = [code, *(constant for constant in code.co_consts if isinstance(constant, CodeType))]
    used = frozenset[str]().union(*map(_names_used_by, codes))
    beside = getattr(called_by, "__globals__", {})
    further = [found for name in used for found in (getattr(kind, name, None), beside.get(name))]
    return bool(used & set(names)) or any(
        reaches(found, kind, names, known) for found in further if isinstance(found, FunctionType)
    )


@functools.lru_cache(maxsize=1024)
def _names_used_by(code: CodeType) -> frozenset[str]:
    """Returns the names in code, without an attribute `self.input`, which is not the function."""
    steps = [step for step in dis.get_instructions(code) if step.argval in code.co_names]
    return frozenset(s.argval for s in steps if "GLOBAL" in s.opname or s.argval != input.__name__)


def _always(function: Any) -> Callable[[Any], Any]:
    return lambda _: function


def _readings(net: Any, candidate: _Candidate, inputs: tuple[Any, ...]) -> Iterator[Reading]:
    """Yields the network with a cost that takes the output and the labels, in the likelier order and in the other."""
    first, second = required_parameters_of(candidate.of(net))
    network = called(lambda: network_of(net, candidate.of, inputs, is_known=False))
    if not isinstance(network, Network):
        return

    def in_the_other_order(copied: Any) -> Callable[..., Any]:
        function = candidate.of(copied)

        @functools.wraps(function)
        def cost(output: Any, labels: Any) -> Any:
            return function(labels, output) if network.of_cost == (first, second) else function(output, labels)

        return cost

    for way in (network, network._replace(cost=in_the_other_order, of_cost=("output", "labels"))):
        reading = called(lambda way=way: _read_one_number(way, inputs))
        if isinstance(reading, Reading):
            yield reading


def _read_one_number(network: Network, inputs: tuple[Any, ...]) -> Reading | None:
    """Returns the network with its parameters and gradients, if the cost is one finite number."""
    if (reading := read(network, inputs)) is None:
        return None
    values: list[Any] = []

    def of_kept_value(net: Any) -> Callable[..., Any]:
        def cost(**arguments: Any) -> Any:
            values.append(network.cost(net)(**arguments))
            return values[-1]

        return cost

    total = reading.network._replace(cost=of_kept_value).run({}, *inputs)[2]
    return reading if np.size(values[0]) == 1 and np.isfinite(total) else None


def agreements(reading: Reading, inputs: tuple[Any, ...]) -> list[bool]:
    """Returns for each parameter whether its gradient is that of the cost, along itself and in random directions.

    Returns none if one differs by a multiple of its parameter, as by a weight decay that the cost lacks.

    Args:
        reading: The network with a cost.
        inputs: The samples and the labels.
    """
    network, arrays, sources = reading
    gradients = gradients_from(network, sources, {}, *inputs)
    found = []
    for place, gradient in gradients.items():
        array = arrays[place]
        if (directions := directions_along(gradient, array)) is None:
            continue
        slopes = _slopes(network, array, directions, inputs)
        if (agrees := agreement(gradient, array, directions, slopes)) is None:
            return []
        found.append(agrees)
    return found


def directions_along(gradient: Any, array: Any) -> list[Any] | None:
    """Returns unit vectors: along a gradient, and three at random; None if it is 0 or not of the shape of its array."""
    norm = np.linalg.norm(gradient)
    if np.shape(gradient) != np.shape(array) or not norm or not np.isfinite(norm):
        return None
    directions = [gradient, *np.random.default_rng(0).standard_normal((3, *np.shape(array)))]
    return [direction / np.linalg.norm(direction) for direction in directions]


def agreement(gradient: Any, array: Any, directions: list[Any], slopes: list[float]) -> bool | None:
    """Returns whether a gradient has these slopes; None if it differs by a multiple of its array, as by a decay."""
    norm = np.linalg.norm(gradient)
    errors = np.array([np.vdot(gradient, d) - slope for d, slope in zip(directions, slopes, strict=True)])
    decay = np.array([np.vdot(array, d) for d in directions])
    rest = errors - decay * (errors @ decay) / max(decay @ decay, np.finfo(float).tiny)
    if np.abs(errors).max() <= AGREEMENT * norm:
        return True
    return None if np.size(array) > 1 and np.abs(rest).max() <= AGREEMENT * norm else False


def step_of(array: Any) -> float:
    """Returns the step of a difference quotient by an array."""
    return STEP * max(1.0, float(np.abs(array).max()))


def slopes_along(value: Callable[[Any], Any], array: Any, directions: list[Any]) -> list[float]:
    """Returns the difference quotients of a function of an array along unit vectors."""
    step = step_of(array)
    return [float(value(array + step * d) - value(array - step * d)) / (2 * step) for d in directions]


def _slopes(network: Network, array: Any, directions: list[Any], inputs: tuple[Any, ...]) -> list[float]:
    return slopes_along(lambda moved: network.run({id(array): moved}, *inputs)[2], array, directions)
