"""Finds the argument to which each part of a gradient's return value belongs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.arguments import Arguments
from jaxnet.crosscheck.inspect.errors import SubjectError, counted, kind_of
from jaxnet.crosscheck.inspect.returned_names import owners_of_returned
from jaxnet.crosscheck.inspect.returned_order import order_by_structure
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES, gradient_names, is_label_name, label_rank
from jaxnet.crosscheck.inspect.trees import Array, distinct, is_array, leaves_of

CLOSE = 1e-6  # allowed relative difference of a value that is computed twice


class Form(Enum):
    """The form in which gradients are returned."""

    BY_POSITION = "a tuple, one for each argument or for the first of those with floats"
    SINGLE = "a single gradient"
    BY_NAME = "a dict by the names of the arguments"


@dataclass(frozen=True)
class Reading:
    """One way to read the return value of a gradient.

    Attributes:
        form: The form.
        owners: The argument of each part, in order.
        value_first: Whether the value of the function comes before the gradients.
    """

    form: Form
    owners: tuple[str, ...]
    value_first: bool = False


def possible_readings(result: Any, args: Arguments, y: Array, gradient: Any = None) -> list[Reading]:
    """Returns the ways to read the return value of a gradient, the likeliest first.

    Args:
        result: The return value.
        args: The arguments of the function.
        y: The function's value at these arguments.
        gradient: The function that returned it, in whose source gradients may have names. Defaults to none.

    Raises:
        SubjectError: If there is no way to read it.
    """
    if _has_value_first(result, y):
        plain = _readings(result, args)
        if not (plain and _fits_all(result, plain[0], args)):
            rest = [Reading(r.form, r.owners, value_first=True) for r in _readings(result[1], args)]
            if rest and _fits_all(result, rest[0], args):
                return rest
    found = _with_order_of_source(_readings(result, args), result, args, gradient)
    found = _with_order_of_shapes(found, result, args)
    if not found:
        raise SubjectError(_unreadable_message(result, args))
    return found


def gradients_by_leaf(result: Any, reading: Reading, args: Arguments) -> dict[str, Any]:
    """Returns the gradients by the names of the float leaves, without those that were not returned."""
    found: dict[str, Any] = {}
    for owner, part in _parts(result, reading, args.names):
        if args.single[owner]:
            if part is not None:
                found[owner] = part if is_array(part) or isinstance(part, int | float | complex) else _as_array(part)
            continue
        names = {place: name for name in args.of(owner) for place in gradient_names(name)}
        parts = list(leaves_of(part, owner))
        places = distinct(place for place, _ in parts)
        found |= {
            names[place]: gradient
            for place, (_, gradient) in zip(places, parts, strict=True)
            if place in names and gradient is not None
        }
    return {name: gradient for name, gradient in found.items() if name in args.floats}


def _readings(result: Any, args: Arguments) -> list[Reading]:
    if result is None:
        return []
    if isinstance(result, Mapping):
        return _mapping_readings(result, args)
    if type(result) in (tuple, list):
        return _sequence_readings(result, args)
    return _readings_of_numbers(result, args) or _single_readings(result, args)


def _with_order_of_source(readings: list[Reading], result: Any, args: Arguments, gradient: Any) -> list[Reading]:
    """Adds the order in which the source names the gradients; it comes first if the order of arguments does not fit."""
    if type(result) not in (tuple, list) or not readings:
        return readings
    named = Reading(Form.BY_POSITION, tuple(owners_of_returned(gradient, len(result), args.names)))
    if not named.owners or named in readings or not _fits_all(result, named, args):
        return readings
    return [readings[0], named, *readings[1:]] if _fits_all(result, readings[0], args) else [named, *readings]


def _with_order_of_shapes(readings: list[Reading], result: Any, args: Arguments) -> list[Reading]:
    """Puts the order that the shapes of the gradients tell first, if no other reading fits them."""
    floats = args.with_floats()
    if type(result) not in (tuple, list) or any(_fits_all(result, reading, args) for reading in readings):
        return readings
    if not all(args.single[name] for name in floats):
        return readings
    order = order_by_structure(result, [args.floats[name] for name in floats])
    return readings if order is None else [Reading(Form.BY_POSITION, tuple(floats[i] for i in order)), *readings]


def _readings_of_numbers(result: Any, args: Arguments) -> list[Reading]:
    """Reads a vector that fits no argument as the gradients by as many numbers: grad(alpha, beta, x) of shape (2,)."""
    floats = args.with_floats()
    numbers = [name for name in floats if args.single[name] and args.floats[name].shape == ()]
    if np.ndim(result) != 1 or len(result) != len(numbers) or any(_fits(result, name, args) for name in floats):
        return []
    return [Reading(Form.BY_POSITION, tuple(numbers))]


def _mapping_readings(result: Mapping[str, Any], args: Arguments) -> list[Reading]:
    fitting = [r for r in _single_readings(result, args) if _fits(result, r.owners[0], args)]
    if fitting:
        return fitting
    owners = _owners_by_name(result, args.names)
    if owners is not None:
        return [Reading(Form.BY_NAME, owners)]
    structures = [name for name in args.with_floats() if not args.single[name]]
    matching = [name for name in structures if gradients_by_leaf(result, Reading(Form.SINGLE, (name,)), args)]
    return [Reading(Form.SINGLE, (name,)) for name in matching]


def _sequence_readings(result: Sequence[Any], args: Arguments) -> list[Reading]:
    names, count = args.names, len(result)
    fitting = [r for r in _single_readings(result, args) if _fits(result, r.owners[0], args)]
    by_position = [Reading(Form.BY_POSITION, tuple(names))] if count == len(names) else []
    if count < len(names) and count:
        floats = args.with_floats()
        ordered = [n for n in floats if not is_label_name(n)] if count < len(floats) else floats
        first = tuple((ordered if len(ordered) >= count else floats)[:count])
        others = [owners for owners in combinations(floats, count) if owners != first]
        by_position = [Reading(Form.BY_POSITION, owners) for owners in (first, *others)] if len(first) == count else []
        by_position.sort(key=lambda reading: not _fits_all(result, reading, args))
        by_position = by_position[:1] + [r for r in by_position[1:] if _fits_all(result, r, args)]
    if fitting and not (by_position and _fits_all(result, by_position[0], args)):
        return fitting
    return by_position


def _single_readings(result: Any, args: Arguments) -> list[Reading]:
    """Assigns a single gradient to the arguments that it fits, labels last; else to the first with floats."""
    floats = sorted(args.with_floats(), key=label_rank)
    fitting = [name for name in floats if _fits(result, name, args)]
    return [Reading(Form.SINGLE, (name,)) for name in fitting or floats[:1]]


def _parts(result: Any, reading: Reading, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    if reading.value_first:
        result = result[1]
    if reading.form is Form.SINGLE:
        yield reading.owners[0], result
    elif reading.form is Form.BY_NAME:
        places = {place: name for name in names for place in gradient_names(name)}
        yield from ((places[key], part) for key, part in result.items() if key in places)
    else:
        yield from zip(reading.owners, result, strict=False)


def _fits_all(result: Any, reading: Reading, args: Arguments) -> bool:
    """Returns whether every part has the shapes of its argument."""
    parts = list(_parts(result, reading, args.names))
    floats = args.with_floats()
    return all(_fits(part, owner, args) for owner, part in parts if part is not None and owner in floats)


def _fits(part: Any, owner: str, args: Arguments) -> bool:
    if args.single[owner] and isinstance(part, Mapping):
        return False  # NumPy takes a dict for a scalar
    reading = Reading(Form.SINGLE, (owner,))
    try:
        found = gradients_by_leaf(part, reading, args)
    except SubjectError:
        return False
    return all(name in found and np.shape(found[name]) == args.floats[name].shape for name in args.of(owner))


def _owners_by_name(result: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...] | None:
    """Returns the arguments that a dict's keys name, with or without a d; None if a key names no argument."""
    places = {form.format(name): name for form in (*GRADIENT_NAMES, "{}") for name in names}
    if not result or not all(key in places for key in result):
        return None
    return tuple(places[key] for key in result)


