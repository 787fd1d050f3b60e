"""Finds a standard cost that the gradients match, for networks whose backward starts from labels and that have no cost.

Of an output y and labels t, such a cost is a squared error or a cross-entropy, as a sum, or a mean over samples or
elements. At least one gradient must be its derivative; then what is not is wrong.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.networks.found_costs import (
    agreement,
    directions_along,
    has_costs,
    passes_from_labels,
    step_of,
)
from jaxnet.crosscheck.adapters.networks.model_gradients import gradients_from
from jaxnet.crosscheck.adapters.networks.outside_costs import Reading, as_function, network_of, read
from jaxnet.crosscheck.adapters.style import Style, called
from jaxnet.crosscheck.inspect.signatures import positional

NOTE = "no cost was found, so a standard cost is used that matches the gradients of {}"
WITHOUT_DECAY = "{} is passed as 0"
DECAY = re.compile(r"wd|w(eight)?_?decay|decay|reg(ularization|_strength|_lambda)?|l2(_reg|_lambda)?|lambd?a?_?")
Cost = Callable[[Any, Any], Any]


def adapt(style: Style) -> Style | None:
    """Turns such a network into a function, with the cost of which most gradients are the derivative."""
    if passes_from_labels(style) is None or has_costs(style):
        return None
    fits = called(lambda: list(_fits(style)))
    if isinstance(fits, Exception) or not fits:
        return None
    names, reading = max(fits, key=lambda fit: len(fit[0]))
    adapted = as_function(style, reading)
    words = [adapted.note, NOTE.format(", ".join(names))]
    words += [WITHOUT_DECAY.format(" and ".join(fixed))] if (fixed := reading.network.fixed) else []
    return adapted._replace(note="; ".join(words))


def _decays(backward: Callable[..., Any]) -> list[str]:
    """Returns the names of the optional arguments of a backward pass that are strengths of a weight decay."""
    optional = [p for p in positional(backward) if isinstance(p.default, float | int)]
    return [parameter.name for parameter in optional if DECAY.fullmatch(parameter.name)]


def _fits(style: Style) -> Iterator[tuple[list[str], Reading]]:
    """Yields the costs with the arrays whose gradients are their derivatives, if there are any."""
    x, t = style.inputs
    kept: list[Any] = []

    def square(output: Any, labels: Any) -> Any:
        kept.append((output, labels))
        return (np.asarray(output) ** 2).sum()

    network = network_of(style.thing, lambda _: square, style.inputs, is_known=False)
    if network is None:
        return
    network = network._replace(fixed=dict.fromkeys(_decays(getattr(style.thing, network.passes[1])), 0.0))
    reading = read(network, style.inputs)
    if reading is None:
        return

    def output_at(replaced: dict[int, Any]) -> Any:
        reading.network.run(replaced, x, t)
        return np.asarray(kept[-1][0], np.float64)

    start, labels = output_at({}), np.asarray(kept[-1][1])
    gradients = gradients_from(reading.network, reading.sources, {}, x, t)
    ways = {place: found for place in gradients if (found := directions_along(gradients[place], reading.arrays[place]))}
    ends = {
        place: [[output_at({id(array): array + sign * step_of(array) * d}) for sign in (1, -1)] for d in directions]
        for place, directions in ways.items()
        for array in [reading.arrays[place]]
    }
    for formula, cost in standard_costs(start, labels):
        agreements = {}
        for place, directions in ways.items():
            array = reading.arrays[place]
            slopes = [(cost(a, labels) - cost(b, labels)) / (2 * step_of(array)) for a, b in ends[place]]
            agreements[place] = agreement(gradients[place], array, directions, slopes)
        agreeing = [place for place, agrees in agreements.items() if agrees]
        if None not in agreements.values() and any(np.size(reading.arrays[place]) > 1 for place in agreeing):
            yield agreeing, reading._replace(network=reading.network._replace(cost=_named(cost, formula)))


def _named(cost: Cost, formula: str) -> Callable[[Any], Callable[..., Any]]:
    def of_output(output: Any, labels: Any) -> Any:
        return cost(output, labels)

    of_output.__name__ = formula
    return lambda _: of_output


def standard_costs(output: Any, labels: Any) -> Iterator[tuple[str, Cost]]:
    """Yields the costs that an output and labels of these shapes may have, each with its formula.

    Args:
        output: An array (N, C), (C, N) or (N,).
        labels: Targets of the same shape, or class numbers (N,).

    Examples:
        >>> y, t = np.array([[0.25, 0.75]]), np.array([[0.0, 1.0]])
        >>> {formula: round(float(cost(y, t)), 4) for formula, cost in standard_costs(y, t)}["-sum(t log y)"]
        0.2877
    """
    y, t = np.shape(output), np.shape(labels)
    for formula, total in _sums(y, t):
        yield formula, total
        if t != y:
            count = int(np.prod(t))
            yield f"{formula} / {count}", _divided(total, count)
            continue
        for count in dict.fromkeys((*y, int(np.prod(y)))):
            if count != 1:
                yield f"{formula} / {count}", _divided(total, count)


def _sums(y: tuple[int, ...], t: tuple[int, ...]) -> Iterator[tuple[str, Cost]]:
    if y == t:
        yield "sum((y - t)**2) / 2", lambda y, t: ((y - t) ** 2).sum() / 2
        yield "sum((y - t)**2)", lambda y, t: ((y - t) ** 2).sum()
        yield "-sum(t log y)", lambda y, t: -_x_log_y(t, y)
        yield "-sum(t log y + (1 - t) log(1 - y))", lambda y, t: -_x_log_y(t, y) - _x_log_y(1 - t, 1 - y)
        yield "sum(log(1 + exp(y)) - t y)", lambda y, t: (np.logaddexp(0, y) - t * y).sum()
        for axis in range(-len(y), 0):
            rows = "" if axis == -1 else f", axis={axis}"
            yield f"-sum(t log softmax(y{rows}))", partial(_softmax_cross_entropy, axis)
    elif len(y) == 2 and t in (y[:1], (y[0], 1)) and y[1] > 1:
        yield "-sum(log y[i, t[i]])", lambda y, t: -_x_log_y(np.ones(len(y)), _chosen(y, t))
        yield "-sum(log softmax(y)[i, t[i]])", lambda y, t: -_chosen(_log_softmax(y), t).sum()
    elif len(y) == 2 and t in (y[1:], (1, y[1])) and y[0] > 1:  # samples in columns
        yield "-sum(log y[t[i], i])", lambda y, t: -_x_log_y(np.ones(y.shape[1]), _chosen(y.T, t))
        yield "-sum(log softmax(y, axis=0)[t[i], i])", lambda y, t: -_chosen(_log_softmax(y.T), t).sum()


def _divided(total: Cost, count: int) -> Cost:
    return lambda y, t: total(y, t) / count


def _x_log_y(x: Any, y: Any) -> Any:
    """Returns the sum of x log y, in which 0 log 0 is 0; nan if some y is negative."""
    used = np.asarray(x) != 0
    return (x[used] * np.log(y[used])).sum() if (y[used] > 0).all() else np.nan


def _log_softmax(y: Any, axis: int = -1) -> Any:
    return y - np.logaddexp.reduce(y, axis=axis, keepdims=True)


def _softmax_cross_entropy(axis: int, y: Any, t: Any) -> Any:
    return -(t * _log_softmax(y, axis)).sum()


def _chosen(y: Any, t: Any) -> Any:
    return y[np.arange(len(y)), np.asarray(t).ravel()]
