"""Compares forward mode with reverse mode: <u, J v> = <J^T u, v>, exact up to rounding.

Both are linear maps of one code, so their difference shows errors that difference quotients do not resolve. A
difference quotient along the same direction tells which of the two is wrong.
"""

import math
from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.dtypes import in_float64
from jaxnet.crosscheck.inspect.checkable import Array, Leaves
from jaxnet.crosscheck.inspect.errors import describe
from jaxnet.crosscheck.measure.derivation import SAFETY, Derivation
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.leaf_steps import copies, scale_of
from jaxnet.crosscheck.meter import OutOfTime

RESOLVED = 1e-4  # the relative error of a quotient that is accurate enough to tell that one of the modes is wrong


class Along(NamedTuple):
    """The derivative of phi = <dout, forward> along one direction, by both modes, in phi's unit."""

    forward: float
    reverse: float
    rounding: float  # of both

    def differ(self, accuracy: float) -> bool:
        """Returns whether the two differ by more than rounding and the accuracy that is declared."""
        size = max(abs(self.forward), abs(self.reverse))
        return not abs(self.forward - self.reverse) <= SAFETY * self.rounding + accuracy * size


def compare_modes(analytic: Derivation, rng: np.random.Generator, accuracy: float) -> list[Finding]:
    """Returns the findings of a comparison of forward mode with reverse mode; none if there is no forward mode.

    Args:
        analytic: The derivation by reverse mode.
        rng: Draws directions.
        accuracy: The relative error that is allowed by design.
    """
    tangents = {name: _tangent(analytic, name, rng) for name in analytic.names}
    try:
        along = _along(analytic, tangents)
        if along is None or not along.differ(accuracy):
            return []
        found = (_compare(analytic, name, tangent, accuracy) for name, tangent in tangents.items())
        return [finding for finding in found if finding is not None]
    except OutOfTime:
        raise
    except Exception as error:  # raised by the user's rule
        return [Finding(Behaviour.FORWARD_MODE_RAISES, Level.FAULT, detail=describe(error))]


def _tangent(analytic: Derivation, name: str, rng: np.random.Generator) -> Array:
    """Returns a random direction along which a quotient's steps are exact, in the leaf's own units and dtype."""
    leaf = analytic.at[name]
    direction = analytic.exact(name, rng.standard_normal(leaf.shape))
    return np.asarray((scale_of(leaf) * direction).astype(leaf.dtype))


def different(value: float, other: float, unit: float = 1.0) -> tuple[str, str]:
    """Returns two numbers times a unit, with as many digits as it takes to tell them apart."""
    return next(
        (pair for n in (4, 6, 9, 12) if (pair := (f"{value * unit:.{n}g}", f"{other * unit:.{n}g}"))[0] != pair[1]),
        (f"{value * unit:.17g}", f"{other * unit:.17g}"),
    )


def _along(analytic: Derivation, tangents: Leaves) -> Along | None:
    pushed = analytic.checkable.pushforward(copies(analytic.at), copies(tangents))
    if pushed is None:
        return None
    weighted = analytic.dout * in_float64(pushed).reshape(analytic.dout.shape) / analytic.unit
    directions = {name: in_float64(tangent) / analytic.scale(name) for name, tangent in tangents.items()}
    reverse = sum(float(np.vdot(analytic.scaled_gradient(name), moves)) for name, moves in directions.items())
    terms = math.sqrt(sum(leaf.size for leaf in analytic.at.values()))
    unit_roundoff = max(analytic.unit_roundoff, analytic.noise.relative / 4)
    rounding = terms * unit_roundoff * float(np.linalg.norm(weighted)) + math.hypot(
        *(float(np.linalg.norm(analytic.roundings(name) * moves)) for name, moves in directions.items())
    )
    return Along(float(weighted.sum()), reverse, rounding)


def _compare(analytic: Derivation, name: str, tangent: Array, accuracy: float) -> Finding | None:
    """Returns the finding along one leaf: which of the two modes a difference quotient contradicts."""
    along = _along(analytic, {name: tangent})
    if along is None or not along.differ(accuracy):
        return None
    direction = in_float64(tangent) / analytic.scale(name)
    size = max(abs(along.forward), abs(along.reverse))
    probe = analytic.probe(name, direction, RESOLVED * size / SAFETY, analytic.start)
    numerical, tolerance = probe.numerical.value, probe.gap.tolerance + SAFETY * along.rounding + accuracy * size
    if not math.isfinite(tolerance):
        return Finding(Behaviour.MODES_DIFFER, Level.WARNING, name, abs(along.forward - along.reverse) / size)
    if not abs(along.forward - numerical) <= tolerance:
        detail = " where the difference quotient is ".join(different(along.forward, numerical, analytic.unit))
        return Finding(Behaviour.FORWARD_MODE_WRONG, Level.FAULT, name, detail=detail)
    if not probe.gap.within_tolerance:
        return Finding(Behaviour.FORWARD_MODE_RIGHT, Level.NOTE, name)
    level = Level.FAULT if tolerance <= RESOLVED * size else Level.WARNING
    return Finding(Behaviour.MODES_DIFFER, level, name, abs(along.forward - along.reverse) / size)
