"""One derivation at one point: an output, gradients, their noise, and difference quotients beside them.

Everything is scaled. A leaf moves in units of its own size s, phi is <dout, forward> in units of a power of two near
its size, and gradients are in the unit that follows: G = g s / unit. So numbers of 1e-200 and of 1e200 are as good as
numbers of 1, and noise and errors compare across leaves.
"""

import copy
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves
from jaxnet.crosscheck.measure.differences import OWN_SIZE, STEP, Derivative, Look, Phi, PhiNoise, derivative, look
from jaxnet.crosscheck.measure.form import effective_unit
from jaxnet.crosscheck.measure.noise import Noise, measure_noise
from jaxnet.crosscheck.measure.scale import (
    EXACT_FROM,
    eps_of,
    exact_direction,
    in_float64,
    own_scales,
    scale_of,
    stepped,
    unit_of,
)

SAFETY = 8.0  # from the error that is estimated to the one that is allowed
# Steps, relative to each element's own size, within which curvature is nothing beside rounding: in float64, and where
# arithmetic is coarser relative to the step at which its noise was measured.
JITTER_STEPS = (2.0**-52, 2.0**-44, 2.0**-36, 2.0**-28)
JITTER_STEPS_IF_COARSE = (2.0**-6, 2.0**-4)
INCOMMENSURATE = (math.sqrt(5) - 1) / 2
MARGIN = 2 * SAFETY  # by how much a quotient's error must be below what is to be seen
COARSE = 2.0**-40  # relative noise above which a forward pass computes in less than float64


@dataclass(frozen=True)
class Gap:
    """How far two derivations of one number lie apart, and how far noise, rounding and step size let them."""

    error: float
    tolerance: float

    @property
    def within_tolerance(self) -> bool:
        """Whether the error is allowed; False where it is nan."""
        return bool(self.error <= self.tolerance)

    @property
    def ratio(self) -> float:
        """The error in units of the tolerance; infinite where it is nan."""
        if math.isnan(self.error):
            return math.inf
        return self.error / self.tolerance if self.tolerance else (math.inf if self.error else 0.0)

    def scaled(self, factor: float) -> "Gap":
        """Returns the gap in another unit."""
        return Gap(self.error * factor, self.tolerance * factor)


@dataclass(frozen=True)
class Probe:
    """A gradient along one direction, beside the difference quotient along it."""

    direction: Array  # in units of the leaf's scale
    claimed: float
    rounding: float  # of `claimed`
    numerical: Derivative

    @property
    def gap(self) -> Gap:
        """Their distance; nothing is known, and anything allowed, where the quotient is not finite."""
        if not math.isfinite(self.numerical.value):
            return Gap(0.0, math.inf)
        error = abs(self.claimed - self.numerical.value)
        return Gap(error, SAFETY * (self.numerical.error + self.rounding))

    def contradicted_by(self, found: Look) -> bool:
        """Whether another look's quotient is too far from the claim, too."""
        return abs(self.claimed - found.value) > SAFETY * (found.error + self.rounding)


class Measured(NamedTuple):
    """A result, and what rounding may have done to any element of it."""

    value: Array
    rounding: float


class Values(NamedTuple):
    """An output and its gradients by leaf, or a number for each of their elements."""

    output: Array
    gradient: dict[str, Array]


