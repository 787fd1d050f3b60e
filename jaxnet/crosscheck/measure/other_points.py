"""Chooses other points at which to check a gradient, where the given point cannot show whether it is correct."""

from collections.abc import Iterator
from enum import Enum

import numpy as np

from jaxnet.crosscheck.dtypes import in_float64
from jaxnet.crosscheck.inspect.checkable import Leaves
from jaxnet.crosscheck.measure.leaf_steps import own_scales, scale_of

# Relative to a leaf's scale: eight times the reach of a probe's first step, so that the kinks at the given point are
# out of reach, and small enough for everything else to stay the same.
NEARBY_DISTANCE = 1e-3


class Point(Enum):
    """The point at which a leaf was checked."""

    GIVEN = "given"
    BESIDE = "beside"
    MOVED = "moved"
    DRAWN = "drawn"
    FLIPPED = "flipped"


def beside(at: Leaves, name: str, rng: np.random.Generator) -> Leaves:
    """Returns the point with the elements of one leaf moved by a thousandth of their size, away from their kinks."""
    array = at[name]
    # All distances differ, so that ties are broken.
    offsets = np.linspace(1, 3, array.size)[rng.permutation(array.size)].reshape(array.shape)
    signs = rng.choice([-1.0, 1.0], array.shape)
    moved = in_float64(array) + NEARBY_DISTANCE * scale_of(array) * own_scales(array) * offsets * signs
    return at | {name: moved.astype(array.dtype)}


def all_beside(at: Leaves, rng: np.random.Generator) -> Leaves:
    """Returns the point with the elements of every leaf moved by a thousandth of their size."""
    for name in at:
        at = beside(at, name, rng)
    return at


def distant_points(at: Leaves, rng: np.random.Generator) -> Iterator[tuple[Point, Leaves]]:
    """Yields points at which a gradient that is zero at the given point may not be zero.

    All leaves are moved by half of their values, then negated, then drawn with their own scale, then with scale 1: the
    gradient of a leaf that is tiny next to the others may vanish at its own scale.
    """

    def changed(make: str) -> Leaves:
        moved = {}
        for name, array in at.items():
            values, scale = in_float64(array), scale_of(array)
            drawn = scale * rng.standard_normal(array.shape)
            if make == "moved":
                other = values * (1 + 0.5 * rng.uniform(-1, 1, array.shape)) + 0.1 * drawn
            elif make == "flipped":
                other = -values + 0.01 * drawn
            else:
                other = drawn if make == "drawn" else drawn / scale
            moved[name] = np.where(np.isfinite(values), other, values).astype(array.dtype)
        return moved

    yield Point.MOVED, changed("moved")
    yield Point.FLIPPED, changed("flipped")
    yield Point.DRAWN, changed("drawn")
    yield Point.DRAWN, changed("drawn to one scale")


def other_integers(integers: Leaves, at: Leaves, rng: np.random.Generator) -> Leaves:
    """Returns newly drawn ids or labels.

    They are below the smallest axis of a leaf that is longer than the largest given id. In a table of 6 rows of 3, ids
    up to 5 are drawn below 6; if all given ids are 0, they are drawn below 3.
    """
    sizes = sorted({size for array in at.values() for size in array.shape})
    drawn = {}
    for name, ids in integers.items():
        largest = int(ids.max(initial=0))
        bound = next((size for size in sizes if size > largest + 1), largest + 1)
        drawn[name] = rng.integers(0, bound, ids.shape).astype(ids.dtype)
    return drawn
