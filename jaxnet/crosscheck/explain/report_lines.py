"""Puts the verdicts of a report into lines of text, from enums and numbers."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from jaxnet.crosscheck.decide import SMALL_CAUSES, Cause, Verdict
from jaxnet.crosscheck.explain.slips import Slip
from jaxnet.crosscheck.inspect.convention import Convention
from jaxnet.crosscheck.inspect.errors import counted
from jaxnet.crosscheck.measure.other_points import Point

if TYPE_CHECKING:
    from jaxnet.crosscheck.report import Leaf, Report

SOLVER = 1e-4  # the largest relative error that a solver, a table or a lower precision may leave by design
PRECISIONS = (("float16 or bfloat16", 1e-5), ("float32", 1e-9))  # each with the relative noise above which it is named
UNINFORMATIVE = 1.0  # the relative tolerance above which the noise does not show the precision
LONGEST_LIST = 64  # the most characters of a list of leaves

# Templates with fields of the leaf: {who} made the gradient, {name}, {resolved}, {limit}, {error}, {detail}.
REASONS = {
    Cause.ANALYTIC_WRONG: "{who} is not the derivative of its own forward",
    Cause.OUTSIDE_SLOPES: "{who} is not between the slopes on the two sides of a kink",
    Cause.OUTSIDE_TIED_SLOPES: "{who} is wrong at a tie: it is not the slope when the tied elements move together",
    Cause.AUTODIFF_WRONG: "autodiff is wrong: it is not the derivative of the reference's forward",
    Cause.FORWARDS_DIFFER: (
        "each gradient is the derivative of its own forward, but the forwards are different functions"
    ),
    Cause.DIFFERS_FROM_REFERENCE: (
        "{who} differs from autodiff's gradient by less than difference quotients can resolve"
    ),
    Cause.LOW_PRECISION: "in the arrays' own dtype, the gradient is off by more than rounding explains{half}",
    Cause.HALF_ACCUMULATION: "{detail}",
    Cause.OVERFLOW: "{detail}",
    Cause.UNDERFLOW: "{detail}",
    Cause.SYSTEMATIC_ERROR: "{detail}",
    Cause.BEYOND_RANGE: "{detail}",
    Cause.WRONG_FORM: "{detail}",
    Cause.RECEIVES_WRONG_DOUT: "{detail}",
    Cause.LAYERS_JOINED_WRONGLY: (
        "each layer is right on its own, so the layers are combined wrongly: "
        "look for a wrong order, a factor, or a layer that is left out"
    ),
    Cause.NO_GRADIENT: (
        "{name} affects the output, but no gradient was returned for it: is it missing, or under another name? "
        "If {name} is a constant, pass constants=({name!r},)"
    ),
    Cause.UNRESOLVED: "the difference quotients cannot resolve errors below {resolved} of the gradient{limit}",
    Cause.UNCONFIRMED: (
        "the difference quotients contradict the gradient by {error} at one step size but not at others, "
        "as happens near kinks: move the inputs and check again"
    ),
    Cause.ONLY_NUMERICAL_DIFFERS: (
        "only the difference quotients disagree, because of noise or a kink nearby: move the inputs"
    ),
    Cause.TOO_MANY_KINKS: (
        "too many elements are at kinks, both here and at inputs a thousandth away: move the inputs off the kinks"
    ),
    Cause.ALL_AT_KINKS: "every element is at a kink, so nothing was compared: move the inputs off the kinks",
    Cause.WRONG_NEARBY: (
        "every element is at a kink, where many gradients are right, but a thousandth away the gradient is wrong: "
        "move the inputs and check again"
    ),
    Cause.CORRECT_NEARBY: (
        "the gradient is not the slope here, but it is right a thousandth away, as happens where kinks are composed: "
        "move the inputs off the kinks"
    ),
    Cause.STRUCTURED_ONLY: (
        "{name} has a structure ({detail}), and its gradient is right only along directions that keep it: "
        "if {name} always has it, pass structure={{{name!r}: {detail!r}}}; if not, pass another value"
    ),
    Cause.PIECEWISE_CONSTANT: (
        "forward is piecewise constant in {name}, so its derivative is 0 wherever it has one, and the gradient is not "
        "0, perhaps on purpose, as that of a straight-through estimator or another surrogate: pass expected=, the "
        "function whose derivative it is meant to be, such as lambda x: x"
    ),
    Cause.LOST_IN_ROUNDING: (
        "the effect of {name} is lost in the rounding of the output, so its gradient cannot be told from zero: "
        "scale it up, or leave a large constant or the other terms out of the output"
    ),
    Cause.ZERO_AT_POINT: "the gradient is zero at these inputs and could not be judged at others: pass other inputs",
    Cause.WRONG_AT_ANOTHER_POINT: "the gradient is zero at these inputs and looks wrong at others: check it there",
    Cause.OUT_OF_TIME: "max_seconds ran out before the gradient was judged: allow more time",
}
LIMITS = {
    "roundoff": ", because forward rounds: scale or move the inputs, or pass resolution=",
    "truncation": ", because forward is curved: scale or move the inputs, or pass resolution=",
    "domain": ", because steps leave the domain of the function: pass inputs further inside",
    "": ": scale or move the inputs, or pass resolution=",
}
POINTS = {Point.MOVED: "moved", Point.DRAWN: "newly drawn", Point.FLIPPED: "negated"}
TIED = "it shares memory with another leaf: its gradient is the sum of the gradients for both"
STRUCTURED = "it was judged only along directions that keep its structure ({}): along others it may be different"


def maker(leaf: "Leaf") -> str:
    """Returns who made the gradient, as the subject of a sentence."""
    if leaf.rule:
        return f"the backward of {leaf.rule}"
    return "the backward" if leaf.derived_by == "analytic" else f"{leaf.derived_by}'s gradient"


def reason(leaf: "Leaf") -> str:
    """Returns the reason why a leaf did not pass as one sentence, or "" if it passed."""
    if leaf.verdict is Verdict.PASS:
        return ""
    return REASONS[leaf.cause].format(
        who=maker(leaf),
        name=leaf.name,
        resolved=f"{leaf.relative_tolerance:.0e}",
        limit=LIMITS.get(leaf.detail, ""),
        error=f"{leaf.relative_error:.1e}",
        detail=leaf.detail,
        half="" if math.isnan(leaf.rounding_ratio) else f": {leaf.detail}",
    )


def notes(leaf: "Leaf") -> Iterator[str]:
    """Yields remarks on how a leaf was judged."""
    if leaf.cause is Cause.ZERO_EVERYWHERE:
        caught = leaf.min_detectable_error
        limit = f"; one of norm {caught:.0e} would have been caught" if caught > 0 else ""
        points = "the given ones, and moved, negated and newly drawn ones"
        yield f"the gradient is zero at all inputs tried: {points}{limit}"
    elif leaf.point is Point.BESIDE:
        yield "many elements are at a kink: judged at inputs a thousandth away"
    elif leaf.point is not Point.GIVEN:
        yield judged_elsewhere(leaf.point, Cause.ZERO_AT_POINT)
    if leaf.kinks and leaf.point is Point.GIVEN and leaf.cause is not Cause.OUTSIDE_TIED_SLOPES:
        at_kinks = f"{leaf.kinks} of {counted(leaf.size, 'element')} {'is' if leaf.kinks == 1 else 'are'} at a kink"
        yield f"{at_kinks}, where any slope between those of its sides is right"
    if leaf.unresolved and leaf.verdict is Verdict.PASS:
        yield f"{leaf.unresolved} of {counted(leaf.size, 'element')} could not be judged: no step size resolves them"
    if (
        leaf.verdict is Verdict.FAIL
        or leaf.cause in (Cause.ZERO_EVERYWHERE, *SMALL_CAUSES)
        or not leaf.relative_tolerance < UNINFORMATIVE
    ):
        return
    if precision := _precision(leaf.noise):
        yield f"computes in {precision}: judged to {leaf.relative_tolerance:.0e}"
    elif precision := _precision(leaf.gradient_noise):
        yield f"{maker(leaf)} computes in {precision}, but forward does not: judged to {leaf.relative_tolerance:.0e}"


def judged_elsewhere(point: Point, cause: Cause) -> str:
    """Returns the remark that a leaf was judged at another point, because its gradient is small at the given one."""
    small = "the gradient is zero" if cause is Cause.ZERO_AT_POINT else "the leaf's effect is lost in rounding"
    return f"{small} at these inputs: judged with all leaves {POINTS[point]}"


def _precision(noise: float) -> str:
    """Returns the name of the precision that a relative noise shows, or "" for float64."""
    return next((name for name, above in PRECISIONS if noise > above), "")


def findings(report: "Report") -> Iterator[str]:
    """Yields one line for each thing that is wrong or undecided, the most helpful lines first."""
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
        yield (
            f"  the forwards differ by {error:.2g}, but rounding explains only {tolerance:.1g}: "
            "they are different functions"
        )
    yield from (f"  {reason}" for reason in report.undecided)
    for leaf in report.leaves:
        yield from findings_of(leaf)


def findings_of(leaf: "Leaf") -> Iterator[str]:
    """Yields the lines about a leaf that did not pass: its derivatives at the worst element, and the reason."""
    text = reason(leaf)
    if not text:
        return
    if leaf.cause in (Cause.NO_GRADIENT, Cause.WRONG_FORM):
        yield f"  {text}"
    elif leaf.verdict is Verdict.FAIL and leaf.values:
        digits = next((n for n in (6, 9, 12) if len({f"{value:.{n}g}" for value in leaf.values.values()}) > 1), 15)
        numbers = ", ".join(f"{name} {value:.{digits}g}" for name, value in leaf.values.items())
        yield f"  {leaf.name}{brackets(leaf.index)}: {numbers} -> {text}"
    else:
        yield f"  {leaf.name}: {text}"
    if leaf.cause is Cause.ANALYTIC_WRONG and leaf.verdict is Verdict.FAIL and leaf.relative_error <= SOLVER:
        typical = ", which is typical of a solver's tolerance, a table or a lower precision"
        yield (
            f"  {leaf.name}: the relative error is {leaf.relative_error:.1e}"
            f"{'' if leaf.slip is Slip.EPSILON else typical}: "
            f"if that is intended, pass accuracy={2 * leaf.relative_error:.0e}"
        )


def certifies_every_element(report: "Report") -> bool:
    """Returns whether the check would have caught an error in any element of any leaf, at the given inputs."""
    return bool(report.leaves) and all(
        leaf.min_detectable_error > 0 and leaf.compared == leaf.size and leaf.point is Point.GIVEN
        for leaf in report.leaves
    )


def certificate(report: "Report") -> Iterator[str]:
    """Yields the smallest error that the check would have caught, if the verdict is PASS."""
    certified = [leaf for leaf in report.leaves if leaf.min_detectable_error > 0]
    if report.verdict is not Verdict.PASS or not certified:
        return
    least = max(leaf.min_detectable_error for leaf in certified)
    named = ((leaf, counted(leaf.compared, "element")) for leaf in certified)
    parts = [leaf.name if leaf.compared == leaf.size else f"{elements} of {leaf.name}" for leaf, elements in named]
    listed = f"in {', '.join(parts)}"
    if certifies_every_element(report):
        listed = "in any of these leaves"
    elif len(listed) > LONGEST_LIST:
        listed = "in the elements that were compared"
    yield f"an error of norm {least:.0e} {listed} is caught with probability 0.99"


def constant(name: str) -> str:
    """Returns the warning about an array that is treated as a constant because no gradient was returned for it."""
    return f"{name} affects the output and has no gradient: it is treated as a constant"


def measured_in_double(leaves: Sequence["Leaf"]) -> Iterator[str]:
    """Yields why the errors of a table are below the precision of the arrays, if they are in float32 or 16 bits."""
    pairs = (pair.partition(" - ") for leaf in leaves for pair in leaf.gaps)
    if dtypes := sorted({dtype for dtype, _, other in pairs if other == "float64" != dtype}):
        listed = " and ".join(dtypes)
        yield f"these errors are of the code in float64; the gradients in {listed} were compared with those in float64"


def brackets(index: tuple[int, ...]) -> str:
    """Returns "[2, 1]" for an index, and "" for ()."""
    return f"[{', '.join(map(str, index))}]" if index else ""


def convention(leaves: Sequence["Leaf"], followed: Convention | None, failing: Sequence[Convention | None]) -> str:
    """Returns the sentence on the convention by which complex gradients are read.

    Args:
        leaves: The leaves.
        followed: The convention.
        failing: Other conventions by which they were read, and did not pass.
    """
    text = followed.value if followed else ""
    if all(leaf.verdict is Verdict.PASS for leaf in leaves):
        return f"complex gradients follow {text}"
    is_wrong = any(leaf.verdict is Verdict.FAIL for leaf in leaves)
    too = f"; they are wrong by {failing[0].value}, too" if failing and failing[0] and is_wrong else ""
    return f"complex gradients are read by {text}{too}"


def conjugate(convention: Convention, *, is_real: bool) -> str:
    """Returns the clause that says that a conjugate is wrong, and what to write.

    Args:
        convention: The convention of the gradient.
        is_real: Whether the leaf is real, and only the output is complex.
    """
    right = "backward(conj(dout))" if is_real else "conj(backward(conj(dout)))"
    of_real, of_holomorphic = convention.of_real, convention.of_holomorphic
    rule = (
        f"the gradient by a real x is {of_real}" if is_real else f"the gradient of a holomorphic f is {of_holomorphic}"
    )
    return f"a conjugate is missing or misplaced: {right} would be right; by {convention.value}, {rule}"
