"""Chooses the dtype in which a check computes: float64 if the code supports it, otherwise the arrays' own."""

import math

import numpy as np

from jaxnet.crosscheck.dtypes import eps_of, in_float64
from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves

MAX_DTYPE_DIFFERENCE = 1e3  # the largest difference of a function in two precisions, in units of sqrt(n) roundoff


def chosen_point(checkable: Checkable, output: Array, dout: Array) -> Leaves:
    """Returns the leaves in float64, or in their own dtype if the code rejects float64 or computes differently in it.

    Args:
        checkable: The code that is checked.
        output: The output at the leaves in their own dtype.
        dout: The upstream gradient.
    """
    at = {name: in_float64(array) for name, array in checkable.leaves.items()}
    if all(array.dtype == np.float64 for array in checkable.leaves.values()):
        return at
    own = {name: array.copy() for name, array in checkable.leaves.items()}
    try:
        instance = checkable.open({name: array.copy() for name, array in at.items()})
        double = in_float64(instance.forward())
        gradients = instance.backward(dout.astype(np.float64))
    except Exception:  # the user's code does not support float64
        return own
    if double.shape != output.shape or not np.isfinite(double).all():
        return own
    if any(g is not None and not np.isfinite(in_float64(g)).all() for g in gradients.values()):
        return own
    eps = max(eps_of(array) for array in own.values())
    terms = sum(array.size for array in own.values())
    difference, size = np.linalg.norm(double - in_float64(output)), np.linalg.norm(double)
    return own if difference > min(MAX_DTYPE_DIFFERENCE * math.sqrt(terms) * eps, 0.3) * size else at
