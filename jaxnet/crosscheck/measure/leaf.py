"""Measures one leaf: its gradient along random directions, and its rough elements one by one. Numbers, no verdicts."""

import math
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array
from jaxnet.crosscheck.measure.derivation import MARGIN, SAFETY, Derivation, Gap, Probe
from jaxnet.crosscheck.measure.differences import OWN_SIZE, SMALLEST, Derivative, Limit, bends_beyond
from jaxnet.crosscheck.measure.kinks import (
    Element,
    Goal,
    Roughness,
    Tie,
    broken_tie,
    examine_elements,
    rough_elements,
)

PROBES = 3  # random directions a leaf
# The relative error that must be seen at least, whatever the noise: in float64, and where the forward pass is coarser.
SEEN, SEEN_IF_COARSE = 1e-4, 5e-3
SHARP = 1e-3  # of an ordinary gradient: what the quotients must see for a gradient to be called zero
SAMPLED_KINKS = 12  # elements that are looked at where too many are rough


class Coverage(Enum):
    """How much of a leaf the probes cover."""

    WHOLE = "whole"
    SMOOTH_ELEMENTS = "smooth elements"  # the rough ones were taken out
    SPOILED = "spoiled"  # too many rough elements to take out


class Tangent(Enum):
    """The directions along which a gradient counts."""

    ALL = "all"
    SYMMETRIC = "symmetric"  # of a matrix that is meant to be so


def is_symmetric(array: Array) -> bool:
    """Returns whether this is a square matrix of two rows at least that equals its transpose, but for rounding."""
    square = array.ndim == 2 and array.shape[0] == array.shape[1] > 1
    return square and bool(np.allclose(array, array.T, rtol=1e-6, atol=0))


@dataclass(frozen=True)
class LeafMeasurement:
    """What was measured of one leaf. Gaps and sizes are of the scaled gradient G = gradient x `factor`.

    Attributes:
        name: The leaf.
        size: What an error counts against: the norm of G, weighted as the probes are, rough elements included.
        probes: The analytic gradient along random directions.
        elements: The rough elements that were examined by themselves.
        tie: A tie of kinks whose slopes the gradient leaves.
        coverage: What the probes cover.
        compared: The number of elements that are compared: by probes, or one by one.
        resolution: The relative error that has to be seen.
        confirmed: Whether quotients at several step sizes contradict the gradient.
        limit: What keeps the blurriest probe from seeing more.
        is_zero: Whether gradient and quotients are zero, but for rounding.
        with_autodiff: The largest difference of an element to autodiff's gradient, where there is a reference.
        autodiff: The reference's gradient along the same directions.
        factor: From the gradient's own unit to G's.
        weakest: The tolerance of the probes for an error in the element that moves least.
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
    is_zero: bool
    factor: float
    weakest: float
    with_autodiff: Gap | None = None
    autodiff: tuple[Probe, ...] = ()

    @property
    def with_numerical(self) -> Gap:
        """The widest gap of a probe or of a smooth element, for its tolerance."""
        gaps = [probe.gap for probe in self.probes] + [e.gap for e in self._curved]
        return max(gaps, key=lambda gap: gap.ratio, default=Gap(0.0, math.inf))

    @property
    def autodiff_with_numerical(self) -> Gap | None:
        """The same for the reference's gradient."""
        return max((probe.gap for probe in self.autodiff), key=lambda gap: gap.ratio, default=None)

    @property
    def tolerance(self) -> float:
        """The largest tolerance of a probe or of a smooth element: errors below it may be missed."""
        tolerances = [probe.gap.tolerance for probe in self.probes] + [e.error for e in self._curved]
        return max(tolerances, default=math.inf)

    @property
    def tolerance_of_elements(self) -> float:
        """The same for an error in any one element, where elements move by their own sizes."""
        return max([self.tolerance, self.weakest] + [e.error for e in self._curved])

    @property
    def relative_tolerance(self) -> float:
        """The tolerance over the size of the gradient."""
        return self.tolerance / (self.size or 1.0)

    @property
    def true_size(self) -> float:
        """The norm of the true G, as the quotients along random directions show it, or that of the claimed one."""
        quotients = [probe.numerical.value for probe in self.probes if math.isfinite(probe.numerical.value)]
        return max(self.size, math.sqrt(sum(q**2 for q in quotients) / len(quotients)) if quotients else 0.0)

    @property
    def resolved(self) -> bool:
        """Whether the probes see errors of the resolution that is asked for."""
        return self.tolerance <= self.resolution * self.size

    @property
    def relative_error(self) -> float:
        """The largest error found, over the size of the gradient."""
        return self.error / (self.size or 1.0)

    @property
    def error(self) -> float:
        """The largest error found; nan where nothing was compared."""
        resolved = [e for e in self.elements if e.roughness is not Roughness.UNRESOLVED]
        errors = [probe.gap.error for probe in self.probes] + [e.gap.error for e in resolved]
        errors += [self.tie.gap.error] if self.tie is not None else []
        return max(errors, default=math.nan)

    @property
    def _curved(self) -> list[Element]:
        return [e for e in self.elements if e.roughness is Roughness.CURVED]

    @property
    def kinks(self) -> list[Element]:
        """The examined elements at which the slopes of both sides differ."""
        return [e for e in self.elements if e.roughness is Roughness.KINK]

    @property
    def outside(self) -> Element | None:
        """The resolved rough element whose gradient is farthest outside its slopes, if one is."""
        resolved = [e for e in self.elements if e.roughness is not Roughness.UNRESOLVED]
        failing = [e for e in resolved if not e.gap.within_tolerance]
        return max(failing, key=lambda e: e.gap.error, default=None)

    @property
    def unresolved(self) -> int:
        """The number of examined elements of which nothing is known."""
        return sum(e.roughness is Roughness.UNRESOLVED for e in self.elements)

    @property
    def unresolved_size(self) -> float:
        """The norm of G over these elements."""
        return math.hypot(*(e.claimed for e in self.elements if e.roughness is Roughness.UNRESOLVED))


