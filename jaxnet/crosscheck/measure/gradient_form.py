"""Checks the form of a gradient: that it exists, and has finite floats, its leaf's shape and its leaf's dtype."""

from typing import Any

import numpy as np

from jaxnet.crosscheck.dtypes import MIN_HALF_ROUNDOFF, as_double, is_float_dtype, unit_roundoff
from jaxnet.crosscheck.inspect.checkable import Array
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level


def misshapen(name: str, leaf: Array, gradient: Any) -> Finding | None:
    """Checks the form of one leaf's gradient, at a point where the forward pass is finite.

    Args:
        name: The leaf's name.
        leaf: The leaf.
        gradient: The value that the backward pass returned.

    Returns:
        A finding whose `detail` names the actual and the expected form, or None if the form is correct.
    """
    if gradient is None:
        return _fault(Behaviour.NO_GRADIENT, name, f"an array of shape {leaf.shape}")
    array = np.asarray(gradient)
    if not is_float_dtype(array.dtype) and array.dtype.kind not in "iu":  # integers are compared, masks are rejected
        return _fault(Behaviour.NOT_FLOATING, name, f"{array.dtype}, expected {leaf.dtype}")
    if array.shape != leaf.shape:
        kind = Behaviour.ONLY_BROADCASTS if _broadcasts(array.shape, leaf.shape) else Behaviour.WRONG_SHAPE
        return _fault(kind, name, f"{array.shape}, expected {leaf.shape}")
    finite = np.isfinite(as_double(array))
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        return _fault(Behaviour.NOT_FINITE, name, f"{array[where]} at {list(where)}")
    return None


def other_dtype(name: str, leaf: Array, gradient: Any, output: Array) -> Finding | None:
    """Checks whether a gradient has its leaf's dtype. If not, its numbers may still be correct, and are compared.

    Args:
        name: The leaf's name.
        leaf: The leaf.
        gradient: The value that the backward pass returned.
        output: The output of the forward pass.
    """
    dtype = np.asarray(gradient).dtype
    if not is_float_dtype(dtype):
        return Finding(Behaviour.NOT_FLOATING, Level.WARNING, name, detail=f"{dtype}, expected {leaf.dtype}")
    if dtype != leaf.dtype and output.dtype == leaf.dtype and leaf.ndim:
        halved = unit_roundoff(dtype) > MIN_HALF_ROUNDOFF > unit_roundoff(leaf.dtype)
        level = Level.FAULT if halved else Level.WARNING
        return Finding(
            Behaviour.OTHER_DTYPE, level, name, detail=f"{dtype}, but forward takes and returns {leaf.dtype}"
        )
    return None


def _fault(kind: Behaviour, name: str, detail: str) -> Finding:
    return Finding(kind, Level.FAULT, name, detail=detail)


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, target) == target or shape == (1, *target)
    except ValueError:
        return False
