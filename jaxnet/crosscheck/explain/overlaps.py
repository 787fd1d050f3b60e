"""Recognizes windows that overwrite each other's gradients where they overlap: `dx[patch] = ...` instead of `+=`."""

import itertools
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from jaxnet.crosscheck.explain.evidence import Evidence
from jaxnet.crosscheck.explain.slips import Array, Diagnosis, Slip
from jaxnet.crosscheck.measure.windows import Reach

MOST_TRIED = 24  # wrong elements, and as many others
ORDERS: tuple[Literal["C", "F"], ...] = ("C", "F")  # of the loops over the windows: the last axis fastest, or slowest
SENTENCE = (
    "overlapping windows overwrite each other: an element of several windows gets the gradient of the {} one alone: "
    "= where += is needed"
)


class _Element(NamedTuple):
    """Which outputs an element reaches, and their contributions to its derivative."""

    covered: Array
    contributions: Array


def slips(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields windows that overwrite, if each element has the contribution of the last, or the first, window over it."""
    reach = evidence.inputs.reach
    places = np.flatnonzero(evidence.wrong)
    if reach is None or places.size < 2 or evidence.dout.size < 2:
        return
    corners = (0, evidence.whole.size - 1, int(evidence.compared[places[0]]))
    if not _window_axes([reach.covered(place, both=False) for place in corners]):
        return
    chosen = np.concatenate([places[:MOST_TRIED], np.flatnonzero(~evidence.wrong)[:MOST_TRIED]])
    elements = {i: _measured(reach, int(evidence.compared[i])) for i in chosen}
    axes = _window_axes([element.covered for element in elements.values()])
    if not axes:
        return
    measured = np.isin(np.arange(evidence.compared.size), chosen)
    for order, end in itertools.product(ORDERS, ("last", "first")):
        candidate = evidence.claimed.copy()
        for i, element in elements.items():
            candidate[i] += element.contributions.sum() - _of_one_window(element, axes, order, end)
        yield from evidence.test(Slip.OVERWRITTEN, SENTENCE.format(end), candidate, where=measured)


def _measured(reach: Reach, place: int) -> _Element:
    return _Element(reach.covered(place), reach.contributions(place))


def _window_axes(covered: list[Array]) -> list[int]:
    """Returns the axes of the output that number windows; none if nothing slides over the elements.

    Along other axes, as channels, an element reaches all indices. Windows begin after some elements and end before
    others. In a cumulative sum or a recurrent layer, all elements reach the last index.
    """
    ndim = covered[0].ndim
    reached = [
        np.array([mask.any(axis=tuple(a for a in range(ndim) if a != axis)) for mask in covered])
        for axis in range(ndim)
    ]
    slides = [not r[:, 0].all() and not r[:, -1].all() and r.sum(axis=1).max() > 1 for r in reached]
    return [axis for axis in range(ndim) if not reached[axis].all()] if any(slides) else []


def _of_one_window(element: _Element, axes: list[int], order: Literal["C", "F"], end: str) -> float:
    """Returns the contribution of the last or the first window over an element."""
    shape = element.covered.shape
    if not element.covered.any():
        return float(element.contributions.sum())
    index = np.indices(shape)[axes].reshape(len(axes), -1)
    number = np.ravel_multi_index(tuple(index), tuple(shape[a] for a in axes), order=order).reshape(shape)
    over = number[element.covered]
    window = over.max() if end == "last" else over.min()
    return float(element.contributions[number == window].sum())
