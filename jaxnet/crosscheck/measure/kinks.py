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
from itertools import combinations
from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array
from jaxnet.crosscheck.measure.derivation import SAFETY, Derivation, Gap, Probe
from jaxnet.crosscheck.measure.differences import RATIO, bends_beyond, derivative, one_sided

MOST_ELEMENTS = 64  # that are looked at one by one
WAYS = 6  # random directions that, with the sums of any two, must show a tie's outputs to be convex or concave
MOST_GROUPS = 96  # that are moved, six forward passes each, before rough elements count as too many


class Roughness(Enum):
    """Why an element is judged by itself."""

    KINK = "kink"
    CURVED = "curved"
    UNRESOLVED = "unresolved"


class Goal(NamedTuple):
    """How exact the quotient of an element is to be, for G.

    Attributes:
        target: The error at which no further step is taken.
        enough: The error that will do where no step reaches the target.
    """

    target: float
    enough: float


@dataclass(frozen=True)
class Element:
    """One element of a leaf, judged by itself; numbers are of the scaled gradient G."""

    place: int
    roughness: Roughness
    claimed: float
    alone: bool  # whether the function acts on single elements, here at least
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
    def gap(self) -> Gap:
        """How far the claim is outside the range."""
        return Gap(max(self.low - self.claimed, self.claimed - self.high, 0.0), self.slack)

    @property
    def broken(self) -> bool:
        """Whether the claim is outside the range."""
        return not self.gap.within_tolerance


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
    derivation: Derivation, name: str, places: Iterable[int], weights: Array, goal: Goal, noise: float, step: float
) -> list[Element]:
    """Judges elements one by one, with steps that shrink until the function is smooth on either side.

    Args:
        derivation: The analytic derivation.
        name: The leaf.
        places: Flat indices.
        weights: Each element's reach, in units of the leaf's scale; none goes farther than its own size.
        goal: How exact a quotient is to be.
        noise: The standard deviation of phi's noise.
        step: The first step, relative to an element's reach.
    """
    unit, reach = np.zeros(weights.shape), np.minimum(weights, derivation.own_weights(name))
    found = []
    for place in places:
        unit.flat[place] = reach.flat[place]
        direction = derivation.exact(name, unit)
        unit.flat[place] = 0.0
        weight = float(direction.flat[place])
        if weight:
            found.append(_examined(derivation, name, place, direction, goal, noise, step))
    return found


def _examined(
    derivation: Derivation, name: str, place: int, direction: Array, goal: Goal, level: float, step: float
) -> Element:
    """Judges one element: by both slopes where they differ, else by its derivative."""
    phi, weight = derivation.phi(name, direction), float(direction.flat[place])
    claimed = float(derivation.scaled_gradient(name).flat[place])
    rounding = float(derivation.roundings(name).flat[place])
    noise = derivation.noise_along(name, direction, level)
    slopes = one_sided(phi, noise, step)
    if slopes.is_kink:
        low, high = sorted((slopes.below / weight, slopes.above / weight))
        error = 2 * SAFETY * (slopes.error / weight + rounding)
        alone = False
        if not low - error <= claimed <= high + error:
            below, above = derivation.slopes_by_output(name, direction, slopes.step)
            wide = _range(derivation.dout, below, above)
            low, high = min(low, wide[0] / weight), max(high, wide[1] / weight)
            alone = _acts_by_element(derivation, name, place, (below != 0) | (above != 0), slopes.step)
        return Element(place, Roughness.KINK, claimed, alone, low, high, error)
    found = derivative(phi, noise, goal.target * weight, step)
    smooth = found.followed(level)
    if smooth is None or abs(claimed * weight - smooth.value) > SAFETY * (smooth.error + rounding * weight):
        found = derivative(phi, noise, 0.0, found.step / RATIO)  # a first look may agree, or not, by chance
        smooth = found.followed(level)
    value, error = (smooth or found).value / weight, (smooth or found).error / weight
    settled = smooth is not None and smooth.error <= max(goal.enough * weight, 1e-3 * abs(smooth.value))
    if settled and abs(claimed - value) > SAFETY * (error + rounding):
        probe = Probe(direction, claimed * weight, rounding * weight, smooth or found)
        settled = derivation.disproves(name, probe, probe.numerical.looks[0])
    roughness = Roughness.CURVED if settled else Roughness.UNRESOLVED
    return Element(place, roughness, claimed, False, value, value, SAFETY * (error + rounding))


