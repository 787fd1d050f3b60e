"""How what a gradient returned is read: to which argument each part belongs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.arguments import Arguments
from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES, is_label_name
from jaxnet.crosscheck.inspect.trees import Array, distinct, is_array, leaves_of

CLOSE = 1e-6  # relative difference between a value that is computed twice


class Form(Enum):
    """The form in which gradients come back."""

    BY_POSITION = "a tuple, one for each argument or for the first of those with floats"
    SINGLE = "a single gradient"
    BY_NAME = "a dict by the names of the arguments"


@dataclass(frozen=True)
class Reading:
    """One way to read what a gradient returned.

    Attributes:
        form: The form.
        owners: The arguments that the parts belong to, in the order of the parts.
        value_first: Whether the value of the function comes before the gradients.
    """

    form: Form
    owners: tuple[str, ...]
    value_first: bool = False


def possible_readings(result: Any, given: Arguments, y: Array) -> list[Reading]:
    """Returns the ways to read what a gradient returned, the likeliest first.

    Args:
        result: What it returned.
        given: The arguments that it was called with.
        y: The function's value at these arguments.

    Raises:
        SubjectError: It cannot be read at all.
    """
    if _has_value_first(result, y):
        plain = _possible(result, given)
        if not (plain and _fits_all(result, plain[0], given)):
            rest = [Reading(r.form, r.owners, value_first=True) for r in _possible(result[1], given)]
            if rest and _fits_all(result, rest[0], given):
                return rest
    found = _possible(result, given)
    if not found:
        raise SubjectError(_unreadable(result, given))
    return found


def gradients_by_leaf(result: Any, reading: Reading, given: Arguments) -> dict[str, Any]:
    """Returns the gradients by the names of the float leaves; those that did not come back are missing."""
    found: dict[str, Any] = {}
    for owner, part in _parts(result, reading, given.names):
        if given.single[owner]:
            if part is not None:
                found[owner] = part if is_array(part) or isinstance(part, int | float) else _as_array(part)
            continue
        names = {place: name for name in given.of(owner) for place in _places(name)}
        parts = list(leaves_of(part, owner))
        places = distinct(place for place, _ in parts)
        found |= {
            names[place]: gradient
            for place, (_, gradient) in zip(places, parts, strict=True)
            if place in names and gradient is not None
        }
    return {name: gradient for name, gradient in found.items() if name in given.floats}


def _possible(result: Any, given: Arguments) -> list[Reading]:
    if result is None:
        return []
    if isinstance(result, Mapping):
        return _of_mapping(result, given)
    if type(result) in (tuple, list):
        return _of_sequence(result, given)
    return _single(result, given)


def _of_mapping(result: Mapping[str, Any], given: Arguments) -> list[Reading]:
    fitting = [r for r in _single(result, given) if _fits(result, r.owners[0], given)]
    if fitting:
        return fitting
    owners = _owners_by_name(result, given.names)
    if owners is not None:
        return [Reading(Form.BY_NAME, owners)]
    structures = [name for name in given.with_floats() if not given.single[name]]
    share = [name for name in structures if gradients_by_leaf(result, Reading(Form.SINGLE, (name,)), given)]
    return [Reading(Form.SINGLE, (name,)) for name in share]


def _of_sequence(result: Sequence[Any], given: Arguments) -> list[Reading]:
    names, count = given.names, len(result)
    single = [r for r in _single(result, given) if _fits(result, r.owners[0], given)]
    by_position = [Reading(Form.BY_POSITION, tuple(names))] if count == len(names) else []
    if count < len(names) and count:
        floats = given.with_floats()
        ordered = [n for n in floats if not is_label_name(n)] if count < len(floats) else floats
        first = tuple((ordered if len(ordered) >= count else floats)[:count])
        others = [owners for owners in combinations(floats, count) if owners != first]
        by_position = [Reading(Form.BY_POSITION, owners) for owners in (first, *others)] if len(first) == count else []
        by_position.sort(key=lambda reading: not _fits_all(result, reading, given))
        by_position = by_position[:1] + [r for r in by_position[1:] if _fits_all(result, r, given)]
    if single and not (by_position and _fits_all(result, by_position[0], given)):
        return single
    return by_position


def _single(result: Any, given: Arguments) -> list[Reading]:
    """A single gradient belongs to an argument that it fits, to labels last; else to the first of floats."""
    floats = sorted(given.with_floats(), key=is_label_name)
    fitting = [name for name in floats if _fits(result, name, given)]
    return [Reading(Form.SINGLE, (name,)) for name in fitting or floats[:1]]


def _parts(result: Any, reading: Reading, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    if reading.value_first:
        result = result[1]
    if reading.form is Form.SINGLE:
        yield reading.owners[0], result
    elif reading.form is Form.BY_NAME:
        places = {place: name for name in names for place in _places(name)}
        yield from ((places[key], part) for key, part in result.items() if key in places)
    else:
        yield from zip(reading.owners, result, strict=False)


def _fits_all(result: Any, reading: Reading, given: Arguments) -> bool:
    """Whether every part has the shapes of the argument that it would belong to."""
    parts = list(_parts(result, reading, given.names))
    floats = given.with_floats()
    return all(_fits(part, owner, given) for owner, part in parts if part is not None and owner in floats)


def _fits(part: Any, owner: str, given: Arguments) -> bool:
    reading = Reading(Form.SINGLE, (owner,))
    try:
        found = gradients_by_leaf(part, reading, given)
    except SubjectError:
        return False
    return all(name in found and np.shape(found[name]) == given.floats[name].shape for name in given.of(owner))


def _places(name: str) -> list[str]:
    """A leaf's own name, and those that its gradient may have: params.W, params.dW, params.grad_W, ..."""
    above, dot, last = name.rpartition(".")
    return [name, *(f"{above}{dot}{form.format(last)}" for form in GRADIENT_NAMES)]


def _owners_by_name(result: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...] | None:
    """The arguments that a dict's keys name, with or without a d; None where one names none."""
    places = {form.format(name): name for form in (*GRADIENT_NAMES, "{}") for name in names}
    if not result or not all(key in places for key in result):
        return None
    return tuple(places[key] for key in result)


def _has_value_first(result: Any, y: Array) -> bool:
    """Whether the first of two things that came back is the function's own value."""
    if not (isinstance(result, tuple | list) and len(result) == 2 and y.size == 1):
        return False
    first = result[0]
    if isinstance(first, tuple | list) and first:  # the value comes with what is auxiliary
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
            f"gradient: returned a {type(part).__name__} of different shapes where an array was expected"
        ) from None


def _unreadable(result: Any, given: Arguments) -> str:
    args = ", ".join(given.names)
    if isinstance(result, Mapping):
        keys = ", ".join(map(str, result))
        return f"gradient: returned a dict of {keys}, expected a gradient for each input, in their order: {args}"
    if isinstance(result, tuple | list):
        hint = "; where the function's value comes first, leave it out, gradient=lambda ...: value_and_grad(...)[1]"
        hint = hint if len(result) == len(given.names) + 1 else ""
        return f"gradient: returned {len(result)} gradients for {len(given.names)} arguments, {args}{hint}"
    return f"gradient: returned None, expected a gradient for each of {args}"
