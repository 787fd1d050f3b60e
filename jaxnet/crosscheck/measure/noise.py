"""Measures the noise in a forward and a backward pass: what their values do when everything moves a little.

All leaves move along one random direction to nine equispaced points. Between neighbours every output moves smoothly,
but for rounding, so that sixth differences are noise. This sees arithmetic in float32 within a function of float64
arrays, ill-conditioned formulas and sums in an order that changes from call to call, whatever the arrays' dtype is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves
from jaxnet.crosscheck.measure.differences import POINTS, RATIO, SMALLEST, STEP, noise_of
from jaxnet.crosscheck.measure.form import effective_unit
from jaxnet.crosscheck.measure.scale import in_float64, own_scales, scale_of, stepped, unit_of

MOST_SAMPLES = 4096  # elements of an array that are followed
UNIT_OF_FLOAT64 = 2.0**-53
PLATEAUS = 0.25  # the share of elements that may move in steps: more, and the walk's step is below the arithmetic's own
FARTHEST = 2.0**-1  # the largest step of a walk
CALM = 2.0**-44  # relative noise that needs no second walk: some hundred units of roundoff


@dataclass(frozen=True)
class Noise:
    """The noise of a point's output and gradients.

    Attributes:
        output: Standard deviation of each output element, (m,).
        gradients: For each leaf, the standard deviation of each element of its gradient, (size,).
        relative: The output's noise over its size, by root mean square: the unit roundoff that computes it, in effect.
        step: The relative step of the walk.
        slopes: How much each output element moves, (m,), as all leaves move by their own size.
    """

    output: Array
    gradients: dict[str, Array]
    relative: float
    step: float
    slopes: Array


@dataclass(frozen=True)
class _Walk:
    step: float
    outputs: Array  # (9, samples)
    gradients: dict[str, Array]  # (9, samples) each

    @property
    def plateaus(self) -> float:
        """The share of the moving elements that stand still and move on again: the arithmetic's own steps.

        An element that is flat on one side of a kink stops or starts once. 1 where nothing moves at all.
        """
        moved = np.diff(self.outputs, axis=0) != 0
        stops = (moved[:-1] & ~moved[1:]).any(axis=0) & (~moved[:-1] & moved[1:]).any(axis=0)
        alone = (moved.sum(axis=0) == 1) & ~moved[0] & ~moved[-1]  # a single jump between two flats
        moving = moved.any(axis=0)
        return float((stops | alone)[moving].mean()) if moving.any() else 1.0


@dataclass(frozen=True)
class _Sampled:
    """The noise that one walk, or the calmest of several, shows."""

    output: Array
    gradients: dict[str, Array]
    relative: dict[str, float]  # of the output, under "", and of each gradient

    @staticmethod
    def of(walk: _Walk) -> "_Sampled":
        output = _of_values(walk.outputs)
        gradients = {name: _of_values(values) for name, values in walk.gradients.items()}
        relative = {name: _over(noise, walk.gradients[name][4]) for name, noise in gradients.items()}
        return _Sampled(output, gradients, {"": _over(output, walk.outputs[4])} | relative)

    def calmer_than(self, other: "_Sampled") -> bool:
        """Whether anything is much calmer here: then it was no noise there, but curvature, or a kink."""
        return any(
            noise < other.relative[key] / 4 for key, noise in self.relative.items() if other.relative[key] > CALM
        )

    def calmest(self, other: "_Sampled") -> "_Sampled":
        """Returns the lesser noise of two walks: noise itself is the same at all steps."""
        return _Sampled(
            np.minimum(self.output, other.output),
            {name: np.minimum(noise, other.gradients[name]) for name, noise in self.gradients.items()},
            {key: min(noise, other.relative[key]) for key, noise in self.relative.items()},
        )


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
        start: The first step. Larger ones are taken while the arithmetic is too coarse to move at it, and smaller ones
            while they show less noise.
    """
    directions = {
        name: rng.choice([-1.0, 1.0], a.shape) * rng.uniform(0.5, 1.0, a.shape) * own_scales(a) * scale_of(a)
        for name, a in at.items()
    }

    def walk_at(step: float) -> _Walk | None:
        return _walk(checkable, at, dout, names, directions, step)

    walk = walk_at(start)
    while walk is None and start / RATIO >= SMALLEST:
        start /= RATIO
        walk = walk_at(start)
    coarser = walk
    while coarser is not None and coarser.plateaus > PLATEAUS and coarser.step * RATIO <= FARTHEST:
        coarser = walk_at(coarser.step * RATIO)
    if coarser is not None and coarser.plateaus <= PLATEAUS:  # else it is no arithmetic, but a function with steps
        walk = coarser
    if walk is None:
        nothing = {name: np.zeros(at[name].size) for name in names}
        return Noise(np.zeros(dout.size), nothing, 0.0, STEP, np.zeros(dout.size))
    found = _calmest(_Sampled.of(walk), walk, walk_at)
    slopes = np.ptp(walk.outputs, axis=0) / (8 * walk.step)
    output, slopes = (_spread_out(sampled, dout.size) for sampled in (found.output, slopes))
    gradients = {name: _spread_out(sampled, at[name].size) for name, sampled in found.gradients.items()}
    # Values that move by the same number of units at every step look smooth: what is of float32 has its rounding.
    unit = effective_unit(walk.outputs) if walk.outputs.dtype == np.float64 else 0.0
    if unit > UNIT_OF_FLOAT64:
        output = np.maximum(output, unit / 2 * _spread_out(np.abs(walk.outputs[4]), dout.size))
    relative = max(found.relative[""], unit / 2 if unit > UNIT_OF_FLOAT64 else 0.0)
    return Noise(output, gradients, relative, walk.step, slopes)


