"""Puts the errors of gradients in 16 bits into sentences."""

from jaxnet.crosscheck.inspect.checkable import Checkable
from jaxnet.crosscheck.measure.half_precision import EVERY_STEP, HalfPrecision, Origin
from jaxnet.crosscheck.measure.half_range import Escape, RangeError
from jaxnet.crosscheck.measure.point_dtype import ChosenPoint

UNMEASURED = (
    "its rounding in {format} was not measured, because no finer computation of it is at hand: the code does not run "
    "in float32 or float64, or rounds there too; pass reference="
)
ORIGINS = {
    Origin.ARITHMETIC: (
        "it averages out over neighbouring inputs, as the error of rounding every step does; compute in float32 and "
        "round the result to avoid it"
    ),
    Origin.SYSTEMATIC: (
        "rounding every step may explain that, but {systematic:.2g} of it do not average out over neighbouring inputs, "
        "as with a small factor or a constant that is rounded: compute in float32, round the result, and check again"
    ),
    Origin.ACCUMULATION: (
        "it behaves like a sum that is accumulated in {format}: {evidence}, the relative error is at most a third; "
        "accumulate in float32"
    ),
    Origin.UNDERFLOW: (
        "intermediate values underflow in {format}, whose numbers below {smallest:.1e} lose their digits: "
        "for {scale:g} * dout the gradient is right, so scale the loss, or compute in float32"
    ),
    Origin.OVERFLOW: (
        "intermediate values overflow in {format}, whose largest number is {largest:.5g}: for {scale:g} * dout the "
        "gradient is right, so scale the loss down, or compute in float32"
    ),
}
SPLIT_DOUT = "with dout split into parts, whose gradients are added in float64"
CUT_AXES = "with all {} cut to at most a 32nd"
SPLIT_LEAF = "with all but a 64th of {} set to 0, whichever 64th it is"
TOO_SMALL = (
    "in {format}, whose numbers below {smallest:.1e} lose their digits, the gradient itself underflows and cannot be "
    "judged: scale the loss"
)


SUMS_IN_FORWARD = (
    "in {format}, forward differs by a relative {difference:.1g} from that in a finer dtype, like a sum that is "
    "accumulated in {format}: with all axes of {length:,} cut to at most a 32nd, the two agree; accumulate in float32"
)

SMALLEST_FACTOR = 0.01  # below it, the result was not rounded to the format at all


def sums_in_forward(checkable: Checkable, point: ChosenPoint) -> list[str]:
    """Returns the sentence on a forward pass that long sums in 16 bits make another function; none if they do not."""
    if not point.length:
        return []
    known = max((f for n in checkable.leaves if (f := checkable.half_format(n))), key=lambda f: f.roundoff)
    return [SUMS_IN_FORWARD.format(format=known.name, difference=point.difference, length=point.length)]


def ratio(half: HalfPrecision) -> str:
    """Returns the note on the ratio of one leaf."""
    return f"{_times(half)}: {_origin(half)}" if half.origin in ORIGINS else _times(half)


def reason(half: HalfPrecision) -> str:
    """Returns why a leaf did not pass."""
    if half.origin is Origin.TOO_SMALL:
        return TOO_SMALL.format(format=half.format.name, smallest=half.format.smallest_normal)
    limit = "" if half.is_explained else f", and rounding every step explains only {half.explained:.2g} times"
    return f"{_times(half)}{limit}: {_origin(half)}"


def _times(half: HalfPrecision) -> str:
    factor = f"{half.ratio:.2g}" if half.ratio >= SMALLEST_FACTOR else f"less than {SMALLEST_FACTOR}"
    return f"in {half.format.name}, its error is {factor} times that of rounding the inputs, dout and the result"


def _origin(half: HalfPrecision) -> str:
    known = half.format
    if half.origin in ORIGINS:
        return ORIGINS[half.origin].format(
            format=known.name,
            smallest=known.smallest_normal,
            largest=known.largest,
            scale=half.scale,
            systematic=half.systematic,
            evidence=_evidence(half.split),
        )
    if half.systematic <= min(half.ratio / 3, EVERY_STEP):
        return "most of it averages out over neighbouring inputs, so digits are lost on the way: compute in float32"
    return "it does not average out over neighbouring inputs, so it is not rounding of the last steps"


def _evidence(split: str) -> str:
    if split == "dout":
        return SPLIT_DOUT
    return CUT_AXES.format(split) if split.startswith("axes of ") else SPLIT_LEAF.format(split)


def range_reason(error: RangeError, subject: str) -> str:
    """Returns what is not finite in the format, and what to do.

    Args:
        error: The values that are not finite.
        subject: What they are: "the output" or "the gradient".
    """
    name, largest = error.format.name, error.format.largest
    place = list(error.index)
    if error.escape is Escape.RESULT:
        return f"{subject} reaches {error.largest:.2g}, beyond {largest:.5g}, the largest {name}: scale it down"
    text = f"{subject} is {error.own} at {place} in {name}, where it is {error.true:.3g} in a finer format: "
    if error.escape is Escape.INTERMEDIATE:
        return (
            f"{text}an intermediate value overflows {largest:.5g}, the largest {name}; "
            "compute it in float32, or scale it down"
        )
    return f"{text}an intermediate value overflows, or is rounded to 0 or below; compute it in float32"
