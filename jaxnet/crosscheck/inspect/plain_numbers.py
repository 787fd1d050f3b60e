"""Finds parameters of a layer that are plain numbers, such as the slope of a PReLU, and makes arrays of them.

A float is a parameter if backward stores one number as its gradient. If the gradient has more elements, an array was
meant: `gamma = 6` beside a `dgamma` of shape (6,) is a size that was passed in place of an array.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.inspect.adapter import Subject, run_forward
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.objects import ARRAY_ATTRIBUTES, attributes_of, is_layer, is_ndarray, layers_within, walk
from jaxnet.crosscheck.inspect.outputs import Outputs
from jaxnet.crosscheck.inspect.stored_gradients import PARAMETER_DICTS, gradients_by_place, is_new_gradient
from jaxnet.crosscheck.inspect.trees import Array, is_inexact

MOVED = 1.01  # the factor by which a number is changed, to see whether the output depends on it


class PlainNumber(NamedTuple):
    """A number in a layer: the object, dict or list that holds it, the name or index there, and the value."""

    holder: Any
    key: Any
    value: float

    def put(self, value: Any) -> None:
        """Puts another value in its place."""
        if isinstance(self.holder, dict | list):
            self.holder[self.key] = value
        else:
            object.__setattr__(self.holder, self.key, value)


def with_learnable_numbers(subject: Subject) -> tuple[Subject, tuple[str, ...]]:
    """Returns the subject with its learnable floats as arrays, and notes on numbers whose gradient is not checked.

    The arrays have the dtype of the output, because a plain number takes the dtype of what it is multiplied by.

    Args:
        subject: The code and its inputs. Its object is copied if it has such numbers.
    """
    adapter = subject.copy()
    before = numbers_by_place(adapter.owner) if adapter.owner is not None else {}
    if not before:
        return subject, ()
    outputs = Outputs()
    try:
        y = run_forward(adapter, subject.inputs, subject.calls[0], outputs)
        earlier = _gradients(adapter.owner, subject)
        copies = {place: np.array(g) if is_inexact(g) else g for place, g in earlier.items()}
        adapter.backward(*outputs.unpack(np.ones_like(y)))
    except Exception:  # the trial run says what is wrong
        return subject, ()
    numbers = {p: n for p, n in numbers_by_place(adapter.owner).items() if p in before and n.value is before[p].value}
    gradients = {
        place: gradient
        for place, gradient in _gradients(adapter.owner, subject).items()
        if place in numbers and is_new_gradient(gradient, earlier.get(place), copies.get(place))
    }
    learnable = [
        p for p, g in gradients.items() if np.size(g) == 1 and isinstance(numbers[p].value, float | np.floating)
    ]
    sizes = {p: g for p, g in gradients.items() if isinstance(numbers[p].value, int | np.integer)}
    notes = [_note(adapter.owner, p, numbers[p].value, g) for p, g in sizes.items() if _moves_output(subject, p, y)]
    base = duplicate(subject.base)
    for place, number in numbers_by_place(subject.adapt(base).owner).items():
        if place in learnable:
            number.put(np.asarray(number.value, y.dtype))
    return replace(subject, base=base) if learnable else subject, tuple(notes)


def numbers_by_place(layer: Any) -> dict[str, PlainNumber]:
    """Returns the plain numbers of a layer and its sublayers: attributes, entries of `params`, `data` beside a `grad`.

    Examples:
        >>> from types import SimpleNamespace
        >>> list(numbers_by_place(SimpleNamespace(alpha=0.25, params={"beta": 1.0})))
        ['alpha', "params['beta']"]
    """
    return {place: number for place, number in _values(layer) if _is_number(number.value)}


def _values(layer: Any) -> Iterator[tuple[str, PlainNumber]]:
    for prefix, part in layers_within(layer):
        for name, value in attributes_of(part).items():
            yield prefix + name, PlainNumber(part, name, value)
            for key, entry in _entries(value) if PARAMETER_DICTS.fullmatch(name) else ():
                yield f"{prefix}{name}[{key!r}]", PlainNumber(value, key, entry)
    for place, part in walk(layer):
        attributes = {} if is_layer(part) or is_ndarray(part) else attributes_of(part)
        if "grad" in attributes:
            yield from ((place, PlainNumber(part, n, attributes[n])) for n in ARRAY_ATTRIBUTES if n in attributes)


def _gradients(layer: Any, subject: Subject) -> dict[str, Any]:
    """Returns the gradients that are stored for numbers, by place."""
    of_objects = {p: getattr(n.holder, "grad", None) for p, n in numbers_by_place(layer).items()}
    return gradients_by_place(layer, subject.names) | {p: g for p, g in of_objects.items() if g is not None}


def _note(layer: Any, place: str, value: float, gradient: Any) -> str:
    is_single = np.size(gradient) == 1
    kind, what = ("a float", f"{value}.0") if is_single else ("an array", "an array")
    in_shell = in_the_shell(layer, place, f"{value}.0" if is_single else shape_text(np.shape(gradient)))
    stored = _place_of(layer, gradient)
    return f"{place} is the number {value}, not {kind}: its gradient {stored} is not checked; pass {what}{in_shell}"


def shape_text(shape: tuple[int, ...]) -> str:
    """Returns how `jaxnet check --init NAME=` takes an array of a shape: `shape:6` or `4x3`."""
    return f"shape:{shape[0]}" if len(shape) == 1 else "x".join(map(str, shape))


def in_the_shell(layer: Any, place: str, text: str) -> str:
    """Returns a clause on how `jaxnet check --init` passes a value; "" if it is no argument of the constructor."""
    try:
        arguments = inspect.signature(type(layer)).parameters
    except (TypeError, ValueError):
        return ""
    return f" (in the shell: {place}={text})" if place in arguments else ""


def _moves_output(subject: Subject, place: str, output: Array) -> bool:
    """Returns whether a number that is a little larger gives another output of the same shape, as no size does."""
    adapter = subject.copy()
    number = numbers_by_place(adapter.owner)[place]
    number.put(number.value * MOVED or MOVED - 1)
    try:
        moved = run_forward(adapter, subject.inputs, subject.calls[0])
    except SubjectError:
        return False
    return moved.shape == output.shape and not np.array_equal(moved, output, equal_nan=True)


def _place_of(layer: Any, gradient: Any) -> str:
    """Returns where a layer stores a gradient: `dgamma`, `grads['gamma']`, `gamma.grad`."""
    for prefix, part in layers_within(layer):
        for name, value in attributes_of(part).items():
            if value is gradient:
                return prefix + name
            for key, entry in _entries(value):
                if entry is gradient:
                    return f"{prefix}{name}[{key!r}]"
    return next((f"{place}.grad" for place, part in walk(layer) if getattr(part, "grad", None) is gradient), "")


def _entries(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
