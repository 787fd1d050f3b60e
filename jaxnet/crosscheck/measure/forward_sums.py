"""Shows that a forward pass in 16 bits differs from that in more bits because of its long sums alone.

A sum that is accumulated in bfloat16 stops growing at 256 terms, so that the two seem to be different functions. They
are the same one if they agree wherever the sums are short: for every part of the arrays, cut along their long axes.
"""

import math
from collections.abc import Callable

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array, Leaves
from jaxnet.crosscheck.measure.short_sums import GROUPS, SAME, along, long_axes

Forward = Callable[[Leaves], Array]


def length_of_sums(own: Forward, finer: Forward, at: Leaves, most: float, rng: np.random.Generator) -> int | None:
    """Returns the length of the axes over which a forward pass sums in 16 bits; None if that is not what differs.

    The function must not depend on the order along these axes, as one of positions does, which a part changes too.

    Args:
        own: The forward pass in 16 bits.
        finer: The same code in more bits.
        at: The leaves.
        most: The largest relative difference of the two for short sums.
        rng: Draws the order of the elements.
    """
    for length in long_axes(at):
        order = rng.permutation(length)
        try:
            changed, expected = finer(_cut(at, length, order)), along(finer(at), length, order)
            is_free = np.linalg.norm(changed - expected) <= SAME * np.linalg.norm(expected)
            if is_free and _difference_of_parts(own, finer, at, length, order) <= most:
                return length
        except Exception:  # the user's code needs these shapes
            continue
    return None


def _difference_of_parts(own: Forward, finer: Forward, at: Leaves, length: int, order: Array) -> float:
    """Returns the relative difference of the outputs over all parts of the axes of a length."""
    errors, sizes = [], []
    for part in np.array_split(order, min(GROUPS, length // 2)):
        short = _cut(at, length, part)
        value = finer(short)
        errors.append(np.linalg.norm(own(short) - value))
        sizes.append(np.linalg.norm(value))
    return math.hypot(*errors) / (math.hypot(*sizes) or math.inf)


def _cut(at: Leaves, length: int, places: Array) -> Leaves:
    return {name: along(array, length, places) for name, array in at.items()}
