"""The whole gradient times one number, and what the number may be."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from jaxnet.crosscheck.explain.evidence import Diagnosis, Evidence, Slip
from jaxnet.crosscheck.explain.wording import number, sizes

LEAST_SIZE = 8  # elements of a leaf of which three random directions tell that all are off by one factor
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
    for find in (_of_opposite_sign, _of_one_number, _of_one_size, _of_no_sign, _clipped):
        found = next(find(evidence), None)
        if found is not None:
            yield found
            return


def _of_one_number(evidence: Evidence) -> Iterator[Diagnosis]:
    """The true gradient times a number: any, or in a small leaf one that has a meaning."""
    ratio = evidence.slope(evidence.claimed, evidence.true)
    meanings = [(value, text) for value, text in _meanings(ratio, evidence) if _is(ratio, value, evidence)]
    readings = tuple(dict.fromkeys(text for _, text in meanings))
    sentence = f"it equals the true gradient times {number(ratio, evidence)}"
    if readings:
        sentence += f": {' or '.join(readings[:SPOKEN])}"
    for value, parameters in ((ratio, 1), *((value, 0) for value, _ in meanings)):
        found = evidence.found(
            Slip.FACTOR,
            sentence,
            evidence.claimed / value,
            partial(np.divide, evidence.whole, value),
            parameters=parameters,
            readings=readings,
        )
        if found is not None:
            yield found


def along_probes(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields one factor that all random directions show, where single elements are too blurred to tell."""
    seen = [
        (claimed / true, error / abs(true)) for *_, claimed, true, error in evidence.probes if abs(true) > 8 * error
    ]
    if len(seen) < 3 or evidence.whole.size < LEAST_SIZE:
        return
    ratio = float(np.median([each for each, _ in seen]))
    blur = max(abs(each) * error for each, error in seen)
    if all(abs(each - ratio) <= blur for each, _ in seen) and abs(ratio - 1) > 4 * blur:
        digits = max(1 - math.floor(math.log10(blur)), 1)
        yield Diagnosis(Slip.FACTOR, (), f"it equals the true gradient times {ratio:.{digits}g}", True)


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


def _meanings(ratio: float, evidence: Evidence) -> Iterator[tuple[float, str]]:
    """Yields numbers that a factor may be, and what each means."""
    yield from (
        (-1.0, "the sign is wrong"),
        (2.0, "a factor 2 too many, as of a square's derivative"),
        (0.5, "1 over 2: a factor 2 is missing, as of a square's derivative"),
        (-2.0, "the sign is wrong, and a factor 2 too many"),
        (-0.5, "the sign is wrong, and a factor 2 is missing"),
    )
    if evidence.dout.size == 1 and (dout := float(evidence.dout.ravel()[0])) not in (0.0, 1.0, -1.0):
        yield 1 / dout, "1 over dout: dout is not multiplied in"
    for name, constant in evidence.given.numbers.items():
        yield from _of_constant(name, float(constant))
    for n, what in sorted(sizes(evidence).items(), key=lambda size: "the batch size" not in size[1]):
        for value, text in _of_size(n, what):
            yield (value, text) if ratio > 0 else (-value, f"{text}, and the sign is wrong")


def _of_size(n: int, what: str) -> Iterator[tuple[float, str]]:
    """Yields the factors that a size may leave, and what they mean."""
    yield float(n), f"{what}: a missing 1/N, a sum for a mean"
    yield 1.0 / n, f"1 over {what}: a 1/N too many, a mean for a sum"
    yield math.sqrt(n), f"the square root of {what}: a missing 1/sqrt(d)"
    yield 1 / math.sqrt(n), f"1 over the square root of {what}: a 1/sqrt(d) too many"
    if n > 2:
        either = f"with n = {what}: n - 1 for n, or n for n - 1"
        yield (n - 1) / n, f"(n - 1) / n, {either}"
        yield n / (n - 1), f"n / (n - 1), {either}"
        yield math.sqrt((n - 1) / n), f"the root of (n - 1) / n, {either}"
        yield math.sqrt(n / (n - 1)), f"the root of n / (n - 1), {either}"


def _of_constant(name: str, constant: float) -> Iterator[tuple[float, str]]:
    """Yields factors that have to do with one of the layer's constants.

    A constant that is missing in backward and one that forward has by mistake look the same.
    """
    if not math.isfinite(constant) or constant in (0.0, 1.0, -1.0):
        return
    yield constant, f"{name}, which is {constant:.6g}, once too often in backward or missing in forward: {APART}"
    is_missing = f"{name} is missing, which is {constant:.6g}, or one too many in forward"
    yield 1 / constant, f"1 over {name}: {is_missing}: {APART}"
    yield constant**2, f"{name} squared: {name} is multiplied in twice too often"
    if 0 < constant < 1:
        yield 1 - constant, f"1 - {name}, the keep probability, once too often or not divided by"
        yield 1 / (1 - constant), f"1 over (1 - {name}), the keep probability"
    elif constant > 0:
        yield math.sqrt(constant), f"the square root of {name}"
        yield 1 / math.sqrt(constant), f"1 over the square root of {name}"


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


def _of_no_sign(evidence: Evidence) -> Iterator[Diagnosis]:
    """The absolute value of the true gradient."""
    if (evidence.whole < 0).any() or evidence.wrong.sum() < 4:
        return
    sentence = "it is the absolute value of the true gradient"
    candidate = np.where(evidence.wrong, -evidence.claimed, evidence.claimed)
    found = evidence.found(Slip.ABSOLUTE, sentence, candidate)
    if found is not None:
        yield Diagnosis(Slip.ABSOLUTE, (), sentence, evidence.full)


def _clipped(evidence: Evidence) -> Iterator[Diagnosis]:
    """The true gradient, held between two bounds."""
    bound = float(np.abs(evidence.whole).max())
    wrong, true, claimed = evidence.wrong, evidence.true[evidence.wrong], evidence.claimed[evidence.wrong]
    if wrong.sum() < 3 or wrong.all() or not (np.abs(claimed) == bound).all():
        return
    if (np.abs(evidence.claimed[~wrong]) == bound).sum() > wrong.sum() // 4:  # the size of right elements, too
        return
    if (np.sign(claimed) == np.sign(true)).all() and (np.abs(true) > bound).all() and np.ptp(true) > evidence.tolerance:
        sentence = f"it is clipped to [-{number(bound, evidence)}, {number(bound, evidence)}]"
        yield Diagnosis(Slip.CLIPPED, (), sentence, evidence.full)


def _is(ratio: float, value: float, evidence: Evidence) -> bool:
    return math.isclose(ratio, value, rel_tol=evidence.relative)
