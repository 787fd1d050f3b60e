"""Computes the derivative of a function of one variable by finite differences, with an estimate of its error.

A `Quotient` at step h comes from the values of phi at -4h, ..., 4h: three central differences, Richardson's
extrapolation of them, the error of the extrapolation, and the bends phi(t) + phi(-t). Where the error is too large,
quotients at larger steps (against roundoff) and at smaller steps (against truncation) are added.

    D(h) = (phi(h) - phi(-h)) / 2h              truncation h² phi''' / 6, roundoff noise / h
    fine = (4 D(h) - D(2h)) / 3                 truncation of order h⁴
    coarse = (4 D(2h) - D(4h)) / 3              its error is 16 times as large, so |fine - coarse| bounds fine's error
    bend(t) = phi(t) + phi(-t)                  t² phi'' where phi is smooth, |t| (D+ - D-) at a kink

References:
    Press et al., *Numerical Recipes*, section 5.7, after Ridders (1982); Moré and Wild, *Estimating Computational
    Noise*, SIAM J. Sci. Comput. 33 (2011).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Phi = Callable[[float], float]

# Steps are relative to the size of the leaf that moves. The first one is small enough that a kink is rarely within 4h,
# and large enough that roundoff leaves nine digits in float64.
FIRST_STEP = 2.0**-17
STEP_RATIO = 16.0
MAX_STEP, MIN_STEP = 2.0**12, 2.0**-42
MAX_NEAR_STEP = 2.0**-2  # at larger steps the outermost values are farther away than the leaf's own size
MAX_NOISE_OF_LARGE_STEPS = 2.0**-14  # for a phi near 1; with more noise, a phi that levels off is not noticed
MAX_NOISE_GROWTH = 2.0**12  # noise near the point over noise at the point; above this ratio phi oscillates
OFFSETS = np.arange(-4, 5)  # of the nine values, in steps
# (2k)! / (k!)²: the variance of a k-th difference of noise of variance 1.
SIXTH_DIFFERENCE_VARIANCE, THIRD_DIFFERENCE_VARIANCE = 924.0, 20.0


class Limit(Enum):
    """The reason why a difference quotient is not more accurate."""

    NONE = ""
    ROUNDOFF = "roundoff"
    TRUNCATION = "truncation"
    DOMAIN = "domain"


class PhiNoise(NamedTuple):
    """The standard deviation of phi's noise at every step.

    Attributes:
        level: The noise of phi's values.
        argument: The noise that rounding of the argument adds at steps that are not exact.
        exact_from: The smallest exact step.
    """

    level: float
    argument: float = 0.0
    exact_from: float = 0.0

    def at(self, step: float) -> float:
        """Returns the noise at one step."""
        return self.level + (self.argument if step < self.exact_from else 0.0)


@dataclass(frozen=True)
class Quotient:
    """The derivative of phi at 0, estimated from nine values at one step size."""

    step: float
    value: float
    truncation: float
    roundoff: float
    bends: tuple[float, float, float]  # phi(jh) + phi(-jh) for j = 1, 2, 4
    noise: float  # the standard deviation of the noise in these nine values

    @property
    def error(self) -> float:
        """The estimated error of `value`."""
        return self.truncation + self.roundoff

    @property
    def finite(self) -> bool:
        """Whether all nine values are finite."""
        return math.isfinite(self.error)

    def is_smooth(self, noise: float) -> bool:
        """Returns whether the step is small enough for phi's curvature: bends are nearly in the ratio 1 : 4 : 16."""
        first, second, fourth = self.bends
        deviation = max(abs(second - 4 * first), abs(fourth - 4 * second))
        return self.finite and deviation <= 32 * noise + abs(fourth) / 16


@dataclass(frozen=True)
class Derivative:
    """The derivative of phi at 0, and the quotients it was chosen from, the most accurate first."""

    quotients: tuple[Quotient, ...]
    limit: Limit

    @property
    def value(self) -> float:
        """phi'(0); nan if phi is not finite at any step."""
        return self.quotients[0].value

    @property
    def error(self) -> float:
        """The estimated error of `value`."""
        return self.quotients[0].error

    @property
    def step(self) -> float:
        """The step of the most accurate quotient."""
        return self.quotients[0].step

    def observed_noise(self, at_least: float) -> float:
        """Returns the noise that the quotients show at every step; noise due to a kink shrinks with the step."""
        levels = [quotient.noise for quotient in self.quotients if quotient.finite]
        return max(at_least, min(levels)) if len(levels) > 2 else at_least

    def smooth_part(self, noise: float) -> "Derivative | None":
        """Returns the derivative from smooth quotients alone; None if there are none.

        At too large a step, values of a fast oscillation may agree with each other by chance. An oscillation may also
        look like noise at every step, so the noise is bounded by what was measured at the point.
        """
        noise = min(self.observed_noise(noise), MAX_NOISE_GROWTH * noise)
        smooth = tuple(quotient for quotient in self.quotients if quotient.is_smooth(noise))
        return Derivative(smooth, self.limit) if smooth else None