def measure_leaf(
    name: str,
    analytic: Derivation,
    autodiff: Derivation | None,
    resolution: float,
    accuracy: float,
    rng: np.random.Generator,
    start: float | None = None,
    tangent: Tangent = Tangent.ALL,
) -> LeafMeasurement:
    """Measures a leaf's gradient against difference quotients, and against autodiff's where there is one.

    Args:
        name: The leaf.
        analytic: The derivation that is checked.
        autodiff: The reference's, if any.
        resolution: The relative error that has to be seen.
        accuracy: The relative error that is declared and allowed.
        rng: Draws directions.
        start: The first step; the derivation's own by default.
        tangent: The directions that count.
    """
    shape = analytic.at[name].shape
    directions = [rng.standard_normal(shape) for _ in range(PROBES)]
    if tangent is Tangent.SYMMETRIC:
        directions = [(d + d.T) / 2 for d in directions]
    weights = np.where(np.isfinite(np.asarray(analytic.at[name], np.float64)), 1.0, 0.0)
    probing = _Probing(name, analytic, directions, resolution, start)
    probes = first = probing.along(weights)
    confirmed = any(_contradicts(analytic, name, probe) for probe in probes)
    if not probing.sharp(probes, weights) and not confirmed:
        weights, probes = probing.by_own_size(weights, probes)
    elements: list[Element] = []
    tie, coverage, whole = None, Coverage.WHOLE, weights
    if probing.blurred(probes, weights) or probing.bent(probes):
        noise, step = _noise_and_step(probes, analytic.phi_noise)
        step = min(step, analytic.start)
        places = rough_elements(analytic, name, weights, step, noise, rng)
        target = analytic.target(name, weights, resolution)
        enough = (SEEN_IF_COARSE if analytic.coarse else SEEN) * analytic.size(name, weights) / SAFETY
        if places is None:
            coverage = Coverage.SPOILED
            places = [int(i) for i in rng.choice(np.flatnonzero(weights), SAMPLED_KINKS, replace=False)]
            elements = examine_elements(analytic, name, places, weights, Goal(target, enough), noise, step)
        elif places:
            coverage = Coverage.SMOOTH_ELEMENTS
            elements = examine_elements(analytic, name, places, weights, Goal(target, enough), noise, step)
            weights = weights.copy()
            weights.flat[places] = 0.0
            probes = probing.along(weights, target) if weights.any() else []
        kinks = [e.place for e in elements if e.roughness is Roughness.KINK]
        tied = np.flatnonzero(weights).tolist() if coverage is Coverage.SPOILED else kinks
        if len(kinks) > 1:
            tie = broken_tie(analytic, name, tied, noise, rng)
    if probes is not first:
        confirmed = any(_contradicts(analytic, name, probe) for probe in probes)
    size = analytic.size(name, whole)
    weakest = _tolerance(probes) / float(weights[weights > 0].min(initial=1.0))
    probes = [_allowing(probe, accuracy * size) for probe in probes]
    return LeafMeasurement(
        name,
        size,
        tuple(probes),
        tuple(elements),
        tie,
        coverage,
        int(np.count_nonzero(weights)) + sum(e.roughness is Roughness.CURVED for e in elements),
        resolution,
        confirmed=confirmed,
        limit=max(probes or first, key=lambda probe: probe.gap.tolerance).numerical.limit,
        is_zero=_is_zero(analytic, size, probes, elements),
        factor=analytic.factor(name),
        weakest=min(weakest, _tolerance(first)),
        with_autodiff=None if autodiff is None else between(name, analytic, autodiff, elements, accuracy),
        autodiff=() if autodiff is None else tuple(_Probing(name, autodiff, directions, resolution).along(weights)),
    )


