"""Finds the elements of a leaf at which its function is not smooth, and examines them one by one.

At a kink the slopes from both sides differ at every step size, and every value between them is a correct gradient:
ReLU at 0, a clip at its bounds, ties in a maximum or a sort. Other rough elements have a high curvature, which smaller
steps resolve, or are near the edge of a domain. Along a random direction a single one spoils the quotient of the whole
leaf. So rough elements are found by bisection, taken out, and examined separately.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array
from jaxnet.crosscheck.measure.contradiction import is_confirmed
from jaxnet.crosscheck.measure.derivation import SAFETY, Derivation, Gap, Probe
from jaxnet.crosscheck.measure.finite_differences import STEP_RATIO, derivative
from jaxnet.crosscheck.measure.kink_detection import Slopes, has_kink_nearby, one_sided_slopes
from jaxnet.crosscheck.measure.leaf_steps import copies, own_scales, stepped

MAX_ROUGH_ELEMENTS = 64  # examined one by one
MAX_GROUPS = 96  # moved in search of rough elements, with six forward passes each
TIE_DIRECTIONS = 6  # random directions along which, and along whose sums, outputs must be convex or concave


class Roughness(Enum):
    """Why an element is examined separately."""

    KINK = "kink"
    CURVED = "curved"
    UNRESOLVED = "unresolved"


class Goal(NamedTuple):
    """The required accuracy of an element's quotient, in units of G.

    Attributes:
        target: The error at which no further step is tried.
        enough: The largest acceptable error if no step reaches the target.
    """

    target: float
    enough: float


@dataclass(frozen=True)
class Element:
    """One element of a leaf that was examined separately; numbers are in units of the scaled gradient G."""

    place: int
    roughness: Roughness
    claimed: float
    alone: bool  # whether it is the only element that changes the output at its place, and changes no other output
    low: float  # the lower of the slopes on both sides; equal to `high` if the element is smooth
    high: float
    error: float

    @property
    def gap(self) -> Gap:
        """The distance of the gradient from the range of slopes."""
        outside = max(self.low - self.claimed, self.claimed - self.high, 0.0)
        return Gap(outside if math.isfinite(outside) else 0.0, self.error)


@dataclass(frozen=True)
class Tie:
    """Kinks that move together, at which a convex or concave function has a range of slopes."""

    claimed: float
    low: float
    high: float
    slack: float

    @property
    def gap(self) -> Gap:
        """The distance of the gradient from the range."""
        return Gap(max(self.low - self.claimed, self.claimed - self.high, 0.0), self.slack)


def rough_elements(
    derivation: Derivation, name: str, weights: Array, step: float, noise: float, rng: np.random.Generator
) -> list[int] | None:
    """Finds the elements near which the function is not smooth, by bisection.

    Args:
        derivation: The forward pass, at its point.
        name: The leaf.
        weights: The largest movement of each element, in units of the leaf's scale.
        step: The step of the probes.
        noise: The standard deviation of phi's noise.
        rng: Draws the directions in which groups of elements move.

    Returns:
        The flat indices of the elements, or None if there are too many.
    """
    places: list[int] = []
    groups = [np.flatnonzero(weights)]
    tried = 0
    while groups:
        group, tried = groups.pop(), tried + 1
        if tried > MAX_GROUPS:
            return None
        direction = np.zeros(weights.size)
        # Probes rarely move an element farther, because normal numbers above 4 are rare.
        direction[group] = rng.choice([-1, 1], group.size) * rng.uniform(3, 4, group.size) * weights.flat[group]
        phi = derivation.phi(name, derivation.exact(name, direction.reshape(weights.shape)))
        bend1, bend2, bend4 = (phi(j * step) + phi(-j * step) for j in (1, 2, 4))
        finite = all(map(math.isfinite, (bend1, bend2, bend4)))
        if finite and not has_kink_nearby((bend1, bend2, bend4), noise, step):
            continue
        if group.size > 1:
            groups += np.array_split(group, 2)
        elif len(places) == MAX_ROUGH_ELEMENTS:
            return None
        else:
            places.append(int(group[0]))
    return sorted(places)


def examine_elements(
    derivation: Derivation, name: str, places: Iterable[int], weights: Array, goal: Goal, noise: float, step: float
) -> list[Element]:
    """Examines elements one by one, with steps that shrink until the function is smooth on either side.

    Args:
        derivation: The analytic derivation.
        name: The leaf.
        places: Flat indices.
        weights: The largest movement of each element, in units of the leaf's scale. It is limited to its own size.
        goal: The required accuracy.
        noise: The standard deviation of phi's noise.
        step: The first step, relative to an element's largest movement.
    """
    unit, reach = np.zeros(weights.shape), np.minimum(weights, own_scales(derivation.at[name]))
    elements = []
    for place in places:
        unit.flat[place] = reach.flat[place]
        direction = derivation.exact(name, unit)
        unit.flat[place] = 0.0
        weight = float(direction.flat[place])
        if weight:
            elements.append(_examine_element(derivation, name, place, direction, goal, noise, step))
    return elements


def _examine_element(
    derivation: Derivation, name: str, place: int, direction: Array, goal: Goal, noise: float, step: float
) -> Element:
    """Examines one element: its slopes if it is at a kink, otherwise its derivative."""
    phi, weight = derivation.phi(name, direction), float(direction.flat[place])
    claimed = float(derivation.scaled_gradient(name).flat[place])
    rounding = float(derivation.roundings(name).flat[place])
    phi_noise = derivation.noise_along(name, direction, noise)
    slopes = one_sided_slopes(phi, phi_noise, step)
    if slopes.is_kink:
        return _kink(derivation, name, place, direction, slopes)
    numerical = derivative(phi, phi_noise, goal.target * weight, step)
    smooth = numerical.smooth_part(noise)
    if smooth is None or abs(claimed * weight - smooth.value) > SAFETY * (smooth.error + rounding * weight):
        # A single quotient may agree or disagree by chance: smaller steps are tried.
        numerical = derivative(phi, phi_noise, 0.0, numerical.step / STEP_RATIO)
        smooth = numerical.smooth_part(noise)
    best = smooth or numerical
    value, error = best.value / weight, best.error / weight
    resolved = smooth is not None and smooth.error <= max(goal.enough * weight, 1e-3 * abs(smooth.value))
    if resolved and abs(claimed - value) > SAFETY * (error + rounding):
        probe = Probe(direction, claimed * weight, rounding * weight, best)
        resolved = is_confirmed(derivation, name, probe, best.quotients[0])
    roughness = Roughness.CURVED if resolved else Roughness.UNRESOLVED
    return Element(place, roughness, claimed, False, value, value, SAFETY * (error + rounding))


def _kink(derivation: Derivation, name: str, place: int, direction: Array, slopes: Slopes) -> Element:
    """Returns an element at a kink, with the range of its slopes."""
    weight = float(direction.flat[place])
    claimed = float(derivation.scaled_gradient(name).flat[place])
    low, high = sorted((slopes.below / weight, slopes.above / weight))
    error = 2 * SAFETY * (slopes.error / weight + float(derivation.roundings(name).flat[place]))
    alone = False
    if not low - error <= claimed <= high + error:
        below, above = derivation.slopes_by_output(name, direction, slopes.step)
        least, largest = _range_of_slopes(derivation.dout, below, above)
        low, high = min(low, least / weight), max(high, largest / weight)
        alone = _acts_by_element(derivation, name, place, (below != 0) | (above != 0), slopes.step)
    return Element(place, Roughness.KINK, claimed, alone, low, high, error)


def _acts_by_element(derivation: Derivation, name: str, place: int, moves: Array, step: float) -> bool:
    """Returns whether an element changes only the output at its own place, and no other element changes that output."""
    if derivation.output.size == 1 or derivation.output.shape != derivation.at[name].shape:
        return False
    if not moves.flat[place] or np.count_nonzero(moves) > 1:
        return False
    others = own_scales(derivation.at[name])
    others.flat[place] = 0.0
    below, above = derivation.slopes_by_output(name, derivation.exact(name, others), step)
    return not (below.flat[place] or above.flat[place])


def broken_tie(
    derivation: Derivation, name: str, places: list[int], noise: float, rng: np.random.Generator
) -> Tie | None:
    """Moves elements by the same amount, and returns the tie if the gradient is outside its range of slopes.

    Elements that move together stay tied, so an output that is smooth along this direction has a single slope, however
    the gradient is divided among the elements. One of two tied maxima may get the whole gradient, but not both.
    """
    shape = derivation.at[name].shape
    together = np.zeros(math.prod(shape))
    together[places] = 1.0
    direction = derivation.exact(name, together.reshape(shape))
    slopes = one_sided_slopes(derivation.phi(name, direction), derivation.noise_along(name, direction, noise))
    if not math.isfinite(slopes.error):
        return None
    below, above = derivation.slopes_by_output(name, direction, slopes.step)
    error = 4 * noise / slopes.step
    negligible = 4 * error / max(float(np.abs(derivation.dout).max()), 1e-300)
    smooth = np.abs(above - below) <= negligible
    dout = np.where(smooth, derivation.dout, 0.0)
    if not dout.any() or derivation.output.size == 1:
        return None
    cast_dout = dout.astype(derivation.cast_dout.dtype)
    gradient = derivation.checkable.backward(copies(derivation.at), cast_dout)[name]
    claimed = float(np.vdot(np.asarray(gradient, np.float64) * derivation.factor(name), direction))
    rounding = float(np.linalg.norm(derivation.roundings(name) * direction))
    slack = 2 * SAFETY * (error * math.sqrt(dout.size) + slopes.error + rounding)
    tie = Tie(claimed, *_range_of_slopes(dout, below, above), slack)
    if tie.gap.within_tolerance:
        return None
    one_way = _are_convex_or_concave(derivation, name, places, smooth, negligible, slopes.step, rng)
    return tie if one_way and _stay_tied(derivation, name, places, smooth, negligible, slopes.step) else None


def _are_convex_or_concave(
    derivation: Derivation,
    name: str,
    places: list[int],
    chosen: Array,
    negligible: float,
    step: float,
    rng: np.random.Generator,
) -> bool:
    """Returns whether each chosen output is convex, or concave, along random directions and their sums.

    A maximum is convex: f'(d) + f'(e) >= f'(d + e) for its slopes along any two directions; the bend at a kink is the
    case e = -d. The median of three tied values does not bend along any line, and is neither. Where kinks are composed,
    as in |clip(x)|, an output may bend both ways. Then a backward pass that chooses a side at each kink need not return
    the slope of moving them together.
    """
    shape = derivation.at[name].shape

    def slopes(direction: Array) -> Array:
        """Returns f'(d) and f'(-d) of the chosen outputs."""
        below, above = derivation.slopes_by_output(name, direction, step)
        return np.array([above[chosen], -below[chosen]])

    drawn = np.zeros((TIE_DIRECTIONS, math.prod(shape)))
    drawn[:, places] = rng.choice([-1.0, 1.0], (TIE_DIRECTIONS, len(places))) * rng.uniform(
        0.5, 1.5, (TIE_DIRECTIONS, len(places))
    )
    directions = [derivation.exact(name, d.reshape(shape)) for d in drawn]
    single = [slopes(d) for d in directions]
    bends = [pair.sum(axis=0) for pair in single]
    for i, j in combinations(range(TIE_DIRECTIONS), 2):
        bends += list(single[i] + single[j] - slopes(directions[i] + directions[j]))
    bend = np.array(bends)
    return bool(((bend >= -negligible).all(axis=0) | (bend <= negligible).all(axis=0)).all())


def _stay_tied(
    derivation: Derivation, name: str, places: list[int], chosen: Array, negligible: float, step: float
) -> bool:
    """Returns whether a chosen output still has a kink after tied elements moved together, as their maximum has.

    Kinks at fixed values, such as those of a clip, are left behind: equal elements at such a kink are no tie.
    """
    start, scale = derivation.at[name], derivation.scale(name)
    masks = np.zeros((2, start.size))
    masks[0, places], masks[1, places] = 1.0, np.linspace(-1.0, 1.0, len(places))
    together, apart = (derivation.exact(name, mask.reshape(start.shape)) * scale for mask in masks)

    def output(base: Array, t: float) -> Array:
        return derivation.forward_at(derivation.at | {name: stepped(base, t, apart)})[chosen]

    for sign in (1.0, -1.0):
        base, small = stepped(start, sign * step, together), step / 16
        bend = output(base, small) + output(base, -small) - 2 * output(base, 0.0)
        if (np.abs(bend / derivation.unit) / small > 4 * negligible).any():
            return True
    return False


def _range_of_slopes(dout: Array, below: Array, above: Array) -> tuple[float, float]:
    """Returns the least and the largest slope of phi over all choices of a side for each output element.

    If several outputs have kinks at the same point, a backward pass may choose a different side for each: for
    sum(c_j relu(w_j t)) at 0, a backward pass with relu'(0) = 0 returns neither of phi's one-sided slopes.
    """
    return float(np.minimum(dout * below, dout * above).sum()), float(np.maximum(dout * below, dout * above).sum())
