"""Measures the gradient of one leaf: along random directions, and its rough elements one by one."""

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.dtypes import in_float64
from jaxnet.crosscheck.inspect.checkable import Array
from jaxnet.crosscheck.measure.contradiction import is_contradicted, is_plateau
from jaxnet.crosscheck.measure.derivation import SAFETY, Derivation, Derivations, Gap, Probe
from jaxnet.crosscheck.measure.finite_differences import Derivative, Limit
from jaxnet.crosscheck.measure.kinks import Element, Goal, Roughness, Tie, broken_tie, examine_elements, rough_elements
from jaxnet.crosscheck.measure.lost_effects import is_rounding_error
from jaxnet.crosscheck.measure.probing import Probing
from jaxnet.crosscheck.measure.structures import Structure

PROBES_PER_LEAF = 3
# The largest relative tolerance of a PASS for any noise, in float64 and in lower precision.
MAX_TOLERANCE, MAX_COARSE_TOLERANCE = 1e-4, 5e-3
MAX_ZERO_TOLERANCE = 1e-3  # the same for a zero gradient, relative to the size of a typical one
SAMPLED_ROUGH_ELEMENTS = 12  # number examined if too many elements are rough


class Coverage(Enum):
    """How much of a leaf the probes cover."""

    WHOLE = "whole"
    SMOOTH_ELEMENTS = "smooth elements"  # all except the rough ones
    SPOILED = "spoiled"  # none reliably, because too many elements are rough


@dataclass(frozen=True)
class LeafMeasurement:
    """The measurements of one leaf. Gaps and sizes are those of the scaled gradient G = gradient x `factor`.

    Attributes:
        name: The leaf.
        size: The norm of G, weighted as in the probes, rough elements included; errors are relative to it.
        probes: The analytic gradient along random directions, without rough elements.
        elements: The rough elements that were examined one by one.
        tie: Tied kinks at which the gradient is outside the range of slopes.
        coverage: What the probes cover.
        compared: The number of elements that are compared, by probes or one by one.
        resolution: The smallest relative error to be detected.
        confirmed: Whether quotients at several step sizes contradict the gradient.
        limit: The reason why the least accurate probe is not more accurate.
        is_small: Whether the gradient and the quotients are smaller than their tolerance, which is far smaller than a
            typical gradient, or the output stands still because it is rounded.
        is_zero: Whether the gradient is zero, up to its own rounding, as well as small.
        with_autodiff: The largest difference of an element to the reference's gradient, if there is a reference.
        autodiff: The reference's gradient along the same directions.
        factor: G over the gradient.
        weakest: The tolerance of the probes for an error in the element that moves least.
        uses_accuracy: Whether the error is larger than noise explains, and is allowed by the accuracy declared.
    """

    name: str
    size: float
    probes: tuple[Probe, ...]
    elements: tuple[Element, ...]
    tie: Tie | None
    coverage: Coverage
    compared: int
    resolution: float
    confirmed: bool
    limit: Limit
    is_small: bool
    is_zero: bool
    factor: float
    weakest: float
    uses_accuracy: bool = False
    with_autodiff: Gap | None = None
    autodiff: tuple[Probe, ...] = ()

    @property
    def with_numerical(self) -> Gap:
        """The gap of a probe or a smooth element that is largest relative to its tolerance."""
        gaps = [probe.gap for probe in self.probes] + [e.gap for e in self._curved]
        return max(gaps, key=lambda gap: gap.ratio, default=Gap(0.0, math.inf))

    @property
    def autodiff_with_numerical(self) -> Gap | None:
        """The gap of a probe of the reference's gradient that is largest relative to its tolerance."""
        return max((probe.gap for probe in self.autodiff), key=lambda gap: gap.ratio, default=None)

    @property
    def tolerance(self) -> float:
        """The largest tolerance of a probe or a smooth element: smaller errors may be missed."""
        tolerances = [probe.gap.tolerance for probe in self.probes] + [e.error for e in self._curved]
        return max(tolerances, default=math.inf)

    @property
    def tolerance_of_elements(self) -> float:
        """The tolerance for an error in a single element, which may move less than the others."""
        return max([self.tolerance, self.weakest] + [e.error for e in self._curved])

    @property
    def relative_tolerance(self) -> float:
        """The tolerance over the size of the gradient."""
        return self.tolerance / (self.size or 1.0)

    @property
    def true_size(self) -> float:
        """The norm of the true G as estimated from the quotients, or of the claimed G if that is larger."""
        quotients = [probe.numerical.value for probe in self.probes if math.isfinite(probe.numerical.value)]
        return max(self.size, math.sqrt(sum(q**2 for q in quotients) / len(quotients)) if quotients else 0.0)

    @property
    def relative_error(self) -> float:
        """The largest error over the size of the gradient."""
        return self.error / (self.size or 1.0)

    @property
    def error(self) -> float:
        """The largest error; nan if nothing was compared."""
        resolved = [e for e in self.elements if e.roughness is not Roughness.UNRESOLVED]
        errors = [probe.gap.error for probe in self.probes] + [e.gap.error for e in resolved]
        errors += [self.tie.gap.error] if self.tie is not None else []
        return max(errors, default=math.nan)

    @property
    def _curved(self) -> list[Element]:
        return [e for e in self.elements if e.roughness is Roughness.CURVED]

    @property
    def kinks(self) -> list[Element]:
        """The examined elements at kinks."""
        return [e for e in self.elements if e.roughness is Roughness.KINK]

    @property
    def outside(self) -> Element | None:
        """The resolved rough element whose gradient is farthest outside its slopes; None if all are within."""
        resolved = [e for e in self.elements if e.roughness is not Roughness.UNRESOLVED]
        failing = [e for e in resolved if not e.gap.within_tolerance]
        return max(failing, key=lambda e: e.gap.error, default=None)

    @property
    def unresolved(self) -> int:
        """The number of examined elements whose derivative could not be resolved."""
        return sum(e.roughness is Roughness.UNRESOLVED for e in self.elements)

    @property
    def unresolved_size(self) -> float:
        """The norm of G over the unresolved elements."""
        return math.hypot(*(e.claimed for e in self.elements if e.roughness is Roughness.UNRESOLVED))


