"""Shows that an error in 16 bits comes from long sums: the same computation with shorter sums is right.

Sums become shorter if most elements of dout or of a leaf are 0, which leaves all else as it is, or if the arrays
themselves are cut into parts. The latter also changes the positions and the number of elements, so it shows something
only for functions that do not depend on the order of the elements, such as a softmax over its row.

All of it is measured over the parts together, each element being in one of them, so that a term that a wrong formula
leaves out counts as much as in the whole. The error of a single part says little, since its gradient may be near 0.
"""

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array, Leaves

CLEARLY = 3.0  # by this factor, the error must be smaller in short sums to come from their length
MIN_LONG_SUM = 256  # elements of a leaf over which a sum is long
MIN_LONG_AXIS = 32  # elements along an axis that is cut
HOPEFULLY = 1.5  # by this factor, the error must be smaller for still shorter sums to be tried
GROUPS, MANY_GROUPS = 64, 256  # parts into which dout, a leaf or an axis is split
SAME = 1e-4  # relative difference of gradients up to which the order of the elements does not matter


class Subject(Protocol):
    """Code in 16 bits beside a finer computation of the same gradients."""

    at: Leaves
    dout: Array
    true: Leaves
    rng: np.random.Generator

    def backward(self, dout: Array, at: Leaves | None = None) -> Leaves:
        """Returns the gradients of the code in 16 bits, as float64."""

    def finer(self, at: Leaves, dout: Array) -> Leaves:
        """Returns the gradients of the finer computation."""

    def output(self, at: Leaves) -> Array:
        """Returns the output of the code in 16 bits, as float64."""

    @property
    def takes_dout(self) -> bool:
        """Whether the backward pass takes an upstream gradient."""


def split_that_helps(subject: Subject, name: str, error: float) -> str | None:
    """Returns what is split so that the error of a gradient becomes clearly smaller; None if nothing is.

    Args:
        subject: The code and the finer computation.
        name: The leaf whose gradient is compared.
        error: The root mean square error of its gradient.

    Returns:
        "dout", the name of a leaf, or the length of the axes that are cut, such as "axes of 4,096".
    """
    for groups in (GROUPS, MANY_GROUPS) if subject.takes_dout else ():
        smaller = rms(_sum_over_parts_of_dout(subject, name, groups) - subject.true[name])
        if smaller <= error / CLEARLY:
            return "dout"
        if smaller > error / HOPEFULLY:
            break
    allowed = error / rms(subject.true[name]) / CLEARLY
    for leaf, array in subject.at.items():
        if array.size >= MIN_LONG_SUM and _relative_error(_parts_of_leaf(subject, leaf), subject, name) <= allowed:
            return leaf
    for length in long_axes(subject.at):
        try:
            is_shorter_right = _order_is_free(subject, name, length) and (
                _relative_error(_parts_of_axes(subject, length), subject, name) <= allowed
            )
        except Exception:  # the user's code needs these shapes
            continue
        if is_shorter_right:
            return f"axes of {length:,}"
    return None


def _sum_over_parts_of_dout(subject: Subject, name: str, groups: int) -> Array:
    """Returns the sum, in float64, of the gradients for parts of dout, in each of which the other elements are 0."""
    dout = subject.dout
    groups = min(groups, dout.size)
    part_of = subject.rng.permutation(dout.size).reshape(dout.shape) % groups
    total = np.zeros_like(subject.true[name])
    for group in range(groups):
        total = total + subject.backward(np.where(part_of == group, dout, 0.0))[name]
    return total


def _parts_of_leaf(subject: Subject, leaf: str) -> Iterator[tuple[Leaves, Array]]:
    """Yields the leaves with all elements of one leaf set to 0 but those of one part, and dout."""
    array = subject.at[leaf]
    part_of = subject.rng.permutation(array.size).reshape(array.shape) % GROUPS
    for group in range(GROUPS):
        yield subject.at | {leaf: np.where(part_of == group, array, 0.0)}, subject.dout


def _parts_of_axes(subject: Subject, length: int) -> Iterator[tuple[Leaves, Array]]:
    """Yields the leaves with each axis of a length cut to the same part of it, and a dout of the shape of the output.

    If the shape differs, its elements are drawn from those of dout.
    """
    order = subject.rng.permutation(length)
    for part in np.array_split(order, min(GROUPS, length // 2)):
        at = {name: along(array, length, part) for name, array in subject.at.items()}
        shape = subject.output(at).shape
        yield at, subject.dout if shape == subject.dout.shape else subject.rng.choice(subject.dout.ravel(), shape)


def _relative_error(parts: Iterator[tuple[Leaves, Array]], subject: Subject, name: str) -> float:
    """Returns the error over the size of the gradients of all parts together."""
    errors, sizes = [], []
    for at, dout in parts:
        true = subject.finer(at, dout)[name]
        errors.append(np.linalg.norm(subject.backward(dout, at)[name] - true))
        sizes.append(np.linalg.norm(true))
    error, size = math.hypot(*errors), math.hypot(*sizes)
    return error / size if 0 < size < math.inf and math.isfinite(error) else math.inf


def long_axes(leaves: Leaves) -> list[int]:
    """Returns the lengths of long axes of large leaves, the longest first."""
    large = [array for array in leaves.values() if array.size >= MIN_LONG_SUM]
    return sorted({length for array in large for length in array.shape if length >= MIN_LONG_AXIS}, reverse=True)


def _order_is_free(subject: Subject, name: str, length: int) -> bool:
    """Returns whether the gradient only changes its order if the elements along all axes of a length do."""
    order = subject.rng.permutation(length)
    at = {leaf: along(array, length, order) for leaf, array in subject.at.items()}
    changed = subject.finer(at, along(subject.dout, length, order))[name]
    expected = along(subject.true[name], length, order)
    return rms(changed - expected) <= SAME * rms(expected)


def along(array: Array, length: int, places: Array) -> Array:
    """Returns the elements at some places along every axis of a length."""
    for axis in range(array.ndim):
        if array.shape[axis] == length:
            array = array.take(places, axis)
    return array


def rms(values: Array) -> float:
    """Returns the root mean square."""
    values = np.asarray(values, np.float64)
    largest = float(np.abs(values).max(initial=0.0))
    return largest * float(np.sqrt(np.mean((values / largest) ** 2))) if 0 < largest < math.inf else largest
