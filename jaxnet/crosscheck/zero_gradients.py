"""Examines gradients that are zero or lost in rounding at the given point, at other points where they may not be."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.context import Context, Outcome
from jaxnet.crosscheck.decide import SMALL_CAUSES, WRONG_CAUSES, Cause, Verdict
from jaxnet.crosscheck.explain import report_lines
from jaxnet.crosscheck.leaf_report import report_leaf
from jaxnet.crosscheck.measure.derivation import Derivations
from jaxnet.crosscheck.measure.lost_effects import is_lost
from jaxnet.crosscheck.measure.other_points import distant_points, other_integers
from jaxnet.crosscheck.report import Leaf

# Relative to the size of a typical gradient: smaller ones are mostly rounding.
NEGLIGIBLE = 1e-6
MIN_ZERO_POINTS = 2  # at which a gradient must be zero, besides the given point


class _Elsewhere(NamedTuple):
    """The verdicts on a leaf at points where its gradient is decided, and the outcomes at those where it is small."""

    decided: list[Leaf]
    small: list[Outcome]


def is_lost_to_rounding(context: Context, name: str) -> bool:
    """Returns whether the output is and stays 0, and the gradient is negligible against that at another point.

    The loss of samples that are classified with certainty is 0 to the last digit, while its gradient is 1e-20.
    """
    if context.analytic.typical_size:
        return False
    *_, (_, at) = distant_points(context.at, context.points)
    distant = context.try_derivation(at, [name])
    if distant is None:
        return False
    size, distant_size = (float(np.linalg.norm(each.gradient[name])) for each in (context.analytic, distant))
    return size < NEGLIGIBLE * distant_size


def examine_zeros(context: Context, names: list[str], leaves: list[Leaf]) -> list[Leaf]:
    """Returns the leaves, with the verdict at other points for those whose gradients are small at the given point."""
    small = {leaf.name: leaf for leaf in leaves if leaf.cause in SMALL_CAUSES}
    if not small:
        return leaves
    elsewhere = {name: _Elsewhere([], []) for name in small}
    for point, at in distant_points(context.at, context.points):
        distant = context.try_derivation(at, sorted(small))
        if distant is None:
            continue
        for name in [n for n in names if n in small]:
            outcome = context.outcome(name, Derivations(distant), point=point)
            if outcome.cause in SMALL_CAUSES:
                elsewhere[name].small.append(outcome)
            elif outcome.verdict is not Verdict.INCONCLUSIVE:
                elsewhere[name].decided.append(report_leaf(context, outcome))
    wrong = _wrong_at_other_integers(context, {name for name in small if not elsewhere[name].decided})
    examined = {
        name: _wrong_elsewhere(leaf) if name in wrong else _combined(context, leaf, elsewhere[name])
        for name, leaf in small.items()
    }
    return [examined.get(leaf.name, leaf) for leaf in leaves]


def _wrong_at_other_integers(context: Context, names: set[str]) -> set[str]:
    """Returns the leaves whose gradients are wrong for newly drawn ids and labels.

    Their verdict is not FAIL, because the drawn ids may break a rule, such as that no two are equal.
    """
    integers = {name: ids for name, ids in context.checkable.integers.items() if ids.size}
    if not names or not integers or context.options.expected is not None:
        return set()
    *_, (_, at) = distant_points(context.at, context.points)
    other = context.checkable.with_integers(other_integers(integers, at, context.points))
    distant = context.try_derivation(at, sorted(names), other) if other is not None else None
    if distant is None:
        return set()
    return {name for name in names if context.outcome(name, Derivations(distant)).cause in WRONG_CAUSES}


def _combined(context: Context, leaf: Leaf, elsewhere: _Elsewhere) -> Leaf:
    """Combines a small gradient with its verdicts at other points, and with its effect where it is small there, too."""
    decided = elsewhere.decided
    wrong = [other for other in decided if other.verdict is Verdict.FAIL]
    if len(wrong) == 1:
        return _wrong_elsewhere(leaf) if leaf.cause is Cause.ZERO_AT_POINT else leaf
    if decided:
        other = wrong[0] if wrong else decided[0]
        return other if leaf.cause is Cause.ZERO_AT_POINT else replace(other, notes=_lost_here(other))
    lost = leaf.cause is Cause.LOST_IN_ROUNDING or any(o.cause is Cause.LOST_IN_ROUNDING for o in elsewhere.small)
    if lost or _is_lost_anywhere(context, leaf, elsewhere.small):
        return replace(leaf, cause=Cause.LOST_IN_ROUNDING, min_detectable_error=math.nan)
    if len(elsewhere.small) < MIN_ZERO_POINTS:
        return leaf
    passing = replace(leaf, verdict=Verdict.PASS, cause=Cause.ZERO_EVERYWHERE)
    return replace(passing, notes=tuple(report_lines.notes(passing)))


def _is_lost_anywhere(context: Context, leaf: Leaf, small: list[Outcome]) -> bool:
    """Returns whether the leaf changes the output where it moves far from the given point or the last of the others."""
    points = (context.analytic, *(outcome.analytic for outcome in small[-1:]))
    return any(is_lost(derivation, leaf.name, context.directions) for derivation in points)


def _lost_here(leaf: Leaf) -> tuple[str, ...]:
    """Returns the notes of a leaf that was judged elsewhere because its effect is lost at the given point."""
    judged = report_lines.judged_elsewhere(leaf.point, Cause.ZERO_AT_POINT)
    return tuple(
        report_lines.judged_elsewhere(leaf.point, Cause.LOST_IN_ROUNDING) if note == judged else note
        for note in leaf.notes
    )


def _wrong_elsewhere(leaf: Leaf) -> Leaf:
    return replace(leaf, cause=Cause.WRONG_AT_ANOTHER_POINT, min_detectable_error=math.nan)
