"""One derivation at one point: output and gradient with their rounding, and the difference quotients beside them."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.inspect import Array, Checkable, Leaves
from jaxnet.crosscheck.measure.differences import SMALLER, STEP, Derivative, derivative
from jaxnet.crosscheck.report import Gap

SAFETY = 8.0  # from the error that is estimated to the one that is allowed
NUDGES = 2
MOST_KINKS = 256  # elements looked at one by one
JOINT_PROBES = 4
KINK_SLACK = 1e-6  # one-sided differences are good to h² of the size, and roundoff over h: some 1e-10


class Measured(NamedTuple):
    """A result, and what rounding may have done to any element of it."""

    value: Array
    rounding: float


def measure(
    function: Callable[[Leaves], Leaves],
    at: Leaves,
    names: Iterable[str],
    rng: np.random.Generator,
    nudges: int = NUDGES,
) -> dict[str, Measured]:
    """`function` at the leaves, and how it moves when each of their elements moves by one unit in its last place."""
    values = function(at)
    nudged = [function({name: _nudge(array, rng) for name, array in at.items()}) for _ in range(nudges)]
    terms = sum(array.size for array in at.values())
    results = {}
    for name in names:
        value = values[name]
        u = float(np.finfo(value.dtype).eps) / 2
        moved = max(np.abs(other[name].astype(np.float64) - value).max(initial=0) for other in nudged)
        results[name] = Measured(value, float(moved + math.sqrt(terms) * u * np.abs(value).max(initial=0)))
    return results


class Derivation:
    """One derivation: a forward and a backward pass at the point where they are checked, in float64."""

    def __init__(self, subject: Checkable, at: Leaves, dout: Array, names: list[str], rng: np.random.Generator) -> None:
        self.subject, self.at, self.dout = subject, at, dout
        self.output = measure(lambda leaves: {"y": subject.forward(leaves)}, at, ["y"], rng)["y"]
        self.gradient = measure(lambda leaves: subject.backward(leaves, dout), at, names, rng)
        self.natural = float(np.linalg.norm(dout * self.output.value))  # what a gradient by relative change compares to
        self.floor = float(np.finfo(np.float64).eps) * self.natural
        self.quantum = self.output.rounding * float(np.linalg.norm(dout))  # and more, where the output moves in steps

    def along(self, name: str, d: Array, dout: Array | None = None) -> Callable[[float], float]:
        """phi(t) = <dout, forward> as the leaf `name` moves by t d, less its value at 0."""
        start, y = self.at[name], self.output.value
        dout = self.dout if dout is None else dout

        def phi(t: float) -> float:
            moved = self.subject.forward(self.at | {name: np.asarray(start + t * d)})
            return float(np.vdot(dout, moved - y))

        return phi

    def difference(self, name: str, d: Array, target: float = 0.0) -> Derivative:
        """The derivative of <dout, forward> as the leaf `name` moves along d, by differences of the forward pass."""
        steep = float(np.linalg.norm(self.gradient[name].value * self.at[name]))
        argument = float(np.finfo(np.float64).eps) * steep
        found = derivative(self.along(name, d), self.floor, target, self.quantum, argument)
        self.quantum = max(self.quantum, found.quantum)
        return found

    def size(self, name: str) -> float:
        """What an error of a leaf's gradient is small or large against: its norm, or where it is all rounding, y's."""
        norm = float(np.linalg.norm(self.gradient[name].value))
        whole = self.natural / scale_of(self.at[name])
        return norm if norm > SAFETY * self.gradient[name].rounding * math.sqrt(self.at[name].size) else whole

    def measurable(self, name: str) -> bool:
        """Whether the squares of the leaf's elements and of the output's can be added up."""
        return math.isfinite(self.natural * scale_of(self.at[name]))

    def magnitude(self, name: str) -> float:
        """What rounding within the layer may be relative to, by element: where it saturates, more than the gradient."""
        moved = {name: np.roll(array.ravel(), 1).reshape(array.shape) for name, array in self.at.items()}
        elsewhere = float(np.linalg.norm(self.dout * self.subject.forward(moved)))  # a loss may be 0 by chance
        whole = max(self.natural, elsewhere) / scale_of(self.at[name]) / math.sqrt(self.at[name].size)
        return max(whole, float(np.abs(self.gradient[name].value).max(initial=0)))

    def probe(self, name: str, d: Array, resolution: float) -> tuple[Gap, str]:
        """The gap between the gradient along d and the difference quotient, and what limits it; d of unit scale.

        Where the quotient is not finite, the gap is nought and any would be allowed: it says nothing of the gradient.
        """
        gradient, scale = self.gradient[name], scale_of(self.at[name])
        d = exact(self.at[name], scale * d) / scale
        quotient = self.difference(name, scale * d, resolution * scale * self.size(name) / SAFETY / 2)
        if not math.isfinite(quotient.value):
            return Gap(0.0, math.inf), quotient.limit
        rounding = gradient.rounding * float(np.linalg.norm(d))
        error = abs(float(np.vdot(gradient.value, d)) - quotient.value / scale)
        return Gap(error, SAFETY * (quotient.error / scale + rounding)), quotient.limit

    def by_element(self, name: str, where: Array) -> Array:
        """The derivatives by single elements, by differences: eight forward passes each or more."""
        found, unit, scale = [], np.zeros(self.at[name].shape), scale_of(self.at[name])
        target = 1e-7 * scale * self.size(name) / math.sqrt(self.at[name].size)
        for i in where:
            unit.flat[i] = scale
            found.append(self.difference(name, unit, target).value / scale)
            unit.flat[i] = 0
        return np.array(found)

    def kinks(self, name: str, rng: np.random.Generator) -> list[int] | None:
        """The elements of a leaf with a kink nearby, by halving; None where they are too many to look at each."""
        found: list[int] = []
        groups = [np.arange(self.at[name].size)]
        while groups:
            group = groups.pop()
            d = np.zeros(self.at[name].size)
            d[group] = rng.choice([-1, 1], group.size) * rng.uniform(3, 4, group.size)  # as far as a probe ever goes
            if not self._bends(name, d.reshape(self.at[name].shape)):
                continue
            if group.size > 1:
                groups += np.array_split(group, 2)
            elif len(found) == MOST_KINKS:
                return None
            else:
                found.append(int(group[0]))
        return found

    def _bends(self, name: str, d: Array) -> bool:
        """Whether a kink lies within the reach of the first step along d.

        bend(h) = phi(h) + phi(-h) is h² phi'' where phi is smooth, so that bend(2h) = 4 bend(h) up to h⁴ and noise.
        """
        phi, h = self.along(name, scale_of(self.at[name]) * d), STEP
        bend = [phi(j * h) + phi(-j * h) for j in (1, 2, 4)]
        noise = self.floor + self.quantum
        # The h⁴ left over in bend(4h) is h² phi'''' / phi'' of it: a phi'''' of 64 phi'', in units of the leaf's size,
        # is still taken for smooth. A kink leaves half of bend(4h), 10⁸ times more.
        smooth = 64 * h**2 * abs(bend[2])
        return max(abs(bend[1] - 4 * bend[0]), abs(bend[2] - 4 * bend[1])) > 4 * SAFETY * noise + smooth

    def outside(self, name: str, kinks: list[int], rng: np.random.Generator) -> str:
        """Whether the gradient leaves the slopes on both sides of the kinks; a clause, empty where it does not.

        At a kink of a convex function every subgradient g is right: slopes obey D- <= <g, d> <= D+ along every d, for
        a dout without negative elements. Along single elements this holds for what is not convex, too.
        """
        dout = np.abs(self.dout)
        gradient = self.subject.backward(self.at, dout)[name].ravel()
        size = float(np.abs(gradient).max(initial=0)) + float(np.linalg.norm(dout * self.output.value))
        scale = scale_of(self.at[name])
        slack = KINK_SLACK * size / min(scale, 1.0) + SAFETY * self.quantum / (STEP * scale)

        def slopes(d: Array) -> tuple[float, float]:
            h = STEP
            phi = self.along(name, scale * d.reshape(self.at[name].shape), dout)
            one, two = np.array([-phi(-h), phi(h)]) / h, np.array([-phi(-2 * h), phi(2 * h)]) / (2 * h)
            (back, ahead), (nearer, farther) = one / scale, (2 * one - two) / scale  # and less their truncation
            return min(back, nearer), max(ahead, farther)

        for i in kinks:
            d = np.zeros(gradient.size)
            d[i] = 1.0
            low, high = sorted(slopes(d))
            if not low - slack <= gradient[i] <= high + slack:
                return f"at a kink its slopes are {low:.6g} and {high:.6g}, and hand says {gradient[i]:.6g}"
        together = np.zeros((JOINT_PROBES, gradient.size))
        together[:, kinks] = np.abs(rng.standard_normal((JOINT_PROBES, len(kinks))))
        together[0, kinks] = 1.0
        both = [(*slopes(d), float(gradient @ d)) for d in together]
        if all(low <= high + slack for low, high, _ in both):
            for low, high, claimed in both:
                if not low - slack <= claimed <= high + slack:
                    return f"at its ties together the slopes are {low:.6g} to {high:.6g}, and hand says {claimed:.6g}"
        return ""


def between(one: Measured, other: Measured, without: list[int] | None = None) -> Gap:
    """The widest gap between two results, element by element."""
    difference = np.abs(one.value.astype(np.float64) - other.value).ravel()
    if without:
        difference[without] = 0
    return Gap(float(difference.max(initial=0)), SAFETY * (one.rounding + other.rounding))


def scale_of(array: Array) -> float:
    """The size of a leaf's elements, root mean square; 1 for a leaf of zeros, such as a bias not yet trained."""
    return float(np.sqrt(np.mean(array**2))) or 1.0


def exact(start: Array, d: Array) -> Array:
    """The direction d, rounded so that start + t d is without rounding for all multiples t of the least usual step."""
    grid = np.spacing(np.maximum(2 * np.abs(start), SMALLER[-1] * np.abs(d))) / SMALLER[-1]
    return np.asarray(np.round(d / grid) * grid)


def _nudge(array: Array, rng: np.random.Generator) -> Array:
    """Every element moved by a unit in its last place, up or down; equal ones alike, so that ties stay ties."""
    odd = np.uint64(rng.integers(2**62) * 2 + 1)
    up = (np.asarray(array, np.float64).view(np.uint64) * odd) >> np.uint64(63) == 1
    away = np.where(up, np.inf, -np.inf).astype(array.dtype)
    return np.where(array == 0, array, np.nextafter(array, away))