def derivative(phi: Phi, noise: PhiNoise, target: float, start: float = FIRST_STEP) -> Derivative:
    """Computes phi'(0) to an error of `target`, or as accurately as any step allows.

    Args:
        phi: A function with phi(0) = 0, evaluated eight times a step.
        noise: A lower bound of phi's noise.
        target: The error at which no further step is tried.
        start: The first step, at most `MAX_NEAR_STEP`.

    Examples:
        >>> result = derivative(lambda t: math.expm1(3 * t), PhiNoise(1e-16), target=1e-9)
        >>> abs(result.value - 3) < result.error < 1e-9
        True
    """
    largest = MAX_STEP if noise.level < MAX_NOISE_OF_LARGE_STEPS else MAX_NEAR_STEP
    quotients = [quotient_at(phi, start, noise)]
    for step in _other_steps(quotients, noise, target, largest):
        quotients.append(quotient_at(phi, step, noise))
    best = _best(quotients)
    if best.finite and best.error > target:
        for step in (best.step * 4, best.step / 4):
            if MIN_STEP <= step <= largest and 1.5 * noise.at(step) / step < best.error:
                quotients.append(quotient_at(phi, step, noise))
    quotients = _trusted(quotients)
    quotients.sort(key=lambda quotient: quotient.error)
    return Derivative(tuple(quotients), _limit(quotients, target))


def _other_steps(quotients: list[Quotient], noise: PhiNoise, target: float, largest: float) -> Iterator[float]:
    """Yields further steps until the best quotient reaches the target; the caller appends the quotient of each."""
    start = quotients[0]
    upwards = start.finite and start.roundoff > start.truncation
    for up in (upwards, not upwards):
        step = start.step
        while True:
            best = _best(quotients)
            if best.error <= target:
                return
            step = step * STEP_RATIO if up else step / STEP_RATIO
            if not MIN_STEP <= step <= largest or (up and not start.finite):
                break
            if not up and math.isfinite(best.error) and 1.5 * noise.at(step) / step >= best.error:
                break
            yield step
            latest = quotients[-1]
            if up and (latest.error > 4 * best.error or (step > MAX_NEAR_STEP and not _agrees(latest, quotients))):
                break


def _best(quotients: list[Quotient]) -> Quotient:
    """Returns the trusted quotient with the least error."""
    return min(_trusted(quotients), key=lambda quotient: quotient.error)


def _trusted(quotients: list[Quotient]) -> list[Quotient]:
    """Returns the quotients without those at large steps that contradict others."""
    return [quotient for quotient in quotients if quotient.step <= MAX_NEAR_STEP or _agrees(quotient, quotients)]


def _agrees(large: Quotient, quotients: list[Quotient]) -> bool:
    """Returns whether a quotient at a large step agrees with those at smaller steps, one of them significantly not 0.

    Far from the point a function may level off: then all quotients are small and agree with each other.
    """
    smaller = [quotient for quotient in quotients if quotient.step < large.step and quotient.finite]
    agree = all(abs(large.value - quotient.value) <= 4 * (large.error + quotient.error) for quotient in smaller)
    return agree and any(quotient.error < abs(quotient.value) / 4 for quotient in smaller)


def _limit(quotients: list[Quotient], target: float) -> Limit:
    best = quotients[0]
    if best.error <= target:
        return Limit.NONE
    if not all(quotient.finite for quotient in quotients):
        return Limit.DOMAIN
    return Limit.ROUNDOFF if best.roundoff > best.truncation else Limit.TRUNCATION


def quotient_at(phi: Phi, step: float, noise: PhiNoise) -> Quotient:
    """Computes the difference quotient of phi at 0 for one step.

    Args:
        phi: A function with phi(0) = 0.
        step: The distance h of neighbouring values.
        noise: Phi's noise. The roundoff is 1.5 noise / h, about 1.6 standard deviations of `fine`.
    """
    values = np.array([phi(j * step) if j else 0.0 for j in OFFSETS])
    if not np.isfinite(values).all():
        return Quotient(step, math.nan, math.inf, math.inf, (math.nan,) * 3, math.nan)
    D1, D2, D4 = ((values[4 + j] - values[4 - j]) / (2 * j * step) for j in (1, 2, 4))
    fine, coarse = (4 * D1 - D2) / 3, (4 * D2 - D4) / 3
    bend1, bend2, bend4 = (float(values[4 + j] + values[4 - j]) for j in (1, 2, 4))
    bends, roundoff = (bend1, bend2, bend4), 1.5 * noise.at(step) / step
    return Quotient(step, float(fine), float(abs(fine - coarse)), roundoff, bends, float(noise_of(values[:, None])[0]))


def noise_of(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Estimates the noise in nine equispaced values of functions that are smooth on either side of the middle.

    A smooth function contributes terms of order h⁶ to a sixth difference, which are negligible at small steps; noise
    of variance sigma² contributes 924 sigma². Where a kink in the middle dominates the sixth differences, the third
    differences of the four values on either side are much smaller and are used instead: noise contributes 20 sigma².

    Args:
        values: (9, n), a function a column.

    Returns:
        The standard deviations (n,), each from two or three differences: accurate to a factor of about two.
    """
    values = np.asarray(values, np.float64)
    whole = np.sqrt(np.mean(np.diff(values, n=6, axis=0) ** 2, axis=0) / SIXTH_DIFFERENCE_VARIANCE)
    below, above = (np.diff(side, n=3, axis=0)[0] for side in (values[:4], values[5:]))
    sides = np.sqrt((below**2 + above**2) / 2 / THIRD_DIFFERENCE_VARIANCE)
    return np.where(sides < whole / 4, sides, whole)