def _acts_by_element(derivation: Derivation, name: str, place: int, moves: Array, step: float) -> bool:
    """Whether an element moves the output of its own place alone, and no other element moves that."""
    if derivation.output.size == 1 or derivation.output.shape != derivation.at[name].shape:
        return False
    if not moves.flat[place] or np.count_nonzero(moves) > 1:
        return False
    others = derivation.own_weights(name)
    others.flat[place] = 0.0
    below, above = derivation.slopes_by_output(name, derivation.exact(name, others), step)
    return not (below.flat[place] or above.flat[place])


def broken_tie(
    derivation: Derivation, name: str, places: list[int], noise: float, rng: np.random.Generator
) -> Tie | None:
    """Moves elements by the same amount, and returns the tie if its slope is not the gradient's.

    Tied elements that move together stay tied: the outputs that are smooth along this direction have one slope there,
    whatever each element may claim. Of two tied maxima either may have the whole gradient, but not both.
    """
    shape = derivation.at[name].shape
    together = np.zeros(math.prod(shape))
    together[places] = 1.0
    direction = derivation.exact(name, together.reshape(shape))
    sides = one_sided(derivation.phi(name, direction), derivation.noise_along(name, direction, noise))
    if not math.isfinite(sides.error):
        return None
    below, ahead = derivation.slopes_by_output(name, direction, sides.step)
    error = 4 * noise / sides.step
    slight = 4 * error / max(float(np.abs(derivation.dout).max()), 1e-300)
    smooth = np.abs(ahead - below) <= slight
    above = np.where(smooth, derivation.dout, 0.0)
    if not above.any() or derivation.output.size == 1:
        return None
    at = {key: a.copy(order="K") for key, a in derivation.at.items()}
    G = derivation.checkable.backward(at, above.astype(derivation.dout_given.dtype))[name]
    claimed = float(np.vdot(np.asarray(G, np.float64) * derivation.factor(name), direction))
    rounding = float(np.linalg.norm(derivation.roundings(name) * direction))
    slack = 2 * SAFETY * (error * math.sqrt(above.size) + sides.error + rounding)
    tie = Tie(claimed, *_range(above, below, ahead), slack)
    return tie if tie.broken and _bends_one_way(derivation, name, places, smooth, slight, sides.step, rng) else None


def _bends_one_way(
    derivation: Derivation,
    name: str,
    places: list[int],
    chosen: Array,
    slight: float,
    step: float,
    rng: np.random.Generator,
) -> bool:
    """Whether each chosen output is convex, or concave, as some random directions and their sums show it.

    A maximum is: f'(d) + f'(e) >= f'(d + e) for its slopes along any two directions, of which the bend at a kink is the
    case e = -d. The middle one of three tied values bends along no line, and is neither. Where kinks are composed, as
    in |clip(x)|, an output bends both ways. Then a backward that takes a side at each kink need not give the slope of
    moving them together.
    """
    shape = derivation.at[name].shape

    def slopes(direction: Array) -> Array:
        """Returns f'(d) and f'(-d) of the chosen outputs."""
        below, above = derivation.slopes_by_output(name, direction, step)
        return np.array([above[chosen], -below[chosen]])

    drawn = np.zeros((WAYS, math.prod(shape)))
    drawn[:, places] = rng.choice([-1.0, 1.0], (WAYS, len(places))) * rng.uniform(0.5, 1.5, (WAYS, len(places)))
    directions = [derivation.exact(name, d.reshape(shape)) for d in drawn]
    single = [slopes(d) for d in directions]
    bends = [found.sum(axis=0) for found in single]
    for i, j in combinations(range(WAYS), 2):
        bends += list(single[i] + single[j] - slopes(directions[i] + directions[j]))
    bend = np.array(bends)
    return bool(((bend >= -slight).all(axis=0) | (bend <= slight).all(axis=0)).all())


def _range(dout: Array, below: Array, above: Array) -> tuple[float, float]:
    """Returns the least and the largest slope of phi that any choice of a side for each output element gives.

    Where several outputs have their kinks at one point, each may have been given its own side: of the slopes that
    sum(c_j relu(w_j t)) has at 0, a backward with relu'(0) = 0 claims none of the two that phi shows.
    """
    return float(np.minimum(dout * below, dout * above).sum()), float(np.maximum(dout * below, dout * above).sum())
