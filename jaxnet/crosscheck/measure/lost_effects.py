"""Tells a gradient that is zero from one whose effect on the output is lost in rounding.

Beside a constant of 1e8, a term of 1e-9 does not change a float64 output, and neither does an unused argument. The two
differ where a leaf moves far: the term emerges from the output's rounding and grows smoothly, while an unused argument
changes nothing, and a bias before a normalization changes nothing but rounding. A bounded term, such as 1e-7 tanh, does
not emerge by moving far. Within the leaf's own size, it changes the output by a trend, and rounding does not.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from jaxnet.crosscheck.dtypes import in_float64
from jaxnet.crosscheck.inspect.checkable import Array
from jaxnet.crosscheck.measure.derivation import MANY_DIGITS, SAFETY, Derivation
from jaxnet.crosscheck.measure.leaf_steps import copies

Change = Callable[[float], float]  # the odd part of phi

# Relative to the leaf's size, up to 2e6. The ratio is no power of 2, by which rounding errors would grow smoothly, too.
FAR_STEPS = 0.25 * 3.7 ** np.arange(13)
# Over the noise: a smaller change is not visible, and a larger one that was not visible at the step before is a jump,
# or the end of a flat part, as of a ReLU.
MIN_CHANGE, MAX_CHANGE = 64.0, 6400.0
MAX_QUANTUM = 2.0**-21  # the largest first change that may be rounding, relative to phi: a few units of float32
NEARBY_STEPS = np.linspace(0.875, 1.125, 17)  # relative to the step at which a change is visible
SMOOTH_DEGREE = 3
MAX_ROUGHNESS = 1 / 16  # the largest deviation from a polynomial, relative to the range of the values
NEAR_STEPS = FAR_STEPS[:3]  # at which a bounded effect is as large as anywhere
# Irrational multiples of the leaf's size, so that rounding errors are random.
TREND_STEPS = 0.4 * math.pi * np.arange(1, 17) / 16
TREND_POWERS = np.array([1, 3, 5, 7])  # of the step
MAX_TREND_RESIDUAL = 1 / 4  # relative to the trend; noise alone reaches it in one of 1e7 cases


def is_rounding_error(derivation: Derivation, name: str) -> bool:
    """Returns whether a gradient is zero or nothing but noise: it varies with the point, or is not linear in dout."""
    G = derivation.scaled_gradient(name)
    size = float(np.linalg.norm(G))
    if size <= SAFETY * float(np.linalg.norm(derivation.noise.gradients[name])) * derivation.factor(name):
        return True
    if not derivation.checkable.takes_dout:
        return False
    longer = (derivation.cast_dout * MANY_DIGITS).astype(derivation.cast_dout.dtype)
    gradient = in_float64(derivation.checkable.backward(copies(derivation.at), longer)[name])
    difference = (gradient / MANY_DIGITS - derivation.gradient[name]) * derivation.factor(name)
    return size <= SAFETY * float(np.linalg.norm(difference))


def is_lost(derivation: Derivation, name: str, rng: np.random.Generator) -> bool:
    """Returns whether a leaf whose quotients are zero changes the output smoothly where it moves far, or by a trend.

    Only the odd part of the change counts: the slope of the even part is zero.

    Args:
        derivation: The forward pass at a point.
        name: The leaf.
        rng: Draws the direction.
    """
    phi = derivation.phi(name, rng.standard_normal(derivation.at[name].shape))

    @cache
    def change(step: float) -> float:
        return (phi(step) - phi(-step)) / 2

    with np.errstate(all="ignore"):
        is_near = any(change(step) for step in NEAR_STEPS)
        if not is_near and not change(FAR_STEPS[-1]):  # it stands still to the last bit
            return False
        return (is_near and _has_trend(change, MAX_CHANGE * derivation.phi_noise)) or _emerges(change, derivation)


def _emerges(change: Change, derivation: Derivation) -> bool:
    """Returns whether the first change that is larger than noise is smooth."""
    noise, previous = derivation.phi_noise, 0.0
    for step in FAR_STEPS:
        size = abs(change(step))
        if not previous and size <= MAX_QUANTUM * derivation.phi_size:  # an output that stood still hides its noise
            noise = max(noise, size)
        previous = size
        if not size <= MIN_CHANGE * noise:  # or nan
            return size <= MAX_CHANGE * noise and all(
                _is_smooth(np.array([change(step * ratio) for ratio in ratios]))
                for ratios in (NEARBY_STEPS[::2], NEARBY_STEPS)  # half of them first, which reject most noise
            )
    return False


def _is_smooth(values: Array) -> bool:
    """Returns whether values at equispaced steps are nearly those of a polynomial of a low degree."""
    if not np.isfinite(values).all():
        return False
    steps = np.linspace(-1, 1, values.size)
    fit = np.polynomial.Polynomial.fit(steps, values, SMOOTH_DEGREE)
    return bool(np.abs(values - fit(steps)).max() <= MAX_ROUGHNESS * np.ptp(values))


def _has_trend(change: Change, largest: float) -> bool:
    """Returns whether an odd function of at most a given size is a polynomial of the step, up to a small rest."""

    def follows_polynomial(steps: Array) -> bool:
        values = np.array([change(step) for step in steps])
        if not 0 < np.abs(values).max() <= largest:  # or nan
            return False
        powers = (steps[:, None] / steps[-1]) ** TREND_POWERS
        trend = powers @ np.linalg.lstsq(powers, values)[0]
        return bool(np.linalg.norm(values - trend) <= MAX_TREND_RESIDUAL * np.linalg.norm(trend))

    return all(follows_polynomial(steps) for steps in (TREND_STEPS[1::2], TREND_STEPS))
