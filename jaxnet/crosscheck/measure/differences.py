"""Computes the derivative of a function of one variable by differences, with an error that is estimated, not assumed.

A *look* at step h evaluates phi at -4h, ..., 4h. It gives three central differences, Richardson's extrapolation of
them and its error, and the bend of the function: what phi(t) + phi(-t) is made of. One look never decides: where its
error is too large, others are taken at larger steps (against roundoff) and at smaller ones (against truncation).

    D(h) = (phi(h) - phi(-h)) / 2h              truncation h² phi''' / 6, roundoff noise / h
    fine = (4 D(h) - D(2h)) / 3                 truncation of order h⁴
    coarse = (4 D(2h) - D(4h)) / 3              errs by 16 times as much, so |fine - coarse| bounds fine's error
    bend(t) = phi(t) + phi(-t)                  t² phi'' where phi is smooth, |t| (D+ - D-) at a kink

References:
    Press et al., *Numerical Recipes*, section 5.7, after Ridders (1982); Moré and Wild, *Estimating Computational
    Noise*, SIAM J. Sci. Comput. 33 (2011).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Phi = Callable[[float], float]

# Steps are relative to the size of what is moved. The first is small enough that a kink seldom lies within 4h, and
# large enough that roundoff leaves nine digits in float64.
STEP = 2.0**-17
RATIO = 16.0
LARGEST, SMALLEST = 2.0**12, 2.0**-42
FOUR_DIGITS = 2.0**-14  # noise of a phi near 1: with more, nobody sees at which step it levels off
OWN_SIZE = 2.0**-2  # the step at which the outermost values are as far away as what is moved is large
EXCUSED = 2.0**12  # how much noisier than at the point a function may be beside it before it counts as oscillating
POINTS = np.arange(-4, 5)
SIXTH, THIRD = 924.0, 20.0  # (2k)! / (k!)²: the variance of a k-th difference of noise of variance 1


class Limit(Enum):
    """What keeps a difference quotient from being more accurate."""

    NONE = "none"
    ROUNDOFF = "roundoff"
    TRUNCATION = "truncation"
    DOMAIN = "domain"


class PhiNoise(NamedTuple):
    """The standard deviation of phi's noise at every step.

    Attributes:
        level: The noise of phi's values.
        argument: What the rounding of the argument adds to it, where steps are not exact.
        exact_from: The step from which on they are.
    """

    level: float
    argument: float = 0.0
    exact_from: float = 0.0

    def at(self, step: float) -> float:
        """Returns the noise at one step."""
        return self.level + (self.argument if step < self.exact_from else 0.0)


@dataclass(frozen=True)
class Look:
    """What nine values of phi say of its derivative at 0."""

    step: float
    value: float
    truncation: float
    roundoff: float
    bends: tuple[float, float, float]  # phi(jh) + phi(-jh) for j = 1, 2, 4
    noise: float  # the standard deviation of the noise that the values show by themselves

    @property
    def error(self) -> float:
        """How far `value` may be off."""
        return self.truncation + self.roundoff

    @property
    def finite(self) -> bool:
        """Whether all nine values are."""
        return math.isfinite(self.error)

    def follows(self, noise: float) -> bool:
        """Whether the step is small enough for phi's curvature, however large: its bends are nearly as 1 : 4 : 16."""
        first, second, fourth = self.bends
        deviation = max(abs(second - 4 * first), abs(fourth - 4 * second))
        return self.finite and deviation <= 32 * noise + abs(fourth) / 16


@dataclass(frozen=True)
class Derivative:
    """phi'(0), how far off it may be, and the looks that it comes from, best first."""

    looks: tuple[Look, ...]
    limit: Limit

    @property
    def value(self) -> float:
        """phi'(0); nan where phi is finite at no step."""
        return self.looks[0].value

    @property
    def error(self) -> float:
        """How far off `value` may be."""
        return self.looks[0].error

    @property
    def step(self) -> float:
        """The step of the best look."""
        return self.looks[0].step

    def noise_seen(self, at_least: float) -> float:
        """Returns phi's noise as the looks show it at every step: a kink looks like less at a smaller one."""
        seen = [found.noise for found in self.looks if found.finite]
        return max(at_least, min(seen)) if len(seen) > 2 else at_least

    def followed(self, noise: float) -> "Derivative | None":
        """Returns the derivative by those looks alone whose steps follow phi's curvature; None where none does.

        At too large a step a fast oscillation shows values that agree with each other by chance. It may show noise at
        every step, too: far more than was measured at the point, which excuses nothing.
        """
        noise = min(self.noise_seen(noise), EXCUSED * noise)
        followed = tuple(found for found in self.looks if found.follows(noise))
        return Derivative(followed, self.limit) if followed else None


