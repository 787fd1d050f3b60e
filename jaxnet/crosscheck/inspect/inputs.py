"""Converts the inputs of a layer or a network to arrays, lists their numbers, and makes other inputs like them."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.dtypes import in_float64
from jaxnet.crosscheck.inspect.errors import SubjectError, kind_of
from jaxnet.crosscheck.inspect.trees import Array, Leaves, is_inexact


def as_arrays(inputs: tuple[Any, ...], names: list[str]) -> tuple[Any, ...]:
    """Returns the inputs with floats and lists of numbers as arrays, everything else unchanged.

    Raises:
        SubjectError: If an array is of objects or holds a nan.
    """
    return tuple(_as_array(name, value) for name, value in zip(names, inputs, strict=True))


def _as_array(name: str, value: Any) -> Any:
    if isinstance(value, bool | int | np.integer | str | dict) or value is None or not is_numbers(value):
        return value
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise SubjectError(f"{name}: {kind_of(value)} of rows of different lengths, expected an array") from error
    if array.dtype == object:
        raise SubjectError(f"{name}: an array of objects, expected floats, or integers, which get no gradient")
    if array.dtype.kind in "fc":
        reject_nan(name, array)
    return array


def reject_nan(name: str, array: Array) -> None:
    """Raises a SubjectError if an array has a nan. Infinities are allowed, because masks have them."""
    is_nan = np.isnan(array)
    if is_nan.any():
        where = tuple(int(i) for i in np.argwhere(is_nan)[0])
        raise SubjectError(f"{name}{list(where)}: {array[where]}, expected numbers; pass other inputs")


def is_numbers(value: Any) -> bool:
    """Returns whether this is a number, an array, or a list of numbers, nested or not."""
    if isinstance(value, list):
        return bool(value) and all(
            isinstance(part, list | float | int | complex) and is_numbers(part) for part in value
        )
    return isinstance(value, float | int | complex | np.generic) or hasattr(value, "__array__")


def arrays_in(inputs: tuple[Any, ...], names: list[str]) -> Leaves:
    """Returns the NumPy arrays among the inputs, by name."""
    return {name: value for name, value in zip(names, inputs, strict=True) if isinstance(value, np.ndarray)}


def integers_in(named: Mapping[str, Any]) -> Leaves:
    """Returns the integer arrays among some values: ids and labels."""
    return {name: a for name, a in named.items() if isinstance(a, np.ndarray) and a.dtype.kind in "iu"}


def numbers_in(named: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers among some values, in dicts too, and the nonzero value of each two-valued mask."""
    found: dict[str, float] = {}
    for name, value in named.items():
        if isinstance(value, dict):
            found |= numbers_in(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = float(value)
        elif isinstance(value, np.ndarray) and value.size > 1 and value.dtype.kind == "f":
            few = len(np.unique(value.flat[:64])) <= 2  # saves sorting a large array
            if few and len(levels := np.unique(value)) == 2 and levels[0] == 0:
                found[f"{name}'s value"] = float(levels[1])
    return found


def clearly_moved(array: Array) -> Array:
    """Returns an array with all elements moved, zeros too, to find out whether an output depends on it."""
    return (in_float64(array) * 1.25 + 0.125).astype(array.dtype)


def different_inputs(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns other inputs of the same shapes: arrays rolled by one place, floats halved to stay in range."""
    moved = (
        np.roll(a, 1, axis=0 if len(a) > 1 else -1) if isinstance(a, np.ndarray) and a.ndim else copy.deepcopy(a)
        for a in inputs
    )
    return tuple(0.5 * a if is_inexact(a) and not _is_one_hot(a) else a for a in moved)


def _is_one_hot(array: Array) -> bool:
    return bool(np.isin(array, (0, 1)).all())
