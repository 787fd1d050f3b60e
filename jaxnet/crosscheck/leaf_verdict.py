"""Chooses the verdict on one leaf: at the given point, or at points nearby if kinks make that impossible."""

from dataclasses import replace
from itertools import combinations

import numpy as np

from jaxnet.crosscheck.context import Context, Outcome
from jaxnet.crosscheck.decide import WRONG_CAUSES, Cause, Verdict
from jaxnet.crosscheck.dtypes import in_float64
from jaxnet.crosscheck.explain import report_lines
from jaxnet.crosscheck.explain.slips import Slip
from jaxnet.crosscheck.inspect.checkable import Leaves
from jaxnet.crosscheck.leaf_report import report_leaf
from jaxnet.crosscheck.measure.derivation import Derivations
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.finite_differences import STEP_RATIO
from jaxnet.crosscheck.measure.leaf import LeafMeasurement
from jaxnet.crosscheck.measure.other_points import Point, all_beside, beside
from jaxnet.crosscheck.measure.structures import Structure, recognized
from jaxnet.crosscheck.report import Leaf
from jaxnet.crosscheck.zero_gradients import is_lost_to_rounding

MAX_NEARBY_POINTS = 4
MIN_ERROR_RATIO = 8.0  # error at the given point over the tolerance nearby, for the error to be detectable there
MAX_EXCHANGED = 3  # largest number of wrong leaves in which exchanged gradients are searched for

MAX_LATER_LEAVES = 2  # whose gradients are compared at other inputs

KINK_CAUSES = (Cause.TOO_MANY_KINKS, Cause.ALL_AT_KINKS, Cause.OUTSIDE_SLOPES)


def check_leaf(context: Context, name: str) -> Leaf:
    """Checks a leaf and reports it."""
    derivations = Derivations(context.analytic, context.autodiff, context.forward)
    if (structure := context.options.structure.get(name)) is not None:
        outcome = context.outcome(name, derivations, structure=structure)
        return report_leaf(context, outcome._replace(note=_note(structure)))
    low_precision, half = context.low_precision.get(name), context.half_precision.get(name)
    outcome = context.outcome(name, derivations, low_precision=low_precision, half=half)
    if outcome.cause in WRONG_CAUSES:
        outcome = _with_shared_memory_gradient(context, outcome) or _along_structure(context, outcome) or outcome
        if outcome.note or outcome.cause is Cause.STRUCTURED_ONLY:
            return report_leaf(context, outcome)
    unconfirmed = outcome.cause is Cause.UNCONFIRMED and bool(outcome.measured.kinks)
    if outcome.verdict is not Verdict.FAIL and (outcome.cause in KINK_CAUSES or unconfirmed):
        outcome = _beside_kinks(context, outcome)
    elif outcome.cause is Cause.ANALYTIC_WRONG and _passes_nearby(context, outcome.measured):
        outcome = outcome._replace(verdict=Verdict.INCONCLUSIVE, cause=Cause.CORRECT_NEARBY)
    if outcome.cause is Cause.ANALYTIC_WRONG and is_lost_to_rounding(context, name):
        outcome = outcome._replace(verdict=Verdict.INCONCLUSIVE, cause=Cause.ZERO_AT_POINT)
    return report_leaf(context, outcome)


def _with_shared_memory_gradient(context: Context, outcome: Outcome) -> Outcome | None:
    """Returns the outcome with the gradients of tied parameters added up, if that explains most of the error."""
    name, analytic = outcome.measured.name, outcome.analytic
    tied = context.checkable.shared_memory_gradient(name, analytic.gradient)
    if tied is None:
        return None
    summed = context.outcome(name, Derivations(analytic.with_gradient(name, tied)))
    smaller = summed.measured.relative_error < outcome.measured.relative_error / 4
    return summed._replace(note=report_lines.TIED) if summed.verdict is Verdict.PASS or smaller else None


def _along_structure(context: Context, outcome: Outcome) -> Outcome | None:
    """Returns the outcome along the structure that the value has, if the gradient is right there."""
    name = outcome.measured.name
    for structure in recognized(in_float64(context.at[name])):
        along = context.outcome(name, Derivations(outcome.analytic), structure=structure)
        if along.verdict is Verdict.PASS and along.measured.size:
            if name in context.checkable.captured_leaves:  # the user did not ask for its gradient
                return along._replace(cause=Cause.STRUCTURED_ONLY, note=_note(structure))
            return along._replace(verdict=Verdict.INCONCLUSIVE, cause=Cause.STRUCTURED_ONLY)
    return None


def _note(structure: Structure) -> str:
    return report_lines.STRUCTURED.format(structure.name)


