"""Tells a value that leaves the range of a 16-bit format from one that a wrong formula makes infinite."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any

import numpy as np

from jaxnet.crosscheck.dtypes import in_float64
from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Instance, Leaves
from jaxnet.crosscheck.measure.leaf_steps import copies
from jaxnet.crosscheck.meter import OutOfTime
from jaxnet.crosscheck.number_format import NumberFormat

KEPT = 0.1  # relative error in bfloat16 up to which a value keeps its leading digits
SCALES = (2.0**-6, 2.0**-12)  # factors of dout for which a gradient that overflows is tried again


class Escape(Enum):
    """Why a value is not finite in a format, or 0, while it is finite and not 0 in float64."""

    RESULT = auto()  # the value itself is beyond the largest number
    INTERMEDIATE = auto()  # the value is within the range, and an intermediate one is not
    UNKNOWN = auto()  # the value is within the range; an intermediate one overflows, or loses its digits


@dataclass(frozen=True)
class RangeError:
    """Values that are not finite in a format, or 0.

    Args:
        format: The format.
        escape: The reason.
        index: The first of them.
        own: Its value in the format.
        true: Its value in float64 or float32.
        largest: The largest magnitude among these values in float64 or float32.
    """

    format: NumberFormat
    escape: Escape
    index: tuple[int, ...]
    own: float
    true: float
    largest: float


def forward_range(checkable: Checkable, output: Array) -> RangeError | None:
    """Returns why an output is not finite; None if the leaves have more bits, or it is not finite in those either."""
    known = _coarsest(checkable)
    if known is None:
        return None
    true = _finer(checkable, lambda opened, _: opened.forward())
    other = _in_wider_format(checkable, lambda opened, _: opened.forward())
    return _range_error(in_float64(output), true, known, other is not None and bool(np.isfinite(other).all()))


def vanished_output(checkable: Checkable, output: Array) -> RangeError | None:
    """Returns why elements of a 16-bit output are 0 that are not 0 in a finer format, as 1 / inf is.

    Returns:
        INTERMEDIATE if they are not 0 in bfloat16 either, whose range is wider and whose digits are fewer; UNKNOWN if
        the whole output is 0, which rounding may cause too; None if there are no such elements, or only some.
    """
    known, own = _coarsest(checkable), in_float64(output)
    if known is None or own.all():
        return None
    true = _finer(checkable, lambda opened, _: opened.forward())
    if true is None or true.shape != own.shape:
        return None
    lost = (own == 0) & (np.abs(true) >= known.smallest_normal)
    other = _in_wider_format(checkable, lambda opened, _: opened.forward())
    overflown = lost & (np.abs(other - true) <= KEPT * np.abs(true)) if other is not None else np.zeros_like(lost)
    if overflown.any():
        lost, escape = overflown, Escape.INTERMEDIATE
    elif lost.any() and not own.any():
        escape = Escape.UNKNOWN
    else:
        return None
    again = _run(checkable, copies(checkable.leaves), lambda opened, _: opened.forward(), output.dtype)
    if again is None or not np.array_equal(again, own):  # random zeros, such as those of Dropout
        return None
    index = tuple(int(i) for i in np.argwhere(lost)[0])
    return RangeError(known, escape, index, float(own[index]), float(true[index]), float(np.abs(true[lost]).max()))


def gradient_range(checkable: Checkable, name: str, gradient: Array, dout: Array) -> RangeError | None:
    """Returns why a gradient is not finite; None if its leaf has more bits, or it is not finite in those either."""
    known = checkable.half_format(name)
    if known is None:
        return None
    backward = partial(_gradient, name, dout)
    true, other = _finer(checkable, backward), _in_wider_format(checkable, backward)
    overflows = other is not None and bool(np.isfinite(other).all())
    for scale in SCALES if checkable.takes_dout else ():
        smaller = (in_float64(dout) * scale).astype(dout.dtype)
        again = _run(checkable, copies(checkable.leaves), partial(_gradient, name, smaller), dout.dtype)
        overflows = overflows or (again is not None and bool(np.isfinite(again).all()))
    return _range_error(in_float64(gradient), true, known, overflows)


def _gradient(name: str, dout: Array, opened: Instance, dtype: Any) -> Array:
    opened.forward()
    return np.asarray(opened.backward(dout.astype(dtype))[name])


def _range_error(own: Array, true: Array | None, known: NumberFormat, overflows: bool) -> RangeError | None:
    """Compares values in the format with those in a finer one."""
    if true is None or true.shape != own.shape or not np.isfinite(true).all():
        return None
    wrong = ~np.isfinite(own)
    inside = wrong & (np.abs(true) <= known.largest)
    escape = (Escape.INTERMEDIATE if overflows else Escape.UNKNOWN) if inside.any() else Escape.RESULT
    index = tuple(int(i) for i in np.argwhere(inside if inside.any() else wrong)[0])
    return RangeError(known, escape, index, float(own[index]), float(true[index]), float(np.abs(true[wrong]).max()))


def _coarsest(checkable: Checkable) -> NumberFormat | None:
    formats = [checkable.half_format(name) for name in checkable.leaves]
    return max((known for known in formats if known is not None), key=lambda known: known.roundoff, default=None)


def _finer(checkable: Checkable, call: Callable[[Instance, Any], Array]) -> Array | None:
    """Returns a result in float64, or in float32 if the code does not support float64; None if neither is finite."""
    for dtype in (np.float64, np.float32):
        leaves = {name: in_float64(array).astype(dtype) for name, array in checkable.leaves.items()}
        result = _run(checkable, leaves, call, dtype)
        if result is not None and np.isfinite(result).all():
            return result
    return None


def _in_wider_format(checkable: Checkable, call: Callable[[Instance, Any], Array]) -> Array | None:
    """Returns a result in bfloat16, which has fewer digits than float16 and a wider range; None if it cannot be run."""
    ml_dtypes = sys.modules.get("ml_dtypes")
    if ml_dtypes is None or any(array.dtype != np.float16 for array in checkable.leaves.values()):
        return None
    leaves = {name: array.astype(ml_dtypes.bfloat16) for name, array in checkable.leaves.items()}
    return _run(checkable, leaves, call, ml_dtypes.bfloat16)


def _run(checkable: Checkable, leaves: Leaves, call: Callable[[Instance, Any], Array], dtype: Any) -> Array | None:
    try:
        with np.errstate(all="ignore"):
            return in_float64(call(checkable.open(leaves), dtype))
    except OutOfTime:
        raise
    except Exception:  # the user's code does not support the dtype
        return None
