"""Recognizes a sum over the wrong elements: another axis, too many axes, some of the samples, the last of equal ids.

The gradient of an array that was broadcast, or shared by samples, is a sum of terms. Where the terms are known (`dout`,
`dout` times an array, outer products of x and `dout`), the claimed gradient shows which of them were added.
"""

import itertools
import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from jaxnet.crosscheck.explain.evidence import Evidence, Make
from jaxnet.crosscheck.explain.phrases import axes_in_words, listed
from jaxnet.crosscheck.explain.slips import Array, Diagnosis, Slip

MOST_TERMS = 1 << 18  # the most terms times compared elements
MOST_FITTED = 64  # the most weights of terms that are fitted
FACTOR_MISSING = "the factor that multiplies dout is missing"


def slips(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a sum over other elements, or of other terms, than those of the true gradient."""
    for find in (_wrong_axis, _too_much, _partial, _wrong_multiplier, _cumulative):
        yield from find(evidence)


def duplicates(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields wrong gradients of rows that several ids share, which are the sums over those ids."""
    dout = evidence.dout
    for name, ids in evidence.inputs.integers.items():
        if ids.ndim == 0 or dout.shape[: ids.ndim] != ids.shape or evidence.shape[1:] != dout.shape[ids.ndim :]:
            continue
        if not ids.size or ids.min() < -len(evidence.whole) or ids.max() >= len(evidence.whole):
            continue
        yield from _shared_rows(name, ids.ravel(), dout.reshape(ids.size, *evidence.shape[1:]), evidence)


def _shared_rows(name: str, ids: Array, rows: Array, evidence: Evidence) -> Iterator[Diagnosis]:
    shared = f"rows that occur more than once in {name}"
    row, rest = evidence.index[0], evidence.index[1:]
    positions, count = np.arange(ids.size), np.bincount(ids % len(evidence.whole), minlength=len(evidence.whole))
    last, first = np.zeros(len(evidence.whole), int), np.zeros(len(evidence.whole), int)
    last[ids], first[ids[::-1]] = positions, positions[::-1]
    for source, sentence in (
        (last, f"duplicates are overwritten: {shared} keep only the last gradient"),
        (first, f"duplicates are left out: {shared} keep only the first gradient"),
    ):
        if evidence.matches_claimed(np.where(count[row] > 0, rows[(source[row], *rest)], 0.0)):
            summed = np.zeros(evidence.shape)
            np.add.at(summed, ids, rows)
            yield from evidence.test(Slip.OVERWRITTEN, sentence, summed[evidence.index], partial(np.asarray, summed))
    times = count.reshape(-1, *[1] * len(rest))
    sentence = f"duplicates are averaged: {shared} get the mean instead of the sum"
    yield from evidence.test(Slip.AVERAGED, sentence, evidence.claimed * count[row], lambda: evidence.whole * times)


def _wrong_axis(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields `dout` summed over the wrong axes."""
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
            yield from evidence.test(
                Slip.WRONG_AXIS,
                f"it is dout summed over the wrong axis: over {axes_in_words(axes)}",
                right[evidence.index],
                partial(np.asarray, right),
            )


def _too_much(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields the sum or the mean of the true gradient along some axes, where it is constant."""
    ndim = len(evidence.shape)
    every = tuple(range(ndim))
    for axes in dict.fromkeys([*((a,) for a in every), *itertools.combinations(every, 2), every]):
        size = math.prod(evidence.shape[a] for a in axes)
        first = evidence.whole[tuple(slice(0, 1) if a in axes else slice(None) for a in every)]
        if size < 2 or not np.abs(evidence.whole - first).max() <= 1e-9 * np.abs(first).max(initial=0.0):
            continue
        broadcast = f"over {axes_in_words(axes)}, broadcast: it is summed over too many axes"
        if evidence.full:
            values = evidence.whole_true.sum(axis=axes, keepdims=True)
            for what, scale in (("sum", 1), ("mean", size)):
                reduced = np.broadcast_to(values / scale, evidence.shape)
                slack = max(evidence.relative * (size if what == "sum" else 1), 1e-6) * evidence.scale
                if np.abs(reduced - evidence.whole).max() <= slack and evidence.strong() and evidence.relative < 0.01:
                    sentence = f"it is the true gradient's {what} {broadcast}"
                    yield Diagnosis(Slip.SUMMED_TOO_MUCH, (), sentence, True)
        yield from _too_much_of_dout(evidence, axes, broadcast)


def _too_much_of_dout(evidence: Evidence, axes: tuple[int, ...], broadcast: str) -> Iterator[Diagnosis]:
    """Yields the same if the true gradient is a sum of `dout`, even if it was not measured everywhere."""
    dout = evidence.dout
    extra = tuple(range(dout.ndim - len(evidence.shape)))
    if dout.shape[len(extra) :] != evidence.shape:
        return
    right = dout.sum(axis=extra)
    for what, reduce in (("sum", np.sum), ("mean", np.mean)):
        if evidence.matches_claimed(evidence.at(reduce(right, axis=axes, keepdims=True))):
            yield from evidence.test(
                Slip.SUMMED_TOO_MUCH,
                f"it is the true gradient's {what} {broadcast}",
                right[evidence.index],
                lambda: right,
            )


# name, terms of shape (*sizes, compared), a function that returns the whole sum, the axes of the sizes
Terms = tuple[str, Array, Make, tuple[int, ...]]


def contributions(evidence: Evidence) -> Iterator[Terms]:
    """Yields the terms that a gradient may be a sum of, at the compared elements."""
    yield from _broadcast_terms(evidence)
    yield from _outer_terms(evidence)


def _broadcast_terms(evidence: Evidence) -> Iterator[Terms]:
    """Yields `dout`, and `dout` times an array, as the terms of a leaf that was broadcast along some axes."""
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
    """Yields what `dout` may be multiplied by before it is summed: nothing, an array, a normalized array."""
    yield "", None
    for name, array in {**evidence.leaves, "output": evidence.output}.items():
        if array.shape != evidence.dout.shape or (name == "output" and evidence.output is evidence.dout):
            continue
        yield name, array
        if name != "output":
            yield from _normalized(name, array, axes, epsilons(evidence))


def _normalized(
    name: str, x: Array, axes: tuple[int, ...], eps_values: tuple[float, ...]
) -> Iterator[tuple[str, Array]]:
    """Yields (x - mean) / std and x / rms, over the axes of the sum and over those of a layer norm."""
    for over in dict.fromkeys([axes, (x.ndim - 1,), tuple(range(1, x.ndim))]):
        for eps in (0.0, *eps_values):
            std = np.sqrt(x.var(axis=over, keepdims=True) + eps)
            if (std > 0).all():
                with_eps = f", with eps = {eps:g}" if eps else ""
                mean = x.mean(axis=over, keepdims=True)
                yield f"({name} - mean) / std (over {axes_in_words(over)}{with_eps})", (x - mean) / std
            rms = np.sqrt((x**2).mean(axis=over, keepdims=True) + eps)
            if (rms > 0).all():
                yield f"{name} / rms (over {axes_in_words(over)})", x / rms


def epsilons(evidence: Evidence) -> tuple[float, ...]:
    """Returns the layer's own values of eps, or common ones if it has none."""
    own = [float(v) for k, v in evidence.inputs.numbers.items() if 0 < v < 0.1 or (0 < v <= 1 and "eps" in k.lower())]
    return tuple(dict.fromkeys(own or [1e-5, 1e-6, 1e-8, 1e-3, 1e-12]))


def _outer_terms(evidence: Evidence) -> Iterator[Terms]:
    """Yields outer products of the samples with `dout`: the terms of x.T @ dout, over all axes but the last."""
    dout, shape = evidence.dout, evidence.shape
    if len(shape) != 2 or dout.ndim < 2:
        return
    for name, x in evidence.leaves.items():
        if x.ndim != dout.ndim or x.shape[:-1] != dout.shape[:-1]:
            continue
        for is_transposed in (False, True):
            left, right = (dout, x) if is_transposed else (x, dout)
            if (left.shape[-1], right.shape[-1]) != shape:
                continue
            if math.prod(dout.shape[:-1]) * evidence.compared.size > MOST_TERMS:
                continue
            terms = left[..., evidence.index[0]] * right[..., evidence.index[1]]
            label = f"dout.T @ {name}" if is_transposed else f"{name}.T @ dout"

            def whole(left: Array = left, right: Array = right) -> Array:
                return left.reshape(-1, left.shape[-1]).T @ right.reshape(-1, right.shape[-1])

            yield label, terms, whole, tuple(range(dout.ndim - 1))


def _partial(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a sum of some of the right terms."""
    for label, terms, whole, axes in contributions(evidence):
        total = terms.sum(axis=tuple(range(len(axes))))
        if not evidence.fits(total):
            continue
        for position, axis in enumerate(axes):
            along = np.moveaxis(terms, position, 0).reshape(terms.shape[position], -1, terms.shape[-1]).sum(axis=1)
            for clause in _left_out(along, evidence):
                sentence = f"it is the sum of {label} with {clause} along axis {axis}"
                yield from evidence.test(Slip.PARTIAL_SUM, sentence, total, whole)


def _left_out(along: Array, evidence: Evidence) -> Iterator[str]:
    """Yields which of the terms the claimed gradient is a sum of."""
    for clause, weights in _parts(len(along)):
        if evidence.matches_claimed(np.tensordot(weights, along, 1)):
            yield clause
    yield from _fitted_part(along, evidence)


def _parts(n: int) -> Iterator[tuple[str, Array]]:
    """Yields common errors in a sum of n terms, as the weights of the terms."""
    if n < 2:
        return
    place = np.arange(n)
    for clause, chosen in (
        ("only the last term", place == n - 1),
        ("only the first term", place == 0),
        ("the last term left out", place < n - 1),
        ("the first term left out", place > 0),
        ("only the first half", place < n // 2),
        ("only the last half", place >= n - n // 2),
        ("only every second term", place % 2 == 0),
    ):
        yield clause, chosen.astype(float)
    yield "the mean instead of the sum", np.full(n, 1.0 / n)
    for block in (2, 3, 4, 5, 8, 16, 32, 64, 128, 256):
        if block < n and n % block:
            yield f"the last block lost, {n % block} terms of {n},", (place < n - n % block).astype(float)


def _fitted_part(along: Array, evidence: Evidence) -> Iterator[str]:
    """Yields which terms are left out, if fitted weights of the terms are all 0 or 1."""
    count, compared = along.shape
    if not 2 < count <= MOST_FITTED or compared < 2 * count:
        return
    weights, _, rank, _ = np.linalg.lstsq(along.T, evidence.claimed, rcond=None)
    if rank < count or not evidence.matches_claimed(weights @ along):
        return
    chosen = np.round(weights)
    if np.abs(weights - chosen).max() > 1e-3 or not np.isin(chosen, (0, 1)).all() or chosen.all() or not chosen.any():
        return
    lost = np.flatnonzero(chosen == 0)
    if lost.size > 1 and lost[-1] == count - 1 and lost[-1] - lost[0] == lost.size - 1:
        yield f"the last {lost.size} terms lost"
    else:
        yield f"the terms {listed(lost)} left out" if lost.size > 1 else f"term {lost[0]} left out"


def _wrong_multiplier(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a sum of `dout` times the wrong array, such as x instead of (x - mean) / std, or times no array."""
    claimed: list[str] = []
    right: list[tuple[str, Array, Make]] = []
    for label, terms, whole, axes in contributions(evidence):
        total = terms.sum(axis=tuple(range(len(axes))))
        name = f"{label} summed over {axes_in_words(axes)}"
        if evidence.matches_claimed(total):
            claimed.append(name)
        elif evidence.fits(total):
            right.append((name, total, whole))
    for name in claimed:
        for right_name, total, whole in right:
            missing = f": {FACTOR_MISSING}; it should be" if name.startswith("dout summed") else ", but should be"
            sentence = f"it is {name}{missing} {right_name}"
            yield from evidence.test(Slip.WRONG_MULTIPLIER, sentence, total, whole)
    if claimed and not right and claimed[0].startswith("dout summed") and evidence.strong():
        sentence = f"it is {claimed[0]}: {FACTOR_MISSING}"
        yield Diagnosis(Slip.WRONG_MULTIPLIER, (), sentence, evidence.full)


def _cumulative(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a cumulative sum that starts at the wrong end."""
    dout = evidence.dout
    if dout.shape != evidence.shape:
        return
    for axis in range(dout.ndim):
        groups = evidence.groups((axis,))
        from_start = groups.candidate(lambda d: d.cumsum(axis=1), dout)
        from_end = groups.candidate(lambda d: d[:, ::-1].cumsum(axis=1)[:, ::-1], dout)
        for claimed, right in ((from_start, from_end), (from_end, from_start)):
            if evidence.matches_claimed(claimed[0], where=groups.inside):
                sentence = f"the cumulative sum along axis {axis} starts at the wrong end"
                yield from groups.test(Slip.CUMULATIVE, sentence, right)