class _Probing:
    """Probes of one leaf along given directions, each beginning at the step at which the last one ended."""

    def __init__(
        self, name: str, derivation: Derivation, directions: list[Array], resolution: float, start: float | None = None
    ) -> None:
        self.name, self.derivation, self.directions, self.resolution = name, derivation, directions, resolution
        self.step = self.start = start or derivation.start
        self.largest = 0.0  # quotient so far: what the true gradient is, where the claimed one is too small

    def along(self, weights: Array, target: float | None = None) -> list[Probe]:
        """Probes every direction, with elements weighted by how far they may move, to an error of `target`."""
        probes: list[Probe] = []
        for direction in self.directions:
            enough = self.target(weights) if target is None else target
            probes.append(self.derivation.probe(self.name, direction * weights, enough, self.step))
            if math.isfinite(probes[-1].numerical.value):
                self.largest = max(self.largest, abs(probes[-1].numerical.value))
            if math.isfinite(probes[-1].numerical.error):
                self.step = min(max(probes[-1].numerical.step, SMALLEST), OWN_SIZE)
        return probes

    def target(self, weights: Array) -> float:
        """Returns the error of a quotient at which it is good enough."""
        by_claim = self.derivation.target(self.name, weights, self.resolution)
        return max(by_claim, self.resolution * self.largest / 4 / MARGIN)

    def sharp(self, probes: list[Probe], weights: Array) -> bool:
        """Whether every probe agrees with the gradient and sees what it should."""
        tolerance = MARGIN * self.target(weights)
        return all(p.gap.within_tolerance and p.gap.tolerance <= tolerance for p in probes) and not self.bent(probes)

    def bent(self, probes: list[Probe]) -> bool:
        """Whether the best look of a probe meets a kink, which central differences may pass over."""
        noise = self.derivation.phi_noise
        looks = [probe.numerical.looks[0] for probe in probes]
        return any(bends_beyond(found.bends, max(noise, found.noise), found.step) for found in looks)

    def blurred(self, probes: list[Probe], weights: Array) -> bool:
        """Whether a probe sees less than it should."""
        tolerance = MARGIN * self.target(weights)
        return any(p.gap.tolerance > tolerance for p in probes)

    def by_own_size(self, weights: Array, probes: list[Probe]) -> tuple[Array, list[Probe]]:
        """Probes again with steps that follow the elements' own sizes, where that helps."""
        own = self.derivation.own_weights(self.name) * weights
        if not (own < 0.1 * weights).any():
            return weights, probes
        self.step = self.start
        again = self.along(own)
        less_blurred = self.blurred(probes, weights) and self._blur(again, own) < self._blur(probes, weights)
        return (own, again) if less_blurred or self.sharp(again, own) else (weights, probes)

    def _blur(self, probes: list[Probe], weights: Array) -> float:
        return max(p.gap.tolerance for p in probes) / (self.derivation.size(self.name, weights) or 1.0)


