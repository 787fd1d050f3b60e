"""Three derivations of each gradient are held against each other, and the one that dissents is named.

All is computed in float64: forward passes, because a difference quotient needs the digits; backward passes, because a
wrong formula is wrong in every precision. Where the caller's arrays are float32, the gradients are computed in float32
as well, and held against the same code's float64 ones.

In float64 no tolerance is typed in: it is made of the noise measured in the function, the quotient's own error, and
rounding. What rounding may do to a result is measured, by moving every leaf by a unit in its last place and looking at
what comes of it; and it is at least what sums of n terms suffer, sqrt(n) u times their size (Higham and Mary, *A New
Approach to Probabilistic Rounding Error Analysis*, SIAM J. Sci. Comput. 41, 2019). The comparison of float32 with
float64 is allowed `resolution` times the gradient's size as well, for what a layer rounds within itself, where moving
its leaves does not show it.
"""

import math
from dataclasses import replace

import numpy as np

from jaxnet.crosscheck.explain.diagnosis import DiagnosisInput, diagnose
from jaxnet.crosscheck.inspect import Array, Checkable, CheckableJax, CheckableLayer, Leaves, SubjectError, blaming
from jaxnet.crosscheck.measure import behaviour, testpoint
from jaxnet.crosscheck.measure.derivation import MOST_KINKS, Derivation, Measured, between, measure, scale_of
from jaxnet.crosscheck.measure.differences import OUTSIDE
from jaxnet.crosscheck.report import PROBABILITY, PROBES, Gap, Leaf, Report, Verdict

MANY_NUDGES = 16  # before single precision is blamed
# Of a leaf's size: eight times as far as a probe's first step ever goes, 4 STEP along a direction's 4 at most, so that
# kinks that stand at one value are out of its reach, while ties that were broken may still be near; and near enough to
# be the same point in all else.
BESIDE = 1e-3
MOST_ELEMENTS = 1024  # of a failing leaf are derived one by one, for the diagnosis
NO_GRADIENT = (
    "changes the output, and no array of the layer has a gradient beside it, a dW: forgotten, or under another name? "
    "Where all are constants, say so with an empty list `params`"
)
ZERO = "the gradient is 0 here: give it other inputs"
TOO_LARGE = "its numbers and the output's are too large to be squared and added up: make them smaller"
WRONG = "hand is wrong"
THEIR_OWN = f"{WRONG}: it is not the derivative of its own forward"


