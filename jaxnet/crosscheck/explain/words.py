"""Puts verdicts into words: from enums and numbers, never the other way round."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaxnet.crosscheck.decide import Cause, Verdict
from jaxnet.crosscheck.measure.other_points import Point

if TYPE_CHECKING:
    from jaxnet.crosscheck.report import Leaf, Report

SOLVER = 1e-4  # the relative error that an iterative solver, a table or a lower precision may leave by design
PRECISIONS = (("float16 or bfloat16", 1e-5), ("float32", 1e-9))  # and the relative noise above which they are named
NOTHING_SEEN = 1.0  # the relative tolerance from which on noise says nothing of the arithmetic
WRAPPED = 64  # characters of a certificate's list of leaves

# Each is filled from the leaf: {who} made the gradient, {name}, {resolved}, {limit}, {error}, {detail}.
REASONS = {
    Cause.ANALYTIC_WRONG: "{who} is not the derivative of its own forward",
    Cause.OUTSIDE_SLOPES: "{who} is outside the slopes of both sides of a kink",
    Cause.OUTSIDE_TIE: "{who} is wrong where elements are tied: it is not the slope of moving them together",
    Cause.AUTODIFF_WRONG: "autodiff is wrong: it is not the derivative of the reference's forward",
    Cause.FORWARDS_DIFFER: "each is the derivative of its own forward, and the forwards are two functions",
    Cause.BELOW_DIFFERENCES: "{who} differs from autodiff's gradient, by less than differences can see",
    Cause.LOW_PRECISION: "in the arrays' own precision the gradient is off by more than rounding explains",
    Cause.FORM: "{detail}",
    Cause.HANDED_WRONG: "{detail}",
    Cause.PUT_TOGETHER_WRONGLY: (
        "each layer is right on its own, so they are put together wrongly: an order, a factor, a layer left out"
    ),
    Cause.NO_GRADIENT: (
        "{name} moves the output, and no gradient came back for it: was it forgotten, or is it under another name? "
        "If it is a constant, say so: constants=({name!r},)"
    ),
    Cause.UNRESOLVED: "the differences see no error below {resolved} of the gradient{limit}",
    Cause.UNCONFIRMED: (
        "the differences contradict the gradient by {error} at one step size and not at others, as of kinks nearby: "
        "move the inputs and check again"
    ),
    Cause.ONLY_NUMERICAL_DISSENTS: "the differences alone dissent: a kink nearby, or noise; move the inputs",
    Cause.AT_KINKS: "too many elements are at kinks, here and a thousandth beside: move the inputs off them",
    Cause.NOTHING_COMPARED: "every element is at a kink, so nothing was compared: move the inputs off them",
    Cause.WRONG_BESIDE: (
        "every element is at a kink, where many gradients are right; a thousandth beside it the gradient is wrong: "
        "move the inputs and check again"
    ),
    Cause.RIGHT_BESIDE: (
        "the gradient is not the slope here, and it is a thousandth beside these inputs, as where kinks are composed: "
        "move the inputs off them"
    ),
    Cause.SYMMETRIC_ONLY: (
        "it is symmetric, and its gradient is right along symmetric directions only: that is right if {name} always is "
        "symmetric; else give it another value"
    ),
    Cause.ZERO_HERE: "the gradient is zero at these inputs, and could not be judged at others: give it other ones",
    Cause.WRONG_ELSEWHERE: "the gradient is zero at these inputs, and looks wrong at others: check it there",
    Cause.OUT_OF_TIME: "max_seconds passed before it was judged: allow more",
}
LIMITS = {
    "roundoff": ", for rounding in the forward: scale or move the inputs, or pass resolution=",
    "truncation": ", for its curvature: scale or move the inputs, or pass resolution=",
    "domain": ": steps leave the function's domain; give it inputs further inside",
    "none": ": scale or move the inputs, or pass resolution=",
}
POINTS = {
    Point.MOVED: "moved",
    Point.DRAWN: "drawn anew",
    Point.FLIPPED: "negated",
}
TIED = "it shares memory with another leaf: its gradient is the sum of theirs"
SYMMETRIC = "it is symmetric, and was judged along symmetric directions: along others its gradient is another"


def maker(leaf: "Leaf") -> str:
    """Returns what made the gradient, as the subject of a sentence."""
    return "the backward" if leaf.derived_by == "analytic" else f"{leaf.derived_by}'s gradient"


def reason(leaf: "Leaf") -> str:
    """Returns why a leaf did not pass, in one sentence; empty for a PASS."""
    if leaf.verdict is Verdict.PASS:
        return ""
    return REASONS[leaf.cause].format(
        who=maker(leaf),
        name=leaf.name,
        resolved=f"{leaf.relative_tolerance:.0e}",
        limit=LIMITS.get(leaf.detail, ""),
        error=f"{leaf.relative_error:.1e}",
        detail=leaf.detail,
    )


def notes(leaf: "Leaf") -> Iterator[str]:
    """Yields what a reader should know of how a leaf was judged."""
    if leaf.cause is Cause.ZERO_EVERYWHERE:
        yield "the gradient is zero wherever tried: at these inputs, and at others moved, negated and drawn anew"
    elif leaf.point is Point.BESIDE:
        yield "at a kink in many elements: judged with inputs a thousandth beside them"
    elif leaf.point is not Point.GIVEN:
        yield f"the gradient is zero at these inputs: judged with all leaves {POINTS[leaf.point]}"
    if leaf.kinks and leaf.point is Point.GIVEN and leaf.cause is not Cause.OUTSIDE_TIE:
        yield f"at a kink in {leaf.kinks} of {leaf.size} elements, where any slope between the two sides' is right"
    if leaf.unresolved and leaf.verdict is Verdict.PASS:
        yield f"{leaf.unresolved} of {leaf.size} elements could not be judged: no step size resolves them"
    if (
        leaf.verdict is Verdict.FAIL
        or leaf.cause is Cause.ZERO_EVERYWHERE
        or not leaf.relative_tolerance < NOTHING_SEEN
    ):
        return
    if precision := _precision(leaf.noise):
        yield f"computes in {precision}: judged to {leaf.relative_tolerance:.0e}"
    elif precision := _precision(leaf.gradient_noise):
        yield f"{maker(leaf)} computes in {precision}, and forward does not: judged to {leaf.relative_tolerance:.0e}"


def _precision(noise: float) -> str:
    """Returns the precision that a relative noise is of; empty for float64."""
    return next((name for name, above in PRECISIONS if noise > above), "")


def findings(report: "Report") -> Iterator[str]:
    """Yields what is wrong or undecided, a line each, what helps most first."""
    for layer in report.layers:
        if layer.verdict is Verdict.FAIL:
            yield f"  {layer.subject} is wrong on its own:"
            yield from (f"  {line}" for line in findings(layer))
    for leaf in report.leaves:
        if leaf.diagnosis and leaf.verdict is Verdict.FAIL:
            yield f"  {leaf.name}: {maker(leaf)} is wrong; {leaf.diagnosis}"
    yield from (f"  {fault}" for fault in report.behaviour)
    if report.forward is not None and not report.forward.within_tolerance:
        error, tolerance = report.forward.error, report.forward.tolerance
        yield f"  the forwards differ by {error:.2g}, rounding explains {tolerance:.1g}: they are two functions"
    yield from (f"  {reason}" for reason in report.undecided)
    for leaf in report.leaves:
        yield from _of_leaf(leaf)


def _of_leaf(leaf: "Leaf") -> Iterator[str]:
    text = reason(leaf)
    if not text:
        return
    if leaf.cause in (Cause.NO_GRADIENT, Cause.FORM):
        yield f"  {text}"
    elif leaf.verdict is Verdict.FAIL and leaf.values:
        digits = next((n for n in (6, 9, 12) if len({f"{value:.{n}g}" for value in leaf.values.values()}) > 1), 15)
        numbers = ", ".join(f"{name} {value:.{digits}g}" for name, value in leaf.values.items())
        yield f"  {leaf.name}{brackets(leaf.index)}: {numbers} -> {text}"
    else:
        yield f"  {leaf.name}: {text}"
    if leaf.cause is Cause.ANALYTIC_WRONG and leaf.verdict is Verdict.FAIL and leaf.relative_error <= SOLVER:
        yield (
            f"  {leaf.name}: the relative error is {leaf.relative_error:.1e}, which is what a solver's tolerance, a "
            f"table or a lower precision looks like; where that is meant, pass accuracy={2 * leaf.relative_error:.0e}"
        )


def certificate(report: "Report") -> Iterator[str]:
    """Yields what would have been caught, for the elements that were compared."""
    sure = [leaf for leaf in report.leaves if leaf.min_detectable_error > 0]
    if report.verdict is not Verdict.PASS or not sure:
        return
    least = max(leaf.min_detectable_error for leaf in sure)
    whole = all(leaf.compared == leaf.size and leaf.point is Point.GIVEN for leaf in report.leaves)
    parts = [leaf.name if leaf.compared == leaf.size else f"{leaf.compared} elements of {leaf.name}" for leaf in sure]
    listed = f"in {', '.join(parts)}"
    if whole and len(sure) == len(report.leaves):
        listed = "in any of these leaves"
    elif len(listed) > WRAPPED:
        listed = "in the elements that were compared"
    yield f"an error of norm {least:.0e} {listed} is caught with probability 0.99"


def constant(name: str) -> str:
    """Returns what is said of an array that moves the output and is taken for a constant."""
    return f"{name} moves the output and has no gradient: taken for a constant"


def brackets(index: tuple[int, ...]) -> str:
    """Returns "[2, 1]"; empty for a number and for a leaf none of whose elements was singled out."""
    return f"[{', '.join(map(str, index))}]" if index else ""