class Derivation:
    """A forward and a backward pass at a point, and the derivatives of the forward by differences.

    Args:
        checkable: What is derived.
        at: The values of its leaves, all float64 or all in one smaller dtype.
        dout: The gradient from above, of the output's shape, float64.
        names: The leaves that are compared.
        rng: Draws the direction of the walk that measures the noise, and the signs of small steps.
    """

    def __init__(
        self, checkable: Checkable, at: Leaves, dout: Array, names: list[str], rng: np.random.Generator
    ) -> None:
        self.checkable, self.at, self.dout, self.names, self.rng = checkable, at, dout, names, rng
        handed = {name: a.copy(order="K") for name, a in at.items()}
        instance = checkable.open(handed)
        self.output = in_float64(instance.forward())
        self.dout_given = dout.astype(self.output_dtype(at))
        found = instance.backward(self.dout_given)
        self.gradient = {name: in_float64(found[name]) for name in names}
        # Code that writes to what it is handed gets copies from now on; others need none.
        self.overwrites = any(not np.array_equal(handed[name], a, equal_nan=True) for name, a in at.items())
        self.noise: Noise = measure_noise(checkable, at, self.dout_given, names, rng, self.first_step)
        self.unit_roundoff = max((eps_of(a) for a in at.values()), default=2.0**-52) / 2
        weighted = dout * self.output
        self.unit = unit_of(weighted, dout.ravel() * self.noise.slopes)
        self.natural = float(np.linalg.norm(weighted / self.unit))  # phi's own size
        moving = float(np.linalg.norm(dout.ravel() * (self.noise.slopes / self.unit)))
        self.ordinary = max(self.natural, moving)  # the size of an ordinary G: what phi is, or moves by with all leaves
        spread = float(np.linalg.norm(dout.ravel() * self.noise.output / self.unit))
        self.phi_noise = spread + self.unit_roundoff * self.natural

    @staticmethod
    def output_dtype(at: Leaves) -> np.dtype:
        """Returns the dtype of a dout for these leaves: float64, or the largest of the leaves' own."""
        dtypes = [a.dtype for a in at.values()]
        return max(dtypes, key=lambda dtype: dtype.itemsize) if dtypes else np.dtype(np.float64)

    @cached_property
    def first_step(self) -> float:
        """The step of the first look: larger where the leaves' own dtype is coarse."""
        eps = max((eps_of(a) for a in self.at.values()), default=2.0**-52)
        return STEP if eps < 2.0**-40 else 2.0**-8 if eps < 2.0**-12 else 2.0**-4

    @cached_property
    def start(self) -> float:
        """The step of the first look: larger than `first_step` where the forward pass computes in less than float64."""
        if not self.coarse:
            return self.first_step
        return min(max(2.0 ** round(math.log2(self.noise.relative) / 3), self.first_step), OWN_SIZE)

    @cached_property
    def smallest_exact(self) -> float:
        """The smallest step whose multiples leave the leaves without rounding."""
        return EXACT_FROM if self.first_step == STEP else self.first_step / 16

    @property
    def coarse(self) -> bool:
        """Whether the forward pass computes in less than float64."""
        return self.noise.relative > COARSE

    def measured(self, name: str) -> "Measured":
        """Returns a gradient and what rounding may have done to an element of it, in its own unit."""
        return Measured(self.gradient[name], self.rounding(name) / self.factor(name))

    def with_gradient(self, name: str, gradient: Array) -> "Derivation":
        """Returns the same derivation with another gradient of one leaf."""
        other = copy.copy(self)
        other.gradient = self.gradient | {name: in_float64(gradient)}
        return other

    def output_rounding(self) -> float:
        """Returns what rounding may do to an element of the output."""
        largest = float(np.abs(self.output).max(initial=0.0))
        terms = math.sqrt(sum(a.size for a in self.at.values()))
        unit_roundoff = max(self.unit_roundoff, self.noise.relative / 4)
        return float(self.noise.output.max(initial=0.0)) + terms * unit_roundoff * largest

    def forward_gap(self, other: "Derivation") -> Gap:
        """Returns the largest difference of an element of the two outputs, apart from their jitter."""
        apart = np.abs(self.output - other.output)
        tolerance = SAFETY * (self.output_rounding() + other.output_rounding())
        if apart.max(initial=0.0) > tolerance:
            apart = apart - SAFETY * (self.jitter.output + other.jitter.output)
        return Gap(float(apart.max(initial=0.0)), tolerance)

    @cached_property
    def jitter(self) -> Values:
        """The largest second difference of each element, over several small steps.

        It is for single elements that lose far more digits than the others, as 1 - tanh² where tanh is nearly 1.
        """
        output = np.zeros(self.output.shape)
        gradient = {name: np.zeros(self.at[name].shape) for name in self.names}
        coarser = [part * self.noise.step for part in JITTER_STEPS_IF_COARSE] if self.coarse else []
        for step in (*JITTER_STEPS, *coarser):
            signs = {name: self.rng.choice([-1.0, 1.0], a.shape) for name, a in self.at.items()}
            try:
                near, far = (self._moved_by(j * step, signs) for j in (1, 2))
            except Exception:  # somebody's code refuses these values: they are outside its domain
                continue
            output = np.fmax(output, np.abs(far.output - 2 * near.output + self.output))
            for name, largest in gradient.items():
                bend = far.gradient[name] - 2 * near.gradient[name] + self.gradient[name]
                gradient[name] = np.fmax(largest, np.abs(bend))
        return Values(output, gradient)

    def _moved_by(self, step: float, signs: Leaves) -> Values:
        """Returns output and gradients where every element of the leaves moves by so much of its own size."""
        at = {n: stepped(a, step, own_scales(a) * scale_of(a) * signs[n]) for n, a in self.at.items()}
        instance = self.checkable.open(at)
        output, found = in_float64(instance.forward()), instance.backward(self.dout_given)
        return Values(output, {name: in_float64(found[name]) for name in self.names})

    def agrees_with_output(self, value: Array) -> bool:
        """Whether another value of the same forward pass is its output, but for rounding."""
        same_shape = value.shape == self.output.shape
        return same_shape and bool(np.abs(value - self.output).max(initial=0.0) <= 2 * SAFETY * self.output_rounding())

    def factor(self, name: str) -> float:
        """Returns what turns a gradient into G."""
        return scale_of(self.at[name]) / self.unit

    def scaled_gradient(self, name: str) -> Array:
        """Returns G = g s / unit, zero where the leaf's value is not finite and is not moved."""
        G = self.gradient[name] * scale_of(self.at[name]) / self.unit
        return np.where(np.isfinite(in_float64(self.at[name])), G, 0.0)

    def roundings(self, name: str) -> Array:
        """Returns the standard deviation of the noise in each element of G, at least what sums of n terms suffer.

        sqrt(n) u times their size: Higham and Mary, *A New Approach to Probabilistic Rounding Error Analysis*, SIAM J.
        Sci. Comput. 41 (2019).
        """
        terms = math.sqrt(sum(a.size for a in self.at.values()))
        unit_roundoff = max(self.unit_roundoff, self.noise.relative / 4, effective_unit(self.gradient[name]))
        measured = self.noise.gradients[name].reshape(self.at[name].shape) * self.factor(name)
        return np.asarray(measured + terms * unit_roundoff * np.abs(self.scaled_gradient(name)))

    def gradient_noise(self, name: str) -> float:
        """Returns the noise that was measured in a gradient, relative to its norm."""
        G = self.scaled_gradient(name)
        noise = np.linalg.norm(self.noise.gradients[name] * self.factor(name))
        return float(noise / (np.linalg.norm(G) or 1.0))

    def rounding(self, name: str) -> float:
        """Returns the largest of `roundings`."""
        return float(self.roundings(name).max(initial=0.0))

    def size(self, name: str, weights: Array) -> float:
        """Returns the norm of G: what an error of it is small or large against."""
        return float(np.linalg.norm(self.scaled_gradient(name) * weights))

    def target(self, name: str, weights: Array, resolution: float) -> float:
        """Returns the error of a quotient at which errors of G of a relative size are seen.

        For a G of 0 it is relative to an ordinary one.
        """
        size = self.size(name, weights)
        return resolution * (size if size > self.phi_noise else self.ordinary) / MARGIN

    def forward_at(self, leaves: Leaves) -> Array:
        """Returns the output at other leaves, float64; nan where the forward pass raises."""
        if self.overwrites:
            leaves = {name: a.copy(order="K") for name, a in leaves.items()}
        try:
            return in_float64(self.checkable.forward(leaves))
        except Exception:  # somebody's code refuses these values: they are outside its domain
            return np.full(self.output.shape, math.nan)

    def phi(self, name: str, direction: Array, dout: Array | None = None) -> Phi:
        """Returns phi(t) = <dout, forward> in its unit, as the leaf moves by t times a direction, less its value at 0.

        Args:
            name: The leaf that moves.
            direction: Of the leaf's shape, in units of its scale.
            dout: Another gradient from above than the derivation's.
        """
        start, y, scale = self.at[name], self.output, scale_of(self.at[name])
        above = (self.dout if dout is None else dout) / self.unit
        step = scale * direction

        def phi(t: float) -> float:
            moved = self.forward_at(self.at | {name: stepped(start, t, step)})
            if moved.shape != y.shape:
                return math.nan
            return float(np.vdot(above, moved - y))

        return phi

    def slopes_by_output(self, name: str, direction: Array, step: float) -> tuple[Array, Array]:
        """Returns the slopes of each output element on both sides of the point, from below and from above.

        Args:
            name: The leaf that moves.
            direction: In units of the leaf's scale.
            step: A step at which both sides are smooth.
        """
        start, scale = self.at[name], scale_of(self.at[name])

        def change(t: float) -> Array:
            moved = self.forward_at(self.at | {name: stepped(start, t, scale * direction)})
            return np.asarray((moved - self.output) / self.unit)

        below, above = ((4 * change(s * step) - change(2 * s * step)) / (2 * s * step) for s in (-1, 1))
        return below, above

    def argument_noise(self, name: str, direction: Array) -> float:
        """Returns the noise of phi from the rounding of what moves, where steps are too small to be exact."""
        values = np.abs(in_float64(self.at[name]))
        spacing = np.spacing(np.where(np.isfinite(values), values, 0.0)) * (2 * self.unit_roundoff * 2.0**52)
        moving = np.where(direction != 0, self.scaled_gradient(name) * spacing / scale_of(self.at[name]), 0.0)
        return float(np.linalg.norm(moving))

    def noise_along(self, name: str, direction: Array, noise: float) -> PhiNoise:
        """Returns the noise of phi along a direction, at every step."""
        return PhiNoise(noise, self.argument_noise(name, direction), self.smallest_exact)

    def exact(self, name: str, direction: Array) -> Array:
        """Returns the direction rounded so that steps along it are exact."""
        scale = scale_of(self.at[name])
        return exact_direction(self.at[name], scale * direction, self.smallest_exact) / scale

    def probe(self, name: str, direction: Array, target: float, start: float) -> Probe:
        """Holds the gradient along a direction against difference quotients.

        Args:
            name: The leaf.
            direction: In units of the leaf's scale.
            target: The error of the quotient at which no further step is taken.
            start: The first step.
        """
        direction = self.exact(name, direction)
        noise = self.noise_along(name, direction, self.phi_noise)
        found = _with_noise(derivative(self.phi(name, direction), noise, target, start), self.phi_noise)
        claimed = float(np.vdot(self.scaled_gradient(name), direction))
        return Probe(direction, claimed, float(np.linalg.norm(self.roundings(name) * direction)), found)

    def disproves(self, name: str, probe: Probe, found: Look) -> bool:
        """Whether a look that contradicts a gradient agrees with another one, and the gradient is steady at both.

        The steps are no multiples of each other: where one is a multiple of an oscillation's period, the other is not.
        """
        noise = self.noise_along(name, probe.direction, self.phi_noise)
        other = look(self.phi(name, probe.direction), found.step * INCOMMENSURATE, noise)
        follows = replace(probe.numerical, looks=(*probe.numerical.looks, other)).followed(self.phi_noise)
        alike = abs(found.value - other.value) <= SAFETY * (found.error + other.error)
        confirmed = alike and follows is not None and other in follows.looks and probe.contradicted_by(other)
        gap = abs(probe.claimed - found.value)
        return confirmed and all(self.is_steady(name, probe.direction, step, gap) for step in (found.step, other.step))

    def is_steady(self, name: str, direction: Array, step: float, gap: float) -> bool:
        """Whether the analytic gradient along a direction varies by less than half a gap within a look at a step.

        A right gradient of something narrower than the step, which no look sees, varies by as much as it differs from
        the quotient. Curvature does not count: a(h) = (g(h) + g(-h)) / 2 - g(0) is of order h² where g is smooth, and
        (4 a(h) - a(2h)) / 3 of order h⁴, as the truncation of a look is.
        """
        scale, factor = scale_of(self.at[name]), self.factor(name)
        here = float(np.vdot(self.scaled_gradient(name), direction))

        def claimed(t: float) -> float:
            at = {key: a.copy(order="K") for key, a in self.at.items()}
            at[name] = stepped(at[name], t, scale * direction)
            try:
                found = in_float64(self.checkable.backward(at, self.dout_given)[name])
            except Exception:  # somebody's code refuses these values: they are outside its domain
                return math.nan
            return float(np.vdot(np.where(np.isfinite(at[name]), found * factor, 0.0), direction))

        near = (claimed(step) + claimed(-step)) / 2 - here
        if abs(near) <= gap / 4:
            return True
        far = (claimed(2 * step) + claimed(-2 * step)) / 2 - here
        return abs(4 * near - far) / 3 <= gap / 2

    def own_weights(self, name: str) -> Array:
        """Returns each element's own size in units of the leaf's scale, at most 1."""
        return own_scales(self.at[name])

    def by_element(self, name: str, where: Array, step: float) -> tuple[Array, float]:
        """Computes derivatives by single elements, with four forward passes each.

        Returns:
            The derivatives, in the gradient's own unit, and how far any of them may be off.
        """
        found, error = np.empty(len(where)), 0.0
        unit = np.zeros(self.at[name].shape)
        for i, place in enumerate(where):
            unit.flat[place] = 1.0
            direction = self.exact(name, unit)
            phi, length = self.phi(name, direction), float(direction.flat[place]) or 1.0
            D1, D2 = ((phi(j * step) - phi(-j * step)) / (2 * j * step) / length for j in (1, 2))
            found[i] = (4 * D1 - D2) / 3
            error = max(error, abs(D1 - D2) / 3 + 1.5 * self.phi_noise / step)
            unit.flat[place] = 0.0
        return found / self.factor(name), error / self.factor(name)


def _with_noise(found: Derivative, noise: float) -> Derivative:
    """Returns the derivative judged by the noise that its own looks show, where that is much larger."""
    seen = found.noise_seen(noise)
    if seen <= 2 * noise:
        return found
    looks = sorted(
        (
            replace(each, roundoff=max(each.roundoff, 1.5 * seen / each.step)) if each.finite else each
            for each in found.looks
        ),
        key=lambda each: each.error,
    )
    return replace(found, looks=tuple(looks))