def derivative(phi: Phi, noise: PhiNoise, target: float, start: float = STEP) -> Derivative:
    """Computes phi'(0) to an error of `target`, or as well as any step allows.

    Args:
        phi: A function with phi(0) = 0, evaluated eight times a look.
        noise: Phi's noise, at least.
        target: The error at which no further look is taken.
        start: The step of the first look, at most `OWN_SIZE`.

    Examples:
        >>> found = derivative(lambda t: math.expm1(3 * t), PhiNoise(1e-16), target=1e-9)
        >>> abs(found.value - 3) < found.error < 1e-9
        True
    """
    largest = LARGEST if noise.level < FOUR_DIGITS else OWN_SIZE
    looks = [look(phi, start, noise)]
    for step in _other_steps(looks, noise, target, largest):
        looks.append(look(phi, step, noise))
    best = _best(looks)
    if best.finite and best.error > target:
        for step in (best.step * 4, best.step / 4):
            if SMALLEST <= step <= largest and 1.5 * noise.at(step) / step < best.error:
                looks.append(look(phi, step, noise))
    looks = _trusted(looks)
    looks.sort(key=lambda found: found.error)
    return Derivative(tuple(looks), _limit(looks, target))


def _other_steps(looks: list[Look], noise: PhiNoise, target: float, largest: float) -> Iterator[float]:
    """Yields the steps to look at next, until the best look is good enough."""
    start = looks[0]
    upwards = start.finite and start.roundoff > start.truncation
    for up in (upwards, not upwards):
        step = start.step
        while True:
            best = _best(looks)
            if best.error <= target:
                return
            step = step * RATIO if up else step / RATIO
            if not SMALLEST <= step <= largest or (up and not start.finite):
                break
            if not up and math.isfinite(best.error) and 1.5 * noise.at(step) / step >= best.error:
                break
            yield step
            if up and (looks[-1].error > 4 * best.error or (step > OWN_SIZE and not _agrees(looks[-1], looks))):
                break


def _best(looks: list[Look]) -> Look:
    """Returns the look with the least error, of those that are to be trusted."""
    return min(_trusted(looks), key=lambda found: found.error)


def _trusted(looks: list[Look]) -> list[Look]:
    """Returns the looks without those far away that others contradict."""
    return [found for found in looks if found.step <= OWN_SIZE or _agrees(found, looks)]


def _agrees(large: Look, looks: list[Look]) -> bool:
    """Whether a look at a step beyond what is moved agrees with those at smaller steps, of which one sees something.

    Far away a function may level off: then all quotients are small, and agree with each other.
    """
    smaller = [found for found in looks if found.step < large.step and found.finite]
    agree = all(abs(large.value - found.value) <= 4 * (large.error + found.error) for found in smaller)
    return agree and any(found.error < abs(found.value) / 4 for found in smaller)


def _limit(looks: list[Look], target: float) -> Limit:
    best = looks[0]
    if best.error <= target:
        return Limit.NONE
    if not all(found.finite for found in looks):
        return Limit.DOMAIN
    return Limit.ROUNDOFF if best.roundoff > best.truncation else Limit.TRUNCATION


def look(phi: Phi, step: float, noise: PhiNoise) -> Look:
    """Evaluates phi around 0 at one step.

    Args:
        phi: A function with phi(0) = 0.
        step: The distance h of neighbouring values.
        noise: Phi's noise; roundoff is 1.5 noise / h, some 1.6 standard deviations of `fine`.
    """
    values = np.array([phi(j * step) if j else 0.0 for j in POINTS])
    if not np.isfinite(values).all():
        return Look(step, math.nan, math.inf, math.inf, (math.nan,) * 3, math.nan)
    D1, D2, D4 = ((values[4 + j] - values[4 - j]) / (2 * j * step) for j in (1, 2, 4))
    fine, coarse = (4 * D1 - D2) / 3, (4 * D2 - D4) / 3
    bends = (*(float(values[4 + j] + values[4 - j]) for j in (1, 2, 4)),)
    seen = float(noise_of(values[:, None])[0])
    return Look(step, float(fine), float(abs(fine - coarse)), 1.5 * noise.at(step) / step, bends, seen)  # type: ignore[arg-type]


