"""Chooses a verdict and its cause for each leaf, from measurements alone."""

from enum import Enum, StrEnum

from jaxnet.crosscheck.measure.derivation import Gap
from jaxnet.crosscheck.measure.half_precision import HalfPrecision, Origin
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
    OUTSIDE_SLOPES = "the gradient is not between the slopes on the two sides of a kink"
    OUTSIDE_TIED_SLOPES = "the gradient is not between the slopes when tied elements move together"
    AUTODIFF_WRONG = "the reference's gradient is not the derivative of the reference"
    FORWARDS_DIFFER = "each gradient is the derivative of its own forward, but the forwards are different functions"
    DIFFERS_FROM_REFERENCE = "the gradient differs from the reference's by less than difference quotients can resolve"
    LOW_PRECISION = "the gradient in the arrays' own precision is off by more than rounding explains"
    HALF_ACCUMULATION = "a sum is accumulated in 16 bits, and the gradient is off by more than rounding explains"
    OVERFLOW = "intermediate values are beyond the largest number of the 16-bit format"
    UNDERFLOW = "intermediate values are below the range of the 16-bit format"
    WRONG_FORM = "the gradient has a wrong shape or dtype, or values that are not finite"
    RECEIVES_WRONG_DOUT = "the layer is correct, but receives a wrong gradient from another layer"
    LAYERS_JOINED_WRONGLY = "every layer is correct, but the network's gradient is wrong"

    NO_GRADIENT = "the leaf changes the output and has no gradient"
    UNRESOLVED = "the difference quotients are not accurate enough to confirm or refute the gradient"
    UNCONFIRMED = "difference quotients at several step sizes disagree with each other"
    ONLY_NUMERICAL_DIFFERS = "the analytic and the autodiff gradient agree, and only the difference quotients differ"
    TOO_MANY_KINKS = "too many elements are at kinks"
    ALL_AT_KINKS = "every element is at a kink"
    WRONG_NEARBY = "every element is at a kink, and the gradient is wrong at a nearby point"
    CORRECT_NEARBY = "the gradient is wrong at the given point, and correct at a nearby point"
    WRONG_AT_ANOTHER_POINT = "the gradient is zero at the given point, and wrong at one other point"
    STRUCTURED_ONLY = "the gradient is correct only along directions that keep the structure of the value"
    ZERO_AT_POINT = "the gradient is zero at the given point, and inconclusive at other points"
    PIECEWISE_CONSTANT = "forward is piecewise constant in the leaf, so its derivative is 0, and the gradient is not"
    LOST_IN_ROUNDING = "the effect of the leaf is lost in the rounding of the output"
    SYSTEMATIC_ERROR = "the error in 16 bits is as small as rounding may cause, but does not average out"
    BEYOND_RANGE = "the gradient itself is beyond the range of the 16-bit format"
    OUT_OF_TIME = "max_seconds passed"


HALF_CAUSES = {
    Origin.ACCUMULATION: Cause.HALF_ACCUMULATION,
    Origin.OVERFLOW: Cause.OVERFLOW,
    Origin.UNDERFLOW: Cause.UNDERFLOW,
}
SMALL_CAUSES = frozenset({Cause.ZERO_AT_POINT, Cause.LOST_IN_ROUNDING})
WRONG_CAUSES = frozenset({Cause.ANALYTIC_WRONG, Cause.OUTSIDE_SLOPES, Cause.OUTSIDE_TIED_SLOPES})


