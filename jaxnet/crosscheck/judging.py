"""Three derivations of each gradient are held against each other, and the one that dissents is named.

All is computed in float64: forward passes, because a difference quotient needs the digits; backward passes, because a
wrong formula is wrong in every precision. Where the caller's arrays are float32, the gradients are computed in float32
as well, and held against the same code's float64 ones.

No tolerance is typed in. What rounding may do to a result is measured, by moving every leaf by a unit in its last
place and looking at what comes of it; and it is at least what sums of n terms suffer, sqrt(n) u times their size
(Higham and Mary, *A New Approach to Probabilistic Rounding Error Analysis*, SIAM J. Sci. Comput. 41, 2019).
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.differences import Derivative, derivative
from jaxnet.crosscheck.report import Gap, Leaf, Report, Verdict
from jaxnet.crosscheck.subjects import Array, Leaves, Subject

PROBES = 3  # random directions a leaf
SAFETY = 8.0  # from the error that is estimated to the one that is allowed


class Measured(NamedTuple):
    """A result, and what rounding may have done to any element of it."""

    value: Array
    rounding: float


def measure(function: Callable[[Leaves], Leaves], at: Leaves, rng: np.random.Generator) -> dict[str, Measured]:
    """`function` at the leaves, and how it moves when each of their elements moves by one unit in its last place."""
    values = function(at)
    nudged = function({name: _nudge(array, rng) for name, array in at.items()})
    terms = sum(array.size for array in at.values())
    results = {}
    for name, value in values.items():
        u = float(np.finfo(value.dtype).eps) / 2
        moved = np.abs(nudged[name].astype(np.float64) - value).max(initial=0)
        results[name] = Measured(value, float(moved + math.sqrt(terms) * u * np.abs(value).max(initial=0)))
    return results


class Witness:
    """One derivation: a forward and a backward pass at the point where they are checked."""

    def __init__(self, subject: Subject, at: Leaves, dout: Array, rng: np.random.Generator) -> None:
        self.subject, self.at, self.dout = subject, at, dout
        self.output = measure(lambda leaves: {"y": subject.forward(leaves)}, at, rng)["y"]
        self.gradient = measure(lambda leaves: subject.backward(leaves, dout), at, rng)
        self.floor = float(np.finfo(np.float64).eps) * float(np.linalg.norm(dout * self.output.value))

    def difference(self, name: str, d: Array, target: float) -> Derivative:
        """The derivative of <dout, forward> as the leaf `name` moves along d, by differences of the forward pass."""
        start, y = self.at[name], self.output.value

        def phi(t: float) -> float:
            moved = self.subject.forward(self.at | {name: start + t * d})
            return float(np.vdot(self.dout, moved - y))

        return derivative(phi, self.floor, target)

    def gap(self, name: str, d: Array, resolution: float) -> Gap:
        """Between the gradient along d and the difference quotient, for a direction of unit scale."""
        gradient, scale = self.gradient[name], scale_of(self.at[name])
        claimed = float(np.vdot(gradient.value, d))
        quotient = self.difference(name, scale * d, resolution * scale * max(abs(claimed), self.floor))
        rounding = gradient.rounding * float(np.linalg.norm(d))
        return Gap(abs(claimed - quotient.value / scale), SAFETY * (quotient.error / scale + rounding))


def judge(title: str, hand: Subject, reference: Subject | None, *, seed: int, resolution: float) -> Report:
    """Every leaf of `hand`, with the reference's forward pass and autodiff as further witnesses where there is one."""
    rng = np.random.default_rng(seed)
    at = {name: array.astype(np.float64) for name, array in hand.leaves.items()}
    y = hand.forward(at)
    dout = rng.standard_normal(y.shape) if y.ndim else np.ones(())

    witnesses = {"hand": Witness(hand, at, dout, rng)}
    forward = None
    if reference is not None:
        witnesses["autodiff"] = Witness(reference, at, dout, rng)
        forward = between(witnesses["hand"].output, witnesses["autodiff"].output)

    single: dict[str, Measured] = {}
    if all(array.dtype == np.float32 for array in hand.leaves.values()):
        single = measure(lambda leaves: hand.backward(leaves, dout.astype(np.float32)), hand.leaves, rng)

    leaves = []
    for name, array in at.items():
        gradients = {who: witness.gradient[name] for who, witness in witnesses.items()}
        gaps = {"hand - autodiff": between(*gradients.values())} if reference else {}
        if single:
            gaps["float32 - float64"] = between(single[name], gradients["hand"])
        probes = [rng.standard_normal(array.shape) for _ in range(PROBES)]
        for who, witness in witnesses.items():
            gaps[f"{who} - difference"] = _widest(witness.gap(name, d, resolution) for d in probes)

        index = _farthest(gradients) if reference else locate(witnesses["hand"], name, resolution)
        unit = np.zeros(array.shape)
        unit[index] = scale_of(array)
        values = {who: float(gradient.value[index]) for who, gradient in gradients.items()}
        values["difference"] = witnesses["hand"].difference(name, unit, 0.0).value / scale_of(array)
        verdict, blame = vote(gaps, forward)
        leaves.append(Leaf(name, verdict, blame, index, values, gaps))
    return Report(title, forward, tuple(leaves))


