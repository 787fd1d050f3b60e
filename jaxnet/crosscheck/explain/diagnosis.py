"""Names the slip in a wrong gradient: the mistake in the formula that was probably written.

A slip is named if it explains the whole error to the accuracy of the true gradient, and by more digits than chance
would. If one number has several possible meanings, all of them are named. If no slip explains the error but the error
is confined to one place, the place is named.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from jaxnet.crosscheck.explain import (
    array_factors,
    local_errors,
    losses,
    misplaced,
    missing_terms,
    normalization,
    overlaps,
    product_rules,
    reductions,
    scalar_factors,
)
from jaxnet.crosscheck.explain.evidence import Evidence
from jaxnet.crosscheck.explain.phrases import where
from jaxnet.crosscheck.explain.slips import Diagnosis, DiagnosisInput, Slip

__all__ = ["Diagnosis", "DiagnosisInput", "Slip", "diagnose"]

COARSEST = 0.1  # the relative tolerance above which single elements cannot be compared
SEARCHES: tuple[Callable[[Evidence], Iterator[Diagnosis]], ...] = (
    scalar_factors.slips,
    misplaced.slips,
    reductions.duplicates,
    misplaced.from_dout,
    local_errors.slips,
    losses.slips,
    array_factors.slips,
    product_rules.slips,
    reductions.slips,
    missing_terms.slips,
    normalization.slips,
    overlaps.slips,
    misplaced.shifted,
    scalar_factors.along_probes,
    local_errors.lines,
    local_errors.place,
)


def diagnose(inputs: DiagnosisInput) -> Diagnosis | None:
    """Returns the first slip that explains a wrong gradient, or None if none does.

    Args:
        inputs: The claimed gradient, the measured part of the true one, and the values that either may be made of.

    Examples:
        >>> x = np.arange(12.0).reshape(3, 4)
        >>> diagnose(DiagnosisInput("x", 2 * x, x, 1e-9)).slip
        <Slip.FACTOR: 3>
    """
    evidence = Evidence(inputs)
    if evidence.scale == 0 or not np.isfinite(evidence.scale):
        return None
    blurred = evidence.relative > COARSEST * (1 + 1e-9)
    if not blurred and not np.isfinite(evidence.whole).all():
        return _not_finite(evidence)
    searches = (scalar_factors.along_probes,) if blurred or not evidence.wrong.any() else SEARCHES
    with np.errstate(all="ignore"):
        return next(itertools.chain.from_iterable(search(evidence) for search in searches), None)


def _not_finite(evidence: Evidence) -> Diagnosis:
    """Names the elements where the claimed gradient is not finite although the true one is."""
    bad = ~np.isfinite(evidence.whole)
    what = "nan" if np.isnan(evidence.whole).any() else "infinite"
    if bad.all():
        return Diagnosis(Slip.NAN, (), f"it is {what} everywhere", True)
    places = evidence.places[bad.ravel()[evidence.places]]
    if not places.size:
        return Diagnosis(Slip.NAN, (), f"{int(bad.sum()):,} of {bad.size:,} elements are {what}", True)
    sentence = (
        f"{where(places, evidence)} {what} although forward is smooth there, "
        "as happens with a `where` whose other branch is not finite"
    )
    return Diagnosis(Slip.NAN, (), sentence, evidence.full)
