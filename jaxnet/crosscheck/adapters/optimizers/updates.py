"""Adapts layers whose backward updates the parameters itself, at a learning rate or by an optimizer.

The rate is an argument, `backward(dout, learning_rate)`, or an attribute, `self.lr`. It is recognized by its name or by
its effect: at 0, nothing changes, and what changes is proportional to it. An update is undone. A gradient that backward
stores beside the parameter is the one that is checked; without one, it is computed from the update. An optimizer that
is an argument, `backward(dout, optimizer)`, is made of a class of plain gradient descent that belongs to the layer's
code. A later method that updates, `update(lr)`, is run after backward if no gradient is found by its name.
"""

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.layers.held_arrays import held_arrays
from jaxnet.crosscheck.adapters.layers.resets import GRADIENTS
from jaxnet.crosscheck.adapters.optimizers.given_optimizers import OPTIMIZERS, Unreadable, fill, recording_run
from jaxnet.crosscheck.adapters.optimizers.plain_descent import COUNTS, RATES, describe_optimizer, plain_optimizer
from jaxnet.crosscheck.adapters.style import (
    Style,
    called,
    has_method,
    parameters_of,
    required_parameters_of,
    with_methods,
)
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.objects import attributes_of, layers_within
from jaxnet.crosscheck.inspect.role_heuristics import base_name
from jaxnet.crosscheck.inspect.signatures import positional
from jaxnet.crosscheck.inspect.stored_gradients import gradients_beside
from jaxnet.crosscheck.inspect.trees import is_float

OWN_RATES = re.compile(r"_?((learn(ing)?_?|l_?|training_?)rate|lr|eta|step_?size)", re.IGNORECASE)
HISTORY = re.compile(r"([vms]|vel|velocity|mom|prev)_?d?[A-Zwb]\w*|.*(velocity|momentum|history|accum).*")
STRENGTHS = re.compile(
    r"beta\d?|mu|momentum|gamma|w(eight)?_?decay|wd|decay|reg(ularization|_\w+)?|l[12](_\w+)?|lambd?a?(_\w+)?",
    re.IGNORECASE,
)
RATE = 1.0
NOTE = "gradients are computed from the updates that backward makes at a learning rate of 1"
LATER = "gradients are computed from the updates that {} makes after backward at a learning rate of 1"
ANEW = "not checked, because forward makes them anew in each call: {}"
STORED = "backward updates {} as well, which is undone; the gradients that it stores are checked, not the updates"
NO_OPTIMIZER = (
    "{0}.{1}: takes {3}, no class of gradient descent was loaded with {0} to make one of, and {5}; pass a subclass "
    "that takes a rate, with your own optimizer: "
    "class Checked({0}): backward = lambda self, {2}, learning_rate: {0}.{1}(self, {2}, {4})"
)
Backward = Callable[..., Any]


def adapt(style: Style) -> Style | None:
    """Computes the gradients of the parameters from their updates, and undoes the updates."""
    layer = style.thing
    if isinstance(layer, type) or not all(callable(getattr(layer, name, None)) for name in ("forward", "backward")):
        return None
    run = _at_rate_of_one(style)
    return adapt_own_rate(style) if run is None else _adapted(style, *run)


def adapt_own_rate(style: Style) -> Style | None:
    """Computes gradients from updates at a rate of the layer's own: an attribute, or the default of an argument."""
    layer = style.thing
    if isinstance(layer, type) or not all(callable(getattr(layer, name, None)) for name in ("forward", "backward")):
        return None
    kind: Any = type(layer)
    takes = positional(layer.backward)
    numbers = [name for name, value in attributes_of(layer).items() if _is_number(value)]
    may_have_rate = (len(takes) <= 1 and numbers) or (len(takes) == 2 and _is_number(takes[1].default))
    if not may_have_rate or not _changes(style):  # most layers are not called here
        return None
    if len(takes) == 2:
        run = _at_rate_of_one(style)
        return run and _adapted(style, *run)
    named = [name for name in numbers if OWN_RATES.fullmatch(name)]
    rates = named or [n for n in numbers if _moved(style, partial(_at_own_rate, n)) >= _changes(style)]
    if len(rates) != 1:
        return None
    return _adapted(style, lambda self, *dout: _at_own_rate(rates[0], kind, self, dout, RATE), NOTE)


