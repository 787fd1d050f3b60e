"""Adapts models that train and report their loss in one method: `train_pair(center, context, lr)`, `fit(X, y)`.

The method returns its loss, or appends it to a list of its own, as `self.loss_history`. What it changes at a learning
rate of 1 is the gradient of the loss at a rate of 0, which leaves all parameters alone. `fit` may make the weights that
it trains, `self.weights = np.zeros(n)`; it then starts from given ones in their place.
"""

import contextlib
import functools
import io
import re
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.adapters.methods import BACKWARD_LIKE, names_of
from jaxnet.crosscheck.adapters.networks import found_costs, training_methods
from jaxnet.crosscheck.adapters.networks.model_gradients import OWN_RATES, with_own_rates
from jaxnet.crosscheck.adapters.networks.outside_costs import short_names
from jaxnet.crosscheck.adapters.optimizers.plain_descent import RATES
from jaxnet.crosscheck.adapters.optimizers.updates import HISTORY
from jaxnet.crosscheck.adapters.style import (
    Style,
    called,
    has_method,
    of_class,
    required_parameters_of,
    with_methods,
    with_parameters,
)
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of, walk
from jaxnet.crosscheck.inspect.role_heuristics import base_name
from jaxnet.crosscheck.inspect.signatures import positional
from jaxnet.crosscheck.inspect.trees import distinct, is_float

LOSS = re.compile(r".*(loss|cost|error|objective).*", re.IGNORECASE)
VALIDATION = re.compile(r"val|test|dev", re.IGNORECASE)
ROUND = 1e-6  # of a norm, which a method may compute in float32
EPOCHS = 3  # after which a weight has moved whose first gradient is 0
SCALE = 0.5  # of the weights that take the place of those that fit makes
NOTE = "the change that {0} of {1} makes at a learning rate of 1 is checked as the gradient of the loss that it {2}"
STARTED = "{0} of {1} creates {2}; the check starts from random values instead"
RETURNED, APPENDED = "returns", "appends to {}"


class _Model(NamedTuple):
    """A model, its method, the rates and other arguments of that, and the list of losses, empty if it returns one."""

    net: Any
    name: str
    rates: list[str]
    counts: list[str]
    fixed: dict[str, Any]
    history: str = ""

    def run(self, replaced: dict[int, Any], inputs: tuple[Any, ...], rate: float, epochs: int = 1) -> tuple[Any, Any]:
        """Returns a copy of the model after the method has run for so many epochs, and what that returned."""
        net = duplicate(self.net, replaced)
        with_own_rates(net, rate)
        training_methods.set_own_epochs(net, epochs)
        method = getattr(net, self.name)
        data = dict(zip(_data_of(method), inputs, strict=True))
        with contextlib.redirect_stdout(io.StringIO()):
            returned = method(
                **data, **dict.fromkeys(self.rates, rate), **self.fixed, **dict.fromkeys(self.counts, epochs)
            )
        return net, returned

    def loss(self, replaced: dict[int, Any], inputs: tuple[Any, ...]) -> Any:
        """Returns the loss at a learning rate of 0; None if it reports none."""
        net, returned = self.run(replaced, inputs, 0.0)
        if not self.history:
            first = returned[0] if isinstance(returned, tuple | list) and returned else returned
            return first if _is_number(first) else None
        return next((values[0] for place, values in _histories(net) if place == self.history), None)


def adapt(style: Style) -> Style | None:
    """Turns such a model into a function of its parameters and data, the loss, with the updates as its gradient."""
    net: Any = style.thing
    if isinstance(net, FunctionType | MethodType | type | tuple | list):
        return None
    for model in _models(net, len(style.inputs)):
        with_weights, note = with_weights_of(net, model.name, style.inputs) or (net, "")
        started = model._replace(net=with_weights)
        for way in _ways(started, style.inputs):
            found = called(lambda way=way: _parameters(way, style.inputs))
            if isinstance(found, dict) and found:
                return _as_function(style, way, found, note)
    return None


def names_of_training(net: Any, count: int) -> list[str]:
    """Returns the names of the methods that train a model with so many values, at a rate that can be set.

    Args:
        net: The model.
        count: The number of the values.
    """
    return [model.name for model in _models(net, count)]


