"""Recognizes a gradient that is wrong by one number, and says what the number may mean."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from jaxnet.crosscheck.explain.evidence import Evidence
from jaxnet.crosscheck.explain.phrases import number, sizes
from jaxnet.crosscheck.explain.slips import Diagnosis, Slip

LEAST_SIZE = 8  # the smallest leaf for which three probes suffice to show that all elements are off by one factor
EXACT = 1e-6  # the relative accuracy at which the ratio of a single element cannot be a size by accident
READINGS_SHOWN = 3  # readings in a sentence; the diagnosis lists all


def slips(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a gradient that is zero, or the true one up to a number, signs or bounds."""
    if not evidence.whole.any():
        yield Diagnosis(Slip.ZERO, (), "it is zero everywhere", evidence.full or bool(evidence.inputs.probes))
        return
    ratio = evidence.slope(evidence.claimed, evidence.true)
    if ratio == 0 or not math.isfinite(ratio):
        return
    yield from _opposite_sign(evidence)
    yield from _mean_of_one_element(evidence, ratio)
    yield from _one_number(evidence, ratio)
    yield from _one_magnitude(evidence)
    yield from _without_sign(evidence)
    yield from _clipped(evidence)


def _one_number(evidence: Evidence, ratio: float) -> Iterator[Diagnosis]:
    """Yields the true gradient times any number, or, in a small leaf, times a number that has a meaning."""
    meanings = [
        (value, text)
        for value, text in _meanings(ratio, evidence)
        if math.isclose(ratio, value, rel_tol=evidence.relative)
    ]
    readings = tuple(dict.fromkeys(text for _, text in meanings))
    sentence = f"it equals the true gradient times {number(ratio, evidence)}"
    if readings:
        sentence += f": {'; or '.join(readings[:READINGS_SHOWN])}"
    for value, parameters in ((ratio, 1), *((value, 0) for value, _ in meanings)):
        yield from evidence.test(
            Slip.FACTOR,
            sentence,
            evidence.claimed / value,
            partial(np.divide, evidence.whole, value),
            parameters=parameters,
            readings=readings,
        )


