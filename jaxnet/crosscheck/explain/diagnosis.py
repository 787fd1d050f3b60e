"""Names the slip in a wrong gradient: what was probably written, seen from the true one.

A slip is a formula that people really write by mistake. It is named where it explains the whole error to the accuracy
of the true gradient, by more digits than chance would; several readings of one number are all named. Where none does,
the place of the error is named if it is confined to one, and otherwise nothing.
"""

from collections.abc import Callable, Iterator

import numpy as np

from jaxnet.crosscheck.explain import (
    derivatives,
    factors,
    losses,
    misplaced,
    parts,
    reductions,
    statistics,
    terms,
)
from jaxnet.crosscheck.explain.evidence import Diagnosis, DiagnosisInput, Evidence, Slip
from jaxnet.crosscheck.explain.wording import where

__all__ = ["Diagnosis", "DiagnosisInput", "Slip", "diagnose"]

COARSEST = 0.1  # the relative tolerance above which nothing is told apart
SLIPS: tuple[Callable[[Evidence], Iterator[Diagnosis]], ...] = (
    factors.slips,
    misplaced.slips,
    reductions.duplicates,
    misplaced.from_dout,
    parts.slips,
    losses.slips,
    derivatives.slips,
    reductions.slips,
    terms.slips,
    statistics.slips,
    misplaced.shifted,
    factors.along_probes,
    parts.lines,
    parts.place,
)


def diagnose(evidence: DiagnosisInput) -> Diagnosis | None:
    """Returns the slip that explains a wrong gradient, or None.

    Args:
        evidence: The claimed gradient, the true one as far as it is known, and what they may have been made from.

    Examples:
        >>> x = np.arange(12.0).reshape(3, 4)
        >>> diagnose(DiagnosisInput("x", 2 * x, x, 1e-9)).slip
        <Slip.FACTOR: 3>
    """
    compared = Evidence(evidence)
    if compared.scale == 0 or not np.isfinite(compared.scale):
        return None
    blurred = compared.relative > COARSEST * (1 + 1e-9)
    if not blurred and not np.isfinite(compared.whole).all():
        return _not_finite(compared)
    with np.errstate(all="ignore"):
        for slips in (factors.along_probes,) if blurred or not compared.wrong.any() else SLIPS:
            found = next(slips(compared), None)
            if found is not None:
                return found
    return None


def _not_finite(evidence: Evidence) -> Diagnosis:
    """Names where the claimed gradient is not finite though the true one is."""
    bad = ~np.isfinite(evidence.whole)
    what = "nan" if np.isnan(evidence.whole).any() else "infinite"
    if bad.all():
        return Diagnosis(Slip.NAN, (), f"it is {what} everywhere", True)
    places = evidence.places[bad.ravel()[evidence.places]]
    if not places.size:
        return Diagnosis(Slip.NAN, (), f"{int(bad.sum()):,} of {bad.size:,} elements are {what}", True)
    sentence = (
        f"{where(places, evidence)} {what}, where forward is smooth: as of a `where` whose other branch is not finite"
    )
    return Diagnosis(Slip.NAN, (), sentence, evidence.full)