def decide(
    measured: LeafMeasurement,
    forward: Gap | None,
    low_precision: Gap | None,
    coarse: bool,
    strict: bool,
    half: HalfPrecision | None = None,
) -> tuple[Verdict, Cause]:
    """Returns the verdict on a leaf and its cause.

    Args:
        measured: The measurement of the leaf.
        forward: The gap of the two forward passes, if there is a reference.
        low_precision: The gap between the gradient in the arrays' own dtype and in float64, if both were computed.
        coarse: Whether the forward pass computes in less than float64.
        half: The error of the gradient in 16 bits, if it was measured.
        strict: Whether the user set the resolution. By default a larger error may stay undetected if noise is large.
    """
    outside = measured.outside
    if outside is not None and outside.roughness is Roughness.CURVED:
        return Verdict.FAIL, Cause.ANALYTIC_WRONG
    if outside is not None and outside.roughness is Roughness.KINK:
        return Verdict.FAIL if outside.alone else Verdict.INCONCLUSIVE, Cause.OUTSIDE_SLOPES
    if measured.tie is not None:
        return Verdict.FAIL, Cause.OUTSIDE_TIED_SLOPES
    agrees = measured.with_numerical.within_tolerance
    largest = max(measured.resolution, MAX_COARSE_TOLERANCE if coarse else MAX_TOLERANCE)
    allowed = (measured.resolution if strict else largest) * measured.size
    accurate = measured.tolerance <= allowed and measured.unresolved_size <= max(allowed, largest * measured.size)
    if measured.coverage is Coverage.SPOILED:
        passes = coarse and agrees and accurate
        return (Verdict.PASS, Cause.AGREES) if passes else (Verdict.INCONCLUSIVE, Cause.TOO_MANY_KINKS)
    if measured.compared == 0:
        return Verdict.INCONCLUSIVE, Cause.UNRESOLVED if measured.unresolved else Cause.ALL_AT_KINKS
    if measured.is_small:
        return Verdict.INCONCLUSIVE, Cause.ZERO_AT_POINT if measured.is_zero else Cause.LOST_IN_ROUNDING
    if agrees and (decided := _decide_own_dtype(low_precision, half)) is not None:
        return decided
    verdict, cause = _compare_derivations(measured, forward, agrees)
    return (verdict, cause) if verdict is not Verdict.PASS or accurate else (Verdict.INCONCLUSIVE, Cause.UNRESOLVED)


def _decide_own_dtype(low_precision: Gap | None, half: HalfPrecision | None) -> tuple[Verdict, Cause] | None:
    """Returns the verdict on a gradient that is right in more bits than its own; None if rounding explains it."""
    if low_precision is not None and not low_precision.within_tolerance:
        return Verdict.FAIL, Cause.LOW_PRECISION
    if half is None:
        return None
    if half.origin is Origin.TOO_SMALL:
        return Verdict.INCONCLUSIVE, Cause.BEYOND_RANGE
    if not half.is_explained:
        return Verdict.FAIL, HALF_CAUSES.get(half.origin, Cause.LOW_PRECISION)
    return (Verdict.INCONCLUSIVE, Cause.SYSTEMATIC_ERROR) if half.origin is Origin.SYSTEMATIC else None


def _compare_derivations(measured: LeafMeasurement, forward: Gap | None, agrees: bool) -> tuple[Verdict, Cause]:
    """Returns the verdict, and which of two or three derivations disagrees with the others."""
    with_autodiff, reference = measured.with_autodiff, measured.autodiff_with_numerical
    confirmed = measured.confirmed
    wrong = (Verdict.FAIL, Cause.ANALYTIC_WRONG) if confirmed else (Verdict.INCONCLUSIVE, Cause.UNCONFIRMED)
    if with_autodiff is None or reference is None or forward is None:
        return (Verdict.PASS, Cause.AGREES) if agrees else wrong
    if not agrees:
        same = with_autodiff.within_tolerance and not reference.within_tolerance
        return (Verdict.INCONCLUSIVE, Cause.ONLY_NUMERICAL_DIFFERS) if same else wrong
    if with_autodiff.within_tolerance:
        return Verdict.PASS, Cause.AGREES
    if not reference.within_tolerance:
        return Verdict.FAIL, Cause.AUTODIFF_WRONG
    return Verdict.FAIL, Cause.DIFFERS_FROM_REFERENCE if forward.within_tolerance else Cause.FORWARDS_DIFFER
