"""The right numbers in the wrong places: transposed, reversed, shifted, exchanged.

Each hypothesis says from which place of the claimed gradient the number for a given place would have to come. So it is
tried at the compared elements alone, and an array is made only for the one that fits.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from jaxnet.crosscheck.explain.evidence import Array, Diagnosis, Evidence, Slip
from jaxnet.crosscheck.explain.wording import axes_in_words, line_of

MOST_AXES = 4  # whose permutations are all tried
FARTHEST = 32  # the longest shift that is tried
BLOCKS = 2, 3, 4
MOST_OFFSETS = 1024
MOST_LINES = 4096

Move = Callable[[Array], Array]


def slips(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields how the true gradient's numbers were moved."""
    for find in (_transposed, _reshaped, _reversed, _rolled, _by_index, _blocks, _permuted):
        found = next(find(evidence), None)
        if found is not None:
            yield found
            return


def from_dout(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields how `dout` was moved, where the right gradient is `dout`, moved otherwise."""
    for find in (_orders_of_dout, _crops):
        found = next(find(evidence), None)
        if found is not None:
            yield found
            return


def _moved(evidence: Evidence, slip: Slip, sentence: str, move: Move) -> Iterator[Diagnosis]:
    """Tries a view or a cheap rearrangement of the claimed gradient."""
    moved = move(evidence.whole)
    if moved.shape == evidence.shape:
        if evidence.dout.shape == evidence.shape and evidence.matches_claimed(evidence.dout[evidence.index]):
            sentence += ": it is dout itself"
        found = evidence.found(slip, sentence, moved[evidence.index], lambda: moved)
        if found is not None:
            yield found


def _transposed(evidence: Evidence) -> Iterator[Diagnosis]:
    ndim = len(evidence.shape)
    if not 2 <= ndim <= MOST_AXES:
        return
    for order in itertools.permutations(range(ndim)):
        changed = [i for i, axis in enumerate(order) if i != axis]
        if not changed:
            continue
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
    """The numbers lie in memory as those of a transpose: claimed = true.transpose(order).reshape(shape)."""
    ndim = len(evidence.shape)
    if not 2 <= ndim <= MOST_AXES:
        return
    sentence = "it holds the true gradient's numbers in the order of its transpose: a reshape where a transpose belongs"
    for order in itertools.permutations(range(ndim)):
        if order == tuple(range(ndim)):
            continue
        back = tuple(int(i) for i in np.argsort(order))
        shape = tuple(evidence.shape[a] for a in order)
        yield from _moved(
            evidence,
            Slip.RESHAPED,
            sentence,
            partial(lambda shape, back, a: a.reshape(shape).transpose(back), shape, back),
        )


def _reversed(evidence: Evidence) -> Iterator[Diagnosis]:
    ndim = len(evidence.shape)
    for count in range(1, min(ndim, MOST_AXES) + 1):
        for axes in itertools.combinations(range(ndim), count):
            sentence = f"it equals the true gradient in reverse along {axes_in_words(axes)}"
            if axes == (ndim - 2, ndim - 1) and ndim >= 3:
                sentence = (
                    "it equals the true gradient in reverse along its last two axes: a kernel that is not flipped"
                )
            yield from _moved(evidence, Slip.REVERSED, sentence, partial(lambda axes, a: np.flip(a, axes), axes))


def _rolled(evidence: Evidence) -> Iterator[Diagnosis]:
    """A cyclic shift, or one of what is zero at the ends."""
    for axis, by in _shifts(evidence):
        index = list(evidence.index)
        index[axis] = (index[axis] + by) % evidence.shape[axis]
        if not evidence.fits(evidence.whole[tuple(index)]):
            continue
        sentence = f"it equals the true gradient rolled by {by} along axis {axis}"
        found = evidence.found(
            Slip.ROLLED,
            sentence + (": shifted by one" if abs(by) == 1 else ": put in the wrong place"),
            evidence.whole[tuple(index)],
            partial(lambda by, axis: np.roll(evidence.whole, -by, axis), by, axis),
        )
        if found is not None:
            yield found


def _shifts(evidence: Evidence) -> Iterator[tuple[int, int]]:
    for axis, length in enumerate(evidence.shape):
        for by in range(1, min(FARTHEST, length // 2) + 1):
            yield axis, by
            if 2 * by != length:
                yield axis, -by


def shifted(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a shift at whose end something else stands."""
    for axis, by in _shifts(evidence):
        index, length = list(evidence.index), evidence.shape[axis]
        source = index[axis] + by
        inside = (source >= 0) & (source < length)
        if length <= 2 * abs(by) or (evidence.wrong & inside).sum() < 4:
            continue
        index[axis] = np.clip(source, 0, length - 1)
        what = line_of(axis, evidence).rstrip(":")
        plus = f"{what} i {'+' if by > 0 else '-'} {abs(by)}"
        distance = "one" if abs(by) == 1 else abs(by)
        sentence = f"it is shifted by {distance} along axis {axis}: {plus} holds what belongs to {what} i"
        found = evidence.found(Slip.ROW_SHIFT, sentence, evidence.whole[tuple(index)], where=inside)
        if found is not None:
            yield found


def _blocks(evidence: Evidence) -> Iterator[Diagnosis]:
    """Equal blocks in another order, as the gates of an LSTM."""
    for axis, length in enumerate(evidence.shape):
        for count in BLOCKS:
            if length % count or length == count:
                continue
            size = length // count
            block, within = np.divmod(evidence.index[axis], size)
            for order in itertools.permutations(range(count)):
                source = np.asarray(order)[block] * size + within
                index = (*evidence.index[:axis], source, *evidence.index[axis + 1 :])
                if order == tuple(range(count)) or not evidence.fits(evidence.whole[index]):
                    continue
                whole = np.concatenate([np.arange(b * size, (b + 1) * size) for b in order])
                found = evidence.found(
                    Slip.BLOCKS_EXCHANGED,
                    f"its {count} blocks along axis {axis} are in the wrong order: {', '.join(map(str, order))}",
                    evidence.whole[index],
                    partial(lambda whole, axis: np.asarray(np.take(evidence.whole, whole, axis)), whole, axis),
                )
                if found is not None:
                    yield found


def _permuted(evidence: Evidence) -> Iterator[Diagnosis]:
    """Lines in any other order, found by sorting them by one projection."""
    if not evidence.full or evidence.whole.size > MOST_LINES:
        return
    for axis in range(len(evidence.shape)):
        claimed = np.moveaxis(evidence.whole, axis, 0).reshape(evidence.shape[axis], -1)
        true = np.moveaxis(evidence.whole_true, axis, 0).reshape(evidence.shape[axis], -1)
        weights = np.cos(np.arange(claimed.shape[1]) + 1.0)
        order = np.empty(len(true), int)
        order[np.argsort(true @ weights)] = np.argsort(claimed @ weights)
        if claimed.shape[1] < 2 or (order == np.arange(len(order))).all():
            continue
        what = line_of(axis, evidence).rstrip(":")
        first = int(np.flatnonzero(order != np.arange(len(order)))[0])
        sentence = (
            f"the order along axis {axis} is wrong: {what} {int(order[first])} holds what belongs to {what} {first}"
        )
        candidate = np.take(evidence.whole, order, axis)
        found = evidence.found(Slip.PERMUTED, sentence, candidate[evidence.index], partial(lambda c: c, candidate))
        if found is not None:
            yield found


def _by_index(evidence: Evidence) -> Iterator[Diagnosis]:
    """A permutation given by integers, applied again where its inverse belongs."""
    for name, ids in evidence.given.integers.items():
        if ids.ndim != 1 or not evidence.shape or len(ids) != evidence.shape[0]:
            continue
        if not np.array_equal(np.sort(ids), np.arange(len(ids))):
            continue
        back = np.argsort(ids)
        for source, sentence in (
            (back[back], f"{name} is applied again, where its inverse belongs"),
            (back, f"its rows are in the order of {name}"),
            (np.asarray(ids), f"its rows are not put in the order of {name}"),
        ):
            yield from _moved(evidence, Slip.PERMUTED, sentence, partial(lambda source, a: a[source], source))


def _orders_of_dout(evidence: Evidence) -> Iterator[Diagnosis]:
    """`dout`, its axes in some order, reshaped: the claimed gradient in one order, the true one in another."""
    dout = evidence.dout
    if dout.size != evidence.whole.size or not 2 <= dout.ndim <= MOST_AXES:
        return
    orders = {}
    for order in itertools.permutations(range(dout.ndim)):
        places = np.unravel_index(evidence.compared, tuple(dout.shape[a] for a in order))
        orders[order] = dout[tuple(places[i] for i in np.argsort(order))]
    in_fortran_order = np.ravel_multi_index(evidence.index, evidence.shape, order="F")
    column_first = dout.ravel(order="F")[in_fortran_order]
    for order, values in orders.items():
        if not evidence.fits(values):
            continue
        if evidence.matches_claimed(column_first):
            sentence = "it is dout, read in Fortran's memory order: reshaped with the first axis fastest"
            found = evidence.found(
                Slip.RESHAPED,
                sentence,
                values,
                partial(lambda order: dout.transpose(order).reshape(evidence.shape), order),
            )
            if found is not None:
                yield found
        for other, made in orders.items():
            if not evidence.matches_claimed(made):
                continue
            sentence = (
                f"it is dout with its axes in the order {_order(other)}, reshaped; the right order is {_order(order)}"
                if other != tuple(range(dout.ndim))
                else f"it is dout itself, reshaped: its axes are to be put in the order {_order(order)} first"
            )
            found = evidence.found(
                Slip.TRANSPOSED,
                sentence,
                values,
                partial(lambda order: dout.transpose(order).reshape(evidence.shape), order),
            )
            if found is not None:
                yield found


def _order(order: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, order))})"


def _crops(evidence: Evidence) -> Iterator[Diagnosis]:
    """A part of `dout`, cut out at one place where it belongs to be cut out at another."""
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
            begins = ", ".join(f"at {other[a]} along axis {a} where it begins at {offset[a]}" for a in axes)
            found = evidence.found(
                Slip.CROPPED,
                f"it is cut out of dout at the wrong place: {begins}",
                values,
                partial(
                    lambda offset: dout[tuple(slice(o, o + n) for o, n in zip(offset, evidence.shape, strict=True))],
                    offset,
                ),
            )
            if found is not None:
                yield found
