"""Moves leaves: by steps relative to the size of their elements, without rounding."""

import math

import numpy as np

from jaxnet.crosscheck.dtypes import eps_of, in_float64
from jaxnet.crosscheck.inspect.checkable import Array, Leaves

MIN_EXACT_STEP = 2.0**-25  # the smallest relative step whose multiples are exact in float64
MIN_OWN_SCALE = 2.0**-200  # the smallest size of an element, relative to its leaf's scale


def unit_of(*arrays: Array) -> float:
    """Returns a power of two near the largest finite magnitude; 1 if all elements are zero.

    Division by it is exact, and squares of the result neither overflow nor underflow.
    """
    largest = max((_largest(_finite(a)) for a in arrays), default=0.0)
    return 2.0 ** math.floor(math.log2(largest)) if largest > 0 else 1.0


def scale_of(array: Array) -> float:
    """Returns the size of a leaf's elements: their standard deviation, or, if they are nearly equal, their magnitude.

    The size of a leaf of zeros, such as the bias of an untrained layer, is 1. Elements that are not finite are ignored.
    """
    values = _finite(in_float64(array))
    if not values.size:
        return 1.0
    unit = unit_of(values)
    values = values / unit
    size, spread = float(np.sqrt(np.mean(values**2))), float(np.std(values))
    return (spread if spread > 1e-3 * size else size) * unit or 1.0


def _finite(values: Array) -> Array:
    """Returns the finite elements, without a copy if all are."""
    finite = np.isfinite(values)
    return values.ravel() if finite.all() else values[finite]


def _largest(values: Array) -> float:
    """Returns the largest magnitude, 0 of no elements."""
    return max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))


def own_scales(array: Array) -> Array:
    """Returns the size of each element relative to the leaf's scale, at most 1.

    Rows of 1e-5 next to rows of 1 need smaller steps. An element that is 0 has the smallest of the sizes of its rows
    and columns.
    """
    values = np.abs(in_float64(array)) / scale_of(array)
    values = np.where(np.isfinite(values), values, 0.0)
    around = np.full(values.shape, np.inf)
    for axis in range(values.ndim):
        size = np.sqrt(np.mean(values**2, axis=axis, keepdims=True))
        around = np.minimum(around, np.where(size > 0, size, np.inf))
    around = np.where(np.isfinite(around), around, 1.0)
    return np.clip(np.where(values > 0, values, around), MIN_OWN_SCALE, 1.0)


def stepped(array: Array, t: float, direction: Array) -> Array:
    """Returns array + t direction in the array's own dtype and memory order; elements that are not finite stay."""
    moved = np.empty_like(array)
    with np.errstate(invalid="ignore", over="ignore"):
        if array.dtype == np.float64:  # without temporary arrays, because a large leaf moves a hundred times
            np.multiply(direction, t, out=moved)
            moved += array
        else:
            moved[...] = in_float64(array) + t * direction
    return moved


def copies(leaves: Leaves) -> Leaves:
    """Returns copies of the leaves, in their own memory order."""
    return {name: array.copy(order="K") for name, array in leaves.items()}


def exact_direction(array: Array, direction: Array, smallest: float) -> Array:
    """Returns the direction, rounded so that array + t direction is exact for all multiples t of a smallest step."""
    exact = np.zeros_like(direction)
    moving = ... if direction.all() else direction != 0  # often one element of many
    values, moves = in_float64(array[moving]), direction[moving]
    grid = np.spacing(np.maximum(2 * np.abs(values), 16 * smallest * np.abs(moves)))
    if array.dtype != np.float64:
        grid = grid * float(eps_of(array) / np.finfo(np.float64).eps)
    grid = grid / smallest
    exact[moving] = np.where(np.isfinite(values), np.round(moves / grid) * grid, 0.0)
    return exact