def _has_value_first(result: Any, y: Array) -> bool:
    """Returns whether the first of two returned values is the function's value."""
    if not (isinstance(result, tuple | list) and len(result) == 2 and y.size == 1):
        return False
    first = result[0]
    if isinstance(first, tuple | list) and first:  # the value and auxiliary outputs, as with has_aux
        first = first[0]
    if not (is_array(first) or isinstance(first, int | float)) or np.size(first) != 1:
        return False
    value, own = float(np.ravel(first)[0]), float(y.ravel()[0])
    return abs(value - own) <= CLOSE * max(abs(value), abs(own))


def _as_array(part: Any) -> Any:
    try:
        return np.asarray(part)
    except ValueError:
        raise SubjectError(
            f"gradient: returned {kind_of(part)} of arrays of different shapes, expected an array"
        ) from None


def _unreadable_message(result: Any, args: Arguments) -> str:
    names = ", ".join(args.names)
    if isinstance(result, Mapping):
        keys = ", ".join(map(str, result))
        return f"gradient: returned a dict with the keys {keys}, expected a gradient for each of {names}"
    if isinstance(result, tuple | list):
        hint = "; if the function's value comes first, leave it out: gradient=lambda ...: value_and_grad(...)[1]"
        hint = hint if len(result) == len(args.names) + 1 else ""
        counts = f"{counted(len(result), 'gradient')} for {counted(len(args.names), 'argument')}"
        return f"gradient: returned {counts}, {names}{hint}"
    return f"gradient: returned None, expected a gradient for each of {names}"