def along_probes(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields one factor that all probes show, for elements that are too inaccurate to be compared."""
    ratios = [
        (claimed / true, error / abs(true)) for *_, claimed, true, error in evidence.probes if abs(true) > 8 * error
    ]
    if len(ratios) < 3 or evidence.whole.size < LEAST_SIZE:
        return
    median = float(np.median([ratio for ratio, _ in ratios]))
    blur = max(abs(ratio) * error for ratio, error in ratios)
    if all(abs(ratio - median) <= blur for ratio, _ in ratios) and abs(median - 1) > 4 * blur:
        digits = max(1 - math.floor(math.log10(blur)), 1)
        yield Diagnosis(Slip.FACTOR, (), f"it equals the true gradient times {median:.{digits}g}", True)


def _opposite_sign(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields a wrong sign, for a single element too."""
    opposite = np.abs(evidence.claimed + evidence.true) <= evidence.tolerance
    if evidence.wrong.any() and opposite.all() and evidence.relative <= 0.1:
        verified = evidence.confirmed(lambda: -evidence.whole)
        if verified is not False:
            sentence = "the sign is wrong"
            if evidence.whole.size > 1:
                sentence = f"it equals the true gradient times -1: {sentence}"
            yield Diagnosis(Slip.SIGN, ("the sign is wrong",), sentence, verified is True)


def _mean_of_one_element(evidence: Evidence, ratio: float) -> Iterator[Diagnosis]:
    """Yields a mean in place of a sum, or the reverse, for a single element whose ratio is exactly a size."""
    if evidence.whole.size > 1 or not evidence.wrong.any() or evidence.relative > EXACT:
        return
    for n, what in sizes(evidence).items():
        for value, text in itertools.islice(_meanings_of_size(n, what), 2):
            if n > 2 and math.isclose(ratio, value, rel_tol=EXACT):
                verified = evidence.confirmed(partial(np.divide, evidence.whole, value))
                sentence = f"it equals the true gradient times {number(ratio, evidence)}: {text}"
                if verified is not False:
                    yield Diagnosis(Slip.FACTOR, (text,), sentence, verified is True)


def _meanings(ratio: float, evidence: Evidence) -> Iterator[tuple[float, str]]:
    """Yields numbers that have a meaning as a factor, each with its meaning."""
    if evidence.inputs.is_complex:
        yield 0.5, "a Wirtinger derivative, dL/dz or dL/dz*, is half of the gradient"
    yield from (
        (-1.0, "the sign is wrong"),
        (2.0, "an extra factor of 2, as from the derivative of a square"),
        (0.5, "a factor of 2 is missing, as from the derivative of a square"),
        (-2.0, "the sign is wrong, and there is an extra factor of 2"),
        (-0.5, "the sign is wrong, and a factor of 2 is missing"),
    )
    if evidence.dout.size == 1 and (dout := float(evidence.dout.ravel()[0])) not in (0.0, 1.0, -1.0):
        yield 1 / dout, "1 over dout: the multiplication by dout is missing"
    for name, constant in evidence.inputs.numbers.items():
        yield from _meanings_of_constant(name, float(constant))
    for n, what in sorted(sizes(evidence).items(), key=lambda size: "the batch size" not in size[1]):
        for value, text in _meanings_of_size(n, what):
            yield (value, text) if ratio > 0 else (-value, f"{text}, and the sign is wrong")


def _meanings_of_size(n: int, what: str) -> Iterator[tuple[float, str]]:
    """Yields the factors that a wrong use of a size leaves."""
    yield float(n), f"{what}: a missing 1/N, a sum instead of a mean"
    yield 1.0 / n, f"1 over {what}: an extra 1/N, a mean instead of a sum"
    yield math.sqrt(n), f"the square root of {what}: a missing 1/sqrt(d)"
    yield 1 / math.sqrt(n), f"1 over the square root of {what}: an extra 1/sqrt(d)"
    if n > 2:
        either = f"where n is {what}: n - 1 instead of n, or n instead of n - 1"
        yield (n - 1) / n, f"(n - 1) / n, {either}"
        yield n / (n - 1), f"n / (n - 1), {either}"
        yield math.sqrt((n - 1) / n), f"the square root of (n - 1) / n, {either}"
        yield math.sqrt(n / (n - 1)), f"the square root of n / (n - 1), {either}"


def _meanings_of_constant(name: str, constant: float) -> Iterator[tuple[float, str]]:
    """Yields the factors that a wrong use of one of the layer's constants leaves.

    A constant that is missing in backward cannot be distinguished from one that is wrongly in forward.
    """
    if not math.isfinite(constant) or constant in (0.0, 1.0, -1.0):
        return
    value = f"{name} = {constant:.6g}"
    yield constant, f"{value} is applied once too often in backward or is missing in forward"
    yield 1 / constant, f"1 over {name}: {value} is missing in backward or is applied once too often in forward"
    yield constant**2, f"{name} squared: {name} is applied twice too often"
    if 0 < constant < 1:
        yield 1 - constant, f"1 - {name}, the keep probability, is applied once too often or is not divided by"
        yield 1 / (1 - constant), f"1 over (1 - {name}), the keep probability"
    elif constant > 0:
        yield math.sqrt(constant), f"the square root of {name}"
        yield 1 / math.sqrt(constant), f"1 over the square root of {name}"


def _one_magnitude(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields the derivative of |x| where that of a square is expected, or the other way round."""
    of_claimed, of_true = np.abs(evidence.whole), np.abs(evidence.true)
    agree = np.sign(evidence.claimed) == np.sign(evidence.true)
    if evidence.wrong.sum() < 4 or not agree[of_true > evidence.tolerance].all():
        return
    if np.ptp(of_claimed) <= 1e-5 * of_claimed.max() and np.ptp(of_true) > 0.1 * evidence.scale:
        sentence = (
            "it has the signs of the true gradient but the same magnitude everywhere, "
            "like the derivative of an absolute value"
        )
        if evidence.wrong.sum() >= 20:
            yield Diagnosis(Slip.ABSOLUTE, (), sentence, evidence.full)
    elif np.ptp(of_true) <= evidence.tolerance and evidence.relative < 0.01:
        yield from evidence.test(
            Slip.ABSOLUTE,
            "the true gradient has its signs but the same magnitude everywhere, "
            "like the derivative of an absolute value",
            np.sign(evidence.claimed) * evidence.scale,
            lambda: np.sign(evidence.whole) * evidence.scale,
            parameters=1,
        )


def _without_sign(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields the absolute value of the true gradient."""
    if (evidence.whole < 0).any() or evidence.wrong.sum() < 4:
        return
    candidate = np.where(evidence.wrong, -evidence.claimed, evidence.claimed)
    for diagnosis in evidence.test(Slip.ABSOLUTE, "it is the absolute value of the true gradient", candidate):
        yield replace(diagnosis, whole=evidence.full)


def _clipped(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields the true gradient clipped to an interval."""
    bound = float(np.abs(evidence.whole).max())
    wrong, true, claimed = evidence.wrong, evidence.true[evidence.wrong], evidence.claimed[evidence.wrong]
    if wrong.sum() < 3 or wrong.all() or not (np.abs(claimed) == bound).all():
        return
    if (np.abs(evidence.claimed[~wrong]) == bound).sum() > wrong.sum() // 4:  # right elements have this size too
        return
    if (np.sign(claimed) == np.sign(true)).all() and (np.abs(true) > bound).all() and np.ptp(true) > evidence.tolerance:
        sentence = f"it is clipped to [-{number(bound, evidence)}, {number(bound, evidence)}]"
        yield Diagnosis(Slip.CLIPPED, (), sentence, evidence.full)
