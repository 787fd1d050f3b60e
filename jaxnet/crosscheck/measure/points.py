"""Other points to look at, where the point that was brought shows nothing of a gradient."""

from collections.abc import Iterator
from enum import Enum

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Leaves
from jaxnet.crosscheck.measure.scale import in_float64, own_scales, scale_of

# Of a leaf's scale: eight times as far as a probe's first step goes, so that kinks at one value are out of its reach,
# and near enough to be the same point in all else.
BESIDE = 1e-3


class Point(Enum):
    """Where a leaf was judged."""

    GIVEN = "given"
    BESIDE = "beside"
    MOVED = "moved"
    DRAWN = "drawn"
    FLIPPED = "flipped"


def beside(at: Leaves, name: str, rng: np.random.Generator) -> Leaves:
    """Returns the point with one leaf a thousandth of its scale away from where it was, off its kinks."""
    array = at[name]
    offsets = np.linspace(1, 3, array.size)[rng.permutation(array.size)].reshape(array.shape)  # no two are alike
    moved = in_float64(array) + BESIDE * scale_of(array) * own_scales(array) * offsets * rng.choice(
        [-1.0, 1.0], array.shape
    )
    return at | {name: moved.astype(array.dtype)}


def all_beside(at: Leaves, rng: np.random.Generator) -> Leaves:
    """Returns the point with every leaf a thousandth of its scale away."""
    for name in at:
        at = beside(at, name, rng)
    return at


def elsewhere(at: Leaves, rng: np.random.Generator) -> Iterator[tuple[Point, Leaves]]:
    """Yields points at which a leaf whose gradient is zero here may show something.

    All leaves are moved by half of themselves, then negated, then drawn anew with their own scale, then with scale 1: a
    leaf that is tiny beside the others shows nothing at its own.
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
    """Returns ids or labels drawn anew: below the least size of a leaf's axis that is above all of them.

    A table of 6 rows of 3 has ids below 6; of those that are all 0, the drawn ones are below 3.
    """
    sizes = sorted({size for array in at.values() for size in array.shape})
    drawn = {}
    for name, ids in integers.items():
        largest = int(ids.max(initial=0))
        bound = next((size for size in sizes if size > largest + 1), largest + 1)
        drawn[name] = rng.integers(0, bound, ids.shape).astype(ids.dtype)
    return drawn
