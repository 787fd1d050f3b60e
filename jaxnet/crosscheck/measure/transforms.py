"""Compares code under a transformation, such as jit or vmap, with plain calls: the output and the gradients.

Two points a thousandth beside the given one are compared. A batching rule that mixes samples up returns values of the
other point; beside the given point, rounding in another order moves no element across a kink.
"""

import math
from collections.abc import Sequence

import numpy as np

from jaxnet.crosscheck.dtypes import effective_unit, in_float64, unit_roundoff
from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves, PointValue
from jaxnet.crosscheck.inspect.errors import describe
from jaxnet.crosscheck.measure.base_call import SUM_ROUNDING, distance, largest
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.leaf_steps import copies
from jaxnet.crosscheck.measure.other_points import all_beside
from jaxnet.crosscheck.meter import OutOfTime

Compared = tuple[list[Leaves], list[PointValue]]


def compare_transforms(
    checkable: Checkable, at: Leaves, dout: Array, asked: Sequence[str] | None, rng: np.random.Generator
) -> list[Finding]:
    """Returns a finding for each transformation under which the code raises or returns other numbers.

    Args:
        checkable: The code that is checked.
        at: The leaves.
        dout: The gradient from above.
        asked: The transformations under which it must run. Defaults to cheap ones, under which it need not run.
        rng: Draws the points.
    """
    findings = []
    compared = _plain(checkable, at, dout, rng)
    for transform in checkable.cheap_transforms if asked is None else asked:
        try:
            finding = _compare(checkable, transform, compared, dout)
            if finding is not None:  # unless it is due to a kink at these points
                finding = finding and _compare(checkable, transform, _plain(checkable, at, dout, rng), dout)
        except OutOfTime:
            raise
        except Exception as error:  # it cannot be transformed, as code with Python's `if`
            if asked is None:
                continue
            finding = Finding(Behaviour.TRANSFORM_RAISES, Level.FAULT, detail=f"{transform}: {describe(error)}")
        if finding is not None:
            findings.append(finding)
    return findings


def _plain(checkable: Checkable, at: Leaves, dout: Array, rng: np.random.Generator) -> Compared:
    """Returns two points, and the output and the gradients there by plain calls."""
    points, values = [], []
    for _ in range(2):
        beside = all_beside(at, rng)
        opened = checkable.open(copies(beside))
        output = np.array(opened.forward())
        if not np.isfinite(in_float64(output)).all():  # outside of the domain
            beside, opened = at, checkable.open(copies(at))
            output = np.array(opened.forward())
        points.append(beside)
        values.append(PointValue(output, {n: np.array(g) for n, g in opened.backward(dout).items() if g is not None}))
    return points, values


def _compare(checkable: Checkable, transform: str, compared: Compared, dout: Array) -> Finding | None:
    points, plain = compared
    terms = sum(leaf.size for leaf in points[0].values())
    for value, other in zip(plain, checkable.under(transform, [copies(point) for point in points], dout), strict=True):
        gap = distance(other.output, value.output)
        if gap > _allowed(value.output, points[0], terms):
            return Finding(Behaviour.TRANSFORM_VALUE, Level.FAULT, size=gap, detail=transform)
        for name, gradient in value.gradients.items():
            gap = distance(other.gradients.get(name), gradient)
            if gap > _allowed(gradient, points[0], terms + value.output.size):
                return Finding(Behaviour.TRANSFORM_GRADIENT, Level.FAULT, name, gap, transform)
    return None


def _allowed(values: Array, at: Leaves, terms: int) -> float:
    """Returns the largest difference of sums in another order; it is half of the digits, because terms may cancel."""
    unit = max(effective_unit(values), *(unit_roundoff(leaf.dtype) for leaf in at.values()))
    return max(SUM_ROUNDING * math.sqrt(terms) * unit, math.sqrt(unit)) * largest(values)
