"""Sizes of arrays, and steps away from them that are exact."""

import math

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array

EXACT_FROM = 2.0**-25  # the smallest relative step whose multiples are taken without rounding, in float64
TINY = 2.0**-200  # an element counts as this much of its leaf's scale at least, where elements step by their own size


def unit_of(*arrays: Array) -> float:
    """Returns a power of two near the largest finite magnitude; 1 where all are zero.

    Dividing by it is exact, and squares of what is left neither overflow nor vanish.
    """
    largest = max((float(np.abs(a[np.isfinite(a)]).max(initial=0.0)) for a in arrays), default=0.0)
    return 2.0 ** math.floor(math.log2(largest)) if largest > 0 else 1.0


def in_float64(value: object) -> Array:
    """Returns an array as float64, in its own memory order."""
    return np.asarray(value).astype(np.float64)


def scale_of(array: Array) -> float:
    """Returns the size of a leaf's elements: how far they spread, or, where they are nearly alike, their magnitude.

    1 for a leaf of zeros, such as a bias that is not yet trained. Elements that are not finite do not count.
    """
    values = in_float64(array)
    values = values[np.isfinite(values)]
    if not values.size:
        return 1.0
    unit = unit_of(values)
    values = values / unit
    size, spread = float(np.sqrt(np.mean(values**2))), float(np.std(values))
    return (spread if spread > 1e-3 * size else size) * unit or 1.0


def own_scales(array: Array) -> Array:
    """Returns each element's own size, relative to the leaf's scale and at most 1: steps follow it.

    Rows of 1e-5 beside rows of 1 need smaller steps. An element that is 0 goes by the smallest of its rows' and
    columns' sizes.
    """
    values = np.abs(in_float64(array)) / scale_of(array)
    values = np.where(np.isfinite(values), values, 0.0)
    around = np.full(values.shape, np.inf)
    for axis in range(values.ndim):
        size = np.sqrt(np.mean(values**2, axis=axis, keepdims=True))
        around = np.minimum(around, np.where(size > 0, size, np.inf))
    around = np.where(np.isfinite(around), around, 1.0)
    return np.clip(np.where(values > 0, values, around), TINY, 1.0)


def stepped(array: Array, t: float, direction: Array) -> Array:
    """Returns array + t direction in the array's own dtype and memory order; what is not finite stays."""
    moved = np.empty_like(array)
    with np.errstate(invalid="ignore", over="ignore"):
        moved[...] = array + t * direction if array.dtype == np.float64 else in_float64(array) + t * direction
    return moved


def exact_direction(array: Array, direction: Array, smallest: float) -> Array:
    """Returns the direction rounded so that array + t direction is exact for all multiples t of a smallest step."""
    values = in_float64(array)
    grid = np.spacing(np.maximum(2 * np.abs(values), 16 * smallest * np.abs(direction)))
    if array.dtype != np.float64:
        grid = grid * float(eps_of(array) / np.finfo(np.float64).eps)
    grid = grid / smallest
    return np.asarray(np.where(np.isfinite(values), np.round(direction / grid) * grid, 0.0))


def eps_of(array: Array) -> float:
    """Returns the spacing of an array's dtype at 1: 2.2e-16 for float64, 1.2e-7 for float32, 7.8e-3 for bfloat16."""
    if array.dtype.kind == "f":
        return float(np.finfo(array.dtype).eps)
    import ml_dtypes  # loaded already where an array of such a dtype was made

    return float(ml_dtypes.finfo(array.dtype).eps)  # type: ignore[no-untyped-call]
