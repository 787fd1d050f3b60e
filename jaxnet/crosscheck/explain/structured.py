"""Recognizes mistakes in a gradient that is judged along a structure, by slopes along its tangents alone.

No element of such a leaf moves by itself, so no element of the true gradient is known. A candidate for the true
gradient is compared with the slopes along the tangents, and the gradient with slopes along parts of the structure.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from jaxnet.crosscheck.explain.evidence import ENOUGH, PROBE_MARGIN, Evidence
from jaxnet.crosscheck.explain.scalar_factors import along_probes
from jaxnet.crosscheck.explain.slips import Array, Diagnosis, Slip
from jaxnet.crosscheck.measure.structure_parts import PartSlopes
from jaxnet.crosscheck.measure.structures import OFF_DIAGONAL

PAIRS = {2.0: ": each pair of equal elements is counted twice", 0.5: ": each pair of equal elements is counted once"}


def diagnose_along(evidence: Evidence, structure: str, parts: Callable[[], Sequence[PartSlopes]]) -> Diagnosis | None:
    """Returns the first mistake that explains all slopes along a structure, or None if none does.

    Args:
        evidence: The claimed gradient, and the slopes along tangents.
        structure: The name of the structure.
        parts: Measures the slopes along its parts.
    """
    for search in (along_probes(evidence), _transposed(evidence), _in_its_frame(evidence, structure)):
        if (diagnosis := next(search, None)) is not None:
            return diagnosis
    return next(_in_a_part(parts(), structure), None)


def _transposed(evidence: Evidence) -> Iterator[Diagnosis]:
    if _is_square(evidence.shape) and _explains(evidence, np.swapaxes(evidence.whole, -1, -2)):
        yield Diagnosis(Slip.TRANSPOSED, (), "it equals the true gradient transposed, along the structure", True)


def _in_its_frame(evidence: Evidence, structure: str) -> Iterator[Diagnosis]:
    """Yields the gradient by the turn of a rotation, x^T G or G x^T, in the place of G, the one by its elements."""
    x = evidence.own
    if structure != "rotation" or x is None:
        return
    frames = {"x^T G": x @ evidence.whole, "G x^T": evidence.whole @ x}
    for formula, candidate in frames.items():
        if _explains(evidence, candidate):
            sentence = f"it is {formula} in the place of the true gradient G, so by a turn and not by the elements"
            yield Diagnosis(Slip.WRONG_PRODUCT, (), sentence, True)


def _is_square(shape: tuple[int, ...]) -> bool:
    return len(shape) >= 2 and shape[-1] == shape[-2]


def _explains(evidence: Evidence, candidate: Array) -> bool:
    """Returns whether a candidate has the true slope along every tangent, and by more digits than chance would."""
    digits = 0.0
    for direction, norm, claimed, true, error in evidence.probes:
        allowed = PROBE_MARGIN * error + 1e-13 * float(np.linalg.norm(candidate)) * norm
        if not abs(float(candidate.ravel() @ direction) - true) <= allowed:
            return False
        digits += max(math.log10(max(abs(claimed - true), allowed) / allowed), 0.0) if allowed else 0.0
    return digits >= ENOUGH


def _in_a_part(parts: Sequence[PartSlopes], structure: str) -> Iterator[Diagnosis]:
    """Yields a mistake in one part of the structure, if the other parts are right."""
    wrong = [part for part in parts if not part.is_right]
    if len(wrong) != 1 or len(parts) < 2 or not all(np.isfinite(part.true).all() for part in parts):
        return
    (part,) = wrong
    others = "the rest is right"
    if not part.claimed.any():
        yield Diagnosis(Slip.PART_MISSING, (), f"{part.name}: it is zero there, and {others}", True)
    elif (factor := part.factor) is not None:
        symmetric = structure in ("symmetric", "positive definite") and part.name == OFF_DIAGONAL
        meaning = next((text for value, text in PAIRS.items() if math.isclose(factor, value, rel_tol=1e-6)), "")
        sentence = f"{part.name}: it equals the true gradient times {factor:.6g} there, and {others}"
        yield Diagnosis(Slip.PART_FACTOR, (), sentence + (meaning if symmetric else ""), True)
    else:
        yield Diagnosis(Slip.PLACE, (), f"{part.name}: it is wrong there, and {others}", True)