def _calmest(found: _Sampled, walk: _Walk, walk_at: Callable[[float], _Walk | None]) -> _Sampled:
    """Walks at smaller steps while they show less noise: then it was curvature, or a kink, at the larger ones.

    Where the steps come down to plateaus, the arithmetic is coarse, and the first walk's noise stands: below the
    inputs' own rounding it fades without being less.
    """
    first, step = found, walk.step
    while any(noise > CALM for noise in found.relative.values()) and step / RATIO >= SMALLEST:
        step /= RATIO
        smaller = walk_at(step)
        if smaller is None:
            return found
        if smaller.plateaus > PLATEAUS:
            return first
        sampled = _Sampled.of(smaller)
        improved, found = sampled.calmer_than(found), found.calmest(sampled)
        if not improved:
            break
    return found


def _walk(
    checkable: Checkable, at: Leaves, dout: Array, names: list[str], directions: Leaves, step: float
) -> _Walk | None:
    """Returns the values at nine points; None where the output is not finite at one of them."""
    outputs: list[Array] = []
    gradients: dict[str, list[Array]] = {name: [] for name in names}
    places = _samples(dout.size)
    for j in POINTS:
        moved = {name: stepped(a, float(j * step), directions[name]) for name, a in at.items()}
        instance = checkable.open(moved)
        try:
            y = in_float64(instance.forward()).ravel()[places]
        except Exception:  # somebody's code refuses these values: they are outside its domain
            return None
        if not np.isfinite(y).all():
            return None
        outputs.append(y)
        if names:
            found = instance.backward(dout)
            for name in names:
                value = found.get(name)
                whole = np.zeros(at[name].shape) if value is None else in_float64(value)
                gradients[name].append(whole.ravel()[_samples(at[name].size)])
    return _Walk(step, np.array(outputs), {name: np.array(g) for name, g in gradients.items()})


def _samples(size: int) -> Array:
    """Returns the places of all elements, or of evenly spread ones where they are many."""
    return np.arange(size) if size <= MOST_SAMPLES else np.linspace(0, size - 1, MOST_SAMPLES).astype(int)


def _of_values(values: Array) -> Array:
    """Returns the noise of each element in nine values, (9, n), with outliers brought down.

    A kink, or a jump of a gradient, in a single element looks like noise: what exceeds thirty times the typical noise,
    both absolutely and relative to the element, is cut to that.
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


def _spread_out(sampled: Array, size: int) -> Array:
    """Returns values for all elements: those of the samples, and elsewhere their root mean square."""
    unit = unit_of(sampled)
    whole = np.full(size, float(np.sqrt(np.mean((sampled / unit) ** 2))) * unit if sampled.size else 0.0)
    whole[_samples(size)] = sampled
    return whole


def _over(noise: Array, values: Array) -> float:
    """Returns the noise over the size of the values, by root mean square."""
    unit = unit_of(values)
    size = float(np.sqrt(np.mean((values / unit) ** 2))) if values.size else 0.0
    return float(np.sqrt(np.mean((noise / unit) ** 2))) / size if size else 0.0
