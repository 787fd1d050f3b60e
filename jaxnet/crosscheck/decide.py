"""Chooses a verdict and its cause for each leaf, from measurements alone."""

from enum import Enum, StrEnum

from jaxnet.crosscheck.measure.derivation import Gap
from jaxnet.crosscheck.measure.kinks import Roughness
from jaxnet.crosscheck.measure.leaf import MAX_COARSE_TOLERANCE, MAX_TOLERANCE, Coverage, LeafMeasurement


class Verdict(StrEnum):
    """The result of a check of a leaf, a layer or a network."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


class Cause(Enum):
    """The cause of a verdict."""

    AGREES = "all derivations agree"
    ZERO_EVERYWHERE = "the gradient is zero at every point tried"
    EMPTY = "the leaf has no elements"

    ANALYTIC_WRONG = "the analytic gradient is not the derivative of its own forward"
    OUTSIDE_SLOPES = "the gradient is outside the slopes on both sides of a kink"
    OUTSIDE_TIE = "the gradient is outside the slopes of tied kinks that move together"
    AUTODIFF_WRONG = "the reference's gradient is not the derivative of the reference"
    FORWARDS_DIFFER = "each gradient is the derivative of its own forward, and the forwards are two functions"
    BELOW_DIFFERENCES = "the gradient differs from the reference's, by less than difference quotients see"
    LOW_PRECISION = "the gradient in the arrays' own precision is off by more than rounding explains"
    FORM = "the gradient's form is wrong"
    HANDED_WRONG = "the layer is correct, and receives a wrong gradient from another layer"
    PUT_TOGETHER_WRONGLY = "every layer is correct, but the network's gradient is wrong"

    NO_GRADIENT = "it changes the output and has no gradient"
    UNRESOLVED = "the difference quotients are not accurate enough"
    UNCONFIRMED = "difference quotients at several step sizes disagree with each other"
    ONLY_NUMERICAL_DISSENTS = "analytic and autodiff agree, and the difference quotients disagree with both"
    AT_KINKS = "too many elements are at kinks"
    NOTHING_COMPARED = "every element is at a kink"
    WRONG_BESIDE = "every element is at a kink, and the gradient is wrong nearby"
    RIGHT_BESIDE = "the gradient is wrong at the given point, and correct nearby"
    WRONG_ELSEWHERE = "the gradient is zero at the given point, and wrong at one other point"
    SYMMETRIC_ONLY = "the gradient is correct along symmetric directions only"
    ZERO_HERE = "the gradient is zero at the given point, and other points were inconclusive"
    OUT_OF_TIME = "max_seconds passed"


WRONG_CAUSES = frozenset({Cause.ANALYTIC_WRONG, Cause.OUTSIDE_SLOPES, Cause.OUTSIDE_TIE})


def decide(
    measured: LeafMeasurement, forward: Gap | None, low_precision: Gap | None, coarse: bool, strict: bool
) -> tuple[Verdict, Cause]:
    """Returns the verdict on a leaf and its cause.

    Args:
        measured: The measurement of the leaf.
        forward: The gap of the two forward passes, if there is a reference.
        low_precision: The gap between the gradient in the arrays' own dtype and in float64, if both were computed.
        coarse: Whether the forward pass computes in less than float64.
        strict: Whether the user set the resolution. By default a larger error may stay undetected if noise is large.
    """
    outside = measured.outside
    if outside is not None and outside.roughness is Roughness.CURVED:
        return Verdict.FAIL, Cause.ANALYTIC_WRONG
    if outside is not None and outside.roughness is Roughness.KINK:
        return Verdict.FAIL if outside.alone else Verdict.INCONCLUSIVE, Cause.OUTSIDE_SLOPES
    if measured.tie is not None:
        return Verdict.FAIL, Cause.OUTSIDE_TIE
    agrees = measured.with_numerical.within_tolerance
    largest = max(measured.resolution, MAX_COARSE_TOLERANCE if coarse else MAX_TOLERANCE)
    allowed = (measured.resolution if strict else largest) * measured.size
    accurate = measured.tolerance <= allowed and measured.unresolved_size <= max(allowed, largest * measured.size)
    if measured.coverage is Coverage.SPOILED:
        passes = coarse and agrees and accurate
        return (Verdict.PASS, Cause.AGREES) if passes else (Verdict.INCONCLUSIVE, Cause.AT_KINKS)
    if measured.compared == 0:
        return Verdict.INCONCLUSIVE, Cause.UNRESOLVED if measured.unresolved else Cause.NOTHING_COMPARED
    if measured.is_zero:
        return Verdict.INCONCLUSIVE, Cause.ZERO_HERE
    if agrees and low_precision is not None and not low_precision.within_tolerance:
        return Verdict.FAIL, Cause.LOW_PRECISION
    verdict, cause = _compare_derivations(measured, forward, agrees)
    return (verdict, cause) if verdict is not Verdict.PASS or accurate else (Verdict.INCONCLUSIVE, Cause.UNRESOLVED)


def _compare_derivations(measured: LeafMeasurement, forward: Gap | None, agrees: bool) -> tuple[Verdict, Cause]:
    """Returns the verdict, and which of two or three derivations disagrees with the others."""
    with_autodiff, reference = measured.with_autodiff, measured.autodiff_with_numerical
    confirmed = measured.confirmed
    wrong = (Verdict.FAIL, Cause.ANALYTIC_WRONG) if confirmed else (Verdict.INCONCLUSIVE, Cause.UNCONFIRMED)
    if with_autodiff is None or reference is None or forward is None:
        return (Verdict.PASS, Cause.AGREES) if agrees else wrong
    if not agrees:
        same = with_autodiff.within_tolerance and not reference.within_tolerance
        return (Verdict.INCONCLUSIVE, Cause.ONLY_NUMERICAL_DISSENTS) if same else wrong
    if with_autodiff.within_tolerance:
        return Verdict.PASS, Cause.AGREES
    if not reference.within_tolerance:
        return Verdict.FAIL, Cause.AUTODIFF_WRONG
    return Verdict.FAIL, Cause.BELOW_DIFFERENCES if forward.within_tolerance else Cause.FORWARDS_DIFFER
