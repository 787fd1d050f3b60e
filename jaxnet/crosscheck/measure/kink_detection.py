"""Decides whether a function of one variable has a kink: at 0, by its one-sided slopes, or near 0, by its bends."""

import math
from dataclasses import dataclass, replace

from jaxnet.crosscheck.measure.finite_differences import FIRST_STEP, MIN_STEP, STEP_RATIO, Phi, PhiNoise


@dataclass(frozen=True)
class Slopes:
    """The derivatives of phi at 0 from below and from above.

    Attributes:
        below: The slope for t < 0.
        above: The slope for t > 0.
        error: The estimated error of either slope.
        step: The step at which they were computed.
        persists: Whether their difference stays the same as the step shrinks. It shrinks too if phi is smooth.
    """

    below: float
    above: float
    error: float
    step: float = math.nan
    persists: bool = False

    @property
    def difference(self) -> float:
        """The slope from above less the slope from below."""
        return self.above - self.below

    @property
    def is_kink(self) -> bool:
        """Whether the slopes differ by more than their errors, at every step size."""
        return self.persists and abs(self.difference) > 8 * self.error

    @property
    def converged(self) -> bool:
        """Whether smaller steps would only add digits."""
        return self.error < 1e-6 * max(abs(self.above), abs(self.below), abs(self.difference))


def one_sided_slopes(phi: Phi, noise: PhiNoise, start: float = FIRST_STEP) -> Slopes:
    """Computes both one-sided derivatives of phi at 0, with steps that shrink until each side is smooth.

    (4 phi(h) - phi(2h)) / 2h has a truncation of order h²; the values at two steps give its error.
    """
    best = Slopes(math.nan, math.nan, math.inf)
    step = start
    while step >= MIN_STEP and 4 * noise.at(step) / step < best.error and not best.converged:
        slopes = _slopes(phi, noise, step)
        if slopes.error < best.error:
            best = slopes
        step /= STEP_RATIO
    if not abs(best.difference) > 2 * best.error:
        return best
    nearer = _slopes(phi, noise, best.step / 4)
    change = abs(nearer.difference - best.difference)
    return replace(best, persists=change <= abs(best.difference) / 4 + 2 * (nearer.error + best.error))


def _slopes(phi: Phi, noise: PhiNoise, step: float) -> Slopes:
    (below, _), (above, _) = sides = [_one_side(phi, sign * step) for sign in (-1, 1)]
    return Slopes(below, above, max(abs(fine - coarse) for fine, coarse in sides) + 4 * noise.at(step) / step, step)


def _one_side(phi: Phi, step: float) -> tuple[float, float]:
    """Returns the slope towards one side at two accuracies."""
    near, middle, far = (phi(j * step) for j in (1, 2, 4))
    return (4 * near - middle) / (2 * step), (4 * middle - far) / (4 * step)


def has_kink_nearby(bends: tuple[float, float, float], noise: float, step: float) -> bool:
    """Returns whether phi is not smooth within 4h: its bends are not in the ratio 1 : 4 : 16.

    A smooth phi contributes h⁴ phi'''' to the differences below. The tolerance is 64 h² of bend(4h): a phi'''' of 64
    phi'' in units of the leaf's size. A kink contributes half of bend(4h), so the tolerance is at most a quarter.

    Args:
        bends: phi(jh) + phi(-jh) for j = 1, 2, 4.
        noise: The standard deviation of phi's noise.
        step: The step h.
    """
    first, second, fourth = bends
    smooth = min(64 * step**2, 0.25) * abs(fourth)
    return max(abs(second - 4 * first), abs(fourth - 4 * second)) > 32 * noise + smooth