def _beside_kinks(context: Context, outcome: Outcome) -> Outcome:
    """Returns the outcome at a point beside the kinks, or the given outcome if that is inconclusive, too."""
    name = outcome.measured.name
    points = (beside(context.at, name, context.points) for _ in range(MAX_NEARBY_POINTS))
    outcomes = (_beside(context, at, name) for at in points)
    nearby = next((other for other in outcomes if other is not None), None)
    if nearby is None or nearby.verdict is Verdict.INCONCLUSIVE:
        return outcome
    if outcome.cause is Cause.ALL_AT_KINKS and nearby.verdict is Verdict.FAIL:
        return outcome._replace(verdict=Verdict.INCONCLUSIVE, cause=Cause.WRONG_NEARBY)
    return nearby


def _beside(context: Context, at: Leaves, name: str) -> Outcome | None:
    analytic = context.derivation(at, [name])
    autodiff = context.autodiff and context.derivation(at, [name], context.autodiff.checkable)
    return _nearby_outcome(context, name, Derivations(analytic, autodiff, context.forward))


def _passes_nearby(context: Context, measured: LeafMeasurement) -> bool:
    """Returns whether a wrong leaf passes with all leaves moved a little, where its error would be detected.

    A wrong formula is wrong nearby, too. A gradient that is wrong only at the given point is due to composed kinks.
    """
    if context.nearby is None:
        context.nearby = context.derivation(all_beside(context.at, context.points), context.analytic.names)
    nearby = _nearby_outcome(context, measured.name, Derivations(context.nearby))
    if nearby is None or nearby.verdict is not Verdict.PASS:
        return False
    return measured.relative_error > MIN_ERROR_RATIO * nearby.measured.relative_tolerance


def wrong_in_later_call(context: Context, leaves: list[Leaf]) -> list[Finding]:
    """Returns a finding if the gradient of a passing leaf is wrong with all leaves moved a little.

    A function of PyTorch may keep values of its first call in its class or closure, which copies share. Its gradient is
    right at the given inputs only. A NumPy layer is copied with its state, and `staleness` checks it for this.
    """
    if context.checkable.derived_by != "PyTorch" or context.options.expected:
        return []
    passing = [leaf.name for leaf in leaves if leaf.verdict is Verdict.PASS and leaf.cause is Cause.AGREES]
    passing = [name for name in passing if name not in context.options.structure][:MAX_LATER_LEAVES]
    later = context.try_derivation(all_beside(context.at, context.points), passing) if passing else None
    if later is None:
        return []
    for name in passing:
        outcome = _nearby_outcome(context, name, Derivations(later))
        if outcome is not None and outcome.verdict is Verdict.FAIL and outcome.cause is Cause.ANALYTIC_WRONG:
            return [Finding(Behaviour.WRONG_IN_LATER_CALL, Level.FAULT, name)]
    return []


def _nearby_outcome(context: Context, name: str, nearby: Derivations) -> Outcome | None:
    """Returns the outcome at a point nearby; None if the gradient is much smaller there, which may hide the error."""
    analytic = nearby.analytic
    size, nearby_size = (np.linalg.norm(each.measured(name).value) for each in (context.analytic, analytic))
    if not np.isfinite(analytic.output).all() or nearby_size < size / 2:
        return None
    start = None if analytic.coarse else analytic.first_step / STEP_RATIO  # the remaining kinks are near
    return context.outcome(name, nearby, start=start, point=Point.BESIDE)


def name_exchanged(context: Context, leaves: list[Leaf]) -> list[Leaf]:
    """Returns the leaves, with a diagnosis for two wrong gradients that are exchanged."""
    wrong = [leaf for leaf in leaves if leaf.cause is Cause.ANALYTIC_WRONG and leaf.point is Point.GIVEN]
    for first, second in combinations(wrong if len(wrong) <= MAX_EXCHANGED else (), 2):
        gradient = context.analytic.gradient
        if gradient[first.name].shape != gradient[second.name].shape:
            continue
        exchanged = context.analytic.with_gradient(first.name, gradient[second.name])
        exchanged = exchanged.with_gradient(second.name, gradient[first.name])
        outcomes = [context.outcome(name, Derivations(exchanged)) for name in (first.name, second.name)]
        if all(outcome.verdict is Verdict.PASS for outcome in outcomes):
            partners = {first.name: second.name, second.name: first.name}
            return [_exchanged(leaf, partners[leaf.name]) if leaf.name in partners else leaf for leaf in leaves]
    return leaves


def _exchanged(leaf: Leaf, partner: str) -> Leaf:
    diagnosis = f"it is the gradient by {partner}: the two are exchanged"
    return replace(leaf, slip=Slip.EXCHANGED, diagnosis=diagnosis)
