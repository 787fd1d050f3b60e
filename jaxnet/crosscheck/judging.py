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

from jaxnet.crosscheck import behaviour
from jaxnet.crosscheck.differences import STEPS, Derivative, derivative
from jaxnet.crosscheck.report import PROBABILITY, PROBES, Gap, Leaf, Report, Verdict
from jaxnet.crosscheck.subjects import Array, Leaves, Subject, SubjectError, blaming

SAFETY = 8.0  # from the error that is estimated to the one that is allowed
MOST_KINKS = 64  # elements looked at one by one
JOINT_PROBES = 4
KINK_SLACK = 1e-6  # one-sided differences are good to h² of the size, and roundoff over h: some 1e-10


class Measured(NamedTuple):
    """A result, and what rounding may have done to any element of it."""

    value: Array
    rounding: float


def measure(
    function: Callable[[Leaves], Leaves], at: Leaves, names: Iterable[str], rng: np.random.Generator
) -> dict[str, Measured]:
    """`function` at the leaves, and how it moves when each of their elements moves by one unit in its last place."""
    values = function(at)
    nudged = function({name: _nudge(array, rng) for name, array in at.items()})
    terms = sum(array.size for array in at.values())
    results = {}
    for name in names:
        value = values[name]
        u = float(np.finfo(value.dtype).eps) / 2
        moved = np.abs(nudged[name].astype(np.float64) - value).max(initial=0)
        results[name] = Measured(value, float(moved + math.sqrt(terms) * u * np.abs(value).max(initial=0)))
    return results


class Witness:
    """One derivation: a forward and a backward pass at the point where they are checked, in float64."""

    def __init__(self, subject: Subject, at: Leaves, dout: Array, names: list[str], rng: np.random.Generator) -> None:
        self.subject, self.at, self.dout = subject, at, dout
        self.output = measure(lambda leaves: {"y": subject.forward(leaves)}, at, ["y"], rng)["y"]
        self.gradient = measure(lambda leaves: subject.backward(leaves, dout), at, names, rng)
        self.natural = float(np.linalg.norm(dout * self.output.value))  # what a gradient by relative change compares to
        self.floor = float(np.finfo(np.float64).eps) * self.natural

    def difference(self, name: str, d: Array, target: float = 0.0, dout: Array | None = None) -> Derivative:
        """The derivative of <dout, forward> as the leaf `name` moves along d, by differences of the forward pass."""
        start, y = self.at[name], self.output.value
        dout = self.dout if dout is None else dout

        def phi(t: float) -> float:
            moved = self.subject.forward(self.at | {name: start + t * d})
            return float(np.vdot(dout, moved - y))

        return derivative(phi, self.floor, target)

    def size(self, name: str) -> float:
        """What an error of a leaf's gradient is small or large against: its norm, or where it is all rounding, y's."""
        norm = float(np.linalg.norm(self.gradient[name].value))
        whole = self.natural / scale_of(self.at[name])
        return norm if norm > SAFETY * self.gradient[name].rounding * math.sqrt(self.at[name].size) else whole

    def probe(self, name: str, d: Array, resolution: float) -> tuple[Gap, str]:
        """The gap between the gradient along d and the difference quotient, and what limits it; d of unit scale."""
        gradient, scale = self.gradient[name], scale_of(self.at[name])
        quotient = self.difference(name, scale * d, resolution * scale * self.size(name) / SAFETY / 2)
        rounding = gradient.rounding * float(np.linalg.norm(d))
        error = abs(float(np.vdot(gradient.value, d)) - quotient.value / scale)
        return Gap(error, SAFETY * (quotient.error / scale + rounding)), quotient.limit

    def kinks(self, name: str, rng: np.random.Generator, resolution: float) -> list[int] | None:
        """The elements of a leaf at which the forward pass has a kink, by halving; None where they are too many."""
        found: list[int] = []
        groups = [np.arange(self.at[name].size)]
        while groups:
            group = groups.pop()
            d = np.zeros(self.at[name].size)
            d[group] = rng.standard_normal(group.size)
            gap, limit = self.probe(name, d.reshape(self.at[name].shape), resolution)
            if limit != "kink" or gap.tolerance <= resolution * self.size(name):
                continue
            if group.size > 1:
                groups += np.array_split(group, 2)
            elif len(found) == MOST_KINKS:
                return None
            else:
                found.append(int(group[0]))
        return found

    def outside(self, name: str, kinks: list[int], rng: np.random.Generator) -> str:
        """Whether the gradient leaves the slopes on both sides of the kinks; a clause, empty where it does not.

        At a kink of a convex function every subgradient g is right: slopes obey D- <= <g, d> <= D+ along every d, for
        a dout without negative elements. Along single elements this holds for what is not convex, too.
        """
        dout = np.abs(self.dout)
        gradient = self.subject.backward(self.at, dout)[name].ravel()
        size = float(np.abs(gradient).max(initial=0)) + float(np.linalg.norm(dout * self.output.value))
        scale, shape = scale_of(self.at[name]), self.at[name].shape

        def slopes(d: Array) -> tuple[float, float]:
            h = STEPS[0]
            moved = [
                float(
                    np.vdot(
                        dout,
                        self.subject.forward(self.at | {name: self.at[name] + s * h * scale * d}) - self.output.value,
                    )
                )
                for s in (-2, -1, 1, 2)
            ]
            back, ahead = (4 * moved[1] - moved[0]) / (-2 * h), (4 * moved[2] - moved[3]) / (2 * h)
            return back / scale, ahead / scale

        for i in kinks:
            d = np.zeros(gradient.size)
            d[i] = 1.0
            low, high = sorted(slopes(d.reshape(shape)))
            if not low - KINK_SLACK * size <= gradient[i] <= high + KINK_SLACK * size:
                return f"at a kink its slopes are {low:.6g} and {high:.6g}, and hand says {gradient[i]:.6g}"
        together = np.zeros((JOINT_PROBES, gradient.size))
        together[:, kinks] = np.abs(rng.standard_normal((JOINT_PROBES, len(kinks))))
        together[0, kinks] = 1.0
        both = [(*slopes(d.reshape(shape)), float(gradient @ d)) for d in together]
        if all(low <= high + KINK_SLACK * size for low, high, _ in both):
            for low, high, claimed in both:
                if not low - KINK_SLACK * size <= claimed <= high + KINK_SLACK * size:
                    return f"the slopes of its kinks together are {low:.6g} to {high:.6g}, and hand says {claimed:.6g}"
        return ""


