"""Part of the gradient is wrong: not written, not masked, times a number."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from jaxnet.crosscheck.explain.evidence import ENOUGH, Array, Diagnosis, Evidence, Make, Slip
from jaxnet.crosscheck.explain.wording import SHOWN, in_a_block, line_of, number, rest_is_right, where

SET_OFF = 3.0  # the smallest error of what is called wrong, over the largest of what is called right
UNWRITTEN = 1e-290  # what memory that was never written often holds is smaller than this


def slips(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields what was done to a part of the gradient."""
    for find in (_missing, _mask_missing, _constant, _times, _inverted, _two_factors):
        found = next(find(evidence), None)
        if found is not None:
            yield found
            return


def place(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields the place alone, where at most half of the gradient is wrong and that half is set off from the rest."""
    if not 0 < evidence.wrong_places.size <= evidence.places.size // 2:
        return
    error = np.abs(evidence.whole - evidence.whole_true).ravel()
    smallest = error[evidence.wrong_places].min()
    error[evidence.wrong_places] = 0.0
    if smallest > SET_OFF * np.nanmax(error):
        sentence = f"{where(evidence.wrong_places, evidence)} wrong, and {rest_is_right(evidence)}"
        yield Diagnosis(Slip.PLACE, (), sentence, evidence.full)


def lines(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a factor for each index along an axis: a division by lengths, by counts, by other sums."""
    for axis, length in enumerate(evidence.shape if len(evidence.shape) > 1 else ()):
        index = evidence.index[axis]
        square = np.bincount(index, evidence.true**2, length)
        factor = np.bincount(index, evidence.true * evidence.claimed, length) / np.where(square > 0, square, 1.0)
        measured = np.unique(index[np.abs(evidence.true) > evidence.tolerance])
        if length < 2 or measured.size < 2 or (factor[measured] == 0).any():
            continue
        candidate = evidence.claimed / np.where(factor == 0, 1.0, factor)[index]
        if evidence.fits(candidate, parameters=int(measured.size)) and _each_twice(index, measured, evidence):
            what = line_of(axis, evidence).rstrip(":")
            some = ", ".join(number(float(factor[i]), evidence) for i in measured[:SHOWN])
            sentence = f"it equals the true gradient times one factor for each {what}: {some}"
            sentence += ", ..." if measured.size > SHOWN else ""
            yield Diagnosis(Slip.LINE_FACTORS, _like(factor, measured, evidence), sentence, evidence.full)
            return


def _each_twice(index: Array, measured: Array, evidence: Evidence) -> bool:
    """Returns whether each line has at least two elements that show its factor."""
    clear = np.abs(evidence.true) > 3 * evidence.tolerance
    return bool((np.bincount(index[clear], minlength=int(index.max()) + 1)[measured] >= 2).all())


def _like(factor: Array, measured: Array, evidence: Evidence) -> tuple[str, ...]:
    """Returns the arrays that the factors of the lines are."""
    found = []
    for name, array in {**evidence.leaves, **evidence.given.integers}.items():
        if np.ndim(array) == 1 and len(array) == factor.size and (np.asarray(array)[measured] != 0).all():
            for power, text in ((1, name), (-1, f"1 over {name}")):
                if np.allclose(np.asarray(array, float)[measured] ** power, factor[measured], rtol=evidence.relative):
                    found.append(text)
    return tuple(found)


def _all_of(chosen: Array, evidence: Evidence) -> Array:
    """Returns the flat places, among all that are known, of the wrong elements for which a mask of the leaf holds."""
    return evidence.wrong_places[chosen.ravel()[evidence.wrong_places]]


def _missing(evidence: Evidence) -> Iterator[Diagnosis]:
    """All that is wrong is zero, or was never written."""
    empty = np.abs(evidence.whole) < UNWRITTEN
    wrong = _all_of(empty, evidence)
    if not wrong.size or wrong.size != evidence.wrong_places.size:
        return
    if evidence.whole.ravel()[wrong].any():
        sentence = f"{where(wrong, evidence)} never written, and {rest_is_right(evidence)}"
        yield Diagnosis(Slip.NEVER_WRITTEN, (), sentence, evidence.full)
        return
    sentence = f"a part is missing: {where(wrong, evidence)} zero, and {rest_is_right(evidence)}"
    yield Diagnosis(Slip.PART_MISSING, (), sentence, evidence.full)


def _mask_missing(evidence: Evidence) -> Iterator[Diagnosis]:
    """All that is wrong should be zero."""
    should = np.abs(evidence.true) <= evidence.tolerance
    if not evidence.wrong.any() or not should[evidence.wrong].all():
        return
    if evidence.strength() < ENOUGH:
        return
    clear = ~should
    if clear.sum() < 2 and not evidence.full:
        return
    at = where(evidence.wrong_places, evidence)
    should_be = "it should" if at.endswith(" is") else "they should"
    sentence = f"a mask is missing: {at} not zero as {should_be} be, and {rest_is_right(evidence)}"
    if not _all_there(should, evidence):
        yield Diagnosis(Slip.PLACE, (), sentence.removeprefix("a mask is missing: "), evidence.full)
        return
    for name, mask, make in named_masks(evidence):
        candidate = np.where(mask, evidence.claimed, 0.0)
        if (mask | should).all() and (~mask | clear).sum() == mask.size and evidence.fits(candidate):
            verified = evidence.confirmed(partial(lambda make: np.where(make(), evidence.whole, 0.0), make))
            if verified is not False:
                text = f"{sentence}: it passes where {name} alone" if mask.sum() > 2 else sentence
                yield Diagnosis(Slip.MASK_MISSING, (f"the mask is {name}",), text, verified is True)
                return
    yield Diagnosis(Slip.MASK_MISSING, (), sentence, evidence.full)


def _all_there(should: Array, evidence: Evidence) -> bool:
    """Returns whether a whole mask is missing: no element that should be zero is, in the leaf or in some lines."""
    masked = should & (evidence.claimed == 0)
    for index in evidence.index if len(evidence.shape) > 1 else ():
        lines_with_error = np.isin(index, index[evidence.wrong])
        if not lines_with_error.all() and not masked[lines_with_error].any():
            return True
    return not masked.any()


def named_masks(evidence: Evidence) -> Iterator[tuple[str, Array, Make]]:
    """Yields masks that a layer may have: name, at the compared elements, and what makes the whole."""
    arrays = dict(evidence.leaves)
    if evidence.output.shape == evidence.shape:
        arrays["the output"] = evidence.output
    if evidence.dout.shape == evidence.shape:
        arrays["dout"] = evidence.dout
    for name, array in arrays.items():
        if array.shape != evidence.shape or (name == evidence.given.leaf and not array.any()):
            continue
        at = array[evidence.index]
        yield f"{name} > 0", at > 0, partial(np.greater, array, 0)
        yield f"{name} < 0", at < 0, partial(np.less, array, 0)
        yield f"{name} is not 0", at != 0, partial(np.not_equal, array, 0)
    for name, ids in evidence.given.integers.items():
        if ids.ndim and ids.shape == evidence.shape[: ids.ndim]:
            full = np.broadcast_to(ids.reshape(ids.shape + (1,) * (len(evidence.shape) - ids.ndim)), evidence.shape)
            at = full[evidence.index]
            yield f"{name} is not 0", at != 0, partial(np.not_equal, full, 0)
            yield f"{name} is not negative", at >= 0, partial(np.greater_equal, full, 0)
    if len(evidence.shape) >= 2 and evidence.shape[-1] > 1 and evidence.shape[-2] > 1:
        i, j = evidence.index[-2:]
        ones = np.ones(evidence.shape, bool)
        yield "the column is not after the row (a causal mask)", i >= j, lambda: np.tril(ones)
        yield "the column is not before the row (an upper triangle)", i <= j, lambda: np.triu(ones)
        yield "the column is before the row", i > j, lambda: np.tril(ones, -1)


def _constant(evidence: Evidence) -> Iterator[Diagnosis]:
    """All that is wrong holds one number: memory that was filled, and never written."""
    wrong = evidence.wrong_places
    values = evidence.whole.ravel()[wrong]
    true = evidence.whole_true.ravel()[wrong]
    if not 3 <= wrong.size < evidence.places.size or not in_a_block(wrong, evidence):
        return
    if np.ptp(values) == 0 and np.ptp(true) > evidence.tolerance:
        sentence = f"{where(wrong, evidence)} {values[0]:.6g}, as if never written, and {rest_is_right(evidence)}"
        yield Diagnosis(Slip.NEVER_WRITTEN, (), sentence, evidence.full)


def _times(evidence: Evidence) -> Iterator[Diagnosis]:
    """All that is wrong is the true gradient times one number."""
    wrong = evidence.wrong
    if wrong.sum() < 2 or wrong.all():
        return
    ratio = evidence.slope(evidence.claimed, evidence.true, wrong)
    if ratio == 0 or abs(ratio) < evidence.relative:
        return
    candidate = np.where(wrong, evidence.claimed / ratio, evidence.claimed)
    if not evidence.fits(candidate, parameters=1):
        return
    at = where(evidence.wrong_places, evidence)
    slip = Slip.PART_SIGN if abs(ratio + 1) <= evidence.relative else Slip.PART_FACTOR
    sentence = f"{at} the true gradient times {number(ratio, evidence)}, and {rest_is_right(evidence)}"
    if slip is Slip.PART_SIGN:
        sentence += ": the sign is wrong in a part"
    readings = tuple(f"where {name}" for name, mask, _ in named_masks(evidence) if _same(mask, wrong, evidence))
    yield Diagnosis(slip, readings, sentence, evidence.full)


def _same(mask: Array, wrong: Array, evidence: Evidence) -> bool:
    """Returns whether a mask says what is wrong, where true elements are large enough to tell."""
    clear = wrong | (np.abs(evidence.true) > evidence.tolerance)
    return bool((mask == wrong)[clear].all())


def _inverted(evidence: Evidence) -> Iterator[Diagnosis]:
    """It is zero where the true gradient is not, and the other way round."""
    of_true, of_claimed = np.abs(evidence.true) > evidence.tolerance, evidence.claimed != 0
    neither = (~of_true & ~of_claimed).sum()
    if (of_true & of_claimed).any() or min(of_true.sum(), of_claimed.sum()) < 3 or neither > of_true.sum() // 4:
        return
    sentence = "the mask is inverted: it is zero where the true gradient is not, and the other way round"
    yield Diagnosis(Slip.MASK_INVERTED, (), sentence, evidence.full)


def _two_factors(evidence: Evidence) -> Iterator[Diagnosis]:
    """One number where a mask holds, another where it does not: the slopes of a leaky ReLU exchanged."""
    for name, mask, make in named_masks(evidence):
        if "dout" in name or mask.all() or not mask.any():
            continue
        inside = evidence.slope(evidence.claimed, evidence.true, mask)
        outside = evidence.slope(evidence.claimed, evidence.true, ~mask)
        if inside == 0 or outside == 0:
            continue
        if min(np.abs(evidence.true[mask]).max(), np.abs(evidence.true[~mask]).max()) < 10 * evidence.tolerance:
            continue
        if not (evidence.strong(1, mask) and evidence.strong(1, ~mask)):
            continue
        candidate = evidence.claimed / np.where(mask, inside, outside)
        exchanged = abs(inside * outside - 1) <= evidence.relative
        sentence = f"where {name} it is the true gradient times {number(inside, evidence)}, elsewhere times "
        sentence += number(outside, evidence) + (": the two sides are exchanged" if exchanged else "")

        def whole(make: Make = make, a: float = inside, b: float = outside) -> Array:
            return evidence.whole / np.where(make(), a, b)

        found = evidence.found(Slip.PART_FACTOR, sentence, candidate, whole, parameters=2)
        if found is not None:
            yield found