def measure_leaf(
    name: str,
    derivations: Derivations,
    resolution: float,
    accuracy: float,
    rng: np.random.Generator,
    *,
    start: float | None = None,
    structure: Structure | None = None,
) -> LeafMeasurement:
    """Compares a leaf's gradient with difference quotients, and with the reference's gradient if there is one.

    Args:
        name: The leaf.
        derivations: The derivation that is checked, and that of the reference.
        resolution: The smallest relative error to be detected.
        accuracy: The relative error that the user allows.
        rng: Draws directions.
        start: The first step. Defaults to the derivation's own.
        structure: The structure that the leaf keeps as it moves. Defaults to none: every element moves by itself.
    """
    analytic, autodiff, _ = derivations
    directions = [_direction(analytic.at[name], structure, rng) for _ in range(PROBES_PER_LEAF)]
    weights = np.where(np.isfinite(np.asarray(analytic.at[name], np.float64)), 1.0, 0.0)
    probing = Probing(name, analytic, directions, resolution, start, rounded=structure is None)
    still = probing.standing_still(weights)
    probes = first_probes = still or probing.along(weights)
    contradicted = any(is_contradicted(analytic, name, probe) for probe in probes)
    if not probing.sufficient(probes, weights) and not contradicted and structure is None:
        weights, probes = probing.by_own_size(weights, probes)
    size = analytic.size(name, weights)
    if size <= _tolerance(probes) and not contradicted and not still:
        probes = probing.along(weights, target=0.0)
    rough = _Rough([], None, Coverage.WHOLE, weights)
    if structure is None and (probing.inaccurate(probes, weights) or probing.near_kink(probes)):
        target = analytic.target(name, weights, resolution)
        rough = _examine_rough(analytic, name, weights, target, probes, rng)
        weights = rough.smooth_weights
        if rough.coverage is Coverage.SMOOTH_ELEMENTS:
            probes = probing.along(weights, target) if weights.any() else []
    if probes is not first_probes:
        contradicted = any(is_contradicted(analytic, name, probe) for probe in probes)
    weakest = _tolerance(probes) / float(weights[weights > 0].min(initial=1.0))
    exact, probes = probes, [_allowing(probe, accuracy * size) for probe in probes]
    elements = rough.elements
    is_small = _is_small(analytic, size, probes, elements) or (not contradicted and _is_hidden(analytic, name, probes))
    return LeafMeasurement(
        name,
        size,
        tuple(probes),
        tuple(elements),
        rough.tie,
        rough.coverage,
        int(np.count_nonzero(weights)) + sum(e.roughness is Roughness.CURVED for e in elements),
        resolution,
        confirmed=contradicted,
        limit=max(probes or first_probes, key=lambda probe: probe.gap.tolerance).numerical.limit,
        is_small=is_small,
        is_zero=is_small and is_rounding_error(analytic, name),
        factor=analytic.factor(name),
        weakest=min(weakest, _tolerance(first_probes)),
        uses_accuracy=any(a.gap.ratio > 1 >= b.gap.ratio for a, b in zip(exact, probes, strict=True)),
        with_autodiff=None if autodiff is None else between(name, analytic, autodiff, elements, accuracy),
        autodiff=() if autodiff is None else tuple(Probing(name, autodiff, directions, resolution).along(weights)),
    )