def with_weights_of(net: Any, name: str, inputs: tuple[Any, ...]) -> tuple[Any, str] | None:
    """Returns a model that holds the weights which a method of it makes and trains, and a note; None if it makes none.

    The method then starts from the weights that the model holds.

    Args:
        net: The model.
        name: The method.
        inputs: Its data.
    """
    model = next((m for m in _models(net, len(inputs)) if m.name == name), None)
    if model is None or not any(
        value is None or isinstance(value, int | float) for value in attributes_of(net).values()
    ):
        return None
    runs = [called(lambda rate=rate: _recorded(model, inputs, rate)) for rate in (0.0, 1.0)]
    if any(isinstance(run, Exception) for run in runs):
        return None
    (first, at_zero), (_, at_one) = runs
    own = attributes_of(net)
    made = [
        n
        for n, value in first.items()
        if (own.get(n) is None or isinstance(own[n], int | float)) and not HISTORY.fullmatch(n)
    ]
    made = [n for n in made if np.shape(first[n]) == np.shape(at_zero[n]) == np.shape(at_one[n])]
    made = [n for n in made if np.array_equal(first[n], at_zero[n]) and not np.array_equal(at_zero[n], at_one[n])]
    if not made:
        return None
    rng = np.random.default_rng(0)
    copied = duplicate(net)
    for n, value in at_zero.items():  # what the method derives from its data, as a mean, is as after it
        setattr(copied, n, value)
    for n in made:
        setattr(copied, n, np.asarray(SCALE * rng.standard_normal(np.shape(first[n]))))
    kind: Any = type(net)
    method = getattr(kind, name)

    @functools.wraps(method)
    def run(self: Any, *args: Any, **named: Any) -> Any:
        with of_class(self, _keeping(kind, set(made))):
            return method(self, *args, **named)

    return with_methods(copied, {name: run}), STARTED.format(name, kind.__name__, ", ".join(made))


def _keeping(kind: type, pending: set[str]) -> type:
    """Returns a class whose objects keep the values of some attributes when these are first assigned."""

    def keep(self: Any, attribute: str, value: Any) -> None:
        if attribute in pending:
            pending.discard(attribute)
        else:
            object.__setattr__(self, attribute, value)

    return type(kind.__name__, (kind,), {"__module__": kind.__module__, "__setattr__": keep})


