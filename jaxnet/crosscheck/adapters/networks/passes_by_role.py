"""Adapts networks whose passes take more values: `forward(X, training=True)`, `backprop(error, values)`, `update(lr)`.

Each argument is filled by its role: samples, labels, the output, its difference from the labels, a value that a pass
returned, an attribute of that name, a flag. The output is what forward returns, or an array that it leaves in an
attribute. The data may be attributes too, `Net(X, y)` with `forward()` and `backward()`, and the samples of an
autoencoder are its labels. Of the pairs of passes that run, the first is taken in which at least one gradient is that
of a cost.
"""

import contextlib
import functools
import io
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.adapters.layers.number_lists import is_list_of_numbers
from jaxnet.crosscheck.adapters.methods import names_of
from jaxnet.crosscheck.adapters.networks import found_costs, outside_costs, self_training, standard_costs
from jaxnet.crosscheck.adapters.networks.argument_roles import Method, backwards, forwards, parts_of, updates
from jaxnet.crosscheck.adapters.networks.function_pairs import DATA
from jaxnet.crosscheck.adapters.networks.model_gradients import OWN_RATES
from jaxnet.crosscheck.adapters.networks.outside_costs import is_of_labels
from jaxnet.crosscheck.adapters.networks.training_methods import set_own_epochs
from jaxnet.crosscheck.adapters.style import (
    Style,
    called,
    of_class,
    parameters_of,
    with_methods,
    with_parameters,
)
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of, walk
from jaxnet.crosscheck.inspect.returned_names import returned_names
from jaxnet.crosscheck.inspect.role_heuristics import base_name, is_label_name, is_prediction_name, label_rank
from jaxnet.crosscheck.inspect.trees import is_float

MOST = 32  # pairs of passes that are tried
MOST_OUTPUTS = 3  # of the arrays that forward leaves
NOTE = "{0} of {1} are run as its passes"
RATE = "learning_rate"  # what the backward pass calls its rate


class _Passes(NamedTuple):
    """The methods that are run as the passes of a network, and the attributes of its output and of its data."""

    forward: Method
    backward: Method
    update: Method | None = None
    output: str = ""
    data: tuple[str, ...] = ()
    sign: int = 1  # of the difference between output and labels
    scaled: bool = False  # whether what backward changes is multiplied by the rate, as no rate of its own is used
    rate: str = ""  # the attribute that is the rate under another name


def adapt(style: Style) -> Style | None:
    """Gives such a network passes of samples and of labels, and finds its cost."""
    net: Any = style.thing
    if isinstance(net, FunctionType | MethodType | type | tuple | list) or not hasattr(net, "__dict__"):
        return None
    data = _data_attributes(net)
    if not style.inputs and len(data) == 2:
        style = style._replace(inputs=tuple(np.copy(getattr(net, name)) for name in data))
    is_autoencoder = len(style.inputs) == 1 and is_float(style.inputs[0])
    if is_autoencoder:
        style, data = style._replace(inputs=(*style.inputs, np.copy(style.inputs[0]))), ()
    if len(style.inputs) != 2:
        return None
    if not any(is_float(part) and np.ndim(part) for _, part in walk(net)):
        return _adapt_started(style)
    passes = _passes(net, style.inputs, data, has_targets=is_autoencoder or bool(data))
    ways = [(way, style._replace(thing=_with_passes(net, way, style.inputs))) for way in itertools.islice(passes, MOST)]
    for find, (way, adapted) in itertools.product((_with_fitting_cost, _with_own_cost), ways):
        if (found := find(adapted)) is not None:
            methods = [method.name for method in (way.forward, way.backward, way.update) if method is not None]
            note = NOTE.format(", ".join(methods), type(net).__name__)
            return found._replace(note=f"{note}; {found.note}")
    return None


def _adapt_started(style: Style) -> Style | None:
    """Adapts a model whose `fit` makes its weights; a linear one if it has an array of weights and perhaps a bias."""
    for name in self_training.names_of_training(style.thing, len(style.inputs)):
        found = self_training.with_weights_of(style.thing, name, style.inputs)
        if found is None:
            continue
        started, note = found
        for model in (started, _with_linear_output(started)):
            if model is not None and (adapted := adapt(style._replace(thing=model))) is not None:
                return adapted._replace(note=f"{note}; {adapted.note}")
    return None


def _with_linear_output(model: Any) -> Any:
    """Returns a model with a forward pass `X @ w + b`; None if it has not one array of weights and at most one bias."""
    floats = {n: v for n, v in attributes_of(model).items() if is_float(v) or isinstance(v, float)}
    biases = [name for name in floats if outside_costs.BIAS.fullmatch(name)]
    weights = [name for name, value in floats.items() if np.ndim(value) and name not in biases]
    if len(weights) != 1 or len(biases) > 1:
        return None

    def forward(self: Any, X: Any) -> Any:
        return X @ getattr(self, weights[0]) + (getattr(self, biases[0]) if biases else 0.0)

    return with_methods(model, {"forward": forward})