def _direction(value: Array, structure: Structure | None, rng: np.random.Generator) -> Array:
    direction = rng.standard_normal(value.shape)
    return direction if structure is None else np.asarray(structure.project(in_float64(value), direction))


class _Rough(NamedTuple):
    """The rough elements of a leaf.

    Attributes:
        elements: The elements that were examined.
        tie: Tied kinks at which the gradient is outside the range of slopes.
        coverage: The part of the leaf that probes can cover.
        smooth_weights: The weights, with those of rough elements set to 0 if these can be taken out.
    """

    elements: list[Element]
    tie: Tie | None
    coverage: Coverage
    smooth_weights: Array


def _examine_rough(
    analytic: Derivation, name: str, weights: Array, target: float, probes: list[Probe], rng: np.random.Generator
) -> _Rough:
    """Finds the rough elements that spoil the probes, and examines them, or a sample if there are too many."""
    noise, step = _noise_and_step(probes, analytic.phi_noise)
    step = min(step, analytic.start)
    enough = (MAX_COARSE_TOLERANCE if analytic.coarse else MAX_TOLERANCE) * analytic.size(name, weights) / SAFETY
    coverage, smooth_weights = Coverage.WHOLE, weights
    places = rough_elements(analytic, name, weights, step, noise, rng)
    if places is None:
        coverage = Coverage.SPOILED
        places = [int(i) for i in rng.choice(np.flatnonzero(weights), SAMPLED_ROUGH_ELEMENTS, replace=False)]
    elif places:
        coverage = Coverage.SMOOTH_ELEMENTS
        smooth_weights = weights.copy()
        smooth_weights.flat[places] = 0.0
    elements = examine_elements(analytic, name, places, weights, Goal(target, enough), noise, step)
    kinks = [e.place for e in elements if e.roughness is Roughness.KINK]
    tied = np.flatnonzero(weights).tolist() if coverage is Coverage.SPOILED else kinks
    tie = broken_tie(analytic, name, tied, noise, rng) if len(kinks) > 1 else None
    return _Rough(elements, tie, coverage, smooth_weights)


def between(
    name: str, analytic: Derivation, autodiff: Derivation, elements: list[Element], accuracy: float = 0.0
) -> Gap:
    """Returns the largest difference of a smooth element of two gradients, in units of G, less their jitter."""
    factor = analytic.factor(name)
    difference = np.abs(analytic.gradient[name] - autodiff.gradient[name]).ravel() * factor
    difference[[e.place for e in elements]] = 0.0
    autodiff_rounding = autodiff.rounding(name) * factor / autodiff.factor(name)
    largest = float(np.abs(autodiff.gradient[name]).max(initial=0.0)) * factor
    tolerance = SAFETY * (analytic.rounding(name) + autodiff_rounding) + accuracy * largest
    if difference.max(initial=0.0) > tolerance:
        jitter = analytic.jitter.gradient[name] + autodiff.jitter.gradient[name]
        difference = difference - SAFETY * factor * jitter.ravel()
    return Gap(float(difference.max(initial=0.0)), tolerance)


def _tolerance(probes: list[Probe]) -> float:
    return max((probe.gap.tolerance for probe in probes), default=math.inf)


def _is_small(analytic: Derivation, size: float, probes: list[Probe], elements: list[Element]) -> bool:
    """Returns whether the gradient and all quotients are within a tolerance far smaller than a typical gradient."""
    tolerance = max([p.gap.tolerance for p in probes] + [e.error for e in elements], default=0.0)
    values = [abs(p.numerical.value) for p in probes] + [max(abs(e.low), abs(e.high)) for e in elements]
    hidden = size <= tolerance and all(value <= tolerance for value in values)
    return (hidden and tolerance <= MAX_ZERO_TOLERANCE * analytic.typical_size) or (size == 0 and not any(values))


def _is_hidden(analytic: Derivation, name: str, probes: list[Probe]) -> bool:
    """Returns whether the output stands still along each direction, but only because it is rounded.

    There are no directions where all elements were examined one by one.
    """
    flat = bool(probes) and all(q.value == 0.0 for probe in probes for q in probe.numerical.quotients)
    return flat and all(is_plateau(analytic, name, probe, probe.numerical.step) for probe in probes if probe.claimed)


def _allowing(probe: Probe, error: float) -> Probe:
    """Returns the probe with an error of this norm allowed: four standard deviations of its projection."""
    return replace(probe, rounding=probe.rounding + 4 * error / SAFETY) if error else probe


def _noise_and_step(probes: list[Probe], noise: float) -> tuple[float, float]:
    """Returns phi's noise and the best step, according to the most accurate probe."""
    best: Derivative = min((p.numerical for p in probes), key=lambda d: d.error)
    if not any(quotient.finite for quotient in best.quotients):
        return noise, min(quotient.step for quotient in best.quotients)
    return best.observed_noise(noise), best.step
