"""The form of a gradient: whether it is there, of floats, finite, of its leaf's shape and dtype."""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level

Array = NDArray[Any]
HALF = 2.0**-16  # a unit roundoff above this one is of half precision
BFLOAT16 = 2.0**-8  # its unit roundoff, where ml_dtypes is not loaded to say so


def misshapen(name: str, leaf: Array, gradient: Any) -> Finding | None:
    """Finds what is wrong with the form of one leaf's gradient.

    Args:
        name: The leaf's name.
        leaf: The leaf.
        gradient: What came back for it, where the forward pass is finite.

    Returns:
        The finding, or None where nothing is wrong. Its `detail` says what came back and what was expected.
    """
    if gradient is None:
        return _fault(Behaviour.NO_GRADIENT, name, f"an array of shape {leaf.shape}")
    array = np.asarray(gradient)
    if not is_floating(array.dtype) and array.dtype.kind not in "iu":  # whole numbers are numbers, a mask is none
        return _fault(Behaviour.NOT_FLOATING, name, f"{array.dtype}, expected {leaf.dtype}")
    if array.shape != leaf.shape:
        kind = Behaviour.ONLY_BROADCASTS if _broadcasts(array.shape, leaf.shape) else Behaviour.WRONG_SHAPE
        transposed = array.ndim > 1 and array.shape == leaf.shape[::-1]
        return _fault(Behaviour.TRANSPOSED if transposed else kind, name, f"{array.shape}, expected {leaf.shape}")
    finite = np.isfinite(as_double(array))
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        return _fault(Behaviour.NOT_FINITE, name, f"{array[where]} at {list(where)}")
    return None


def other_dtype(name: str, leaf: Array, gradient: Any, output: Array) -> Finding | None:
    """Finds a gradient of another dtype than its leaf's: its numbers may be right, and are compared.

    Args:
        name: The leaf's name.
        leaf: The leaf.
        gradient: What came back for it.
        output: The output of the forward pass.
    """
    dtype = np.asarray(gradient).dtype
    if not is_floating(dtype):
        return Finding(Behaviour.NOT_FLOATING, Level.WARNING, name, detail=f"{dtype}, expected {leaf.dtype}")
    if dtype != leaf.dtype and output.dtype == leaf.dtype and leaf.ndim:
        halved = unit_roundoff(dtype) > HALF > unit_roundoff(leaf.dtype)
        level = Level.FAULT if halved else Level.WARNING
        return Finding(Behaviour.OTHER_DTYPE, level, name, detail=f"{dtype}, though {leaf.dtype}")
    return None


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Returns whether a dtype is of real floating-point numbers, those of ml_dtypes (bfloat16) included."""
    return dtype.kind == "f" or (dtype.kind == "V" and dtype.names is None and "float" in dtype.name)


def unit_roundoff(dtype: np.dtype[Any]) -> float:
    """Returns the unit roundoff of a floating-point dtype."""
    if dtype.kind == "f":
        return float(np.finfo(dtype).eps) / 2
    if (ml_dtypes := sys.modules.get("ml_dtypes")) is not None and is_floating(dtype):
        return float(ml_dtypes.finfo(dtype).eps) / 2
    return BFLOAT16 if is_floating(dtype) else float(np.finfo(np.float64).eps) / 2


def effective_unit(values: Array) -> float:
    """Returns the unit roundoff of the coarsest dtype that holds all the values: of float32 where all fit into it."""
    unit = unit_roundoff(values.dtype)
    numbers = as_double(values)
    numbers = numbers[np.isfinite(numbers)]
    for dtype in (np.float16, np.float32):
        with np.errstate(all="ignore"):
            fits = bool((numbers.astype(dtype).astype(np.float64) == numbers).all())
        if fits and np.count_nonzero(numbers) > 1 and not _are_small_fractions(numbers):
            return max(unit, unit_roundoff(np.dtype(dtype)))
    return unit


def _are_small_fractions(numbers: Array) -> bool:
    """Whether they are multiples of 1/256: numbers typed in or counted fit into any dtype, and say nothing of it."""
    return bool((numbers * 256 == np.round(numbers * 256)).all())


def as_double(array: Array) -> Array:
    """Returns the numbers of an array in float64; longer ones as they are."""
    return array if array.dtype == np.longdouble else array.astype(np.float64)


def _fault(kind: Behaviour, name: str, detail: str) -> Finding:
    return Finding(kind, Level.FAULT, name, detail=detail)


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, target) == target or shape == (1, *target)
    except ValueError:
        return False
