"""Recognizes an error that is confined to a part of the gradient: not written, not masked, times a number."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from jaxnet.crosscheck.explain.evidence import ENOUGH, Evidence, Make
from jaxnet.crosscheck.explain.phrases import SHOWN, in_a_block, line_of, number, rest_is_right, where
from jaxnet.crosscheck.explain.slips import Array, Diagnosis, Slip

GAP = 3.0  # the smallest ratio of an error in the part that is reported as wrong to an error in the rest
UNWRITTEN = 1e-290  # uninitialized memory often holds values below this


def slips(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields the slip that explains the wrong part."""
    for find in (_missing, _mask_missing, _constant, _times, _inverted, _two_factors):
        yield from find(evidence)


def place(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields only the place, if at most half of the gradient is wrong and its errors far exceed those of the rest."""
    if not 0 < evidence.wrong_places.size <= evidence.places.size // 2:
        return
    error = np.abs(evidence.whole - evidence.whole_true).ravel()
    smallest = error[evidence.wrong_places].min()
    error[evidence.wrong_places] = 0.0
    if smallest > GAP * np.nanmax(error):
        sentence = f"{where(evidence.wrong_places, evidence)} wrong, and {rest_is_right(evidence)}"
        yield Diagnosis(Slip.PLACE, (), sentence, evidence.full)


def lines(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields one factor for each index along an axis, as from a division by lengths or by counts."""
    for axis, length in enumerate(evidence.shape if len(evidence.shape) > 1 else ()):
        index = evidence.index[axis]
        square = np.bincount(index, evidence.true**2, length)
        factor = np.bincount(index, evidence.true * evidence.claimed, length) / np.where(square > 0, square, 1.0)
        measured = np.unique(index[np.abs(evidence.true) > evidence.tolerance])
        if length < 2 or measured.size < 2 or (factor[measured] == 0).any():
            continue
        candidate = evidence.claimed / np.where(factor == 0, 1.0, factor)[index]
        if evidence.fits(candidate, parameters=int(measured.size)) and _each_twice(index, measured, evidence):
            line = line_of(axis, evidence).rstrip(":")
            factors = ", ".join(number(float(factor[i]), evidence) for i in measured[:SHOWN])
            sentence = f"it equals the true gradient times one factor for each {line}: {factors}"
            sentence += ", ..." if measured.size > SHOWN else ""
            yield Diagnosis(Slip.LINE_FACTORS, _equal_arrays(factor, measured, evidence), sentence, evidence.full)


def _each_twice(index: Array, measured: Array, evidence: Evidence) -> bool:
    """Returns whether each index has at least two elements that show its factor."""
    clear = np.abs(evidence.true) > 3 * evidence.tolerance
    return bool((np.bincount(index[clear], minlength=int(index.max()) + 1)[measured] >= 2).all())


def _equal_arrays(factor: Array, measured: Array, evidence: Evidence) -> tuple[str, ...]:
    """Returns the names of the vectors that equal the factors or their inverses."""
    names = []
    for name, array in {**evidence.leaves, **evidence.inputs.integers}.items():
        if np.ndim(array) == 1 and len(array) == factor.size and (np.asarray(array)[measured] != 0).all():
            for power, text in ((1, name), (-1, f"1 over {name}")):
                if np.allclose(np.asarray(array, float)[measured] ** power, factor[measured], rtol=evidence.relative):
                    names.append(text)
    return tuple(names)


def _missing(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a part that is zero or uninitialized."""
    wrong = evidence.wrong_places
    values = evidence.whole.ravel()[wrong]
    if not wrong.size or not (np.abs(values) < UNWRITTEN).all():
        return
    if values.any():
        sentence = f"{where(wrong, evidence)} never written, and {rest_is_right(evidence)}"
        yield Diagnosis(Slip.NEVER_WRITTEN, (), sentence, evidence.full)
        return
    sentence = f"a part is missing: {where(wrong, evidence)} zero, and {rest_is_right(evidence)}"
    yield Diagnosis(Slip.PART_MISSING, (), sentence, evidence.full)


def _mask_missing(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a part that should be zero, and the mask that would make it so."""
    zero = np.abs(evidence.true) <= evidence.tolerance
    if not evidence.wrong.any() or not zero[evidence.wrong].all():
        return
    if evidence.strength() < ENOUGH:
        return
    if (~zero).sum() < 2 and not evidence.full:
        return
    place = where(evidence.wrong_places, evidence)
    pronoun = "it" if place.endswith(" is") else "they"
    sentence = f"{place} not zero as {pronoun} should be, and {rest_is_right(evidence)}"
    if not _whole_mask(zero, evidence):
        yield Diagnosis(Slip.PLACE, (), sentence, evidence.full)
        return
    sentence = f"a mask is missing: {sentence}"
    for name, mask, make in named_masks(evidence):
        candidate = np.where(mask, evidence.claimed, 0.0)
        if (mask | zero).all() and not (mask & zero).any() and evidence.fits(candidate):
            verified = evidence.confirmed(partial(lambda make: np.where(make(), evidence.whole, 0.0), make))
            if verified is not False:
                text = f"{sentence}: the gradient passes only where {name}" if mask.sum() > 2 else sentence
                yield Diagnosis(Slip.MASK_MISSING, (f"the mask is {name}",), text, verified is True)
    yield Diagnosis(Slip.MASK_MISSING, (), sentence, evidence.full)


def _whole_mask(zero: Array, evidence: Evidence) -> bool:
    """Returns whether a mask is missing as a whole, in the leaf or in some lines; `zero` marks elements to be 0."""
    masked = zero & (evidence.claimed == 0)
    for index in evidence.index if len(evidence.shape) > 1 else ():
        lines_with_error = np.isin(index, index[evidence.wrong])
        if not lines_with_error.all() and not masked[lines_with_error].any():
            return True
    return not masked.any()


def named_masks(evidence: Evidence) -> Iterator[tuple[str, Array, Make]]:
    """Yields masks that a layer may use: name, values at the compared elements, a function that returns all values."""
    arrays = dict(evidence.leaves)
    if evidence.output.shape == evidence.shape:
        arrays["the output"] = evidence.output
    if evidence.dout.shape == evidence.shape:
        arrays["dout"] = evidence.dout
    for name, array in arrays.items():
        if array.shape != evidence.shape or (name == evidence.inputs.leaf and not array.any()):
            continue
        values = array[evidence.index]
        yield f"{name} > 0", values > 0, partial(np.greater, array, 0)
        yield f"{name} < 0", values < 0, partial(np.less, array, 0)
        yield f"{name} is not 0", values != 0, partial(np.not_equal, array, 0)
    for name, ids in evidence.inputs.integers.items():
        if ids.ndim and ids.shape == evidence.shape[: ids.ndim]:
            full = np.broadcast_to(ids.reshape(ids.shape + (1,) * (len(evidence.shape) - ids.ndim)), evidence.shape)
            values = full[evidence.index]
            yield f"{name} is not 0", values != 0, partial(np.not_equal, full, 0)
            yield f"{name} is not negative", values >= 0, partial(np.greater_equal, full, 0)
    if len(evidence.shape) >= 2 and evidence.shape[-1] > 1 and evidence.shape[-2] > 1:
        i, j = evidence.index[-2:]
        ones = np.ones(evidence.shape, bool)
        yield "the column is not after the row (a causal mask)", i >= j, lambda: np.tril(ones)
        yield "the column is not before the row (an upper triangle)", i <= j, lambda: np.triu(ones)
        yield "the column is before the row", i > j, lambda: np.tril(ones, -1)


def _constant(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a part that holds one number, as memory does that was filled and never written."""
    wrong = evidence.wrong_places
    values = evidence.whole.ravel()[wrong]
    true = evidence.whole_true.ravel()[wrong]
    if not 3 <= wrong.size < evidence.places.size or not in_a_block(wrong, evidence):
        return
    if np.ptp(values) == 0 and np.ptp(true) > evidence.tolerance:
        sentence = f"{where(wrong, evidence)} {values[0]:.6g}, as if never written, and {rest_is_right(evidence)}"
        yield Diagnosis(Slip.NEVER_WRITTEN, (), sentence, evidence.full)


def _times(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a part that is the true gradient times one number."""
    wrong = evidence.wrong
    if wrong.sum() < 2 or wrong.all():
        return
    ratio = evidence.slope(evidence.claimed, evidence.true, wrong)
    if ratio == 0 or abs(ratio) < evidence.relative:
        return
    candidate = np.where(wrong, evidence.claimed / ratio, evidence.claimed)
    if not evidence.fits(candidate, parameters=1):
        return
    place = where(evidence.wrong_places, evidence)
    slip = Slip.PART_SIGN if abs(ratio + 1) <= evidence.relative else Slip.PART_FACTOR
    sentence = f"{place} the true gradient times {number(ratio, evidence)}, and {rest_is_right(evidence)}"
    if slip is Slip.PART_SIGN:
        sentence += ": the sign is wrong in a part"
    clear = wrong | (np.abs(evidence.true) > evidence.tolerance)
    readings = tuple(f"where {name}" for name, mask, _ in named_masks(evidence) if (mask == wrong)[clear].all())
    yield Diagnosis(slip, readings, sentence, evidence.full)


def _inverted(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a gradient that is zero where the true one is not, and the other way round."""
    of_true, of_claimed = np.abs(evidence.true) > evidence.tolerance, evidence.claimed != 0
    neither = (~of_true & ~of_claimed).sum()
    if (of_true & of_claimed).any() or min(of_true.sum(), of_claimed.sum()) < 3 or neither > of_true.sum() // 4:
        return
    sentence = "the mask is inverted: it is zero where the true gradient is not, and the other way round"
    yield Diagnosis(Slip.MASK_INVERTED, (), sentence, evidence.full)


def _two_factors(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields one factor where a mask holds and another where it does not, such as the slopes of a leaky ReLU."""
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
        sentence = (
            f"it is the true gradient times {number(inside, evidence)} where {name}, "
            f"and times {number(outside, evidence)} elsewhere"
        )
        if exchanged:
            sentence += ": the two sides are exchanged"

        def whole(make: Make = make, a: float = inside, b: float = outside) -> Array:
            return evidence.whole / np.where(make(), a, b)

        yield from evidence.test(Slip.PART_FACTOR, sentence, candidate, whole, parameters=2)
