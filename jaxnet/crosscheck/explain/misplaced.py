"""Recognizes the right numbers in the wrong places: transposed, reversed, shifted, exchanged.

A hypothesis says at which place of the claimed gradient the number for a given place should be. It is tested at the
compared elements, and the whole candidate is built only if it fits there.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from jaxnet.crosscheck.explain.evidence import Evidence
from jaxnet.crosscheck.explain.phrases import axes_in_words, line_of
from jaxnet.crosscheck.explain.slips import Array, Diagnosis, Slip

MOST_AXES = 4  # the most axes whose permutations are all tried
FARTHEST = 32  # the longest shift tried
BLOCKS = 2, 3, 4  # the numbers of blocks that an axis is divided into
MOST_OFFSETS = 1024  # the most places tried at which a part may be cut out of dout
MOST_SORTED = 4096  # the most elements of a leaf whose rows are matched by sorting

Move = Callable[[Array], Array]


def slips(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields how the numbers of the true gradient were moved."""
    for find in (_transposed, _reshaped, _reversed, _rolled, _by_index, _blocks, _permuted):
        yield from find(evidence)


def from_dout(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields how `dout` was moved, if the true gradient is `dout` moved in another way."""
    yield from _orders_of_dout(evidence)
    yield from _crops(evidence)


def _moved(evidence: Evidence, slip: Slip, sentence: str, move: Move) -> Iterator[Diagnosis]:
    """Yields the slip if `move` turns the claimed gradient into the true one."""
    moved = move(evidence.whole)
    if moved.shape == evidence.shape:
        if evidence.dout.shape == evidence.shape and evidence.matches_claimed(evidence.dout[evidence.index]):
            sentence += ": it is dout itself"
        yield from evidence.test(slip, sentence, moved[evidence.index], lambda: moved)


def _orders(ndim: int) -> Iterator[tuple[int, ...]]:
    """Yields every order of the axes of an array other than its own."""
    if 2 <= ndim <= MOST_AXES:
        yield from itertools.islice(itertools.permutations(range(ndim)), 1, None)


def _transposed(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields axes in another order."""
    ndim = len(evidence.shape)
    for order in _orders(ndim):
        changed = [i for i, axis in enumerate(order) if i != axis]
        if ndim == 2:
            sentence = "it equals the true gradient transposed"
        elif len(changed) == 2:
            sentence = f"it equals the true gradient with axes {changed[0]} and {changed[1]} exchanged: transposed"
        else:
            sentence = f"it equals the true gradient with its axes in another order, {axes_in_words(order)}: transposed"
        yield from _moved(
            evidence, Slip.TRANSPOSED, sentence, partial(lambda order, a: a.transpose(np.argsort(order)), order)
        )


def _reshaped(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields the memory order of a transpose: claimed = true.transpose(order).reshape(shape)."""
    sentence = (
        "it holds the numbers of the true gradient in the order of its transpose: a reshape instead of a transpose"
    )
    for order in _orders(len(evidence.shape)):
        back = tuple(int(i) for i in np.argsort(order))
        shape = tuple(evidence.shape[a] for a in order)
        yield from _moved(
            evidence,
            Slip.RESHAPED,
            sentence,
            partial(lambda shape, back, a: a.reshape(shape).transpose(back), shape, back),
        )


def _reversed(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields reversed axes, such as those of a kernel that is not flipped."""
    ndim = len(evidence.shape)
    for count in range(1, min(ndim, MOST_AXES) + 1):
        for axes in itertools.combinations(range(ndim), count):
            sentence = f"it equals the true gradient reversed along {axes_in_words(axes)}"
            if axes == (ndim - 2, ndim - 1) and ndim >= 3:
                sentence = "it equals the true gradient reversed along its last two axes: a kernel that is not flipped"
            yield from _moved(evidence, Slip.REVERSED, sentence, partial(lambda axes, a: np.flip(a, axes), axes))


def _shifts(evidence: Evidence) -> Iterator[tuple[int, int]]:
    """Yields (axis, distance), both distances of a length before the next longer ones."""
    for axis, length in enumerate(evidence.shape):
        for by in range(1, min(FARTHEST, length // 2) + 1):
            yield axis, by
            if 2 * by != length:
                yield axis, -by


def _rolled(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a cyclic shift, or a shift of an array that is zero at its ends."""
    for axis, by in _shifts(evidence):
        index = list(evidence.index)
        index[axis] = (index[axis] + by) % evidence.shape[axis]
        sentence = f"it equals the true gradient rolled by {by} along axis {axis}"
        yield from evidence.test(
            Slip.ROLLED,
            sentence + (": shifted by one" if abs(by) == 1 else ": put in the wrong place"),
            evidence.whole[tuple(index)],
            partial(lambda by, axis: np.roll(evidence.whole, -by, axis), by, axis),
        )


def shifted(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a shift that is not cyclic: other numbers stand at the end."""
    for axis, by in _shifts(evidence):
        index, length = list(evidence.index), evidence.shape[axis]
        source = index[axis] + by
        inside = (source >= 0) & (source < length)
        if length <= 2 * abs(by) or (evidence.wrong & inside).sum() < 4:
            continue
        index[axis] = np.clip(source, 0, length - 1)
        line = line_of(axis, evidence).rstrip(":")
        distance = "one" if abs(by) == 1 else abs(by)
        sentence = (
            f"it is shifted by {distance} along axis {axis}: "
            f"{line} i {'+' if by > 0 else '-'} {abs(by)} holds the values of {line} i"
        )
        yield from evidence.test(Slip.ROW_SHIFT, sentence, evidence.whole[tuple(index)], where=inside)


def _blocks(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields equal blocks in another order, such as the gates of an LSTM."""
    for axis, length in enumerate(evidence.shape):
        for count in BLOCKS:
            if length % count or length == count:
                continue
            size = length // count
            block, within = np.divmod(evidence.index[axis], size)
            for order in itertools.islice(itertools.permutations(range(count)), 1, None):
                source = np.asarray(order)[block] * size + within
                index = (*evidence.index[:axis], source, *evidence.index[axis + 1 :])
                yield from evidence.test(
                    Slip.BLOCKS_EXCHANGED,
                    f"its {count} blocks along axis {axis} are in the wrong order: {', '.join(map(str, order))}",
                    evidence.whole[index],
                    partial(_in_blocks, evidence.whole, axis, size, order),
                )


def _in_blocks(array: Array, axis: int, size: int, order: tuple[int, ...]) -> Array:
    lines = np.concatenate([np.arange(b * size, (b + 1) * size) for b in order])
    return np.asarray(np.take(array, lines, axis))


def _permuted(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields rows or the like in any other order, matched by sorting one projection of them."""
    if not evidence.full or evidence.whole.size > MOST_SORTED:
        return
    for axis in range(len(evidence.shape)):
        claimed = np.moveaxis(evidence.whole, axis, 0).reshape(evidence.shape[axis], -1)
        true = np.moveaxis(evidence.whole_true, axis, 0).reshape(evidence.shape[axis], -1)
        weights = np.cos(np.arange(claimed.shape[1]) + 1.0)
        order = np.empty(len(true), int)
        order[np.argsort(true @ weights)] = np.argsort(claimed @ weights)
        if claimed.shape[1] < 2 or (order == np.arange(len(order))).all():
            continue
        line = line_of(axis, evidence).rstrip(":")
        first = int(np.flatnonzero(order != np.arange(len(order)))[0])
        sentence = (
            f"the order along axis {axis} is wrong: {line} {int(order[first])} holds the values of {line} {first}"
        )
        candidate = np.take(evidence.whole, order, axis)
        yield from evidence.test(Slip.PERMUTED, sentence, candidate[evidence.index], partial(np.asarray, candidate))


def _by_index(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a permutation, given by integers, that is applied instead of its inverse, or not undone."""
    for name, ids in evidence.inputs.integers.items():
        if ids.ndim != 1 or not evidence.shape or len(ids) != evidence.shape[0]:
            continue
        if not np.array_equal(np.sort(ids), np.arange(len(ids))):
            continue
        inverse = np.argsort(ids)
        for source, sentence in (
            (inverse[inverse], f"{name} is applied again instead of its inverse"),
            (inverse, f"its rows are in the order of {name}"),
            (np.asarray(ids), f"its rows are not put in the order of {name}"),
        ):
            yield from _moved(evidence, Slip.PERMUTED, sentence, partial(lambda source, a: a[source], source))


def _orders_of_dout(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields `dout` with its axes in one order, reshaped, if the true gradient is that with another order."""
    dout = evidence.dout
    if dout.size != evidence.whole.size or not 2 <= dout.ndim <= MOST_AXES:
        return
    reordered = {}
    for order in itertools.permutations(range(dout.ndim)):
        places = np.unravel_index(evidence.compared, tuple(dout.shape[a] for a in order))
        reordered[order] = dout[tuple(places[i] for i in np.argsort(order))]
    in_fortran_order = np.ravel_multi_index(evidence.index, evidence.shape, order="F")
    column_first = dout.ravel(order="F")[in_fortran_order]
    for order, values in reordered.items():
        if not evidence.fits(values):
            continue
        whole = partial(lambda order: dout.transpose(order).reshape(evidence.shape), order)
        if evidence.matches_claimed(column_first):
            sentence = "it is dout reshaped in Fortran order, with the first axis fastest"
            yield from evidence.test(Slip.RESHAPED, sentence, values, whole)
        for other, claimed in reordered.items():
            if not evidence.matches_claimed(claimed):
                continue
            sentence = (
                f"it is dout with its axes in the order {_tuple(other)}, reshaped; the right order is {_tuple(order)}"
                if other != tuple(range(dout.ndim))
                else f"it is dout itself, reshaped: its axes must first be put in the order {_tuple(order)}"
            )
            yield from evidence.test(Slip.TRANSPOSED, sentence, values, whole)


def _tuple(order: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, order))})"


def _crops(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a part of `dout` that was cut out at the wrong place."""
    dout = evidence.dout
    spare = [a - b for a, b in zip(dout.shape, evidence.shape, strict=False)]
    if dout.ndim != len(evidence.shape) or min(spare, default=-1) < 0 or not any(spare):
        return
    if math.prod(s + 1 for s in spare) > MOST_OFFSETS:
        return
    right, claimed = [], []
    for offset in itertools.product(*(range(s + 1) for s in spare)):
        values = dout[tuple(i + o for i, o in zip(evidence.index, offset, strict=True))]
        if evidence.matches_claimed(values):
            claimed.append(offset)
        if evidence.fits(values):
            right.append((offset, values))
    for offset, values in right:
        for other in claimed:
            axes = [a for a in range(dout.ndim) if offset[a] != other[a]]
            begins = ", ".join(f"it begins at {other[a]} instead of {offset[a]} along axis {a}" for a in axes)
            yield from evidence.test(
                Slip.CROPPED,
                f"it is cut out of dout at the wrong place: {begins}",
                values,
                partial(
                    lambda offset: dout[tuple(slice(o, o + n) for o, n in zip(offset, evidence.shape, strict=True))],
                    offset,
                ),
            )
