"""Chooses the dtype in which a check computes: float64 if the code supports it, otherwise the arrays' own."""

import math

import numpy as np

from jaxnet.crosscheck.dtypes import eps_of, in_float64
from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves
from jaxnet.crosscheck.measure.leaf_steps import copies

MAX_DTYPE_DIFFERENCE = 1e3  # the largest difference of a function in two precisions, in units of sqrt(n) roundoff


def chosen_point(checkable: Checkable, output: Array, dout: Array) -> Leaves:
    """Returns the leaves in the finest dtype that the code accepts and computes alike in, otherwise in their own.

    This is float64, or for leaves in 16 bits also float32.

    Args:
        checkable: The code that is checked.
        output: The output at the leaves in their own dtype.
        dout: The upstream gradient.
    """
    if all(array.dtype == np.float64 for array in checkable.leaves.values()):
        return copies(checkable.leaves)
    is_half = any(checkable.half_format(name) is not None for name in checkable.leaves)
    for dtype in (np.float64, np.float32) if is_half else (np.float64,):
        at = {name: in_float64(array).astype(dtype) for name, array in checkable.leaves.items()}
        differs = any(array.dtype != at[name].dtype for name, array in checkable.leaves.items())
        if differs and _computes_alike(checkable, at, output, dout.astype(dtype)):
            return at
    return copies(checkable.leaves)


def _computes_alike(checkable: Checkable, at: Leaves, output: Array, dout: Array) -> bool:
    """Returns whether the code accepts leaves in another dtype and returns nearly the same for them."""
    try:
        instance = checkable.open({name: array.copy() for name, array in at.items()})
        double = in_float64(instance.forward())
        gradients = instance.backward(dout)
    except Exception:  # the user's code does not support the dtype
        return False
    if double.shape != output.shape or not np.isfinite(double).all():
        return False
    if any(g is not None and not np.isfinite(in_float64(g)).all() for g in gradients.values()):
        return False
    halves = [known for name in checkable.leaves if (known := checkable.half_format(name)) is not None]
    eps = max([eps_of(array) for array in checkable.leaves.values()] + [2 * known.roundoff for known in halves])
    terms = sum(array.size for array in checkable.leaves.values())
    difference, size = np.linalg.norm(double - in_float64(output)), np.linalg.norm(double)
    return bool(difference <= min(MAX_DTYPE_DIFFERENCE * math.sqrt(terms) * eps, 0.3) * size)
