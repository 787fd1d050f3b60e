"""Finds the elements of a leaf at which its function is not smooth, and asks what each of them allows.

At a kink the slopes from both sides differ at every step size, and every value between them is a right gradient: ReLU
at 0, a clip at its bounds, ties in a maximum or a sort. Beside kinks there are elements of high curvature, which
smaller steps resolve, and elements near the edge of a domain. Along a random direction any of them spoils the quotient
of all; they are found by halving, taken out, and judged one by one.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array
from jaxnet.crosscheck.measure.derivation import SAFETY, Derivation, Gap
from jaxnet.crosscheck.measure.differences import bends_beyond, derivative, one_sided

MOST_ELEMENTS = 64  # that are looked at one by one
MOST_GROUPS = 96  # that are moved, six forward passes each, before rough elements count as too many
JOINT_PROBES = 8


class Roughness(Enum):
    """Why an element is judged by itself."""

    KINK = "kink"
    CURVED = "curved"
    UNRESOLVED = "unresolved"


@dataclass(frozen=True)
class Element:
    """One element of a leaf, judged by itself; numbers are of the scaled gradient G."""

    place: int
    roughness: Roughness
    claimed: float
    low: float  # the slopes on both sides, sorted; the same number where the element is smooth
    high: float
    error: float

    @property
    def gap(self) -> Gap:
        """How far the claim is outside the slopes."""
        outside = max(self.low - self.claimed, self.claimed - self.high, 0.0)
        return Gap(outside if math.isfinite(outside) else 0.0, self.error)


@dataclass(frozen=True)
class Tie:
    """Kinks that are moved together, at which a convex function allows a range of slopes."""

    claimed: float
    low: float
    high: float
    slack: float

    @property
    def broken(self) -> bool:
        """Whether the claim is outside the range."""
        return not self.low - self.slack <= self.claimed <= self.high + self.slack


def rough_elements(
    derivation: Derivation, name: str, weights: Array, step: float, noise: float, rng: np.random.Generator
) -> list[int] | None:
    """Finds the elements near which the function is not smooth, by halving; None where they are too many.

    Args:
        derivation: The forward pass, at its point.
        name: The leaf.
        weights: Each element's reach, in units of the leaf's scale.
        step: The step of the looks that they would spoil.
        noise: The standard deviation of phi's noise.
        rng: Draws the directions in which groups of elements move.
    """
    found: list[int] = []
    groups = [np.flatnonzero(weights)]
    tried = 0
    while groups:
        group, tried = groups.pop(), tried + 1
        if tried > MOST_GROUPS:
            return None
        direction = np.zeros(weights.size)
        # As far as a probe ever goes in any of them: a normal number of 4 is rare.
        direction[group] = rng.choice([-1, 1], group.size) * rng.uniform(3, 4, group.size) * weights.flat[group]
        phi = derivation.phi(name, derivation.exact(name, direction.reshape(weights.shape)))
        bends = (*(phi(j * step) + phi(-j * step) for j in (1, 2, 4)),)
        if all(map(math.isfinite, bends)) and not bends_beyond(bends, noise, step):  # type: ignore[arg-type]
            continue
        if group.size > 1:
            groups += np.array_split(group, 2)
        elif len(found) == MOST_ELEMENTS:
            return None
        else:
            found.append(int(group[0]))
    return sorted(found)


def examine_elements(
    derivation: Derivation, name: str, places: Iterable[int], weights: Array, target: float, noise: float
) -> list[Element]:
    """Judges elements one by one, with steps that shrink until the function is smooth on either side.

    Args:
        derivation: The analytic derivation.
        name: The leaf.
        places: Flat indices.
        weights: Each element's reach, in units of the leaf's scale.
        target: The error at which a quotient is good enough, for G.
        noise: The standard deviation of phi's noise.
    """
    unit = np.zeros(weights.shape)
    found = []
    for place in places:
        unit.flat[place] = weights.flat[place]
        direction = derivation.exact(name, unit)
        unit.flat[place] = 0.0
        weight = float(direction.flat[place])
        if weight:
            found.append(_examined(derivation, name, place, direction, target * weight, noise))
    return found


def _examined(derivation: Derivation, name: str, place: int, direction: Array, target: float, noise: float) -> Element:
    """Judges one element: by both slopes where they differ, else by its derivative."""
    phi, weight = derivation.phi(name, direction), float(direction.flat[place])
    claimed, rounding = float(derivation.scaled_gradient(name).flat[place]), derivation.rounding(name)
    slopes = one_sided(phi, noise)
    if slopes.is_kink:
        low, high = sorted((slopes.below / weight, slopes.above / weight))
        error = 2 * SAFETY * (slopes.error / weight + rounding)
        if not low - error <= claimed <= high + error:
            wide = _range(derivation.dout, *derivation.slopes_by_output(name, direction, slopes.step))
            low, high = min(low, wide[0] / weight), max(high, wide[1] / weight)
        return Element(place, Roughness.KINK, claimed, low, high, error)
    smooth = derivative(phi, noise, target)
    value, error = smooth.value / weight, smooth.error / weight
    if error <= max(target / weight, 1e-3 * abs(value)):
        return Element(place, Roughness.CURVED, claimed, value, value, SAFETY * (error + rounding))
    return Element(place, Roughness.UNRESOLVED, claimed, math.nan, math.nan, math.inf)


def broken_tie(
    derivation: Derivation, name: str, places: list[int], noise: float, rng: np.random.Generator
) -> Tie | None:
    """Moves elements together and returns a tie whose slopes the claim leaves, if there is one.

    An output that is convex in them, as a maximum is, or concave, allows slopes between its two one-sided ones along
    every direction: of two tied maxima each may have the whole gradient, but not both. Outputs that are neither along
    the directions tried are left out of `dout`.
    """
    shape = derivation.at[name].shape
    together = np.zeros((JOINT_PROBES, math.prod(shape)))
    together[:, places] = rng.uniform(0.5, 1.5, (JOINT_PROBES, len(places)))
    together[JOINT_PROBES // 2 :, places] *= rng.choice([-1.0, 1.0], (JOINT_PROBES // 2, len(places)))
    together[0, places] = 1.0
    directions = [derivation.exact(name, direction.reshape(shape)) for direction in together]
    sides = one_sided(derivation.phi(name, directions[1]), noise)
    if not math.isfinite(sides.error):
        return None
    slopes = np.array([derivation.slopes_by_output(name, d, sides.step) for d in directions])  # (probes, 2, *output)
    bend = (slopes[:, 1] - slopes[:, 0]) * np.where(derivation.dout != 0, 1.0, 0.0)
    slight = 4 * noise / sides.step / max(float(np.abs(derivation.dout).max()), 1e-300)
    above = np.where((bend >= -slight).all(axis=0) | (bend <= slight).all(axis=0), derivation.dout, 0.0)
    G = derivation.checkable.backward(derivation.at, above.astype(derivation.dout_given.dtype))[name]
    G = np.asarray(G, np.float64) * derivation.factor(name)
    for direction, (below, ahead) in zip(directions, slopes, strict=True):
        low, high = _range(above, below, ahead)
        rounding = derivation.rounding(name) * float(np.linalg.norm(direction))
        tie = Tie(
            float(np.vdot(G, direction)), low, high, 2 * SAFETY * (4 * noise / sides.step + sides.error + rounding)
        )
        if tie.broken:
            return tie
    return None


def _range(dout: Array, below: Array, above: Array) -> tuple[float, float]:
    """Returns the least and the largest slope of phi that any choice of a side for each output element gives.

    Where several outputs have their kinks at one point, each may have been given its own side: of the slopes that
    sum(c_j relu(w_j t)) has at 0, a backward with relu'(0) = 0 claims none of the two that phi shows.
    """
    return float(np.minimum(dout * below, dout * above).sum()), float(np.maximum(dout * below, dout * above).sum())
