"""Evaluates a forward and a backward pass at one point: the output, the gradients, their noise, difference quotients.

Everything is scaled. A leaf moves in units of its own size s, phi is <dout, forward> in units of a power of two near
its size, and a gradient g becomes G = g s / unit. So values of 1e-200 or 1e200 are handled like values near 1, and
noise and errors can be compared across leaves.
"""

import copy
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.dtypes import effective_unit, eps_of, in_float64
from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves
from jaxnet.crosscheck.measure.finite_differences import (
    FIRST_STEP,
    MAX_NEAR_STEP,
    Derivative,
    Phi,
    PhiNoise,
    Quotient,
    derivative,
)
from jaxnet.crosscheck.measure.jitter import Values, measure_jitter
from jaxnet.crosscheck.measure.leaf_steps import MIN_EXACT_STEP, copies, exact_direction, scale_of, stepped, unit_of
from jaxnet.crosscheck.measure.noise import FLOAT64_ROUNDOFF, Noise, measure_noise

SAFETY = 8.0  # tolerance over estimated error
TARGET_MARGIN = 2 * SAFETY  # smallest error to be detected over a quotient's own error
MANY_DIGITS = math.pi / 3  # a factor near 1 that fills the digits of a number
COARSE_NOISE = 2.0**-40  # relative noise above which a forward pass computes in less than float64


@dataclass(frozen=True)
class Gap:
    """The difference of two derivations of one number, and the tolerance that noise, rounding and step size imply."""

    error: float
    tolerance: float

    @property
    def within_tolerance(self) -> bool:
        """Whether the error is at most the tolerance; False if it is nan."""
        return bool(self.error <= self.tolerance)

    @property
    def ratio(self) -> float:
        """The error in units of the tolerance; infinite if it is nan."""
        if math.isnan(self.error):
            return math.inf
        return self.error / self.tolerance if self.tolerance else (math.inf if self.error else 0.0)

    def scaled(self, factor: float) -> "Gap":
        """Returns the gap in another unit."""
        return Gap(self.error * factor, self.tolerance * factor)


@dataclass(frozen=True)
class Probe:
    """A gradient along one direction, and the difference quotient along the same direction."""

    direction: Array  # in units of the leaf's scale
    claimed: float
    rounding: float  # of `claimed`
    numerical: Derivative

    @property
    def gap(self) -> Gap:
        """The difference of the two; its tolerance is infinite if the quotient is not finite."""
        if not math.isfinite(self.numerical.value):
            return Gap(0.0, math.inf)
        error = abs(self.claimed - self.numerical.value)
        return Gap(error, SAFETY * (self.numerical.error + self.rounding))

    def contradicted_by(self, quotient: Quotient) -> bool:
        """Returns whether the gradient differs from a quotient by more than the tolerance."""
        return abs(self.claimed - quotient.value) > SAFETY * (quotient.error + self.rounding)


class Measured(NamedTuple):
    """A gradient, and the rounding error of its elements."""

    value: Array
    rounding: float


