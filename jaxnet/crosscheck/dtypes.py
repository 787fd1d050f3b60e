"""Measures the precision of arrays: that of their dtype, and that of the numbers they contain."""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MIN_HALF_ROUNDOFF = 2.0**-16  # unit roundoffs above this one belong to 16-bit dtypes
BFLOAT16_ROUNDOFF = 2.0**-8  # used when ml_dtypes is not loaded
FIRST_ELEMENTS = 1024  # of an array, which mostly tell that it has more digits than a dtype


def is_float_dtype(dtype: Any) -> bool:
    """Returns whether a dtype has real floating-point numbers, including those of ml_dtypes such as bfloat16."""
    kind = getattr(dtype, "kind", "")
    return kind == "f" or (kind == "V" and "float" in dtype.name)


def unit_roundoff(dtype: np.dtype[Any]) -> float:
    """Returns the unit roundoff of a floating-point dtype; that of float64 for other dtypes."""
    if dtype.kind == "f" and dtype.isbuiltin == 1:  # float8_e5m2 of ml_dtypes has the kind "f" too
        return float(np.finfo(dtype).eps) / 2
    if (ml_dtypes := sys.modules.get("ml_dtypes")) is not None and is_float_dtype(dtype):
        return float(ml_dtypes.finfo(dtype).eps) / 2
    return BFLOAT16_ROUNDOFF if is_float_dtype(dtype) else float(np.finfo(np.float64).eps) / 2


def eps_of(array: Array) -> float:
    """Returns the spacing of an array's dtype at 1: 2.2e-16 for float64, 1.2e-7 for float32, 7.8e-3 for bfloat16."""
    return 2 * unit_roundoff(array.dtype)


def effective_unit(values: Array) -> float:
    """Returns the unit roundoff of the coarsest dtype that can represent all the values.

    A float64 array whose values all fit into float32 was probably computed in float32.
    """
    unit = unit_roundoff(values.dtype)
    first = _finite_numbers(values.flat[:FIRST_ELEMENTS])
    for dtype in (np.float16, np.float32):
        if not _fit(first, dtype):
            continue
        numbers = _finite_numbers(values)
        if _fit(numbers, dtype) and np.count_nonzero(numbers) > 1 and not _are_small_fractions(numbers):
            return max(unit, unit_roundoff(np.dtype(dtype)))
    return unit


def _finite_numbers(values: Array) -> Array:
    numbers = as_double(values)
    return numbers[np.isfinite(numbers)]


def _fit(numbers: Array, dtype: type[np.floating]) -> bool:
    with np.errstate(all="ignore"):
        return bool((numbers.astype(dtype).astype(np.float64) == numbers).all())


def _are_small_fractions(numbers: Array) -> bool:
    """Returns whether all are small multiples of 1/256 or small integers, as counts and typed-in numbers are."""
    fractions = (numbers * 256 == np.round(numbers * 256)) & (np.abs(numbers) < 2**8)
    integers = (numbers == np.round(numbers)) & (np.abs(numbers) < 2**16)
    return bool((fractions | integers).all())


def in_float64(value: object) -> Array:
    """Returns an array as float64, in its own memory order."""
    return np.asarray(value).astype(np.float64)


def as_double(array: Array) -> Array:
    """Returns an array as float64, or unchanged if it is a longdouble; both parts of a complex one, stacked."""
    if array.dtype.kind == "c":
        array = np.stack([array.real, array.imag])
    return array if array.dtype == np.longdouble else array.astype(np.float64)
