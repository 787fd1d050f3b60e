"""Adapts layers whose `backward(dout, optimizer)` takes an optimizer, if no class of optimizers is known.

A recorder is passed in its place. It notes the gradient that each parameter is given with, in calls such as
`optimizer.step(self.W, dW)`, `optimizer.update([self.W, self.b], [dW, db])` and `optimizer.update(self, dW, db)`. If
`self.W -= optimizer.step(dW)` gives the gradient alone, the parameter is the array that then moves by it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.layers.held_arrays import HeldArray, held_arrays
from jaxnet.crosscheck.adapters.networks.model_gradients import OWN_RATES
from jaxnet.crosscheck.adapters.optimizers.plain_descent import COUNTS, RATES
from jaxnet.crosscheck.adapters.style import Style, called, parameters_of
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.errors import describe
from jaxnet.crosscheck.inspect.signatures import positional
from jaxnet.crosscheck.inspect.trees import is_float, map_leaves

OPTIMIZERS = re.compile(r"(\w+_)?opt(im(izer|iser)?)?(_?(fn|func|function|obj))?|updater", re.IGNORECASE)
KEYS = re.compile(r"(\w+_)?(key|name|id|idx|index|epoch|iteration|iter|step)|[it]", re.IGNORECASE)
NOTE = "the gradients that backward gives to {} are checked, not what an optimizer makes of them"
RATE = 1.0
Backward = Callable[..., Any]


def fill(backward: Any, optimizer: Any) -> dict[str, Any] | None:
    """Returns the arguments of a backward after the upstream gradient; None if it takes others than these.

    They are the optimizer, a learning rate of 1, a batch size of 1, and 1 for the name under which an optimizer keeps
    its state. Other arguments keep their defaults.

    Args:
        backward: The method of a layer.
        optimizer: The optimizer.
    """
    filled: dict[str, Any] = {}
    for parameter in positional(backward)[1:]:
        if OPTIMIZERS.fullmatch(parameter.name):
            filled[parameter.name] = optimizer
        elif RATES.fullmatch(parameter.name):
            filled[parameter.name] = RATE
        elif COUNTS.fullmatch(parameter.name) or KEYS.fullmatch(parameter.name):
            filled[parameter.name] = 1
        elif parameter.default is parameter.empty:
            return None
    return filled


def recording_run(style: Style, method: str = "backward") -> tuple[Backward, str]:
    """Returns a backward that stores the gradients which a recorder is given, and a note.

    Args:
        style: A layer.
        method: The name of the method that takes an optimizer: backward, or one that is called after it.

    Raises:
        Unreadable: If gradients have no owners, or what backward computes depends on the update.
    """
    layer: Any = style.thing
    kind: Any = type(layer)
    name = next(name for name in parameters_of(getattr(layer, method)) if OPTIMIZERS.fullmatch(name))
    trial = duplicate(layer)
    y = called(trial.forward, *style.inputs)
    if not is_float(y) or fill(layer.backward, None) is None:
        raise Unreadable("forward returns no array" if not is_float(y) else "backward takes further arguments")
    moving = that_move(trial, style.inputs)

    def run(self: Any, dout: Any, *, disturbs: bool = False) -> tuple[Any, Recorder]:
        recorder = Recorder(self, moving, dout, disturbs=disturbs)
        dx = kind.backward(self, dout, **fill(layer.backward, recorder) or {})
        if method != "backward":
            getattr(kind, method)(self, recorder)
        return dx, recorder

    results = []
    for disturbs in (False, True):
        result = called(lambda d=disturbs: run(duplicate(trial), np.ones_like(y), disturbs=d))
        if isinstance(result, Exception):
            raise result if isinstance(result, Unreadable) else Unreadable(f"backward raises {describe(result)}")
        results.append([*floats_in(result[0]), *result[1].gradients.values()])
    idle, disturbed = results
    same = (np.array_equal(a, b, equal_nan=True) for a, b in zip(idle, disturbed, strict=False))
    if len(idle) != len(disturbed) or not all(same):
        raise Unreadable(f"what backward computes after a call of {name} depends on what that does")

    def backward(self: Any, dout: Any) -> Any:
        dx, recorder = run(self, dout)
        recorder.restore()
        recorder.store()
        return dx

    _, recorder = run(duplicate(trial), np.ones_like(y))
    recorder.restore()
    notes = [NOTE.format(" and ".join(f"{name}{method}" for method in recorder.methods))] if recorder.methods else []
    return backward, "; ".join([*notes, *(f"{name}.{rate} is {RATE:g}" for rate in recorder.rates)])


class Unreadable(ValueError):
    """Raised if the gradients that an optimizer is given cannot be read; the message says why."""


class Recorder:
    """An optimizer that notes the gradients that it is given, and changes nothing.

    Args:
        layer: The layer whose backward it is passed to.
        moving: The places of the arrays of the layer that move the output.
        dout: The upstream gradient.
        disturbs: Whether it puts other values into parameters instead, and returns others, so that all that is
            computed from them afterwards shows.
    """

    def __init__(self, layer: Any, moving: set[str], dout: Any, *, disturbs: bool) -> None:
        self.arrays = list(held_arrays(layer))
        self.gradients: dict[str, Any] = {}
        self.methods: list[str] = []
        self.rates: list[str] = []
        self._start = [(array.held[array.name], np.copy(array.held[array.name])) for array in self.arrays]
        self._moving, self._dout, self._disturbs = moving, dout, disturbs
        self._alone: list[Any] = []

    def __call__(self, *args: Any, **others: Any) -> Any:
        """Takes what an optimizer that is a function takes, as the methods do."""
        return self._take("", args, others)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if OWN_RATES.fullmatch(name):
            self.rates += [name] if name not in self.rates else []
            return RATE
        return lambda *args, **others: self._take(f".{name}", args, others)

    def store(self) -> None:
        """Stores the gradients beside their parameters, `dW` for `W`."""
        for array in self.arrays:
            if array.place in self.gradients:
                setattr(array.layer, f"d{array.name}", self.gradients[array.place])

    def restore(self) -> None:
        """Undoes the updates by gradients that were given, and finds the arrays of those that were given alone.

        Raises:
            Unreadable: If such a gradient has no array that moved by it.
        """
        for array, (own, old) in zip(self.arrays, self._start, strict=True):
            if array.place in self._moving:
                rounding = 4 * np.finfo(old.dtype).eps * float(np.abs(old).max(initial=0))
                self._find_owner(array.place, np.asarray(array.held[array.name]) - old, rounding)
            if array.place in self.gradients:
                own[...] = old
                array.held[array.name] = own
        for gradient in self._alone:
            self._note_zero(gradient)
        if any(gradient.any() for gradient in self._alone):
            raise Unreadable("a gradient is given alone, and no parameter moves by it")

    def _find_owner(self, place: str, step: Any, rounding: float) -> None:
        scale = np.abs(step).max(initial=0)
        for i, gradient in enumerate(self._alone if scale else ()):
            ways = (gradient, -gradient) if _fits(gradient, step) else ()
            atol = 1e-5 * scale + rounding
            if any(np.allclose(np.reshape(way, step.shape), step, rtol=1e-5, atol=atol) for way in ways):
                self._note(place, self._alone.pop(i), step.shape)
                return

    def _note_zero(self, gradient: Any) -> None:
        """Notes a gradient of zeros, by which no array moves, for the first array of its shape that has none."""
        for array, (_, old) in zip(self.arrays, self._start, strict=True):
            free = array.place in self._moving and array.place not in self.gradients
            if free and not gradient.any() and _fits(gradient, old):
                self._note(array.place, gradient, np.shape(old))
                return

    def _note(self, place: str, gradient: Any, shape: tuple[int, ...]) -> None:
        gradient = np.reshape(gradient, shape)
        self.gradients[place] = self.gradients[place] + gradient if place in self.gradients else np.copy(gradient)

    def _take(self, method: str, args: tuple[Any, ...], others: Mapping[str, Any]) -> Any:
        """Records a call, and returns the arrays in it that are no gradients, or the gradients if all are."""
        values = (*args, *others.values())
        held = {id(array.held[array.name]): array for array in self.arrays}
        parts = [part for value in values for part in floats_in(value)]
        owners = [array for value in values for array in self.arrays if array.layer is value]
        own = [held[id(part)] for part in parts if id(part) in held and not self._is_filled(held[id(part)])]
        if own and len(own) == len(parts):  # gradients that are filled in place, with the values of the last call
            own = [array for array in own if array.place in self._moving]
        given = [part for part in parts if id(part) not in {id(array.held[array.name]) for array in own}]
        if not given:
            return None
        if method not in self.methods:
            self.methods.append(method)
        if owners and any(part is self._dout for part in given):
            raise Unreadable("the optimizer is given the layer and dout")
        is_explicit = any(array.place in self._moving for array in own)
        if not is_explicit and not owners:
            self._alone += [np.copy(part) for part in given]
            return self._one_or_all([np.copy(part) for part in given])
        for array, gradient in self._pairs(own if is_explicit else owners, given, in_order=is_explicit):
            self._note(array.place, gradient, np.shape(array.held[array.name]))
            if self._disturbs:
                array.held[array.name][...] += np.cos(array.held[array.name])
        gradients = {id(part) for part in given}
        return self._one_or_all([v for v in values if {id(part) for part in floats_in(v)} & held.keys() - gradients])

    def _one_or_all(self, values: list[Any]) -> Any:
        values = [map_leaves(lambda part: 2 * part, value) for value in values] if self._disturbs else values
        return values[0] if len(values) == 1 else tuple(values)

    def _is_filled(self, array: HeldArray) -> bool:
        """Returns whether backward itself changed an array that forward does not read, as one of gradients."""
        own, old = next(start for other, start in zip(self.arrays, self._start, strict=True) if other is array)
        now = array.held[array.name]
        return array.place not in self._moving and (now is not own or not np.array_equal(now, old))

    def _pairs(
        self, arrays: list[HeldArray], given: list[Any], *, in_order: bool = True
    ) -> list[tuple[HeldArray, Any]]:
        """Pairs gradients with the arrays that move the output, by their shapes, and then by their order.

        Raises:
            Unreadable: If a gradient fits no array, or several.
        """
        left = [array for array in arrays if array.place in self._moving]
        pairs = []
        for i, gradient in enumerate(given):
            fitting = [array for array in left if _fits(gradient, array.held[array.name])]
            alike = [other for other in given[i:] if _fits(other, gradient)]
            if not fitting or len(fitting) > (len(alike) if in_order else 1):
                raise Unreadable("a gradient fits no parameter that is passed with it, or several")
            pairs.append((fitting[0], gradient))
            left = [array for array in left if array is not fitting[0]]
        return pairs


def that_move(layer: Any, inputs: tuple[Any, ...]) -> set[str]:
    """Returns the places of the arrays that move the output of a layer after a forward pass, at these or other inputs.

    At inputs of zeros, weights do not move it.

    Args:
        layer: The layer.
        inputs: Its inputs.
    """
    rng = np.random.default_rng(0)
    moving = set()
    others = map_leaves(lambda x: x + rng.standard_normal(np.shape(x)) if is_float(x) else x, inputs)
    for at in (inputs, others):
        start = called(duplicate(layer).forward, *at)
        for i, array in enumerate(held_arrays(layer)):
            trial: Any = duplicate(layer)
            moved = list(held_arrays(trial))[i]
            moved.held[moved.name] += rng.standard_normal(np.shape(moved.held[moved.name]))
            y = called(trial.forward, *at)
            if is_float(y) and is_float(start) and not np.array_equal(y, start):
                moving.add(array.place)
    return moving


def floats_in(value: Any) -> Iterator[Any]:
    """Yields the float arrays in lists, tuples and dicts."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from floats_in(part)
    elif is_float(value) and np.ndim(value):
        yield value


def _fits(gradient: Any, array: Any) -> bool:
    """Returns whether a gradient has as many elements as an array, and the same shape apart from axes of length 1."""
    lengths = [[n for n in np.shape(value) if n > 1] for value in (gradient, array)]
    return lengths[0] == lengths[1] and np.ndim(gradient) <= np.ndim(array)
