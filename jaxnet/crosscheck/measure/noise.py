"""Measures the noise in a forward and a backward pass: what their values do when everything moves a little.

All leaves move along one random direction to nine equispaced points. Between neighbours every output moves smoothly,
but for rounding, so that sixth differences are noise. This sees arithmetic in float32 within a function of float64
arrays, ill-conditioned formulas and sums in an order that changes from call to call, whatever the arrays' dtype is.
"""

import math
from dataclasses import dataclass

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves
from jaxnet.crosscheck.measure.differences import LARGEST, POINTS, RATIO, SMALLEST, STEP, noise_of
from jaxnet.crosscheck.measure.scale import in_float64, own_scales, scale_of, stepped, unit_of

MOST_SAMPLES = 4096  # elements of an array that are followed
PLATEAUS = 0.25  # the share of elements that may move in steps: more, and the walk's step is below the arithmetic's own
CALM = 2.0**-44  # relative noise that needs no second walk: some hundred units of roundoff
OUTLIERS = 0.9  # the quantile of the elements' noise that stands for all: a kink looks like noise, but only in a few


@dataclass(frozen=True)
class Noise:
    """The noise of a point's output and gradients.

    Attributes:
        output: Standard deviation of each output element, (m,).
        gradients: For each leaf, the standard deviation of a typical element of its gradient.
        relative: The output's noise over its size, by root mean square: the unit roundoff that computes it, in effect.
        step: The relative step of the walk.
    """

    output: Array
    gradients: dict[str, float]
    relative: float
    step: float


@dataclass(frozen=True)
class _Walk:
    step: float
    outputs: Array  # (9, samples)
    gradients: dict[str, Array]  # (9, samples) each
    places: Array  # of the samples of the output

    @property
    def plateaus(self) -> float:
        """The share of the moving elements that stand still and move on again: the arithmetic's own steps.

        An element that is flat on one side of a kink stops or starts once.
        """
        moved = np.diff(self.outputs, axis=0) != 0
        stops = (moved[:-1] & ~moved[1:]).any(axis=0) & (~moved[:-1] & moved[1:]).any(axis=0)
        alone = (moved.sum(axis=0) == 1) & ~moved[0] & ~moved[-1]  # a single jump between two flats
        moving = moved.any(axis=0)
        return float((stops | alone)[moving].mean()) if moving.any() else 0.0

    @property
    def relative(self) -> float:
        size = float(np.sqrt(np.mean(_rescaled(self.outputs[4]) ** 2)))
        noise = _capped(noise_of(_rescaled(self.outputs, self.outputs[4])))
        return float(np.sqrt(np.mean(noise**2))) / size if size else 0.0


def measure_noise(
    checkable: Checkable, at: Leaves, dout: Array, names: list[str], rng: np.random.Generator, start: float = STEP
) -> Noise:
    """Walks through a point and returns the noise of the forward pass and of the gradients of `names` there.

    Args:
        checkable: What is checked.
        at: The values of its leaves, all float64 or all in a smaller dtype.
        dout: The gradient from above, of the output's shape.
        names: The leaves whose gradients are measured too.
        rng: Draws the direction.
        start: The first step; larger ones are taken while the arithmetic is too coarse to move at it.
    """
    directions = {
        name: rng.choice([-1.0, 1.0], a.shape) * rng.uniform(0.5, 1.0, a.shape) * own_scales(a) * scale_of(a)
        for name, a in at.items()
    }
    walk = _walk(checkable, at, dout, names, directions, start)
    while walk is None or (walk.plateaus > PLATEAUS and walk.step * RATIO <= LARGEST):
        step = (walk.step if walk else start) * (RATIO if walk else 1 / RATIO)
        if step < SMALLEST:
            break
        larger = _walk(checkable, at, dout, names, directions, step)
        if walk is not None and larger is None:
            break
        walk, start = larger, step
    while walk is not None and walk.relative > CALM and walk.step / RATIO >= SMALLEST and walk.plateaus <= PLATEAUS:
        smaller = _walk(checkable, at, dout, names, directions, walk.step / RATIO)
        if smaller is None or smaller.relative > walk.relative / 4 or smaller.plateaus > PLATEAUS:
            break
        walk = smaller
    return _summary(walk, dout.size, names)


def _summary(walk: _Walk | None, size: int, names: list[str]) -> Noise:
    if walk is None:
        return Noise(np.zeros(size), dict.fromkeys(names, 0.0), 0.0, STEP)
    unit = unit_of(walk.outputs[4])
    sampled = _capped(noise_of(walk.outputs / unit)) * unit
    output = np.full(size, math.sqrt(float(np.mean((sampled / unit) ** 2))) * unit if sampled.size else 0.0)
    output[walk.places] = sampled
    gradients = {}
    for name in names:
        values = walk.gradients[name]
        unit = unit_of(values[4])
        spread = noise_of(values / unit)
        spread = np.where(np.isfinite(spread), spread, 0.0)
        gradients[name] = float(np.quantile(spread, OUTLIERS)) * unit if spread.size else 0.0
    return Noise(output, gradients, walk.relative, walk.step)


def _walk(
    checkable: Checkable, at: Leaves, dout: Array, names: list[str], directions: Leaves, step: float
) -> _Walk | None:
    """Returns the values at nine points; None where the output is not finite at one of them."""
    outputs, gradients = [], {name: [] for name in names}  # type: dict[str, list[Any]]
    places = _samples(dout.size)
    for j in POINTS:
        moved = {name: stepped(a, float(j * step), directions[name]) for name, a in at.items()}
        instance = checkable.open(moved)
        y = in_float64(instance.forward()).ravel()[places]
        if not np.isfinite(y).all():
            return None
        outputs.append(y)
        if names:
            found = instance.backward(dout)
            for name in names:
                value = found.get(name)
                whole = np.zeros(at[name].shape) if value is None else in_float64(value)
                gradients[name].append(whole.ravel()[_samples(at[name].size)])
    return _Walk(step, np.array(outputs), {name: np.array(g) for name, g in gradients.items()}, places)


def _samples(size: int) -> Array:
    """Returns the places of all elements, or of evenly spread ones where they are many."""
    return np.arange(size) if size <= MOST_SAMPLES else np.linspace(0, size - 1, MOST_SAMPLES).astype(int)


def _capped(noise: Array) -> Array:
    """Returns the noise with outliers, as of a kink in a single element, brought down to thirty times the median."""
    moving = noise[noise > 0]
    return np.minimum(noise, 30 * np.median(moving)) if moving.size > 4 else noise


def _rescaled(values: Array, like: Array | None = None) -> Array:
    return values / unit_of(values if like is None else like)
