"""Examines gradients that are zero at the given point, at other points where they may not be zero."""

import math
from dataclasses import replace

import numpy as np

from jaxnet.crosscheck.context import Context
from jaxnet.crosscheck.decide import WRONG_CAUSES, Cause, Verdict
from jaxnet.crosscheck.explain import report_lines
from jaxnet.crosscheck.leaf_report import report_leaf
from jaxnet.crosscheck.measure.derivation import Derivations
from jaxnet.crosscheck.measure.other_points import distant_points, other_integers
from jaxnet.crosscheck.report import Leaf

# Relative to the size of a typical gradient: smaller ones are mostly rounding.
NEGLIGIBLE = 1e-6


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
    """Returns the leaves, with the verdict at other points for those whose gradients are zero at the given point."""
    zeros = {leaf.name for leaf in leaves if leaf.cause is Cause.ZERO_AT_POINT}
    if not zeros:
        return leaves
    decided: dict[str, list[Leaf]] = {name: [] for name in zeros}
    zero_points = dict.fromkeys(zeros, 0)
    for point, at in distant_points(context.at, context.points):
        distant = context.try_derivation(at, sorted(zeros))
        if distant is None:
            continue
        for name in [n for n in names if n in zeros]:
            outcome = context.outcome(name, Derivations(distant), point=point)
            if outcome.cause is Cause.ZERO_AT_POINT:
                zero_points[name] += 1
            elif outcome.verdict is not Verdict.INCONCLUSIVE:
                decided[name].append(report_leaf(context, outcome))
    wrong = _wrong_at_other_integers(context, {name for name in zeros if not decided[name]})
    examined = {
        leaf.name: _wrong_elsewhere(leaf)
        if leaf.name in wrong
        else _combined(leaf, decided[leaf.name], zero_points[leaf.name])
        for leaf in leaves
        if leaf.name in zeros
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


def _combined(leaf: Leaf, decided: list[Leaf], zero_points: int) -> Leaf:
    """Combines a zero gradient with its verdicts at other points and the number of those at which it is zero."""
    wrong = [other for other in decided if other.verdict is Verdict.FAIL]
    if len(wrong) == 1:
        return _wrong_elsewhere(leaf)
    if decided:
        return wrong[0] if wrong else decided[0]
    if zero_points < 2:
        return leaf
    passing = replace(leaf, verdict=Verdict.PASS, cause=Cause.ZERO_EVERYWHERE, min_detectable_error=math.nan)
    return replace(passing, notes=tuple(report_lines.notes(passing)))


def _wrong_elsewhere(leaf: Leaf) -> Leaf:
    return replace(leaf, cause=Cause.WRONG_AT_ANOTHER_POINT, min_detectable_error=math.nan)
