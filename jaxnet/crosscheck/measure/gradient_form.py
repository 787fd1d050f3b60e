"""Checks the form of a gradient: that it exists, and has finite floats, its leaf's shape and its leaf's dtype."""

from itertools import combinations
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
        transposed = array.ndim > 1 and array.shape == leaf.shape[::-1]
        detail = f"{array.shape}, expected {leaf.shape}"
        axes = axes_to_sum(array.shape, leaf.shape) if kind is Behaviour.WRONG_SHAPE else None
        if axes and not transposed:
            detail += f": sum over ax{'is' if len(axes) == 1 else 'es'} {' and '.join(map(str, axes))} as well"
        return _fault(Behaviour.TRANSPOSED if transposed else kind, name, detail)
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


def axes_to_sum(shape: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...] | None:
    """Returns the axes of a gradient whose sum has the shape of the leaf; None if none or several choices have.

    Args:
        shape: The shape of the gradient.
        target: The shape of the leaf.

    Examples:
        >>> axes_to_sum((3, 4), (4,)), axes_to_sum((2, 5, 4), (1, 1, 4)), axes_to_sum((4, 4), (4,))
        ((0,), (0, 1), None)
    """
    if len(shape) == len(target):
        axes = tuple(i for i, size in enumerate(shape) if size != target[i])
        return axes if all(target[i] == 1 for i in axes) else None
    choices = [
        axes
        for axes in combinations(range(len(shape)), max(len(shape) - len(target), 0))
        if tuple(size for i, size in enumerate(shape) if i not in axes) == target
    ]
    return choices[0] if len(choices) == 1 else None


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, target) == target or shape == (1, *target)
    except ValueError:
        return False