class Derivation:
    """A forward and a backward pass at one point, and derivatives of the forward pass by finite differences.

    Args:
        checkable: The code that is checked, or its reference.
        at: The values of its leaves, all float64 or all in one smaller dtype.
        dout: The upstream gradient in float64, of the output's shape.
        names: The leaves whose gradients are compared.
        rng: Draws the direction in which the noise is measured, and the signs of the steps that measure jitter.
    """

    def __init__(
        self, checkable: Checkable, at: Leaves, dout: Array, names: list[str], rng: np.random.Generator
    ) -> None:
        self.checkable, self.at, self.dout, self.names, self.rng = checkable, at, dout, names, rng
        # Every probe reads these, and each takes several passes over a large leaf.
        self._scales = dict[str, float]()
        self._scaled_gradients, self._roundings = dict[str, Array](), dict[str, Array]()
        arguments = copies(at)
        instance = checkable.open(arguments)
        self.output = in_float64(instance.forward())
        dtypes = [a.dtype for a in at.values()] or [np.dtype(np.float64)]
        self.cast_dout = dout.astype(max(dtypes, key=lambda dtype: dtype.itemsize))
        gradients = instance.backward(self.cast_dout)
        self.gradient = {name: in_float64(gradients[name]) for name in names}
        # Code that writes to its arguments gets copies from now on.
        self.overwrites = any(not np.array_equal(arguments[name], a, equal_nan=True) for name, a in at.items())
        self.noise: Noise = measure_noise(checkable, at, self.cast_dout, names, rng, self.first_step)
        self.unit_roundoff = max((eps_of(a) for a in at.values()), default=2.0**-52) / 2
        weighted = dout * self.output
        self.unit = unit_of(weighted, dout.ravel() * self.noise.slopes)
        self.phi_size = float(np.linalg.norm(weighted / self.unit))
        phi_change = float(np.linalg.norm(dout.ravel() * (self.noise.slopes / self.unit)))
        # The norm that a typical G has: phi's own, or the change of phi as all leaves move by their own size.
        self.typical_size = max(self.phi_size, phi_change)
        spread = float(np.linalg.norm(dout.ravel() * self.noise.output / self.unit))
        self.phi_noise = spread + self.unit_roundoff * self.phi_size

    @cached_property
    def first_step(self) -> float:
        """The smallest first step: larger if the leaves' own dtype is coarse."""
        eps = max((eps_of(a) for a in self.at.values()), default=2.0**-52)
        return FIRST_STEP if eps < 2.0**-40 else 2.0**-8 if eps < 2.0**-12 else 2.0**-4

    @cached_property
    def start(self) -> float:
        """The first step of a probe: larger than `first_step` if the forward pass computes in less than float64."""
        if not self.coarse:
            return self.first_step
        return min(max(2.0 ** round(math.log2(self.noise.relative) / 3), self.first_step), MAX_NEAR_STEP)

    @cached_property
    def smallest_exact(self) -> float:
        """The smallest step whose multiples change the leaves without rounding."""
        return MIN_EXACT_STEP if self.first_step == FIRST_STEP else self.first_step / 16

    @property
    def coarse(self) -> bool:
        """Whether the forward pass computes in less than float64."""
        return self.noise.relative > COARSE_NOISE

    def measured(self, name: str) -> Measured:
        """Returns a gradient and the rounding error of its elements, in its own unit."""
        return Measured(self.gradient[name], self.rounding(name) / self.factor(name))

    def with_gradient(self, name: str, gradient: Array) -> "Derivation":
        """Returns the same derivation with another gradient of one leaf."""
        other = copy.copy(self)
        other.gradient = self.gradient | {name: in_float64(gradient)}
        other._scaled_gradients, other._roundings = {}, {}
        return other

    def output_rounding(self) -> float:
        """Returns the rounding error of an element of the output."""
        largest = float(np.abs(self.output).max(initial=0.0))
        terms = math.sqrt(sum(a.size for a in self.at.values()))
        unit_roundoff = max(self.unit_roundoff, self.noise.relative / 4)
        return float(self.noise.output.max(initial=0.0)) + terms * unit_roundoff * largest

    def forward_gap(self, other: "Derivation") -> Gap:
        """Returns the largest difference of an element of the two outputs, less their jitter."""
        difference = np.abs(self.output - other.output)
        tolerance = SAFETY * (self.output_rounding() + other.output_rounding())
        if difference.max(initial=0.0) > tolerance:
            difference = difference - SAFETY * (self.jitter.output + other.jitter.output)
        return Gap(float(difference.max(initial=0.0)), tolerance)

    @cached_property
    def jitter(self) -> Values:
        """The jitter of each element of the output and of the gradients."""
        coarse_step = self.noise.step if self.coarse else None
        values = Values(self.output, self.gradient)
        return measure_jitter(self.checkable, self.at, self.cast_dout, values, self.rng, coarse_step)

    def agrees_with_output(self, value: Array) -> bool:
        """Returns whether another value of the same forward pass equals the output, up to rounding."""
        same_shape = value.shape == self.output.shape
        return same_shape and bool(np.abs(value - self.output).max(initial=0.0) <= 2 * SAFETY * self.output_rounding())

    def factor(self, name: str) -> float:
        """Returns G over the gradient: the leaf's size over phi's unit."""
        return self.scale(name) / self.unit

    def scale(self, name: str) -> float:
        """Returns the size of a leaf's elements, s."""
        if name not in self._scales:
            self._scales[name] = scale_of(self.at[name])
        return self._scales[name]

    def scaled_gradient(self, name: str) -> Array:
        """Returns G = g s / unit, zero where the leaf's value is not finite, because it cannot move. Read-only."""
        if name not in self._scaled_gradients:
            G = self.gradient[name] * self.scale(name) / self.unit
            self._scaled_gradients[name] = _read_only(np.where(np.isfinite(in_float64(self.at[name])), G, 0.0))
        return self._scaled_gradients[name]

    def roundings(self, name: str) -> Array:
        """Returns the standard deviation of the noise in each element of G, which includes the rounding of sums.

        A sum of n terms is off by sqrt(n) u times its size: Higham and Mary, *A New Approach to Probabilistic Rounding
        Error Analysis*, SIAM J. Sci. Comput. 41 (2019). The result is read-only.
        """
        if name not in self._roundings:
            self._roundings[name] = _read_only(self._measure_roundings(name))
        return self._roundings[name]

    def _measure_roundings(self, name: str) -> Array:
        terms = math.sqrt(sum(a.size for a in self.at.values()))
        unit_roundoff = max(self.unit_roundoff, self.noise.relative / 4, self._gradient_units[name])
        measured = self.noise.gradients[name].reshape(self.at[name].shape) * self.factor(name)
        return np.asarray(measured + terms * unit_roundoff * np.abs(self.scaled_gradient(name)))

    @cached_property
    def _gradient_units(self) -> dict[str, float]:
        """The unit roundoff of each gradient, by the digits of its numbers.

        A gradient that selects elements of dout, as that of ReLU does, has no more digits than dout. If dout has few,
        the digits of the gradient for a multiple of it that has many are counted.
        """
        units = {name: effective_unit(gradient) for name, gradient in self.gradient.items()}
        if max(units.values(), default=0.0) > max(self.unit_roundoff, FLOAT64_ROUNDOFF) and (
            self.checkable.takes_dout and effective_unit(self.dout) > FLOAT64_ROUNDOFF
        ):
            longer = (self.dout * MANY_DIGITS).astype(self.cast_dout.dtype)
            gradients = self.checkable.backward(copies(self.at), longer)
            units = {name: min(unit, effective_unit(in_float64(gradients[name]))) for name, unit in units.items()}
        return units

    def gradient_noise(self, name: str) -> float:
        """Returns the measured noise of a gradient, relative to its norm."""
        G = self.scaled_gradient(name)
        noise = np.linalg.norm(self.noise.gradients[name] * self.factor(name))
        return float(noise / (np.linalg.norm(G) or 1.0))

    def rounding(self, name: str) -> float:
        """Returns the largest of `roundings`."""
        return float(self.roundings(name).max(initial=0.0))

    def size(self, name: str, weights: Array) -> float:
        """Returns the norm of G, with each element weighted; errors of G are relative to it."""
        return float(np.linalg.norm(self.scaled_gradient(name) * weights))

    def target(self, name: str, weights: Array, resolution: float) -> float:
        """Returns the error of a quotient at which relative errors of G as large as `resolution` are detected.

        If G is 0 up to noise, they are relative to a typical G.
        """
        size = self.size(name, weights)
        return resolution * (size if size > self.phi_noise else self.typical_size) / TARGET_MARGIN

    def forward_at(self, leaves: Leaves) -> Array:
        """Returns the output at other leaves, float64; nan if the forward pass raises."""
        if self.overwrites:
            leaves = copies(leaves)
        try:
            return in_float64(self.checkable.forward(leaves))
        except Exception:  # the user's code rejects these values: they are outside its domain
            return np.full(self.output.shape, math.nan)

    def phi(self, name: str, direction: Array) -> Phi:
        """Returns the function phi(t) = <dout, forward(leaf + t direction) - forward(leaf)>, in its unit.

        Args:
            name: The leaf that moves.
            direction: An array of the leaf's shape, in units of its scale.
        """
        start, y, above = self.at[name], self.output, self.dout / self.unit
        step = self.scale(name) * direction

        def phi(t: float) -> float:
            moved = self.forward_at(self.at | {name: stepped(start, t, step)})
            if moved.shape != y.shape:
                return math.nan
            return float(np.vdot(above, moved - y))

        return phi

    def slopes_by_output(self, name: str, direction: Array, step: float) -> tuple[Array, Array]:
        """Returns the slopes of each output element at the point, from below and from above.

        Args:
            name: The leaf that moves.
            direction: An array of the leaf's shape, in units of its scale.
            step: A step at which both sides are smooth.
        """
        start, scale = self.at[name], self.scale(name)

        def change(t: float) -> Array:
            moved = self.forward_at(self.at | {name: stepped(start, t, scale * direction)})
            return np.asarray((moved - self.output) / self.unit)

        below, above = ((4 * change(s * step) - change(2 * s * step)) / (2 * s * step) for s in (-1, 1))
        return below, above

    def noise_along(self, name: str, direction: Array, noise: float) -> PhiNoise:
        """Returns the noise of phi along a direction, with that of a rounded leaf at steps too small to be exact."""
        values = np.abs(in_float64(self.at[name]))
        spacing = np.spacing(np.where(np.isfinite(values), values, 0.0)) * (2 * self.unit_roundoff * 2.0**52)
        moving = np.where(direction != 0, self.scaled_gradient(name) * spacing / self.scale(name), 0.0)
        return PhiNoise(noise, float(np.linalg.norm(moving)), self.smallest_exact)

    def exact(self, name: str, direction: Array) -> Array:
        """Returns the direction rounded so that steps along it are exact."""
        scale = self.scale(name)
        return exact_direction(self.at[name], scale * direction, self.smallest_exact) / scale

    def probe(self, name: str, direction: Array, target: float, start: float) -> Probe:
        """Computes the gradient along a direction, and the difference quotient along it.

        Args:
            name: The leaf.
            direction: An array of the leaf's shape, in units of its scale.
            target: The error of the quotient at which no further step is tried.
            start: The first step.
        """
        direction = self.exact(name, direction)
        return self._probe(name, direction, target, start, self.noise_along(name, direction, self.phi_noise))

    def probe_unrounded(self, name: str, direction: Array, target: float, start: float) -> Probe:
        """Computes the same along a direction whose elements depend on each other, so that none may be rounded."""
        noise = self.noise_along(name, direction, self.phi_noise)._replace(exact_from=math.inf)
        return self._probe(name, direction, target, start, noise)

    def _probe(self, name: str, direction: Array, target: float, start: float, noise: PhiNoise) -> Probe:
        numerical = _with_noise(derivative(self.phi(name, direction), noise, target, start), self.phi_noise)
        claimed = float(np.vdot(self.scaled_gradient(name), direction))
        return Probe(direction, claimed, float(np.linalg.norm(self.roundings(name) * direction)), numerical)


class Derivations(NamedTuple):
    """The derivation of the code at one point, and that of its reference if there is one.

    Attributes:
        analytic: The derivation that is checked.
        autodiff: The derivation of the reference.
        forward: The gap of the two forward passes.
    """

    analytic: Derivation
    autodiff: Derivation | None = None
    forward: Gap | None = None


def _read_only(array: Array) -> Array:
    array.setflags(write=False)
    return array


def _with_noise(numerical: Derivative, noise: float) -> Derivative:
    """Returns the derivative with errors that include the noise observed in its quotients, if it is much larger."""
    observed = numerical.observed_noise(noise)
    if observed <= 2 * noise:
        return numerical
    quotients = [
        replace(q, roundoff=max(q.roundoff, 1.5 * observed / q.step)) if q.finite else q for q in numerical.quotients
    ]
    return replace(numerical, quotients=tuple(sorted(quotients, key=lambda quotient: quotient.error)))