def judge(
    title: str,
    hand: Checkable,
    reference: Checkable | None,
    *,
    seed: int,
    resolution: float | None,
    elements: int = MOST_ELEMENTS,
) -> Report:
    """Every leaf of `hand`, with the reference's forward pass and autodiff as further witnesses where there is one.

    To say why a leaf is wrong, up to `elements` of it are derived one by one.
    """
    rng = np.random.default_rng(seed)
    if hand.fault:
        return Report(title, None, (), (hand.fault,))
    with blaming(hand.name):
        y = behaviour.fresh(hand).forward()
    if not np.issubdtype(y.dtype, np.floating) or y.size == 0:
        raise SubjectError(f"{hand.name}: forward returns {y.dtype} of shape {y.shape}, expected floats, one at least")
    if not np.isfinite(y).all():
        return Report(title, None, (), warnings=("the forward pass is not finite at these inputs: give it others",))
    dout = np.ones_like(y) if not hand.takes_dout else _from_above(y, rng)

    try:
        own = hand.backward({name: array.copy() for name, array in hand.leaves.items()}, dout.copy())
        faults = list(behaviour.faults(hand, dout))
        constants, in_doubt = testpoint.without_gradient(hand)
        warnings = [*hand.notes, *behaviour.lends_its_cache(hand, dout), *testpoint.warnings(hand, y), *constants]
        faults += _other_value(hand, y)
        still = _moving_others(hand, y)
        warnings += [f"{name} changes the output: taken for a constant" for name in still if name in hand.constants]
        in_doubt += [name for name in still if name not in hand.constants]
    except Exception as error:
        return Report(title, None, (), (f"backward raises {type(error).__name__}: {error}",))
    if any(fault == behaviour.NOT_REPEATABLE for fault in faults):
        return Report(title, None, (), tuple(faults), tuple(warnings))
    forms = {
        name: behaviour.misshapen(name, leaf, own[name], y)
        if name in own
        else f"the gradient has no {name}, expected an array of shape {leaf.shape}"
        for name, leaf in hand.leaves.items()
    }
    leaves = [Leaf(name, "INCONCLUSIVE", f"{name} {NO_GRADIENT}", (), {}, {}) for name in in_doubt]
    leaves += [Leaf(name, "FAIL", form, (), {}, {}) for name, form in forms.items() if form]
    sound = [name for name, form in forms.items() if not form]
    if not sound:
        return Report(title, None, tuple(leaves), tuple(faults), tuple(warnings))

    at = {name: array.astype(np.float64) for name, array in hand.leaves.items()}
    dout = dout.astype(np.float64)
    with blaming(f"{hand.name}, in float64,"), np.errstate(all="ignore"):
        witnesses = {"hand": Derivation(hand, at, dout, sound, rng)}
        forward = None
        if reference is not None:
            _same_shape(hand, reference, witnesses["hand"].output.value, reference.forward(at))
            witnesses["autodiff"] = Derivation(reference, at, dout, sound, rng)
            forward = between(witnesses["hand"].output, witnesses["autodiff"].output)
        measurable = [name for name in sound if witnesses["hand"].measurable(name)]
        if hand.takes_dout and measurable:
            faults += behaviour.nonlinear(hand, at, dout, witnesses["hand"].gradient)
        single: dict[str, Measured] = {}
        if y.dtype == np.float32:
            single = _in_single(hand, hand.leaves, dout, witnesses["hand"].gradient, sound, rng)
        for name in sound:
            half = math.sqrt(np.finfo(hand.leaves[name].dtype).eps) if resolution is None else resolution
            leaf, heard = _judge_leaf(name, witnesses, single.get(name), forward, rng, half)
            if leaf.blame.startswith(WRONG) and "slopes" not in leaf.blame:  # a kink has no true gradient
                leaf = replace(leaf, diagnosis=_diagnosis(leaf, heard, rng, elements))
            leaves.append(leaf)
        right = [leaf.name for leaf in leaves if leaf.verdict == "PASS"]
        faults += behaviour.stale(hand, at, dout, right, rng)
    return Report(title, forward, tuple(leaves), tuple(faults), tuple(warnings))


def _other_value(hand: Checkable, y: Array) -> list[str]:
    if not isinstance(hand, CheckableJax):
        return []
    value = hand.value_under_differentiation(hand.leaves)
    if value.shape == y.shape and np.allclose(value.astype(float), y.astype(float), rtol=1e-3, atol=0):
        return []
    return ["the primal value that differentiation returns (fwd) is not the function's value"]


def _moving_others(hand: Checkable, y: Array) -> list[str]:
    if isinstance(hand, CheckableLayer):
        return []
    moved = {n: n in hand.immovable or not np.array_equal(hand.forward(hand.leaves | {n: a * 1.25 + 0.125}), y)
             for n, a in hand.others.items()}  # fmt: skip
    return [name for name, moves in moved.items() if moves]


def _from_above(y: Array, rng: np.random.Generator) -> Array:
    """A gradient from above without structure: no two of its elements are alike, none is nought."""
    return np.asarray(rng.standard_normal(y.shape) if y.ndim else 0.5 + rng.random()).astype(y.dtype)


def _same_shape(hand: Checkable, reference: Checkable, y: Array, theirs: Array) -> None:
    if y.shape != theirs.shape:
        raise SubjectError(
            f"reference: {reference.name} returns shape {theirs.shape} where {hand.name} returns {y.shape}; "
            "expected the same function of the same arguments"
        )