def adapt_later_update(style: Style) -> Style | None:
    """Reads gradients that backward keeps under other names off a method that updates the parameters by them.

    It is the only one that takes an optimizer alone, `update(optimizer)`, or a learning rate, `update(lr)`. Gradients
    that are found by their names are checked as they are stored.
    """
    layer = style.thing
    if isinstance(layer, tuple | list | type) or not all(has_method(layer, name) for name in ("forward", "backward")):
        return None
    names = [name for name in dir(type(layer)) if not name.startswith("_") and has_method(layer, name)]
    takes = {name: required_parameters_of(getattr(layer, name)) for name in names}
    of_optimizer, of_rate = (
        [name for name in names if len(takes[name]) == 1 and pattern.fullmatch(takes[name][0])]
        for pattern in (OPTIMIZERS, RATES)
    )
    if len(of_optimizer or of_rate) != 1 or len(takes["backward"]) != 1:
        return None
    if _with_stored_gradients(style, type(layer).backward):
        return None
    if not of_optimizer:
        at_rate = partial(_by_later_update, of_rate[0])
        note = LATER.format(of_rate[0])
        run_at_one = partial(_at_rate, at_rate, type(layer))
        return _adapted(style, run_at_one, note) if _moved(style, at_rate) else None
    try:
        run, note = recording_run(style, of_optimizer[0])
    except Unreadable:
        return None
    return _adapted(style, run, note)


def _by_later_update(name: str, kind: Any, layer: Any, dout: tuple[Any, ...], rate: float) -> Any:
    dx = kind.backward(layer, *dout)
    getattr(kind, name)(layer, rate)
    return dx


def _at_rate(run: Callable[..., Any], kind: Any, layer: Any, *dout: Any) -> Any:
    return run(kind, layer, dout, RATE)


def _at_own_rate(name: str, kind: Any, layer: Any, dout: tuple[Any, ...], rate: float) -> Any:
    own = getattr(layer, name)
    setattr(layer, name, rate)
    try:
        return kind.backward(layer, *dout)
    finally:
        setattr(layer, name, own)


def _at_argument(kind: Any, layer: Any, dout: tuple[Any, ...], rate: float) -> Any:
    return kind.backward(layer, *dout, rate)


def _adapted(style: Style, run: Backward, note: str) -> Style:
    layer = style.thing
    both = _changes(style, run) & _with_stored_gradients(style, run)

    def backward(self: Any, *dout: Any) -> Any:
        before = [(layer, held, name, held[name], np.copy(held[name])) for layer, held, name, _ in held_arrays(self)]
        dx = run(self, *dout)
        after = [np.copy(held[name]) for _, held, name, _, _ in before]
        for (layer, held, name, array, old), new in zip(before, after, strict=True):
            if new.shape == old.shape and not _same(new, old) and not _is_gradient(name):
                array[...] = old
                held[name] = array
                if name not in both and not HISTORY.fullmatch(name):
                    setattr(layer, f"d{name}", (old - new) / RATE)
        return () if dx is None else dx  # whether it forgets dx, or trains the first layer, which needs none, is open

    names = ["self", *[name for name in parameters_of(layer.backward) if not RATES.fullmatch(name)][:1]]
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in names]
    backward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    adapted = with_methods(layer, {"backward": backward})
    if both:
        note = STORED.format(", ".join(sorted(both)))
    anew = ANEW.format(", ".join(names)) if (names := _made_anew(style, run)) else ""
    return style._replace(thing=adapted, note="; ".join(filter(None, (style.note, note, anew))))