def judge(title: str, hand: Subject, reference: Subject | None, *, seed: int, resolution: float | None) -> Report:
    """Every leaf of `hand`, with the reference's forward pass and autodiff as further witnesses where there is one."""
    rng = np.random.default_rng(seed)
    with blaming(hand.name):
        y = np.asarray(behaviour.fresh(hand).forward())
    if not np.issubdtype(y.dtype, np.floating):
        raise SubjectError(f"{hand.name}: forward returns {y.dtype}, expected one array of floats")
    if not np.isfinite(y).all():
        return Report(title, None, (), warnings=("the forward pass is not finite at these inputs: give it others",))
    if y.size == 0:
        raise SubjectError(
            f"{hand.name}: forward returns an empty array, expected at least one element; give it inputs"
        )
    dout = np.asarray(rng.standard_normal(y.shape) if y.ndim else 0.5 + rng.random()).astype(y.dtype)
    if not hand.takes_dout:
        dout = np.ones_like(y)

    with blaming(hand.name):
        own = hand.backward({name: array.copy() for name, array in hand.leaves.items()}, dout.copy())
        faults = list(behaviour.faults(hand, dout))
        warnings = tuple(behaviour.lends_its_cache(hand, dout))
    forms = {name: behaviour.misshapen(name, leaf, own[name], y) for name, leaf in hand.leaves.items()}
    leaves = [Leaf(name, "FAIL", form, (), {}, {}) for name, form in forms.items() if form]
    sound = [name for name, form in forms.items() if not form]
    if not sound:
        return Report(title, None, tuple(leaves), tuple(faults), warnings)

    at = {name: array.astype(np.float64) for name, array in hand.leaves.items()}
    dout = dout.astype(np.float64)
    with blaming(f"{hand.name}, in float64,"), np.errstate(all="ignore"):
        witnesses = {"hand": Witness(hand, at, dout, sound, rng)}
        forward = None
        if reference is not None:
            witnesses["autodiff"] = Witness(reference, at, dout, sound, rng)
            forward = between(witnesses["hand"].output, witnesses["autodiff"].output)
        if hand.takes_dout:
            faults += behaviour.nonlinear(hand, at, dout, witnesses["hand"].gradient)
        single: dict[str, Measured] = {}
        if y.dtype == np.float32:
            single = measure(lambda at: hand.backward(at, dout.astype(np.float32)), hand.leaves, sound, rng)
        for name in sound:
            half = math.sqrt(np.finfo(hand.leaves[name].dtype).eps) if resolution is None else resolution
            leaves.append(_judge_leaf(name, witnesses, single.get(name), forward, rng, half))
    return Report(title, forward, tuple(leaves), tuple(faults), warnings)