def _with_fitting_cost(style: Style) -> Style | None:
    """Returns a network with a cost of its own, or else a usual one, of which at least one gradient is the slope."""
    if isinstance(called(lambda: _trial(style.thing, *style.inputs)), Exception):
        return None
    return found_costs.adapt(style) or standard_costs.adapt(style)


def _with_own_cost(style: Style) -> Style | None:
    """Returns a network with its own cost if the slopes of that are proportional to a gradient: a sum for a mean."""
    for adapter in (outside_costs.adapt_own_cost, outside_costs.adapt):
        found = called(lambda adapter=adapter: adapter(style))
        if isinstance(found, Style) and called(lambda found=found: _is_proportional(found)) is True:
            return found
    return None


def _is_proportional(function: Style) -> bool:
    """Returns whether a gradient of a function has its slopes in all directions, but for one factor."""
    value, names = function.thing, parameters_of(function.thing)
    assert function.gradient is not None
    for name, gradient in function.gradient(*function.inputs).items():
        at = names.index(name)
        array = function.inputs[at]
        if np.size(array) < 2 or (directions := found_costs.directions_along(gradient, array)) is None:
            continue
        before, after = function.inputs[:at], function.inputs[at + 1 :]
        moved = partial(_at, value, before, after)
        slopes = found_costs.slopes_along(moved, array, directions)
        factor = slopes[0] / np.linalg.norm(gradient)
        if factor and found_costs.agreement(factor * gradient, array, directions, slopes):
            return True
    return False


def adapt_autoencoder(style: Style) -> Style | None:
    """Does so for an autoencoder whose `backward()` takes nothing, which looks as if it returned no gradient."""
    net: Any = style.thing
    takes = [parameters_of(getattr(net, name, None)) for name in names_of(net)]
    return adapt(style) if len(style.inputs) == len(takes[0]) == 1 and takes[1] == [] else None


def _at(value: Callable[..., Any], before: tuple[Any, ...], after: tuple[Any, ...], array: Any) -> Any:
    return value(*before, array, *after)


def _trial(net: Any, x: Any, t: Any) -> None:
    trial = duplicate(net)
    trial.forward(x)
    trial.backward(t)


def _data_attributes(net: Any) -> tuple[str, ...]:
    """Returns the names of the attributes for samples and labels; none unless each is the only one of its kind."""
    own = [name for name, value in attributes_of(net).items() if value is None or isinstance(value, np.ndarray)]
    samples = [name for name in own if DATA.fullmatch(name)]
    labels = [name for name in own if is_of_labels(name) and label_rank(name)]
    return (samples[0], labels[0]) if len(samples) == len(labels) == 1 else ()


def _passes(net: Any, inputs: tuple[Any, ...], data: tuple[str, ...], *, has_targets: bool) -> Iterator[_Passes]:
    """Yields the pairs of methods whose arguments can be filled, with each output, sign and rate."""
    numbers = {n: v for n, v in attributes_of(net).items() if isinstance(v, float) and 0 < v <= 1}
    rates = [] if any(map(OWN_RATES.fullmatch, numbers)) else [(False, name) for name in numbers]
    for forward in forwards(net, data):
        result, outputs = _outputs(net, forward, inputs, data)
        for output in outputs:
            names = returned_names(getattr(type(net), forward.name), len(parts_of(result)), type(net), partly=True)
            for backward in backwards(net, forward, names, has_targets=has_targets):
                for update in (None, *updates(net, backward)):
                    roles = backward.roles | (update.roles if update else frozenset())
                    signs = (1, -1) if "difference" in roles else (1,)
                    ways = [(False, "")] if "rate" in roles else [(False, ""), (True, ""), *rates]
                    for sign, (scaled, rate) in itertools.product(signs, ways):
                        yield _Passes(forward, backward, update, output, data, sign, scaled, rate)


def _outputs(net: Any, forward: Method, inputs: tuple[Any, ...], data: tuple[str, ...]) -> tuple[Any, list[str]]:
    """Returns what a forward pass returns, and the attributes that may be its output; "" if that is returned."""
    trial = duplicate(net)
    if data and not forward.roles:
        setattr(trial, data[0], np.copy(inputs[0]))
    before = {place: np.copy(part) for place, part in _arrays(trial)}
    with contextlib.redirect_stdout(io.StringIO()):
        result = called(lambda: forward.run(trial, {"x": inputs[0]}))
    if isinstance(result, Exception):
        return None, []
    if _output_in(result, np.shape(inputs[1])) is not None:
        return result, [""]
    after = {place: part for place, part in _arrays(trial) if np.shape(part) == np.shape(inputs[1])}
    written = [p for p, array in after.items() if p not in (*before, *data) or not _same(before.get(p), array)]
    named = [place for place in written if is_prediction_name(place) or "out" in base_name(place).lower()]
    return result, list(dict.fromkeys([*reversed(named), *reversed(written)]))[:MOST_OUTPUTS]


