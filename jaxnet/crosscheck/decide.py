"""Decides from measurements: a verdict and a cause for each leaf. Numbers in, enums out."""

from enum import Enum, StrEnum

from jaxnet.crosscheck.measure.derivation import Gap
from jaxnet.crosscheck.measure.kinks import Roughness
from jaxnet.crosscheck.measure.leaf import MAX_COARSE_TOLERANCE, MAX_TOLERANCE, Coverage, LeafMeasurement


class Verdict(StrEnum):
    """What a check says of a leaf, a layer or a whole."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


class Cause(Enum):
    """Why a verdict is what it is."""

    AGREES = "all derivations agree"
    ZERO_EVERYWHERE = "the gradient is zero at every point that was tried"
    EMPTY = "the leaf has no elements"

    ANALYTIC_WRONG = "the analytic gradient is not the derivative of its own forward"
    OUTSIDE_SLOPES = "the gradient is outside the slopes on both sides of a kink"
    OUTSIDE_TIE = "the gradient is outside the slopes of tied kinks that move together"
    AUTODIFF_WRONG = "the reference's gradient is not the derivative of the reference"
    FORWARDS_DIFFER = "each gradient is the derivative of its own forward, and the forwards are two functions"
    BELOW_DIFFERENCES = "the gradient differs from the reference's, by less than difference quotients see"
    LOW_PRECISION = "the gradient in the arrays' own precision is off by more than rounding explains"
    FORM = "the gradient's form is wrong"
    HANDED_WRONG = "the layer is right, and is handed a wrong gradient by another"
    PUT_TOGETHER_WRONGLY = "every layer is right alone"

    NO_GRADIENT = "it moves the output and no gradient came back for it"
    UNRESOLVED = "the difference quotients see too little"
    UNCONFIRMED = "the difference quotients at several step sizes do not agree"
    ONLY_NUMERICAL_DISSENTS = "analytic and autodiff agree, and the difference quotients do not"
    AT_KINKS = "too many elements are at kinks"
    NOTHING_COMPARED = "every element is at a kink"
    WRONG_BESIDE = "every element is at a kink, and beside it the gradient is wrong"
    RIGHT_BESIDE = "the gradient is wrong here, and right a thousandth beside it"
    WRONG_ELSEWHERE = "the gradient is zero here, and wrong at one other point"
    SYMMETRIC_ONLY = "the gradient is right along symmetric directions, and along others it is not"
    ZERO_HERE = "the gradient is zero here, and no other point could be judged"
    OUT_OF_TIME = "the time that was allowed was used up"


WRONG_CAUSES = frozenset({Cause.ANALYTIC_WRONG, Cause.OUTSIDE_SLOPES, Cause.OUTSIDE_TIE})


def decide(
    measured: LeafMeasurement, forward: Gap | None, low_precision: Gap | None, coarse: bool, strict: bool
) -> tuple[Verdict, Cause]:
    """Returns the verdict on a leaf and its cause.

    Args:
        measured: What was measured of the leaf.
        forward: The difference of the two forward passes, where there is a reference.
        low_precision: The difference between the gradient in the arrays' own dtype and in float64, where both are.
        coarse: Whether the forward pass computes in less than float64.
        strict: Whether the resolution was asked for: else a blunter one will do where noise allows no better.
    """
    outside = measured.outside
    if outside is not None and outside.roughness is Roughness.CURVED:
        return Verdict.FAIL, Cause.ANALYTIC_WRONG
    if outside is not None and outside.roughness is Roughness.KINK:
        return Verdict.FAIL if outside.alone else Verdict.INCONCLUSIVE, Cause.OUTSIDE_SLOPES
    if measured.tie is not None:
        return Verdict.FAIL, Cause.OUTSIDE_TIE
    agrees = measured.with_numerical.within_tolerance
    least = max(measured.resolution, MAX_COARSE_TOLERANCE if coarse else MAX_TOLERANCE)
    blurred = (measured.resolution if strict else least) * measured.size
    sees = measured.tolerance <= blurred and measured.unresolved_size <= max(blurred, least * measured.size)
    if measured.coverage is Coverage.SPOILED:
        return (Verdict.PASS, Cause.AGREES) if coarse and agrees and sees else (Verdict.INCONCLUSIVE, Cause.AT_KINKS)
    if measured.compared == 0:
        return Verdict.INCONCLUSIVE, Cause.UNRESOLVED if measured.unresolved else Cause.NOTHING_COMPARED
    if measured.is_zero:
        return Verdict.INCONCLUSIVE, Cause.ZERO_HERE
    verdict, cause = _vote(measured, forward, agrees)
    if agrees and low_precision is not None and not low_precision.within_tolerance:
        return Verdict.FAIL, Cause.LOW_PRECISION
    return (verdict, cause) if verdict is not Verdict.PASS or sees else (Verdict.INCONCLUSIVE, Cause.UNRESOLVED)


def _vote(measured: LeafMeasurement, forward: Gap | None, agrees: bool) -> tuple[Verdict, Cause]:
    """Returns which derivation dissents."""
    same, theirs = measured.with_autodiff, measured.autodiff_with_numerical
    if same is None or theirs is None or forward is None:
        if agrees:
            return Verdict.PASS, Cause.AGREES
        return (Verdict.FAIL, Cause.ANALYTIC_WRONG) if measured.confirmed else (Verdict.INCONCLUSIVE, Cause.UNCONFIRMED)
    if not agrees:
        if same.within_tolerance and not theirs.within_tolerance:
            return Verdict.INCONCLUSIVE, Cause.ONLY_NUMERICAL_DISSENTS
        if not measured.confirmed:
            return Verdict.INCONCLUSIVE, Cause.UNCONFIRMED
        return Verdict.FAIL, Cause.ANALYTIC_WRONG
    if same.within_tolerance:
        return Verdict.PASS, Cause.AGREES
    if not theirs.within_tolerance:
        return Verdict.FAIL, Cause.AUTODIFF_WRONG
    return Verdict.FAIL, Cause.BELOW_DIFFERENCES if forward.within_tolerance else Cause.FORWARDS_DIFFER
