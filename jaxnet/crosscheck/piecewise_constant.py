"""Recognizes forward passes that are piecewise constant, as those of quantizers: round, sign, floor, a threshold.

Their derivative is 0 wherever it exists. A gradient that is not 0 is not the derivative of forward, but may be
intended: a straight-through estimator or a surrogate. So it is judged neither right nor wrong.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from jaxnet.crosscheck.context import Context
from jaxnet.crosscheck.decide import Cause, Verdict
from jaxnet.crosscheck.inspect.checkable import Array
from jaxnet.crosscheck.measure.derivation import SAFETY, Derivation
from jaxnet.crosscheck.meter import OutOfTime
from jaxnet.crosscheck.report import Leaf

CAUSES = frozenset({
    Cause.LOST_IN_ROUNDING, Cause.ZERO_AT_POINT, Cause.UNRESOLVED, Cause.UNCONFIRMED, Cause.TOO_MANY_KINKS,
    Cause.ALL_AT_KINKS, Cause.WRONG_NEARBY, Cause.CORRECT_NEARBY,
})  # fmt: skip
POINTS = 33  # of the line on which flat parts and jumps are looked for
RANGES = 2.0 ** -np.arange(-2, 24, 3)  # of the line, relative to the size of the leaf
HALVINGS = 24  # of an interval in which the output changes; a smooth change becomes 1e-7 of itself
MAX_ELEMENTS = 10_000  # of the output, about, that are looked at
MAX_JUMPS = 4  # that are examined
MIN_JUMP = 2.0**-16  # relative to the output, of the smallest jump that is examined
MIN_LARGEST_JUMP = 1.1 * 2.0**-10  # of the largest; those of a computation in float16 are smaller
MIN_KEPT = 2.0**-6  # of a change after the halvings, which several jumps may share


def name_piecewise_constant(context: Context, leaves: list[Leaf]) -> list[Leaf]:
    """Returns the leaves, with a reason for those that cannot be judged as forward is piecewise constant in them."""
    named = list(leaves)
    for place, leaf in enumerate(leaves):
        is_candidate = leaf.verdict is Verdict.INCONCLUSIVE and leaf.cause in CAUSES
        if not is_candidate or not np.any(context.analytic.gradient[leaf.name]):
            continue
        try:
            is_constant = is_piecewise_constant(context.analytic, leaf.name, context.points)
        except OutOfTime:
            return named
        if is_constant:
            named[place] = replace(
                leaf, cause=Cause.PIECEWISE_CONSTANT, slip=None, diagnosis="", min_detectable_error=math.nan, notes=()
            )  # fmt: skip
    return named


def is_piecewise_constant(derivation: Derivation, name: str, rng: np.random.Generator) -> bool:
    """Returns whether the output only jumps as a leaf moves along a line, and stands still between the jumps.

    Args:
        derivation: The forward pass at a point.
        name: The leaf.
        rng: Draws the direction.
    """
    direction = rng.standard_normal(derivation.at[name].shape) * derivation.scale(name)

    def output(t: float) -> Array:
        moved = derivation.forward_at({**derivation.at, name: derivation.at[name] + t * direction})
        return np.ravel(moved)[:: 1 + moved.size // MAX_ELEMENTS]

    for size in RANGES:
        ts = np.linspace(-size, size, POINTS)
        values = np.array([output(float(t)) for t in ts])
        if not np.isfinite(values).all():
            continue
        changes = np.abs(np.diff(values, axis=0))
        largest = float(np.abs(values).max())
        # The measured noise of forward is no measure of rounding here, because jumps count as noise.
        moves = np.argwhere(changes > SAFETY * SAFETY * derivation.unit_roundoff * largest)
        if 2 * len(moves) > changes.size:  # too many jumps, or none
            continue
        if not len(moves):
            return False
        chosen = moves[:: max(1, len(moves) // MAX_JUMPS)][:MAX_JUMPS]
        jumps = [_jump(output, ts[i : i + 2], int(element)) / largest for i, element in chosen]
        return min(jumps) >= MIN_JUMP and max(jumps) >= MIN_LARGEST_JUMP
    return False


def _jump(output: Callable[[float], Array], ends: Array, element: int) -> float:
    """Returns the size of a jump of an output's element within an interval, which is halved; 0 for a smooth change."""
    low, high = map(float, ends)
    at_low, at_high = output(low)[element], output(high)[element]
    change = abs(at_high - at_low)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        at_middle = output(middle)[element]
        if abs(at_middle - at_low) >= abs(at_high - at_middle):
            high, at_high = middle, at_middle
        else:
            low, at_low = middle, at_middle
    left = float(abs(at_high - at_low))
    return left if left >= MIN_KEPT * change else 0.0