def _in_single(
    hand: Checkable,
    leaves: Leaves,
    dout: Array,
    double: dict[str, Measured],
    names: list[str],
    rng: np.random.Generator,
) -> dict[str, Measured]:
    """The gradients in float32. An element of the rounding may be rare, so it is sought longer before it is blamed."""

    def backward(at: dict[str, Array]) -> dict[str, Array]:
        return hand.backward(at, dout.astype(np.float32))

    single = measure(backward, leaves, names, rng)
    if all(between(single[name], double[name]).closed for name in names):
        return single
    return measure(backward, leaves, names, rng, MANY_NUDGES)


def _judge_leaf(
    name: str,
    witnesses: dict[str, Derivation],
    single: Measured | None,
    forward: Gap | None,
    rng: np.random.Generator,
    resolution: float,
) -> tuple[Leaf, dict[str, Derivation]]:
    """A leaf, and the witnesses that were heard: a little way off where it has kinks everywhere."""
    hand = witnesses["hand"]
    shape = hand.at[name].shape
    if not hand.measurable(name):
        return Leaf(name, "INCONCLUSIVE", f"{name}: {TOO_LARGE}", (), {}, {}), witnesses
    directions = [np.asarray(rng.standard_normal(shape)) for _ in range(PROBES)]
    probes = [hand.probe(name, d, resolution) for d in directions]

    note, kinks, everywhere = "", [], False
    if any(gap.tolerance > resolution * hand.size(name) for gap, _ in probes):
        found = hand.kinks(name, rng)
        kinks, everywhere = found or [], found is None
        if everywhere:
            witnesses, single = _beside(name, witnesses, single, rng)
            hand, note = (
                witnesses["hand"],
                f"at a kink in more than {MOST_KINKS} elements: judged a thousandth beside them",
            )
        for d in directions:
            d.flat[kinks] = 0
        if kinks or everywhere:
            probes = [hand.probe(name, d, resolution) for d in directions]
    blurred = resolution * hand.size(name)  # a wider tolerance than this shows too little
    widest = max(gap.tolerance for gap, _ in probes)

    gradients = {who: witness.gradient[name] for who, witness in witnesses.items()}
    gaps = {}
    if forward is not None:
        gaps["hand - autodiff"] = between(gradients["hand"], gradients["autodiff"], kinks)
    if single is not None:
        gap = between(single, gradients["hand"], kinks)
        gaps["float32 - float64"] = gap._replace(tolerance=gap.tolerance + resolution * hand.magnitude(name))
    gaps["hand - difference"] = max((gap for gap, _ in probes), key=Gap.width)
    if forward is not None:
        theirs = [witnesses["autodiff"].probe(name, d, resolution)[0] for d in directions]
        gaps["autodiff - difference"] = max(theirs, key=Gap.width)

    verdict, blame = vote(gaps, forward)
    if everywhere and not widest <= blurred:
        where = "kinks at more elements than can be looked at, and too near beside them: move the inputs off them"
        verdict, blame, note = "INCONCLUSIVE", where, ""
    elif verdict == "PASS" and kinks:
        outside = hand.outside(name, kinks, rng)
        verdict, blame = ("FAIL", f"{WRONG}: {outside}") if outside else ("PASS", "")
        note = f"at a kink in {len(kinks)} of {math.prod(shape)} elements: any slope between the two sides' is right"
    if verdict == "PASS" and not widest <= blurred:
        verdict, blame = "INCONCLUSIVE", _unresolved(hand, name, *max(probes, key=lambda probe: probe[0].tolerance))

    if not forward:
        index = locate(hand, name, resolution) if verdict == "FAIL" else _largest(gradients["hand"].value)
    else:
        index = _largest(np.abs(gradients["hand"].value - gradients["autodiff"].value))
    values = {who: float(gradient.value[index]) for who, gradient in gradients.items()}
    place = int(np.ravel_multi_index(index, shape)) if shape else 0
    values["difference"] = float(hand.by_element(name, np.array([place]))[0])
    detects = 1.6 * widest / (1 - PROBABILITY) ** (1 / PROBES)
    return Leaf(name, verdict, blame, index, values, gaps, detects=detects, note=note), witnesses


def _unresolved(hand: Derivation, name: str, gap: Gap, limit: str) -> str:
    """Why the differences say too little of a leaf's gradient."""
    if hand.size(name) == 0:
        return ZERO
    return (
        limit if limit == OUTSIDE else f"the differences resolve {gap.tolerance / hand.size(name):.1g} of it: {limit}"
    )


