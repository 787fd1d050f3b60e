"""The whole gradient times one number, and what the number may be."""

import math
from collections.abc import Iterator

import numpy as np

from jaxnet.crosscheck.explain.evidence import Diagnosis, Evidence, Slip
from jaxnet.crosscheck.explain.wording import number, sizes

SPOKEN = 3  # readings in a sentence; the diagnosis lists all
APART = "the two do not belong together"


def slips(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields what the claimed gradient is where it is zero, or the true gradient times one number."""
    if not evidence.whole.any():
        yield Diagnosis(Slip.ZERO, (), "it is zero everywhere", evidence.full or bool(evidence.given.probes))
        return
    ratio = evidence.slope(evidence.claimed, evidence.true)
    if ratio == 0 or not math.isfinite(ratio):
        return
    yield from _of_opposite_sign(evidence)
    readings = tuple(_readings(ratio, evidence))
    sentence = f"it equals the true gradient times {number(ratio, evidence)}"
    if readings:
        sentence += f": {' or '.join(readings[:SPOKEN])}"
    found = evidence.found(
        Slip.FACTOR,
        sentence,
        evidence.claimed / ratio,
        lambda: evidence.whole / ratio,
        parameters=1,
        readings=readings,
    )
    if found is not None:
        yield found
    else:
        yield from _of_one_size(evidence)


def _of_opposite_sign(evidence: Evidence) -> Iterator[Diagnosis]:
    """The one factor that is named for a single element, too."""
    opposite = np.abs(evidence.claimed + evidence.true) <= evidence.tolerance
    if evidence.wrong.any() and opposite.all() and evidence.relative <= 0.1:
        verified = evidence.confirmed(lambda: -evidence.whole)
        if verified is not False:
            sentence = "the sign is wrong"
            if evidence.whole.size > 1:
                sentence = f"it equals the true gradient times -1: {sentence}"
            yield Diagnosis(Slip.SIGN, ("the sign is wrong",), sentence, verified is True)


def _readings(ratio: float, evidence: Evidence) -> Iterator[str]:
    """Yields what a factor may be."""
    for value, meaning in {
        -1.0: "the sign is wrong",
        2.0: "a factor 2 too many, as of a square's derivative",
        0.5: "1 over 2: a factor 2 is missing, as of a square's derivative",
        -2.0: "the sign is wrong, and a factor 2 too many",
        -0.5: "the sign is wrong, and a factor 2 is missing",
    }.items():
        if _is(ratio, value, evidence):
            yield meaning
    for name, constant in evidence.given.numbers.items():
        yield from _of_constant(ratio, name, float(constant), evidence)
    for n, what in sizes(evidence).items():
        for value, text in {
            float(n): f"{what}: a missing 1/N, a sum for a mean",
            1.0 / n: f"1 over {what}: a 1/N too many, a mean for a sum",
            math.sqrt(n): f"the square root of {what}: a missing 1/sqrt(d)",
            1 / math.sqrt(n): f"1 over the square root of {what}: a 1/sqrt(d) too many",
            (n - 1) / n: f"n - 1 for n, or n for n - 1, with n = {what}",
            n / (n - 1): f"n / (n - 1), with n = {what}: n - 1 for n, or n for n - 1",
            math.sqrt((n - 1) / n): f"the root of (n - 1) / n, with n = {what}: n - 1 for n, or n for n - 1",
            math.sqrt(n / (n - 1)): f"the root of n / (n - 1), with n = {what}: n - 1 for n, or n for n - 1",
        }.items():
            if n > 2 or value in (2.0, 0.5):
                if _is(abs(ratio), value, evidence):
                    yield text + (", and the sign is wrong" if ratio < 0 else "")


def _of_constant(ratio: float, name: str, constant: float, evidence: Evidence) -> Iterator[str]:
    """Yields what a factor has to do with one of the layer's constants.

    A constant that is missing in backward and one that forward has by mistake look the same.
    """
    if not math.isfinite(constant) or constant in (0.0, 1.0, -1.0):
        return
    probability = 0 < constant < 1
    texts = {
        constant: f"{name}: {name}, which is {constant:.6g}, once too often in backward, or missing in forward: {APART}",
        1 / constant: f"1 over {name}: {name} is missing in backward, which is {constant:.6g}, or forward should not "
        f"have it: {APART}",
        constant**2: f"{name} squared: {name} is multiplied in twice too often",
    }
    if probability:
        texts |= {
            1 - constant: f"1 - {name}, the keep probability, once too often or not divided by",
            1 / (1 - constant): f"1 over (1 - {name}), the keep probability",
        }
    elif constant > 0:
        texts |= {
            math.sqrt(constant): f"the square root of {name}",
            1 / math.sqrt(constant): f"1 over the square root of {name}",
        }
    for value, text in texts.items():
        if value not in (0.0, 1.0, -1.0) and _is(ratio, value, evidence):
            yield text


def _of_one_size(evidence: Evidence) -> Iterator[Diagnosis]:
    """The derivative of |x| for that of a square, or the other way round."""
    sizes_of_claimed, sizes_of_true = np.abs(evidence.whole), np.abs(evidence.true)
    largest = sizes_of_claimed.max()
    agree = np.sign(evidence.claimed) == np.sign(evidence.true)
    clear = sizes_of_true > evidence.tolerance
    if evidence.wrong.sum() < 4 or not agree[clear].all():
        return
    if np.ptp(sizes_of_claimed) <= 1e-5 * largest and np.ptp(sizes_of_true) > 0.1 * evidence.scale:
        sentence = "it has the true gradient's signs and one size everywhere, as the derivative of an absolute value"
        if evidence.wrong.sum() >= 20:
            yield Diagnosis(Slip.ABSOLUTE, (), sentence, evidence.full)
    elif np.ptp(sizes_of_true) <= evidence.tolerance and evidence.relative < 0.01:
        sentence = "the true gradient has its signs and one size everywhere, as the derivative of an absolute value"
        candidate = np.sign(evidence.claimed) * evidence.scale
        found = evidence.found(
            Slip.ABSOLUTE, sentence, candidate, lambda: np.sign(evidence.whole) * evidence.scale, parameters=1
        )
        if found is not None:
            yield found


def _is(ratio: float, value: float, evidence: Evidence) -> bool:
    return math.isclose(ratio, value, rel_tol=evidence.relative)