def _arrays(net: Any) -> list[tuple[str, Any]]:
    """Returns the float arrays within a network with their places."""
    return [(place, part) for place, part in walk(net) if isinstance(part, np.ndarray) and is_float(part)]


def _same(first: Any, second: Any) -> bool:
    return first is not None and np.array_equal(first, second, equal_nan=True)


def _output_in(result: Any, shape: tuple[int, ...]) -> Any:
    """Returns the output among what a forward pass returns: an array like the labels, or the first, or the last of all.

    Lists of numbers count as arrays. None if there is none.
    """
    if is_list_of_numbers(result):
        return np.array(result, np.float64)
    if is_float(result):
        return np.asarray(result)
    parts = [part[-1] if isinstance(part, list) and part else part for part in parts_of(result)]  # of all layers
    arrays = [part for part in parts if is_float(part) and np.ndim(part)]
    alike = [array for array in arrays if np.shape(array) == shape]
    at = -1 if isinstance(result, list) else 0
    return (alike or arrays)[at] if arrays else None


def _difference(output: Any, labels: Any) -> Any:
    """Returns the output minus the labels, class numbers as one-hot rows, or columns where these are the samples."""
    y, t = np.asarray(output), np.asarray(labels)
    if y.ndim != 2 or y.shape == t.shape or t.dtype.kind not in "iu":
        return y - t
    ids = t.ravel()
    return y - np.eye(y.shape[1])[ids] if len(ids) == len(y) else y - np.eye(y.shape[0])[ids].T


def _with_passes(net: Any, passes: _Passes, inputs: tuple[Any, ...]) -> Any:
    """Returns a network with `forward(samples)` and `backward(labels, learning_rate)`."""
    kind: Any = type(net)
    methods = [passes.forward, passes.backward, *([passes.update] if passes.update else [])]
    of_class_alone = {n: value for base in reversed(kind.__mro__) for n, value in vars(base).items()}
    rates = {n: v for n, v in of_class_alone.items() if OWN_RATES.fullmatch(n) and isinstance(v, float)}

    @functools.wraps(getattr(kind, passes.forward.name))
    def forward(self: Any, *samples: Any, **named: Any) -> Any:
        (x,) = (*samples, *named.values())
        if passes.data:
            setattr(self, passes.data[0], x)
        values = {"x": x}
        with of_class(self, kind), contextlib.redirect_stdout(io.StringIO()):
            values["result"] = passes.forward.run(self, values)
        y = dict(walk(self)).get(passes.output) if passes.output else None
        y = _output_in(values["result"], np.shape(inputs[1])) if y is None else np.copy(y)
        values["output"] = y
        self.values_of_forward = lambda: values  # a walk over the network does not enter functions
        return y

    @functools.wraps(getattr(kind, passes.backward.name))
    def backward(self: Any, *targets: Any, learning_rate: float = 1.0, **named: Any) -> Any:
        (t,) = (*targets, *named.values())
        values = self.values_of_forward() | {"t": t, "rate": learning_rate}
        if any("difference" in method.roles for method in methods):
            values["difference"] = passes.sign * _difference(values["output"], t)
        if passes.data:
            setattr(self, passes.data[1], t)
        if passes.rate:
            setattr(self, passes.rate, learning_rate)
        set_own_epochs(self, 1)
        before = {place: np.copy(part) for place, part in walk(self) if isinstance(part, np.ndarray)}
        with of_class(self, kind), contextlib.redirect_stdout(io.StringIO()):
            values["returned"] = passes.backward.run(self, values)
            if passes.update:
                passes.update.run(self, values)
        if passes.scaled:
            _scale_changes(self, before, learning_rate)
        return values["returned"]

    x = next(iter(passes.forward.roles), passes.data[0] if passes.data else "x")
    named = [name for name in (*passes.backward.fills, *passes.data[1:]) if is_label_name(name) and name != x]
    t = named[0] if named else "labels"
    adapted = with_methods(
        net,
        {"forward": with_parameters(forward, ["self", x]), "backward": with_parameters(backward, ["self", t, RATE])},
    )
    vars(adapted).update(rates)
    return adapted


def _scale_changes(net: Any, before: dict[str, Any], rate: float) -> None:
    """Makes the changes of the arrays of a network proportional to a learning rate."""
    for place, array in walk(net):
        if isinstance(array, np.ndarray) and place in before and before[place].shape == array.shape and is_float(array):
            array[...] = before[place] + rate * (array - before[place])
