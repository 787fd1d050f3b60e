"""Tells a gradient that is zero from one whose effect on the output is lost in rounding.

Beside a constant of 1e8, a term of 1e-9 does not change a float64 output, and neither does an unused argument. The two
differ where a leaf moves far: the term emerges from the output's rounding and grows smoothly, while an unused argument
changes nothing, and a bias before a normalization changes nothing but rounding.
"""

import numpy as np

from jaxnet.crosscheck.dtypes import in_float64
from jaxnet.crosscheck.inspect.checkable import Array
from jaxnet.crosscheck.measure.derivation import MANY_DIGITS, SAFETY, Derivation
from jaxnet.crosscheck.measure.leaf_steps import copies

# Relative to the leaf's size, up to 2e6. The ratio is no power of 2, by which rounding errors would grow smoothly, too.
FAR_STEPS = 0.25 * 2.3 ** np.arange(20)
# Over the noise: a smaller change is not visible, and a larger one that was not visible at the step before is a jump,
# or the end of a flat part, as of a ReLU.
MIN_CHANGE, MAX_CHANGE = 64.0, 6400.0
MAX_QUANTUM = 2.0**-21  # the largest first change that may be rounding, relative to phi: a few units of float32
NEARBY_STEPS = np.linspace(0.875, 1.125, 17)  # relative to the step at which a change is visible
SMOOTH_DEGREE = 3
MAX_ROUGHNESS = 1 / 16  # the largest deviation from a polynomial, relative to the range of the values


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
    """Returns whether a leaf whose quotients are zero changes the output smoothly where it moves far.

    Only the odd part of the change counts: the slope of the even part is zero.

    Args:
        derivation: The forward pass at a point.
        name: The leaf.
        rng: Draws the direction.
    """
    phi = derivation.phi(name, rng.standard_normal(derivation.at[name].shape))

    def change(step: float) -> float:
        return (phi(step) - phi(-step)) / 2

    noise, previous = derivation.phi_noise, 0.0
    with np.errstate(all="ignore"):
        for step in FAR_STEPS:
            size = abs(change(step))
            if not previous and size <= MAX_QUANTUM * derivation.phi_size:  # an output that stood still hides its noise
                noise = max(noise, size)
            previous = size
            if not size <= MIN_CHANGE * noise:  # or nan
                emerges = size <= MAX_CHANGE * noise
                return emerges and _is_smooth(np.array([change(step * ratio) for ratio in NEARBY_STEPS]))
    return False


def _is_smooth(values: Array) -> bool:
    """Returns whether values at equispaced steps are nearly those of a polynomial of a low degree."""
    if not np.isfinite(values).all():
        return False
    steps = np.linspace(-1, 1, values.size)
    fit = np.polynomial.Polynomial.fit(steps, values, SMOOTH_DEGREE)
    return bool(np.abs(values - fit(steps)).max() <= MAX_ROUGHNESS * np.ptp(values))
