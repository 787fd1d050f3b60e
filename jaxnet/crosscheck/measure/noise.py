"""Measures the noise in a forward and a backward pass.

All leaves move along one random direction to nine equispaced points. Apart from rounding, every output changes
smoothly from point to point, so that sixth differences are noise. This detects arithmetic in float32 within a function
of float64 arrays, ill-conditioned formulas, and sums whose order changes from call to call.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxnet.crosscheck.dtypes import effective_unit, in_float64
from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves
from jaxnet.crosscheck.measure.finite_differences import FIRST_STEP, MIN_STEP, OFFSETS, STEP_RATIO, noise_of
from jaxnet.crosscheck.measure.leaf_steps import own_scales, scale_of, stepped, unit_of

MAX_SAMPLES = 4096  # the most elements of an array whose noise is measured
FLOAT64_ROUNDOFF = 2.0**-53
MAX_PLATEAU_SHARE = 0.25  # of elements; if it is larger, the step is smaller than the spacing of the arithmetic
MAX_WALK_STEP = 2.0**-1
NEGLIGIBLE_NOISE = 2.0**-44  # relative noise at which no second walk is needed: several hundred units of roundoff


@dataclass(frozen=True)
class Noise:
    """The noise of a point's output and gradients.

    Attributes:
        output: The standard deviation of each output element, (m,).
        gradients: For each leaf, the standard deviation of each element of its gradient, (size,).
        relative: The root mean square of the output's noise over that of the output: the effective unit roundoff.
        step: The relative step of the walk.
        slopes: The change of each output element, (m,), as all leaves move by their own size.
    """

    output: Array
    gradients: dict[str, Array]
    relative: float
    step: float
    slopes: Array


@dataclass(frozen=True)
class _Walk:
    """Values at nine equispaced points."""

    step: float
    outputs: Array  # (9, samples)
    gradients: dict[str, Array]  # (9, samples) each

    @property
    def plateaus(self) -> float:
        """The share of the changing elements that stop and change again, because the arithmetic is too coarse.

        An element that is flat on one side of a kink stops or starts only once. The share is 1 if no element changes.
        """
        moved = np.diff(self.outputs, axis=0) != 0
        stops = (moved[:-1] & ~moved[1:]).any(axis=0) & (~moved[:-1] & moved[1:]).any(axis=0)
        jumps = (moved.sum(axis=0) == 1) & ~moved[0] & ~moved[-1]  # elements that change once, between two plateaus
        moving = moved.any(axis=0)
        return float((stops | jumps)[moving].mean()) if moving.any() else 1.0


@dataclass(frozen=True)
class _WalkNoise:
    """The noise of one walk, or the least noise of several."""

    output: Array
    gradients: dict[str, Array]
    relative: dict[str, float]  # of the output, under "", and of each gradient

    @staticmethod
    def of(walk: _Walk) -> "_WalkNoise":
        output = _noise_of_elements(walk.outputs)
        gradients = {name: _noise_of_elements(values) for name, values in walk.gradients.items()}
        relative = {name: _relative(noise, walk.gradients[name][4]) for name, noise in gradients.items()}
        return _WalkNoise(output, gradients, {"": _relative(output, walk.outputs[4])} | relative)

    def is_less_than(self, other: "_WalkNoise") -> bool:
        """Returns whether any noise is much smaller than in the other walk, which then shows curvature or a kink."""
        return any(
            noise < other.relative[key] / 4
            for key, noise in self.relative.items()
            if other.relative[key] > NEGLIGIBLE_NOISE
        )

    def minimum(self, other: "_WalkNoise") -> "_WalkNoise":
        """Returns the smaller noise of each element; true noise is the same at all steps."""
        return _WalkNoise(
            np.minimum(self.output, other.output),
            {name: np.minimum(noise, other.gradients[name]) for name, noise in self.gradients.items()},
            {key: min(noise, other.relative[key]) for key, noise in self.relative.items()},
        )


def measure_noise(
    checkable: Checkable, at: Leaves, dout: Array, names: list[str], rng: np.random.Generator, start: float = FIRST_STEP
) -> Noise:
    """Returns the noise of the forward pass and of the gradients of `names` at a point.

    Args:
        checkable: The code that is checked.
        at: The values of its leaves, all float64 or all in a smaller dtype.
        dout: The upstream gradient, of the output's shape.
        names: The leaves whose gradients are measured too.
        rng: Draws the direction.
        start: The first step. Larger steps follow if the arithmetic is too coarse for it, and smaller ones as long as
            they show less noise.
    """
    directions = {
        name: rng.choice([-1.0, 1.0], a.shape) * rng.uniform(0.5, 1.0, a.shape) * own_scales(a) * scale_of(a)
        for name, a in at.items()
    }

    def walk_at(step: float) -> _Walk | None:
        return _walk(checkable, at, dout, names, directions, step)

    walk = walk_at(start)
    while walk is None and start / STEP_RATIO >= MIN_STEP:
        start /= STEP_RATIO
        walk = walk_at(start)
    coarser = walk
    while coarser is not None and coarser.plateaus > MAX_PLATEAU_SHARE and coarser.step * STEP_RATIO <= MAX_WALK_STEP:
        coarser = walk_at(coarser.step * STEP_RATIO)
    # A function whose plateaus remain at every step is a step function, whatever the precision of its arithmetic.
    if coarser is not None and coarser.plateaus <= MAX_PLATEAU_SHARE:
        walk = coarser
    if walk is None:
        zeros = {name: np.zeros(at[name].size) for name in names}
        return Noise(np.zeros(dout.size), zeros, 0.0, FIRST_STEP, np.zeros(dout.size))
    noise = _least_noise(walk, walk_at)
    slopes = np.ptp(walk.outputs, axis=0) / (8 * walk.step)
    output, slopes = (_extended(sampled, dout.size) for sampled in (noise.output, slopes))
    gradients = {name: _extended(sampled, at[name].size) for name, sampled in noise.gradients.items()}
    # Float32 values that change by the same number of units at every step look smooth, and are rounded nevertheless.
    # Elements that stand still, such as a constant of 1.0, have few digits in any precision.
    moving = walk.outputs[:, np.ptp(walk.outputs, axis=0) > 0]
    unit = effective_unit(moving) if moving.size and moving.dtype == np.float64 else 0.0
    if unit > FLOAT64_ROUNDOFF:
        output = np.maximum(output, unit / 2 * _extended(np.abs(walk.outputs[4]), dout.size))
    relative = max(noise.relative[""], unit / 2 if unit > FLOAT64_ROUNDOFF else 0.0)
    return Noise(output, gradients, relative, walk.step, slopes)


def _least_noise(walk: _Walk, walk_at: Callable[[float], _Walk | None]) -> _WalkNoise:
    """Returns the noise of a walk, or of walks at smaller steps as long as they show less.

    Noise that shrinks with the step is curvature or a kink. If a smaller step leads to plateaus, the arithmetic is
    coarse, and the noise of the first walk is returned: steps below the rounding of the inputs hide it.
    """
    least = first = _WalkNoise.of(walk)
    step = walk.step
    while any(noise > NEGLIGIBLE_NOISE for noise in least.relative.values()) and step / STEP_RATIO >= MIN_STEP:
        step /= STEP_RATIO
        smaller = walk_at(step)
        if smaller is None:
            return least
        if smaller.plateaus > MAX_PLATEAU_SHARE:
            return first
        noise = _WalkNoise.of(smaller)
        improved, least = noise.is_less_than(least), least.minimum(noise)
        if not improved:
            break
    return least


def _walk(
    checkable: Checkable, at: Leaves, dout: Array, names: list[str], directions: Leaves, step: float
) -> _Walk | None:
    """Returns the values at nine points; None if the output is not finite at one of them."""
    outputs: list[Array] = []
    gradients: dict[str, list[Array]] = {name: [] for name in names}
    places = _samples(dout.size)
    for j in OFFSETS:
        moved = {name: stepped(a, float(j * step), directions[name]) for name, a in at.items()}
        instance = checkable.open(moved)
        try:
            y = in_float64(instance.forward()).ravel()[places]
        except Exception:  # the user's code rejects these values: they are outside its domain
            return None
        if not np.isfinite(y).all():
            return None
        outputs.append(y)
        if names:
            returned = instance.backward(dout)
            for name in names:
                value = returned.get(name)
                gradient = np.zeros(at[name].shape) if value is None else in_float64(value)
                gradients[name].append(gradient.ravel()[_samples(at[name].size)])
    return _Walk(step, np.array(outputs), {name: np.array(g) for name, g in gradients.items()})


def _samples(size: int) -> Array:
    """Returns the flat indices of all elements, or of `MAX_SAMPLES` evenly spaced ones."""
    return np.arange(size) if size <= MAX_SAMPLES else np.linspace(0, size - 1, MAX_SAMPLES).astype(int)


def _noise_of_elements(values: Array) -> Array:
    """Returns the noise of each element from nine values of it, (9, n), with outliers clipped.

    A kink, or a jump of a gradient, in a single element looks like noise. So noise is clipped to thirty times the
    typical noise, absolute or relative to the element, whichever is larger.
    """
    unit = unit_of(values[4])
    noise, sizes = noise_of(values / unit), np.abs(values[4] / unit)
    noise = np.where(np.isfinite(noise), noise, 0.0)
    moving = noise > 0
    if np.count_nonzero(moving) > 4:
        typical = np.median(noise[moving])
        sized = moving & (sizes > 0)
        relative = np.median(noise[sized] / sizes[sized]) if sized.any() else 0.0
        noise = np.minimum(noise, 30 * np.maximum(typical, relative * sizes))
    return noise * unit


def _extended(sampled: Array, size: int) -> Array:
    """Returns values for all elements: the sampled ones, and their root mean square for all others."""
    unit = unit_of(sampled)
    whole = np.full(size, float(np.sqrt(np.mean((sampled / unit) ** 2))) * unit if sampled.size else 0.0)
    whole[_samples(size)] = sampled
    return whole


def _relative(noise: Array, values: Array) -> float:
    """Returns the root mean square of the noise over that of the values."""
    unit = unit_of(values)
    size = float(np.sqrt(np.mean((values / unit) ** 2))) if values.size else 0.0
    return float(np.sqrt(np.mean((noise / unit) ** 2))) / size if size else 0.0