def between(
    name: str, analytic: Derivation, autodiff: Derivation, elements: list[Element], accuracy: float = 0.0
) -> Gap:
    """Returns the largest difference of an element of two gradients, in units of G, apart from jitter.

    Rough elements do not count.
    """
    factor = analytic.factor(name)
    difference = np.abs(analytic.gradient[name] - autodiff.gradient[name]).ravel() * factor
    difference[[e.place for e in elements]] = 0.0
    theirs = autodiff.rounding(name) * factor / autodiff.factor(name)
    largest = float(np.abs(autodiff.gradient[name]).max(initial=0.0)) * factor
    tolerance = SAFETY * (analytic.rounding(name) + theirs) + accuracy * largest
    if difference.max(initial=0.0) > tolerance:
        jitter = analytic.jitter.gradient[name] + autodiff.jitter.gradient[name]
        difference = difference - SAFETY * factor * jitter.ravel()
    return Gap(float(difference.max(initial=0.0)), tolerance)


def _tolerance(probes: list[Probe]) -> float:
    return max((probe.gap.tolerance for probe in probes), default=math.inf)


def _is_zero(analytic: Derivation, size: float, probes: list[Probe], elements: list[Element]) -> bool:
    """Whether gradient and quotients cannot be told from zero, where the quotients would show an ordinary gradient."""
    tolerance = max([p.gap.tolerance for p in probes] + [e.error for e in elements], default=0.0)
    values = [abs(p.numerical.value) for p in probes] + [max(abs(e.low), abs(e.high)) for e in elements]
    hidden = size <= tolerance and all(value <= tolerance for value in values)
    return (hidden and tolerance <= SHARP * analytic.ordinary) or (size == 0 and not any(values))


def _allowing(probe: Probe, error: float) -> Probe:
    """Returns the probe with an error of this norm allowed: four standard deviations of its part along a direction."""
    return replace(probe, rounding=probe.rounding + 4 * error / SAFETY) if error else probe


def _contradicts(derivation: Derivation, name: str, probe: Probe) -> bool:
    """Whether a probe is beyond its tolerance, the looks that can tell say so, and one more confirms it.

    A look can tell where its own error is below half of the gap.
    """
    followed = probe.numerical.followed(derivation.phi_noise)
    if probe.gap.within_tolerance or followed is None:
        return False
    gap = probe.gap.error
    telling = [found for found in followed.looks if SAFETY * (found.error + probe.rounding) < gap]
    supporting = [f for f in followed.looks if f.error < gap / 2 and not probe.contradicted_by(f)]
    return len(telling) > len(supporting) and derivation.disproves(name, probe, telling[0])


def _noise_and_step(probes: list[Probe], noise: float) -> tuple[float, float]:
    """Returns phi's noise as the probes show it, and the step at which they are best."""
    best: Derivative = min((p.numerical for p in probes), key=lambda d: d.error)
    if not any(found.finite for found in best.looks):
        return noise, min(found.step for found in best.looks)
    return best.noise_seen(noise), best.step
