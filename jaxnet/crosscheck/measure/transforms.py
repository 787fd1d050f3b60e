"""Compares code under a transformation, such as jit or vmap, with plain calls: the output and the gradients.

Two points a thousandth beside the given one are compared. A batching rule that mixes samples up returns values of the
other point; beside the given point, rounding in another order moves no element across a kink.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.dtypes import effective_unit, in_float64
from jaxnet.crosscheck.inspect.checkable import Array, Leaves, PointValue
from jaxnet.crosscheck.inspect.errors import describe
from jaxnet.crosscheck.measure.base_call import SUM_ROUNDING, distance, largest
from jaxnet.crosscheck.measure.derivation import SAFETY, Derivation, Measured
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.leaf_steps import copies
from jaxnet.crosscheck.measure.other_points import all_beside
from jaxnet.crosscheck.meter import OutOfTime


class Rounding(NamedTuple):
    """The rounding errors of an element of the output and of each gradient."""

    output: float
    gradients: dict[str, float]


def compare_transforms(
    analytic: Derivation,
    gradient: Mapping[str, Measured],
    asked: Sequence[str] | None,
    rng: np.random.Generator,
    accuracy: float,
) -> list[Finding]:
    """Returns a finding for each transformation under which the code raises or returns other numbers.

    Args:
        analytic: The derivation that is checked.
        gradient: Its gradients.
        asked: The transformations under which it must run. Defaults to cheap ones, under which it need not run.
        rng: Draws the points.
        accuracy: The relative error that is allowed by design.
    """
    findings: list[Finding] = []
    checkable = analytic.checkable
    transforms = checkable.cheap_transforms if asked is None else asked
    points = _points(analytic, rng) if transforms else []
    errors = {n: part.rounding + accuracy * largest(part.value) / SAFETY for n, part in gradient.items()}
    rounding = Rounding(analytic.output_rounding() + accuracy * largest(analytic.output) / SAFETY, errors)
    for transform in transforms:
        try:
            finding = _compare(analytic, transform, points, rounding)
            if finding is not None:  # unless it is due to a kink at these points
                finding = _compare(analytic, transform, _points(analytic, rng), rounding)
        except OutOfTime:
            raise
        except Exception as error:  # it cannot be transformed, as code with Python's `if`
            if asked is None:
                continue
            finding = Finding(Behaviour.TRANSFORM_RAISES, Level.FAULT, detail=f"{transform}: {describe(error)}")
        is_repeated = asked is None and finding is not None and any(f.kind is finding.kind for f in findings)
        if finding is not None and not is_repeated:
            findings.append(finding)
    return findings


def _points(analytic: Derivation, rng: np.random.Generator) -> list[tuple[Leaves, PointValue]]:
    """Returns two points, with the output and the gradients there by plain calls."""
    points = []
    for _ in range(2):
        beside = all_beside(analytic.at, rng)
        value = _value(analytic, beside)
        if not np.isfinite(in_float64(value.output)).all():  # outside of the domain
            beside, value = analytic.at, _value(analytic, analytic.at)
        points.append((beside, value))
    return points


def _value(analytic: Derivation, at: Leaves) -> PointValue:
    opened = analytic.checkable.open(copies(at))
    output = np.array(opened.forward())
    gradients = opened.backward(analytic.cast_dout)
    return PointValue(output, {name: np.array(gradients[name]) for name in analytic.names})


def _compare(
    analytic: Derivation, transform: str, points: list[tuple[Leaves, PointValue]], rounding: Rounding
) -> Finding | None:
    at = [copies(point) for point, _ in points]
    values = analytic.checkable.under(transform, at, analytic.cast_dout)
    terms = sum(leaf.size for leaf in at[0].values())
    unit = analytic.unit_roundoff
    for (_, plain), value in zip(points, values, strict=True):
        gap = distance(value.output, plain.output)
        if gap > _allowed(plain.output, unit, terms) + SAFETY * rounding.output:
            return Finding(Behaviour.TRANSFORM_VALUE, Level.FAULT, size=gap, detail=transform)
        for name, gradient in plain.gradients.items():
            gap = distance(value.gradients.get(name), gradient)
            allowed = _allowed(gradient, unit, terms + plain.output.size)
            if gap > allowed + 2 * SAFETY * rounding.gradients[name]:
                return Finding(Behaviour.TRANSFORM_GRADIENT, Level.FAULT, name, gap, transform)
    return None


def _allowed(values: Array, unit_roundoff: float, terms: int) -> float:
    """Returns the largest difference of sums in another order; it is half of the digits, because terms may cancel."""
    unit = max(effective_unit(values), unit_roundoff)
    return max(SUM_ROUNDING * math.sqrt(terms) * unit, math.sqrt(unit)) * largest(values)