def _recorded(model: _Model, inputs: tuple[Any, ...], rate: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the floats that a method assigns to attributes, as it first did and as they are after it."""
    first: dict[str, Any] = {}
    kind: Any = type(model.net)

    def record(self: Any, attribute: str, value: Any) -> None:
        if is_float(value) or _is_number(value) or (type(value) is int and value == 0):
            first.setdefault(attribute, np.array(value, float))
        object.__setattr__(self, attribute, value)

    copied = duplicate(model.net)
    copied.__class__ = type(kind.__name__, (kind,), {"__module__": kind.__module__, "__setattr__": record})
    net, _ = model._replace(net=copied).run({}, inputs, rate, EPOCHS)
    after = {name: value for name, value in attributes_of(net).items() if is_float(value) or _is_number(value)}
    kept = [name for name in first if name in after and not OWN_RATES.fullmatch(name)]
    return {name: first[name] for name in kept}, {name: np.array(after[name], float) for name in kept}


def _models(net: Any, count: int) -> Iterator[_Model]:
    """Yields the methods of a model that train it with so many values, at a learning rate that can be set."""
    kind: Any = type(net)
    if not hasattr(net, "__dict__"):
        return
    passes: set[str] = set()
    for name in dir(kind):
        if name.startswith("__") or not training_methods.TRAINING.fullmatch(name) or BACKWARD_LIKE.fullmatch(name):
            continue
        passes = passes or set(names_of(net))
        if name in passes or not has_method(net, name):
            continue
        method = getattr(net, name)
        rates = [p.name for p in positional(method) if RATES.fullmatch(p.name)]
        holds_rate = any(OWN_RATES.fullmatch(n) for _, part in walk(net) for n in attributes_of(part))
        if len(_data_of(method)) != count or not (rates or holds_rate):
            continue
        if found_costs.reaches(method, kind, training_methods.EFFECTS):
            continue
        names = [p.name for p in positional(method) if p.name not in rates]
        counts = [name for name in names if training_methods.ONCE.fullmatch(name)]
        silent = {name: False for name in names if training_methods.SILENT.fullmatch(name)}
        yield _Model(net, name, rates, counts, silent)


def _data_of(method: Any) -> list[str]:
    """Returns the names of what a method takes beside rates and counts of epochs, without what has a default."""
    others = (RATES, training_methods.ONCE, training_methods.SILENT)
    return [n for n in required_parameters_of(method) if not any(pattern.fullmatch(n) for pattern in others)]


def _ways(model: _Model, inputs: tuple[Any, ...]) -> Iterator[_Model]:
    """Yields the model with each place of its loss: what it returns, then each list that is named like a loss."""
    run = called(lambda: model.run({}, inputs, 0.0))
    if isinstance(run, Exception):
        return
    yield model
    for place, values in _histories(run[0]):
        if LOSS.fullmatch(place) and not VALIDATION.search(place) and len(values) == 1:
            yield model._replace(history=place)


def _histories(net: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yields the lists of numbers within a model, with their places."""
    for place, part in walk(net):
        if isinstance(part, list) and part and all(map(_is_number, part)):
            yield place, part


def _parameters(model: _Model, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """Returns the arrays that the loss is a function of, if those that change do so in proportion to the rate."""
    start = {place: part for place, part in _arrays(model.net).items() if is_float(part)}
    start = {place: array for place, array in start.items() if not HISTORY.fullmatch(base_name(place))}
    value = model.loss({}, inputs)
    if value is None or not np.isfinite(value):
        return {}
    arrays = [_arrays(model.run({}, inputs, rate)[0]) for rate in (0.0, 1.0, 2.0)]
    at_zero, at_one, at_two = arrays
    changed = [p for p in start if p in at_one and not np.array_equal(start[p], at_one[p])]
    is_descent = all(
        p in at_zero
        and np.array_equal(start[p], at_zero[p])
        and at_one[p].shape == at_two[p].shape == start[p].shape
        and np.allclose(at_two[p] - start[p], 2 * (at_one[p] - start[p]), rtol=1e-3, atol=1e-6)
        for p in changed
    )
    rng = np.random.default_rng(0)

    def moves(array: Any) -> bool:
        moved = array + SCALE * rng.standard_normal(array.shape).astype(array.dtype)
        return bool(model.loss({id(array): moved}, inputs) != value)

    moving = {place: array for place, array in start.items() if moves(array)}
    gradients = {place: start[place] - at_one[place] for place in changed if place in moving}
    if not is_descent or not gradients or _are_clipped(list(gradients.values())):
        return {}
    agreements = [_agreement(model, start[place], gradient, inputs) for place, gradient in gradients.items()]
    return {} if None in agreements else moving  # a decay that the loss lacks


def _are_clipped(gradients: list[Any]) -> bool:
    """Returns whether a largest element or a norm is a round number, as that to which gradients are clipped."""
    norms = [float(np.linalg.norm(gradient)) for gradient in gradients]
    bounds = [*norms, float(np.linalg.norm(norms)), *(float(np.abs(gradient).max()) for gradient in gradients)]
    return any(bound and abs(bound - float(f"{bound:.2g}")) <= ROUND * bound for bound in bounds)


def _agreement(model: _Model, array: Any, gradient: Any, inputs: tuple[Any, ...]) -> bool | None:
    """Returns whether a gradient has the slopes of the loss; None if it differs by a multiple of its array."""
    if (directions := found_costs.directions_along(gradient, array)) is None:
        return False
    slopes = found_costs.slopes_along(lambda moved: model.loss({id(array): moved}, inputs), array, directions)
    return found_costs.agreement(gradient, array, directions, slopes)


def _arrays(net: Any) -> dict[str, Any]:
    return {place: part for place, part in walk(net) if isinstance(part, np.ndarray)}


def _as_function(style: Style, model: _Model, arrays: dict[str, Any], note: str) -> Style:
    """Returns a model as a function of its parameters and data, with the updates of its method as the gradient."""
    changed = _arrays(model.run({}, style.inputs, 1.0)[0])
    lacking_places = [place for place, array in arrays.items() if np.array_equal(array, changed[place])]
    data = _data_of(getattr(model.net, model.name))
    names = distinct([*short_names(list(arrays)), *data])

    def given(args: tuple[Any, ...]) -> tuple[dict[int, Any], tuple[Any, ...]]:
        replaced = {id(array): np.array(new) for array, new in zip(arrays.values(), args, strict=False)}
        return replaced, args[len(arrays) :]

    def value(*args: Any) -> Any:
        return np.asarray(model.loss(*given(args)), float)

    def gradient(*args: Any) -> Any:
        after = _arrays(model.run(*given(args), 1.0)[0])
        places = zip(names, arrays, args, strict=False)
        return {name: old - after[place] for name, place, old in places if place not in lacking_places}

    named = [with_parameters(function, names) for function in (value, gradient)]
    value.__name__ = type(model.net).__name__
    where = APPENDED.format(model.history) if model.history else RETURNED
    words = [NOTE.format(model.name, value.__name__, where), note, style.note]
    lacking = tuple(name for name, place in zip(names, arrays, strict=False) if place in lacking_places)
    inputs = (*(np.array(array) for array in arrays.values()), *style.inputs)
    adapted = style._replace(thing=named[0], inputs=inputs, gradient=named[1], takes_dout=False)
    return adapted._replace(data=tuple(names[-len(data) :]), lacking=lacking, note="; ".join(filter(None, words)))


def _is_number(value: Any) -> bool:
    return isinstance(value, float | np.floating) and not isinstance(value, bool)