def _judge_leaf(
    name: str,
    witnesses: dict[str, Witness],
    single: Measured | None,
    forward: Gap | None,
    rng: np.random.Generator,
    resolution: float,
) -> Leaf:
    hand = witnesses["hand"]
    shape = hand.at[name].shape
    directions = [rng.standard_normal(shape) for _ in range(PROBES)]
    probes = [hand.probe(name, d, resolution) for d in directions]
    blurred = resolution * hand.size(name)  # a wider tolerance than this shows too little

    kinks: list[int] | None = []
    if any(limit == "kink" and gap.tolerance > blurred for gap, limit in probes):
        kinks = hand.kinks(name, rng, resolution)
        if kinks:
            for d in directions:
                d.flat[kinks] = 0
            probes = [hand.probe(name, d, resolution) for d in directions]

    gradients = {who: witness.gradient[name] for who, witness in witnesses.items()}
    gaps = {}
    if forward is not None:
        gaps["hand - autodiff"] = between(gradients["hand"], gradients["autodiff"], kinks)
    if single is not None:
        gaps["float32 - float64"] = between(single, gradients["hand"], kinks)
    gaps["hand - difference"] = max((gap for gap, _ in probes), key=Gap.width)
    if forward is not None:
        theirs = [witnesses["autodiff"].probe(name, d, resolution)[0] for d in directions]
        gaps["autodiff - difference"] = max(theirs, key=Gap.width)

    verdict, blame = vote(gaps, forward)
    note = ""
    if verdict == "PASS" and kinks:
        outside = hand.outside(name, kinks, rng)
        verdict, blame = ("FAIL", f"hand is wrong: {outside}") if outside else ("PASS", "")
        note = f"at a kink in {len(kinks)} of {math.prod(shape)} elements: any slope between the two sides' is right"
    widest = max(gap.tolerance for gap, _ in probes)
    if verdict == "PASS" and not widest <= blurred:
        limit = max(probes, key=lambda probe: probe[0].tolerance)[1]
        verdict, blame = "INCONCLUSIVE", f"the differences resolve {widest / hand.size(name):.1g} of it: {limit}"

    if not forward:
        index = locate(hand, name, resolution) if verdict == "FAIL" else _largest(gradients["hand"].value)
    else:
        index = _largest(np.abs(gradients["hand"].value - gradients["autodiff"].value))
    unit = np.zeros(shape)
    unit[index] = scale = scale_of(hand.at[name])
    values = {who: float(gradient.value[index]) for who, gradient in gradients.items()}
    values["difference"] = hand.difference(name, unit).value / scale
    detects = 1.6 * widest / (1 - PROBABILITY) ** (1 / PROBES)
    return Leaf(name, verdict, blame, index, values, gaps, detects=detects, note=note)


def vote(gaps: dict[str, Gap], forward: Gap | None) -> tuple[Verdict, str]:
    """Who dissents, where some do."""
    own = gaps["hand - difference"].closed  # the backward is the derivative of its own forward
    if own and not gaps.get("float32 - float64", Gap(0.0, 0.0)).closed:
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
        suspects = max(halves, key=lambda half: witness.probe(name, _signs(half, shape), resolution)[0].width())
    return tuple(int(i) for i in np.unravel_index(suspects[0], shape))


def between(one: Measured, other: Measured, without: list[int] | None = None) -> Gap:
    """The widest gap between two results, element by element."""
    difference = np.abs(one.value.astype(np.float64) - other.value).ravel()
    if without:
        difference[without] = 0
    return Gap(float(difference.max(initial=0)), SAFETY * (one.rounding + other.rounding))


def scale_of(array: Array) -> float:
    """The size of a leaf's elements, root mean square; 1 for a leaf of zeros, such as a bias not yet trained."""
    return float(np.sqrt(np.mean(array**2))) or 1.0


def _largest(values: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(np.argmax(np.abs(values)), values.shape))


def _signs(where: Array, shape: tuple[int, ...]) -> Array:
    """A direction that moves the elements `where`, alternately up and down."""
    d = np.zeros(math.prod(shape))
    d[where] = 1 - 2 * (np.arange(where.size) % 2)
    return d.reshape(shape)


def _nudge(array: Array, rng: np.random.Generator) -> Array:
    """Every element moved by a unit in its last place, up or down; equal ones alike, so that ties stay ties."""
    odd = np.uint64(rng.integers(2**62) * 2 + 1)
    up = (np.ascontiguousarray(array, np.float64).view(np.uint64) * odd) >> np.uint64(63) == 1
    away = np.where(up, np.inf, -np.inf).astype(array.dtype)
    return np.where(array == 0, array, np.nextafter(array, away))
