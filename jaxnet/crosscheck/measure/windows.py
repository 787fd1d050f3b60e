"""Measures which outputs an element of an array reaches: those of the windows of a convolution or a pool over it."""

from functools import cached_property

import numpy as np

from jaxnet.crosscheck.dtypes import in_float64
from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves

FAR = 4.0  # how far an element moves, in units of the largest: it becomes the maximum of every window over it
STEP = 2.0**-16  # of a difference quotient, in the same unit: small, so that no other element becomes the maximum
CHANGED = 1e-12  # the smallest change of an output that counts, relative to the largest output
MOST_MOVED = 16  # elements along an axis that are moved


class Reach:
    """The outputs that an element of a leaf reaches, and how much each of them contributes to its derivative.

    Args:
        checkable: The code that is checked.
        at: The values of its leaves.
        name: The leaf.
        dout: The upstream gradient.
    """

    def __init__(self, checkable: Checkable, at: Leaves, name: str, dout: Array) -> None:
        self.checkable, self.at, self.name, self.dout = checkable, at, name, dout
        self.unit = float(np.abs(at[name]).max(initial=0.0)) or 1.0

    @cached_property
    def output(self) -> Array:
        """The output where nothing moves."""
        return self._moved(0, 0.0)

    def covered(self, place: int, *, both: bool = True) -> Array:
        """Returns whether each output depends on an element, which is moved far.

        Args:
            place: The flat index of the element.
            both: Whether it is moved down as well as up. Only a minimum needs that.
        """
        threshold = CHANGED * np.abs(self.output).max(initial=0.0)
        moved = [self._moved(place, sign * FAR * self.unit) for sign in ((1, -1) if both else (1,))]
        return np.any([np.abs(output - self.output) > threshold for output in moved], axis=0)

    def contributions(self, place: int) -> Array:
        """Returns the derivative of each output by an element, times its upstream gradient."""
        step = STEP * self.unit
        return self.dout * (self._moved(place, step) - self._moved(place, -step)) / (2 * step)

    def _moved(self, place: int, by: float) -> Array:
        moved = self.at[self.name].copy()
        moved.flat[place] += by
        arrays = {name: array.copy() for name, array in self.at.items()}
        return in_float64(self.checkable.forward(arrays | {self.name: moved}))


def windows_are_disjoint(checkable: Checkable, name: str, output: Array) -> bool:
    """Returns whether windows slide over an input without overlapping, as where the stride is the size of the window.

    Along an axis that the output shortens, neighbours then reach one index each, some of them the same one.

    Args:
        checkable: The code that is checked.
        name: The input, of the output's number of axes, three or more.
        output: The output.
    """
    x = checkable.leaves[name]
    if x.ndim != output.ndim or x.ndim < 3:
        return False
    reach = Reach(checkable, checkable.leaves, name, output)
    return any(
        _is_disjoint_along(axis, reach, x) for axis in range(x.ndim) if 1 < output.shape[axis] <= x.shape[axis] // 2
    )


def _is_disjoint_along(axis: int, reach: Reach, x: Array) -> bool:
    length = min(2 * (x.shape[axis] // reach.dout.shape[axis]), MOST_MOVED)
    others = tuple(i for i in range(x.ndim) if i != axis)
    reached: list[int] = []
    for i in range(length):
        index = tuple(i if a == axis else 0 for a in range(x.ndim))
        along = np.flatnonzero(reach.covered(int(np.ravel_multi_index(index, x.shape)), both=False).any(axis=others))
        if along.size > 1:
            return False
        reached += along.tolist()
    return len(reached) > len(set(reached)) > 1 and reached == sorted(reached)