def _made_anew(style: Style, run: Backward) -> list[str]:
    """Returns the names of the arrays that forward draws at each call, although backward updates them."""
    first, second = duplicate(style.thing), duplicate(style.thing)
    y = called(first.forward, *style.inputs)
    for _, held, name, _ in held_arrays(second):
        held[name] = np.zeros_like(held[name])
    if isinstance(y, Exception) or isinstance(called(second.forward, *style.inputs), Exception):
        return []
    drawn = {n: np.copy(held[n]) for _, held, n, _ in held_arrays(first)}
    again = {n: held[n] for _, held, n, _ in held_arrays(second)}
    if not _ran(first, y, run):
        return []
    after = {n: held[n] for _, held, n, _ in held_arrays(first)}
    return [n for n in drawn if _same(drawn[n], again.get(n)) and not _same(after.get(n), drawn[n]) and drawn[n].any()]


def _stored(layer: Any, inputs: list[str]) -> dict[str, np.ndarray]:
    """Returns copies of the stored gradients of a layer's arrays, by the name of the array."""
    beside = gradients_beside(layer, inputs).items()
    return {base_name(place): np.copy(gradient) for place, gradient in beside if is_float(gradient)}


def _at_rate_of_one(style: Style) -> tuple[Backward, str] | None:
    """Returns the backward at a learning rate of 1, as a function of the layer and of dout, and a note on it."""
    layer = style.thing
    kind: Any = type(layer)
    takes = parameters_of(layer.backward)
    optimizers = [name for name in takes[1:] if OPTIMIZERS.fullmatch(name)]
    if len(optimizers) == 1:
        return _with_optimizer(style, takes, optimizers[0])
    if len(takes) == 3 and (counts := [name for name in takes[1:] if COUNTS.fullmatch(name)]):
        rate = next((name for name in takes[1:] if RATES.fullmatch(name)), None)
        if rate is None:
            return None
        values = {rate: RATE, counts[0]: 1}
        return (lambda self, dout: kind.backward(self, dout, **values)), f"{NOTE} and {counts[0]}=1"
    required = required_parameters_of(layer.backward)
    if len(required) == 2 and RATES.fullmatch(required[1]) and (zeros := _optional_strengths(layer.backward)):
        note = f"{NOTE}, {', '.join(f'{name}=0' for name in zeros)}"
        return (lambda self, dout: kind.backward(self, dout, RATE, **dict.fromkeys(zeros, 0.0))), note
    if len(takes) != 2:
        return None
    if RATES.fullmatch(takes[0]) and not RATES.fullmatch(takes[1]):
        return (lambda self, dout: kind.backward(self, RATE, dout)), NOTE
    if RATES.fullmatch(takes[1]) or _moved(style, _at_argument):
        return (lambda self, dout: kind.backward(self, dout, RATE)), NOTE
    return None


def _optional_strengths(backward: Any) -> list[str]:
    """Returns the names of the optional arguments of a backward pass that are a momentum or a weight decay."""
    optional = [p.name for p in positional(backward) if isinstance(p.default, float | int)]
    return [name for name in optional if STRENGTHS.fullmatch(name)]


def _with_optimizer(style: Style, takes: list[str], name: str) -> tuple[Backward, str]:
    """Returns the backward with an optimizer of a class that belongs to it, or else with one that records.

    Raises:
        SubjectError: If there is no such class, and the gradients that one is given cannot be read.
    """
    kind: Any = type(style.thing)
    own, make = style.thing.backward, plain_optimizer(style.thing.backward, name)

    def run(self: Any, dout: Any) -> Any:
        assert make is not None
        return kind.backward(self, dout, **fill(own, make()) or {})

    if make is not None and _runs(style, run):  # a class that is found beside the layer may be for other code
        return run, f"{NOTE}, by {describe_optimizer(make)}"
    try:
        return recording_run(style)
    except Unreadable as error:
        reason = str(error)
    method = getattr(inspect.unwrap(kind.backward), "__name__", "backward")
    words = fill(style.thing.backward, "SGD(learning_rate)") or {name: "SGD(learning_rate)"}
    given = ", ".join(f"{other}={value}" for other, value in words.items())
    raise SubjectError(NO_OPTIMIZER.format(kind.__name__, method, takes[0], name, given, reason))