def vote(gaps: dict[str, Gap], forward: Gap | None) -> tuple[Verdict, str]:
    """Who dissents, where some do."""
    own = gaps["hand - difference"].closed  # the backward is the derivative of its own forward
    if not gaps.get("float32 - float64", CLOSED).closed:
        return "FAIL", "in float32 the backward is off by more than rounding explains"
    if forward is None:
        return ("PASS", "") if own else ("FAIL", "hand is wrong: it is not the derivative of its own forward")
    same, theirs = gaps["hand - autodiff"].closed, gaps["autodiff - difference"].closed
    if own and same and theirs:
        return "PASS", ""
    if not own and not theirs and same:
        return "INCONCLUSIVE", "the differences alone dissent: a kink nearby, or noise"
    if not own:
        return "FAIL", "hand is wrong: it is not the derivative of its own forward"
    if not theirs:
        return "FAIL", "autodiff is wrong: it is not the derivative of the reference's forward"
    if not forward.closed:
        return "FAIL", "each is the derivative of its own forward, and the forwards are two functions"
    return "FAIL", "hand is wrong, by less than differences can see"


def locate(witness: Witness, name: str, resolution: float) -> tuple[int, ...]:
    """The element whose gradient is worst, by halving the leaf, with nothing but difference quotients."""
    shape = witness.at[name].shape
    suspects = np.arange(witness.at[name].size)
    while suspects.size > 1:
        halves = np.array_split(suspects, 2)
        suspects = max(halves, key=lambda half: _ratio(witness.gap(name, _signs(half, shape), resolution)))
    return tuple(int(i) for i in np.unravel_index(suspects[0], shape))


def between(one: Measured, other: Measured) -> Gap:
    """The widest gap between two results, element by element."""
    error = np.abs(one.value.astype(np.float64) - other.value).max(initial=0)
    return Gap(float(error), SAFETY * (one.rounding + other.rounding))


def scale_of(array: Array) -> float:
    """The size of a leaf's elements, root mean square; 1 for a leaf of zeros, such as a bias not yet trained."""
    return float(np.sqrt(np.mean(array**2))) or 1.0


CLOSED = Gap(0.0, 0.0)


def _widest(gaps: Iterable[Gap]) -> Gap:
    return max(gaps, key=_ratio)


def _ratio(gap: Gap) -> float:
    """A nan is the widest gap there is."""
    return math.inf if math.isnan(gap.error) else gap.error / gap.tolerance if gap.tolerance else gap.error


def _farthest(gradients: dict[str, Measured]) -> tuple[int, ...]:
    one, other = (gradient.value for gradient in gradients.values())
    return tuple(int(i) for i in np.unravel_index(np.argmax(np.abs(one - other)), one.shape))


def _signs(where: Array, shape: tuple[int, ...]) -> Array:
    """A direction that moves the elements `where`, alternately up and down."""
    d = np.zeros(math.prod(shape))
    d[where] = 1 - 2 * (np.arange(where.size) % 2)
    return d.reshape(shape)


def _nudge(array: Array, rng: np.random.Generator) -> Array:
    away = np.where(rng.random(array.shape) < 0.5, -np.inf, np.inf).astype(array.dtype)
    return np.where(array == 0, array, np.nextafter(array, away))
