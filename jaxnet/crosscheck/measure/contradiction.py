"""Decides whether difference quotients that disagree with a gradient prove it wrong.

A quotient at a single step may be off by chance, such as at a multiple of an oscillation's period. So a contradiction
is confirmed by a quotient at another step, and by a gradient that hardly changes between the point and either step.
"""

import math
from dataclasses import replace

import numpy as np

from jaxnet.crosscheck.dtypes import in_float64
from jaxnet.crosscheck.inspect.checkable import Array
from jaxnet.crosscheck.measure.derivation import SAFETY, Derivation, Probe
from jaxnet.crosscheck.measure.finite_differences import Quotient, quotient_at
from jaxnet.crosscheck.measure.leaf_steps import copies, stepped

# Irrational: where one step is a multiple of an oscillation's period, the other one is not.
CONFIRMING_STEP_RATIO = (math.sqrt(5) - 1) / 2
FARTHEST = 2.0**21  # at which a phi that is constant near 0 is expected to change
BISECTIONS = 12  # to find the first change of a phi that is constant near 0


def is_contradicted(derivation: Derivation, name: str, probe: Probe) -> bool:
    """Returns whether a probe exceeds its tolerance, most of the accurate quotients contradict it, and one confirms it.

    A quotient is accurate if its own error is less than half of the gap.
    """
    smooth = probe.numerical.smooth_part(derivation.phi_noise)
    if probe.gap.within_tolerance or smooth is None:
        return False
    gap = probe.gap.error
    contradicting = [q for q in smooth.quotients if SAFETY * (q.error + probe.rounding) < gap]
    supporting = [q for q in smooth.quotients if q.error < gap / 2 and not probe.contradicted_by(q)]
    return len(contradicting) > len(supporting) and is_confirmed(derivation, name, probe, contradicting[0])


def is_confirmed(derivation: Derivation, name: str, probe: Probe, quotient: Quotient) -> bool:
    """Returns whether a contradicting quotient agrees with one at another step, and the gradient is steady at both."""
    noise = derivation.noise_along(name, probe.direction, derivation.phi_noise)
    other = quotient_at(derivation.phi(name, probe.direction), quotient.step * CONFIRMING_STEP_RATIO, noise)
    both = replace(probe.numerical, quotients=(*probe.numerical.quotients, other)).smooth_part(derivation.phi_noise)
    if quotient.value == other.value == 0.0 and is_plateau(derivation, name, probe, quotient.step):
        return False
    agree = abs(quotient.value - other.value) <= SAFETY * (quotient.error + other.error)
    if not (agree and both is not None and other in both.quotients and probe.contradicted_by(other)):
        return False
    gap = abs(probe.claimed - quotient.value)
    return all(is_steady(derivation, name, probe.direction, step, gap) for step in (quotient.step, other.step))


def is_plateau(derivation: Derivation, name: str, probe: Probe, step: float) -> bool:
    """Returns whether the output is constant within a step only because it is rounded.

    Then its first change is as large as the claimed gradient predicts for that distance. Beyond a kink, the first
    change is small, and a constant function does not change at all.
    """
    phi = derivation.phi(name, probe.direction)
    for sign in (1.0, -1.0):
        below, above = 0.0, step
        while phi(sign * above) == 0.0 and above <= FARTHEST:
            below, above = above, 2 * above
        for _ in range(BISECTIONS):
            middle = (below + above) / 2
            below, above = (middle, above) if phi(sign * middle) == 0.0 else (below, middle)
        if below >= step and abs(phi(sign * above)) >= abs(probe.claimed) * above / 4:
            return True
    return False


def is_steady(derivation: Derivation, name: str, direction: Array, step: float, gap: float) -> bool:
    """Returns whether the analytic gradient along a direction varies by less than half a gap within a step.

    The correct gradient of a feature narrower than the step, which no quotient resolves, varies by as much as it
    differs from the quotient. Curvature does not count: a(h) = (g(h) + g(-h)) / 2 - g(0) is of order h² where g is
    smooth, and (4 a(h) - a(2h)) / 3 is of order h⁴, as the truncation of a quotient is.
    """
    scale, factor = derivation.scale(name), derivation.factor(name)
    at_point = float(np.vdot(derivation.scaled_gradient(name), direction))

    def claimed(t: float) -> float:
        at = copies(derivation.at)
        at[name] = stepped(at[name], t, scale * direction)
        try:
            gradient = in_float64(derivation.checkable.backward(at, derivation.cast_dout)[name])
        except Exception:  # the user's code rejects these values: they are outside its domain
            return math.nan
        return float(np.vdot(np.where(np.isfinite(at[name]), gradient * factor, 0.0), direction))

    near = (claimed(step) + claimed(-step)) / 2 - at_point
    if abs(near) <= gap / 4:
        return True
    far = (claimed(2 * step) + claimed(-2 * step)) / 2 - at_point
    return abs(4 * near - far) / 3 <= gap / 2
