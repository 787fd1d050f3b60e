"""Describes the floating-point formats of 16 bits and fewer, and rounds numbers to them in float64 arithmetic."""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxnet.crosscheck.dtypes import MIN_HALF_ROUNDOFF, Array, is_float_dtype, unit_roundoff


@dataclass(frozen=True)
class NumberFormat:
    """A floating-point format.

    Args:
        name: Its name, such as "bfloat16".
        roundoff: The largest relative error of rounding a number in its normal range.
        smallest_normal: The smallest number with all digits.
        largest: The largest finite number.
    """

    name: str
    roundoff: float
    smallest_normal: float
    largest: float

    def spacing(self, values: Array) -> Array:
        """Returns the distance of neighbouring numbers of the format at each value."""
        _, exponent = np.frexp(np.maximum(np.abs(values), self.smallest_normal))
        return np.asarray(np.ldexp(2 * self.roundoff, exponent - 1))

    def rounded(self, values: Array) -> Array:
        """Returns the nearest numbers of the format, infinite beyond its range."""
        finite = np.where(np.isfinite(values), values, 0.0)
        spacing = self.spacing(finite)
        nearest = np.round(finite / spacing) * spacing
        nearest = np.where(np.abs(nearest) > self.largest, np.copysign(np.inf, nearest), nearest)
        return np.where(np.isfinite(values), nearest, values)

    def holds(self, values: Array) -> bool:
        """Returns whether all values are numbers of the format, as if they had been rounded to it."""
        return bool((self.rounded(values) == values).all())


FLOAT16 = NumberFormat("float16", 2.0**-11, 2.0**-14, 65504.0)
BFLOAT16 = NumberFormat("bfloat16", 2.0**-8, 2.0**-126, (2 - 2.0**-7) * 2.0**127)
HALVES = {known.name: known for known in (FLOAT16, BFLOAT16)}


def half_format(dtype: np.dtype[Any]) -> NumberFormat | None:
    """Returns the format of a dtype of 16 bits or fewer; None for other dtypes."""
    if not is_float_dtype(dtype) or unit_roundoff(dtype) <= MIN_HALF_ROUNDOFF:
        return None
    if dtype.name in HALVES:
        return HALVES[dtype.name]
    if (ml_dtypes := sys.modules.get("ml_dtypes")) is None:
        return None
    info = ml_dtypes.finfo(dtype)
    return NumberFormat(dtype.name, float(info.eps) / 2, float(info.smallest_normal), float(info.max))
