"""A sum over the wrong elements: another axis, too many axes, a part of the samples, the last of several ids.

The gradient of what was broadcast, or shared by samples, is a sum of contributions. Where the contributions are known
(`dout`, `dout` times an array, outer products of x and `dout`), the claimed gradient shows which of them it adds up.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from jaxnet.crosscheck.explain.evidence import Array, Diagnosis, Evidence, Slip
from jaxnet.crosscheck.explain.wording import axes_in_words

MOST_TERMS = 1 << 18  # contributions times compared elements
MOST_FITTED = 64  # weights of contributions

Sum = Callable[[], Array]


def slips(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields what is summed over that should not be, or is left out of a sum."""
    for find in (_wrong_axis, _too_much, _partial, _wrong_multiplier, _cumulative):
        found = next(find(evidence), None)
        if found is not None:
            yield found
            return


def duplicates(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields what became of rows that several ids share: they get the sum of the gradients."""
    dout = evidence.dout
    for name, ids in evidence.given.integers.items():
        if ids.ndim == 0 or dout.shape[: ids.ndim] != ids.shape or evidence.shape[1:] != dout.shape[ids.ndim :]:
            continue
        if not ids.size or ids.min() < -len(evidence.whole) or ids.max() >= len(evidence.whole):
            continue
        found = next(_of_ids(name, ids.ravel(), dout.reshape(ids.size, *evidence.shape[1:]), evidence), None)
        if found is not None:
            yield found


def _of_ids(name: str, ids: Array, rows: Array, evidence: Evidence) -> Iterator[Diagnosis]:
    shared = f"rows that {name} names more than once"
    row, rest = evidence.index[0], evidence.index[1:]
    positions, count = np.arange(ids.size), np.bincount(ids % len(evidence.whole), minlength=len(evidence.whole))
    last, first = np.zeros(len(evidence.whole), int), np.zeros(len(evidence.whole), int)
    last[ids], first[ids[::-1]] = positions, positions[::-1]
    for which, sentence in (
        (last, f"duplicates are overwritten: {shared} keep the last gradient only"),
        (first, f"duplicates are left out: {shared} keep the first gradient only"),
    ):
        if evidence.matches_claimed(np.where(count[row] > 0, rows[(which[row], *rest)], 0.0)):
            summed = np.zeros(evidence.shape)
            np.add.at(summed, ids, rows)
            found = evidence.found(Slip.OVERWRITTEN, sentence, summed[evidence.index], partial(np.asarray, summed))
            if found is not None:
                yield found
    times = count.reshape(-1, *[1] * len(rest))
    sentence = f"duplicates are averaged: {shared} get the mean, not the sum"
    found = evidence.found(Slip.AVERAGED, sentence, evidence.claimed * count[row], lambda: evidence.whole * times)
    if found is not None:
        yield found


def _wrong_axis(evidence: Evidence) -> Iterator[Diagnosis]:
    """`dout`, summed over other axes than the right ones."""
    dout, ndim = evidence.dout, len(evidence.shape)
    if not ndim < dout.ndim <= 5:
        return
    sums: dict[tuple[int, ...], Array] = {}
    for axes in itertools.combinations(range(dout.ndim), dout.ndim - ndim):
        if tuple(n for a, n in enumerate(dout.shape) if a not in axes) == evidence.shape:
            sums[axes] = dout.sum(axis=axes)
    for axes, claimed in sums.items():
        if not evidence.matches_claimed(claimed[evidence.index]):
            continue
        for right in sums.values():
            found = evidence.found(
                Slip.WRONG_AXIS,
                f"it is dout summed over the wrong axis: over {axes_in_words(axes)}",
                right[evidence.index],
                partial(lambda right: right, right),
            )
            if found is not None:
                yield found


def _too_much(evidence: Evidence) -> Iterator[Diagnosis]:
    """It is alike along some axes, and there the sum or the mean of the true gradient."""
    ndim = len(evidence.shape)
    every = tuple(range(ndim))
    for axes in dict.fromkeys([*((a,) for a in every), *itertools.combinations(every, 2), every]):
        size = math.prod(evidence.shape[a] for a in axes)
        first = evidence.whole[tuple(slice(0, 1) if a in axes else slice(None) for a in every)]
        if size < 2 or not np.abs(evidence.whole - first).max() <= 1e-9 * np.abs(first).max(initial=0.0):
            continue
        broadcast = f"over {axes_in_words(axes)}, broadcast: summed over an axis too many"
        if evidence.full:
            values = evidence.whole_true.sum(axis=axes, keepdims=True)
            for what, scale in (("sum", 1), ("mean", size)):
                made = np.broadcast_to(values / scale, evidence.shape)
                room = max(evidence.relative * (size if what == "sum" else 1), 1e-6) * evidence.scale
                if np.abs(made - evidence.whole).max() <= room and evidence.strong() and evidence.relative < 0.01:
                    sentence = f"it is the true gradient's {what} {broadcast}"
                    yield Diagnosis(Slip.SUMMED_TOO_MUCH, (), sentence, True)
        yield from _too_much_of_dout(evidence, axes, broadcast)


def _too_much_of_dout(evidence: Evidence, axes: tuple[int, ...], broadcast: str) -> Iterator[Diagnosis]:
    """The same where the true gradient is a sum of `dout`, measured or not."""
    dout = evidence.dout
    extra = tuple(range(dout.ndim - len(evidence.shape)))
    if dout.shape[len(extra) :] != evidence.shape:
        return
    right = dout.sum(axis=extra)
    for what, made in (("sum", right.sum(axis=axes, keepdims=True)), ("mean", right.mean(axis=axes, keepdims=True))):
        if evidence.matches_claimed(evidence.at(made)):
            found = evidence.found(
                Slip.SUMMED_TOO_MUCH,
                f"it is the true gradient's {what} {broadcast}",
                right[evidence.index],
                lambda: right,
            )
            if found is not None:
                yield found


Terms = tuple[str, Array, Sum, tuple[int, ...]]  # name, (*sizes, compared), the whole sum, the axes of the sizes


def contributions(evidence: Evidence) -> Iterator[Terms]:
    """Yields the terms that a gradient may be a sum of, at the compared elements."""
    yield from _broadcast_terms(evidence)
    yield from _outer_terms(evidence)


def _broadcast_terms(evidence: Evidence) -> Iterator[Terms]:
    """`dout`, or `dout` times an array, summed over the axes that the leaf was broadcast along."""
    dout, ndim = evidence.dout, len(evidence.shape)
    if not ndim < dout.ndim <= 5:
        return
    for axes in itertools.combinations(range(dout.ndim), dout.ndim - ndim):
        rest = tuple(a for a in range(dout.ndim) if a not in axes)
        if tuple(dout.shape[a] for a in rest) != evidence.shape:
            continue
        for name, factor in _multipliers(evidence, axes):
            moved = np.transpose(dout if factor is None else dout * factor, axes + rest)
            if moved.size > 4 * MOST_TERMS and factor is not None:
                continue
            terms = moved[(slice(None),) * len(axes) + evidence.index]
            label = f"dout * {name}" if name else "dout"
            count = len(axes)
            yield label, terms, partial(lambda moved, count: moved.sum(axis=tuple(range(count))), moved, count), axes


def _multipliers(evidence: Evidence, axes: tuple[int, ...]) -> Iterator[tuple[str, Array | None]]:
    shape = evidence.dout.shape
    yield "", None
    for name, array in {**evidence.leaves, "output": evidence.output}.items():
        if array.shape != shape or (name == "output" and evidence.output is evidence.dout):
            continue
        yield name, array
        if name != "output":
            for over in dict.fromkeys([axes, (array.ndim - 1,), tuple(range(1, array.ndim))]):
                for eps in (0.0, *epsilons(evidence)):
                    std = np.sqrt(array.var(axis=over, keepdims=True) + eps)
                    if (std > 0).all():
                        with_eps = f" and eps = {eps:g}" if eps else ""
                        words = f"({name} - mean) / std, over {axes_in_words(over)}{with_eps}"
                        yield words, (array - array.mean(axis=over, keepdims=True)) / std
                    root = np.sqrt((array**2).mean(axis=over, keepdims=True) + eps)
                    if (root > 0).all():
                        yield f"{name} / rms, over {axes_in_words(over)}", array / root


def epsilons(evidence: Evidence) -> tuple[float, ...]:
    """Returns the numbers that may stand under a root, the layer's own first."""
    own = [float(v) for k, v in evidence.given.numbers.items() if 0 < v < 0.1 or (0 < v <= 1 and "eps" in k.lower())]
    return tuple(dict.fromkeys(own or [1e-5, 1e-6, 1e-8, 1e-3, 1e-12]))


def _outer_terms(evidence: Evidence) -> Iterator[Terms]:
    """Outer products of the samples with `dout`: the terms of x.T @ dout, over all axes but the last."""
    dout, shape = evidence.dout, evidence.shape
    if len(shape) != 2 or dout.ndim < 2:
        return
    for name, x in evidence.leaves.items():
        if x.ndim != dout.ndim or x.shape[:-1] != dout.shape[:-1]:
            continue
        for turned in (False, True):
            left, right = (dout, x) if turned else (x, dout)
            if (left.shape[-1], right.shape[-1]) != shape:
                continue
            if math.prod(dout.shape[:-1]) * evidence.compared.size > MOST_TERMS:
                continue
            terms = left[..., evidence.index[0]] * right[..., evidence.index[1]]
            label = f"dout.T @ {name}" if turned else f"{name}.T @ dout"

            def whole(left: Array = left, right: Array = right) -> Array:
                return left.reshape(-1, left.shape[-1]).T @ right.reshape(-1, right.shape[-1])

            yield label, terms, whole, tuple(range(dout.ndim - 1))


def _partial(evidence: Evidence) -> Iterator[Diagnosis]:
    """Some of the terms of the right sum."""
    for label, terms, whole, axes in contributions(evidence):
        over = tuple(range(len(axes)))
        total = terms.sum(axis=over)
        if not evidence.fits(total):
            continue
        for position, axis in enumerate(axes):
            along = np.moveaxis(terms, position, 0).reshape(terms.shape[position], -1, terms.shape[-1]).sum(axis=1)
            for clause, weights in _parts(len(along)):
                if evidence.matches_claimed(np.tensordot(weights, along, 1)):
                    sentence = f"it is the sum of {label} with {clause} along axis {axis}"
                    yield from _confirmed(evidence, Slip.PARTIAL_SUM, sentence, total, whole)
            if weights_fit := _fitted_part(along, evidence):
                sentence = f"it is the sum of {label} with {weights_fit} along axis {axis}"
                yield from _confirmed(evidence, Slip.PARTIAL_SUM, sentence, total, whole)


def _confirmed(evidence: Evidence, slip: Slip, sentence: str, total: Array, whole: Sum) -> Iterator[Diagnosis]:
    found = evidence.found(slip, sentence, total, whole)
    if found is not None:
        yield found


def _parts(n: int) -> Iterator[tuple[str, Array]]:
    """Yields what people leave out of a sum of n terms."""
    if n < 2:
        return
    place = np.arange(n)
    for clause, chosen in (
        ("the last term alone", place == n - 1),
        ("the first term alone", place == 0),
        ("the last term left out", place < n - 1),
        ("the first term left out", place > 0),
        ("the first half alone", place < n // 2),
        ("the last half alone", place >= n - n // 2),
        ("every second term alone", place % 2 == 0),
    ):
        yield clause, chosen.astype(float)
    yield "the mean for the sum", np.full(n, 1.0 / n)
    for block in (2, 3, 4, 5, 8, 16, 32, 64, 128, 256):
        if block < n and n % block:
            yield f"the last block lost, {n % block} terms of {n},", (place < n - n % block).astype(float)


def _fitted_part(along: Array, evidence: Evidence) -> str:
    """Returns which terms are left out, by fitting a weight to each term, if these are all 0 or 1."""
    count, compared = along.shape
    if not 2 < count <= MOST_FITTED or compared < 2 * count:
        return ""
    weights, _, rank, _ = np.linalg.lstsq(along.T, evidence.claimed, rcond=None)
    if rank < count or not evidence.matches_claimed(weights @ along):
        return ""
    chosen = np.round(weights)
    if np.abs(weights - chosen).max() > 1e-3 or not np.isin(chosen, (0, 1)).all() or chosen.all() or not chosen.any():
        return ""
    lost = np.flatnonzero(chosen == 0)
    names = ", ".join(map(str, lost[:5])) + (", ..." if lost.size > 5 else "")
    if lost.size > 1 and lost[-1] == count - 1 and lost[-1] - lost[0] == lost.size - 1:
        return f"the last {lost.size} terms lost"
    return f"the terms {names} left out" if lost.size > 1 else f"term {names} left out"


def _wrong_multiplier(evidence: Evidence) -> Iterator[Diagnosis]:
    """`dout` times another array than the right one, summed: x for (x - mean) / std, or nothing."""
    claimed: list[tuple[str, Array]] = []
    right: list[tuple[str, Array, Sum]] = []
    for label, terms, whole, axes in contributions(evidence):
        total = terms.sum(axis=tuple(range(len(axes))))
        if evidence.matches_claimed(total):
            claimed.append((f"{label} summed over {axes_in_words(axes)}", total))
        elif evidence.fits(total):
            right.append((f"{label} summed over {axes_in_words(axes)}", total, whole))
    for made, _ in claimed:
        for belongs, total, whole in right:
            missing = made.startswith("dout summed")
            sentence = f"it is {made}" + (
                f": what dout is to be multiplied by is missing, {belongs} belongs there"
                if missing
                else f", where {belongs} belongs"
            )
            yield from _confirmed(evidence, Slip.WRONG_MULTIPLIER, sentence, total, whole)
    if claimed and not right and claimed[0][0].startswith("dout summed") and evidence.strong():
        sentence = f"it is {claimed[0][0]}: what dout is to be multiplied by is missing"
        yield Diagnosis(Slip.WRONG_MULTIPLIER, (), sentence, evidence.full)


def _cumulative(evidence: Evidence) -> Iterator[Diagnosis]:
    """A cumulative sum in the forward's order, where the backward's runs from the end."""
    dout = evidence.dout
    if dout.shape != evidence.shape:
        return
    for axis in range(dout.ndim):
        groups = evidence.groups((axis,))
        onward = groups.candidate(lambda d: d.cumsum(axis=1), dout)
        back = groups.candidate(lambda d: d[:, ::-1].cumsum(axis=1)[:, ::-1], dout)
        for made, right in ((onward, back), (back, onward)):
            if evidence.matches_claimed(made[0], where=groups.inside):
                sentence = f"the sum along axis {axis} runs in the wrong order: from the other end"
                found = groups.found(Slip.CUMULATIVE, sentence, right)
                if found is not None:
                    yield found