def _moved(style: Style, run: Callable[[Any, Any, tuple[Any, ...], float], Any]) -> set[str]:
    """Returns the arrays that move in proportion to a number and stay at 0; none if others move, as with a decay.

    A backward that writes the product `rate * dW` over W counts too: it is meant as an update.
    """
    arrays: list[dict[str, np.ndarray]] = []
    start = {name: np.copy(held[name]) for _, held, name, _ in held_arrays(style.thing)}
    for rate in (0.0, 1.0, 2.0):
        trial: Any = duplicate(style.thing)
        y = called(trial.forward, *style.inputs)
        dout = (np.ones_like(y),) if is_float(y) and parameters_of(trial.backward) else ()
        before = {name for _, _, name, _ in held_arrays(trial)}
        try:
            run(type(trial), trial, dout, rate)
        except Exception:
            return set()
        arrays.append({n: np.copy(held[n]) for _, held, n, _ in held_arrays(trial) if n in before and n in start})
    at_zero, at_one, at_two = arrays
    moved = {n for n in at_zero if not _same(at_one.get(n), at_two.get(n)) and not _is_gradient(n)}
    is_rate = all(
        (_same(at_zero[n], start[n]) or not at_zero[n].any())
        and np.allclose(at_two[n] - at_one[n], at_one[n] - at_zero[n], rtol=1e-6, atol=1e-12)
        for n in moved
    )
    return moved if is_rate else set()


def _changes(style: Style, run: Backward | None = None) -> set[str]:
    """Returns the names of the arrays of a layer that backward changes, of those that forward leaves alone."""
    trial: Any = duplicate(style.thing)
    y = called(trial.forward, *style.inputs)
    if isinstance(y, Exception):
        return set()
    before = [(held, name, np.copy(held[name])) for _, held, name, _ in held_arrays(trial)]
    if _ran(trial, y, run):
        return {n for held, n, old in before if n in held and not _same(held[n], old) and not _is_gradient(n)}
    return set()


def _with_stored_gradients(style: Style, run: Backward) -> set[str]:
    """Returns the names of the arrays of which backward stores a new gradient."""
    trial: Any = duplicate(style.thing)
    y = called(trial.forward, *style.inputs)
    inputs = parameters_of(trial.forward)
    earlier = {id(part): _stored(part, inputs) for _, part in layers_within(trial)}
    if isinstance(y, Exception) or not _ran(trial, y, run):
        return set()
    return {
        name
        for _, part in layers_within(trial)
        for name, gradient in _stored(part, inputs).items()
        if not _same(gradient, earlier.get(id(part), {}).get(name))
    }


def _runs(style: Style, run: Backward) -> bool:
    trial: Any = duplicate(style.thing)
    return _ran(trial, called(trial.forward, *style.inputs), run)


def _ran(trial: Any, y: Any, run: Backward | None) -> bool:
    dout = [np.ones_like(y) if is_float(y) else duplicate(y)] if parameters_of(trial.backward) else []
    try:
        trial.backward(*dout) if run is None else run(trial, *dout)
    except Exception:
        return False
    return True


def _same(first: Any, second: Any) -> bool:
    return first is not None and second is not None and np.array_equal(first, second, equal_nan=True)


def _is_gradient(name: str) -> bool:
    return GRADIENTS.fullmatch(name) is not None


def _is_number(value: Any) -> bool:
    return isinstance(value, float | np.floating)
