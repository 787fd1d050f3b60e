"""Chooses the dtype in which a check computes: float64 if the code supports it, otherwise the arrays' own."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.dtypes import eps_of, in_float64
from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves
from jaxnet.crosscheck.measure.forward_sums import length_of_sums
from jaxnet.crosscheck.measure.leaf_steps import copies

MAX_SHORT_DIFFERENCE = 16.0  # of short sums in 16 bits, in units of their roundoff
MAX_DTYPE_DIFFERENCE = 1e3  # the largest difference of a function in two precisions, in units of sqrt(n) roundoff


class ChosenPoint(NamedTuple):
    """The leaves in the dtype in which a check computes.

    Attributes:
        at: The leaves.
        difference: The relative difference of the forward pass in 16 bits, if sums alone make it another function.
        length: The length of the axes over which it sums then; 0 if it does not.
    """

    at: Leaves
    difference: float = 0.0
    length: int = 0


def chosen_point(checkable: Checkable, output: Array, dout: Array, rng: np.random.Generator) -> ChosenPoint:
    """Returns the leaves in the finest dtype that the code accepts and computes alike in, otherwise in their own.

    This is float64, or for leaves in 16 bits also float32.

    Args:
        checkable: The code that is checked.
        output: The output at the leaves in their own dtype.
        dout: The upstream gradient.
        rng: Draws the order in which long sums are cut.
    """
    if all(array.dtype == np.float64 for array in checkable.leaves.values()):
        return ChosenPoint(copies(checkable.leaves))
    is_half = any(checkable.half_format(name) is not None for name in checkable.leaves)
    for dtype in (np.float64, np.float32) if is_half else (np.float64,):
        at = {name: in_float64(array).astype(dtype) for name, array in checkable.leaves.items()}
        differs = any(array.dtype != at[name].dtype for name, array in checkable.leaves.items())
        difference = _difference(checkable, at, output, dout.astype(dtype)) if differs else math.inf
        if difference <= _most_alike(checkable):
            return ChosenPoint(at)
        if is_half and math.isfinite(difference) and (length := _length_of_sums(checkable, at, rng)) is not None:
            return ChosenPoint(at, difference, length)
    return ChosenPoint(copies(checkable.leaves))


def _difference(checkable: Checkable, at: Leaves, output: Array, dout: Array) -> float:
    """Returns the relative difference of the output for leaves in another dtype; inf if the code rejects them."""
    try:
        instance = checkable.open({name: array.copy() for name, array in at.items()})
        double = in_float64(instance.forward())
        gradients = instance.backward(dout)
    except Exception:  # the user's code does not support the dtype
        return math.inf
    if double.shape != output.shape or not np.isfinite(double).all():
        return math.inf
    if any(g is not None and not np.isfinite(in_float64(g)).all() for g in gradients.values()):
        return math.inf
    difference, size = np.linalg.norm(double - in_float64(output)), np.linalg.norm(double)
    return float(difference / size) if size else (math.inf if difference else 0.0)


def _most_alike(checkable: Checkable) -> float:
    """Returns the largest relative difference of one function in two precisions."""
    eps = max([eps_of(array) for array in checkable.leaves.values()] + [2 * unit for unit in _roundoffs(checkable)])
    terms = sum(array.size for array in checkable.leaves.values())
    return float(min(MAX_DTYPE_DIFFERENCE * math.sqrt(terms) * eps, 0.3))


def _roundoffs(checkable: Checkable) -> list[float]:
    """Returns the roundoffs of the leaves in 16 bits."""
    return [known.roundoff for name in checkable.leaves if (known := checkable.half_format(name)) is not None]


def _length_of_sums(checkable: Checkable, at: Leaves, rng: np.random.Generator) -> int | None:
    """Returns the length of the axes over which the forward pass sums in 16 bits, if only that makes it differ."""

    def forward_in(dtypes: Leaves) -> Callable[[Leaves], Array]:
        return lambda at: in_float64(checkable.forward({n: a.astype(dtypes[n].dtype) for n, a in at.items()}))

    values = {name: in_float64(array) for name, array in at.items()}
    most = MAX_SHORT_DIFFERENCE * max(_roundoffs(checkable))
    with np.errstate(all="ignore"):
        return length_of_sums(forward_in(checkable.leaves), forward_in(at), values, most, rng)