def noise_of(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Estimates the noise in nine equispaced values of functions that are smooth on either side of the middle.

    A smooth function leaves h⁶ of itself in a sixth difference, which at small steps is nothing; noise of variance
    sigma² leaves 924 sigma². Where a kink in the middle fills the sixth differences, third differences of the four
    values on either side are much smaller, and count instead: noise leaves 20 sigma² in them.

    Args:
        values: (9, n), a function a column.

    Returns:
        The standard deviations (n,), each from two or three differences: good to a factor of about two.
    """
    values = np.asarray(values, np.float64)
    whole = np.sqrt(np.mean(np.diff(values, n=6, axis=0) ** 2, axis=0) / SIXTH)
    below, above = (np.diff(side, n=3, axis=0)[0] for side in (values[:4], values[5:]))
    sides = np.sqrt((below**2 + above**2) / 2 / THIRD)
    return np.where(sides < whole / 4, sides, whole)


@dataclass(frozen=True)
class Slopes:
    """The derivatives of phi at 0 from below and from above.

    Attributes:
        below: The slope for t < 0.
        above: The slope for t > 0.
        error: How far either may be off.
        step: The step at which they were found.
        lasting: Whether their difference stays the same as the step shrinks. That of a smooth function shrinks with it.
    """

    below: float
    above: float
    error: float
    step: float = math.nan
    lasting: bool = False

    @property
    def difference(self) -> float:
        """The slope from above less the one from below."""
        return self.above - self.below

    @property
    def is_kink(self) -> bool:
        """Whether the slopes differ, by more than their errors and at every step size."""
        return self.lasting and abs(self.difference) > 8 * self.error

    @property
    def settled(self) -> bool:
        """Whether smaller steps could only say the same more exactly."""
        return self.error < 1e-6 * max(abs(self.above), abs(self.below), abs(self.difference))


def one_sided(phi: Phi, noise: PhiNoise, start: float = STEP) -> Slopes:
    """Computes both one-sided derivatives of phi at 0, with steps that shrink until each side is smooth.

    (4 phi(h) - phi(2h)) / 2h has a truncation of order h²; the values at two steps give its error.
    """
    best = Slopes(math.nan, math.nan, math.inf)
    step = start
    while step >= SMALLEST and 4 * noise.at(step) / step < best.error and not best.settled:
        found = _slopes(phi, noise, step)
        if found.error < best.error:
            best = found
        step /= RATIO
    if not abs(best.difference) > 2 * best.error:
        return best
    nearer = _slopes(phi, noise, best.step / 4)
    change = abs(nearer.difference - best.difference)
    return replace(best, lasting=change <= abs(best.difference) / 4 + 2 * (nearer.error + best.error))


def _slopes(phi: Phi, noise: PhiNoise, step: float) -> Slopes:
    (below, _), (above, _) = sides = [_one_side(phi, sign * step) for sign in (-1, 1)]
    return Slopes(below, above, max(abs(fine - coarse) for fine, coarse in sides) + 4 * noise.at(step) / step, step)


def _one_side(phi: Phi, step: float) -> tuple[float, float]:
    """Returns the slope towards one side at two accuracies."""
    near, middle, far = (phi(j * step) for j in (1, 2, 4))
    return (4 * near - middle) / (2 * step), (4 * middle - far) / (4 * step)


def bends_beyond(bends: tuple[float, float, float], noise: float, step: float) -> bool:
    """Returns whether phi is anything but smooth within 4h: its bends are not in the ratio 1 : 4 : 16.

    A smooth phi leaves h⁴ phi'''' in the differences below, which is allowed up to 64 h² of bend(4h): a phi'''' of 64
    phi'' in units of what is moved. A kink leaves half of bend(4h), so that no more than a quarter is allowed.
    """
    first, second, fourth = bends
    smooth = min(64 * step**2, 0.25) * abs(fourth)
    return max(abs(second - 4 * first), abs(fourth - 4 * second)) > 32 * noise + smooth