def _beside(
    name: str, witnesses: dict[str, Derivation], single: Measured | None, rng: np.random.Generator
) -> tuple[dict[str, Derivation], Measured | None]:
    """All the witnesses a little way off from where the leaf has kinks everywhere, and single precision's gradient."""
    hand = witnesses["hand"].subject
    start, dout = witnesses["hand"].at[name], witnesses["hand"].dout
    d = rng.standard_normal(start.shape)
    there = np.asarray(start + BESIDE * scale_of(start) * (d + np.sign(d)))
    moved = there.astype(hand.leaves[name].dtype)  # the same in both
    at = witnesses["hand"].at | {name: moved.astype(np.float64)}
    beside = {who: Derivation(witness.subject, at, dout, [name], rng) for who, witness in witnesses.items()}
    if single is not None:
        leaves = hand.leaves | {name: moved}
        single = _in_single(hand, leaves, dout, beside["hand"].gradient, [name], rng)[name]
    return beside, single


def _diagnosis(leaf: Leaf, witnesses: dict[str, Derivation], rng: np.random.Generator, elements: int) -> str:
    """Of the slip, from the true gradient: autodiff's where it is a witness to trust, else by differences."""
    hand = witnesses["hand"]
    claimed = hand.gradient[leaf.name].value
    name = leaf.name
    if leaf.gaps.get("autodiff - difference", Gap(1.0, 0.0)).closed:
        true = witnesses["autodiff"].gradient[name].value
    elif claimed.size <= elements:
        true = hand.by_element(name, np.arange(claimed.size)).reshape(claimed.shape)
    else:
        some = np.sort(rng.choice(claimed.size, elements, replace=False))
        name, claimed, true = f"some of {name}", claimed.flat[some], hand.by_element(name, some)
    its = hand.subject
    made_of = dict(its.numbers), dict(its.integers), dict(its.batch)
    return diagnose(DiagnosisInput(name, claimed, true, hand.at, hand.dout, *made_of))


def vote(gaps: dict[str, Gap], forward: Gap | None) -> tuple[Verdict, str]:
    """Who dissents, where some do."""
    own = gaps["hand - difference"].closed  # the backward is the derivative of its own forward
    if own and not gaps.get("float32 - float64", Gap(0.0, 0.0)).closed:
        return "FAIL", "in float32 the backward is off by more than rounding explains"
    if forward is None:
        return ("PASS", "") if own else ("FAIL", THEIR_OWN)
    same, theirs = gaps["hand - autodiff"].closed, gaps["autodiff - difference"].closed
    if own and same and theirs:
        return "PASS", ""
    if not own and not theirs and same:
        return "INCONCLUSIVE", "the differences alone dissent: a kink nearby, or noise"
    if not own:
        return "FAIL", THEIR_OWN
    if not theirs:
        return "FAIL", "autodiff is wrong: it is not the derivative of the reference's forward"
    if not forward.closed:
        return "FAIL", "each is the derivative of its own forward, and the forwards are two functions"
    return "FAIL", f"{WRONG}, by less than differences can see"


def locate(witness: Derivation, name: str, resolution: float) -> tuple[int, ...]:
    """The element whose gradient is worst, by halving the leaf, with nothing but difference quotients."""
    shape = witness.at[name].shape
    suspects = np.arange(witness.at[name].size)
    while suspects.size > 1:
        halves = np.array_split(suspects, 2)
        suspects = max(halves, key=lambda half: witness.probe(name, _signs(half, shape), resolution)[0].width())
    return tuple(int(i) for i in np.unravel_index(suspects[0], shape))


def _largest(values: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(np.argmax(np.abs(values)), values.shape))


def _signs(where: Array, shape: tuple[int, ...]) -> Array:
    """A direction that moves the elements `where`, alternately up and down."""
    d = np.zeros(math.prod(shape))
    d[where] = 1 - 2 * (np.arange(where.size) % 2)
    return d.reshape(shape)
