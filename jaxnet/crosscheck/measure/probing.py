"""Compares a leaf's gradient with difference quotients along random directions, at the steps that suit the leaf."""

import math

from jaxnet.crosscheck.inspect.checkable import Array
from jaxnet.crosscheck.measure.derivation import TARGET_MARGIN, Derivation, Probe
from jaxnet.crosscheck.measure.finite_differences import MAX_NEAR_STEP, MIN_STEP, Quotient
from jaxnet.crosscheck.measure.kink_detection import has_kink_nearby
from jaxnet.crosscheck.measure.leaf_steps import own_scales

MAX_STILL = 16.0  # the most that an output that stands still moves, in units of its noise


class Probing:
    """Probes one leaf along given directions. Each probe starts at the best step of the previous one."""

    def __init__(
        self,
        name: str,
        derivation: Derivation,
        directions: list[Array],
        resolution: float,
        start: float | None = None,
        *,
        rounded: bool = True,
    ) -> None:
        self.rounded = rounded  # directions may be rounded so that steps along them are exact
        self.name, self.derivation, self.directions, self.resolution = name, derivation, directions, resolution
        self.step = self.start = start or derivation.start
        self.largest_quotient = 0.0  # an estimate of the true gradient, for a claimed one that is too small

    def along(self, weights: Array, target: float | None = None) -> list[Probe]:
        """Probes every direction to an error of `target`, with each element's movement weighted."""
        probes: list[Probe] = []
        for direction in self.directions:
            enough = self.target(weights) if target is None else target
            probe = self.derivation.probe if self.rounded else self.derivation.probe_unrounded
            probes.append(probe(self.name, direction * weights, enough, self.step))
            numerical = probes[-1].numerical
            if math.isfinite(numerical.value):
                self.largest_quotient = max(self.largest_quotient, abs(numerical.value))
            if math.isfinite(numerical.error):
                self.step = min(max(numerical.step, MIN_STEP), MAX_NEAR_STEP)
        return probes

    def standing_still(self, weights: Array) -> list[Probe]:
        """Probes a gradient of zero at the largest step near the point, where the smallest gradients are resolved.

        Returns:
            The probes; none if the gradient is not zero, or if the output moves by more than its noise.
        """
        if self.derivation.size(self.name, weights) > self.derivation.phi_noise:
            return []
        probes: list[Probe] = []
        probe = self.derivation.probe if self.rounded else self.derivation.probe_unrounded
        for direction in self.directions:
            probes.append(probe(self.name, direction * weights, math.inf, MAX_NEAR_STEP))
            if not self._stands_still(probes[-1].numerical.quotients[0]):
                return []
        return probes

    def _stands_still(self, quotient: Quotient) -> bool:
        changes = (4 * quotient.step * (abs(quotient.value) + quotient.truncation), *map(abs, quotient.bends))
        return quotient.finite and max(changes) <= MAX_STILL * self.derivation.phi_noise

    def target(self, weights: Array) -> float:
        """Returns the error at which a quotient is accurate enough."""
        by_claim = self.derivation.target(self.name, weights, self.resolution)
        return max(by_claim, self.resolution * self.largest_quotient / 4 / TARGET_MARGIN)

    def sufficient(self, probes: list[Probe], weights: Array) -> bool:
        """Returns whether every probe agrees with the gradient, is accurate enough, and is not near a kink."""
        largest = TARGET_MARGIN * self.target(weights)
        agree = all(p.gap.within_tolerance and p.gap.tolerance <= largest for p in probes)
        return agree and not self.near_kink(probes)

    def near_kink(self, probes: list[Probe]) -> bool:
        """Returns whether the best quotient of a probe is near a kink, which central differences alone may not show."""
        noise = self.derivation.phi_noise
        quotients = [probe.numerical.quotients[0] for probe in probes]
        return any(has_kink_nearby(q.bends, max(noise, q.noise), q.step) for q in quotients)

    def inaccurate(self, probes: list[Probe], weights: Array) -> bool:
        """Returns whether a probe is less accurate than the resolution requires."""
        tolerance = TARGET_MARGIN * self.target(weights)
        return any(p.gap.tolerance > tolerance for p in probes)

    def by_own_size(self, weights: Array, probes: list[Probe]) -> tuple[Array, list[Probe]]:
        """Probes again with steps relative to each element's own size; returns the more accurate weights and probes."""
        own = own_scales(self.derivation.at[self.name]) * weights
        if not (own < 0.1 * weights).any():
            return weights, probes
        self.step = self.start
        again = self.along(own)
        improved = self._relative_tolerance(again, own) < self._relative_tolerance(probes, weights)
        better = (self.inaccurate(probes, weights) and improved) or self.sufficient(again, own)
        return (own, again) if better else (weights, probes)

    def _relative_tolerance(self, probes: list[Probe], weights: Array) -> float:
        return max(p.gap.tolerance for p in probes) / (self.derivation.size(self.name, weights) or 1.0)
