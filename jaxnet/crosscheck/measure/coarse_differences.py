"""Decides whether a gradient belongs to a forward pass, by coarse differences that need no measured noise.

The errors to be found are large, such as those of a gradient at the parameters of an earlier step. So a gradient is
accepted if a quotient at one step size agrees with it. It is rejected only if quotients at several step sizes agree
with each other and not with it.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from jaxnet.crosscheck.dtypes import as_double, unit_roundoff
from jaxnet.crosscheck.inspect.checkable import Array, Leaves

# Steps relative to a leaf's size, in the order in which they are tried.
FLOAT64_STEPS = tuple(2.0**-k for k in (10, 7, 13, 16, 19))
FLOAT32_STEPS = tuple(2.0**-k for k in (6, 4, 5, 7, 8))
# Relative errors by whether all leaves are float64.
MAX_ACCEPTED_ERROR = {True: 2e-4, False: 3e-2}
MIN_REJECTED_ERROR = {True: 1e-3, False: 1e-1}
MIN_LENGTH_RATIO = 1e-4  # the shortest move of a leaf, relative to its size

Forward = Callable[[Leaves], Array]


def belongs(
    forward: Forward, gradient: Mapping[str, Array], at: Leaves, dout: Array, directions: Mapping[str, Array]
) -> bool | None:
    """Returns whether a gradient is that of a forward pass, along one direction.

    Args:
        forward: The output at leaves.
        gradient: The gradient of <dout, forward> by leaf.
        at: The leaves.
        dout: The upstream gradient.
        directions: How each leaf moves. Leaves that are not included stay.

    Returns:
        True if a quotient agrees, False if several quotients prove the gradient wrong, None if neither is the case.
    """
    double = all(at[name].dtype.itemsize >= 8 for name in directions)
    claimed = sum(float(np.vdot(as_double(gradient[name]), d)) for name, d in directions.items())
    norms = {name: float(np.linalg.norm(as_double(gradient[name]))) for name in directions}
    size = math.sqrt(sum((norms[n] * float(np.linalg.norm(d))) ** 2 / d.size for n, d in directions.items()))

    def output(t: float) -> Array:
        moved = {name: np.asarray(as_double(at[name]) + t * d).astype(at[name].dtype) for name, d in directions.items()}
        return as_double(np.asarray(forward({**at, **moved})))

    y, above = as_double(np.asarray(forward(at))), as_double(dout)
    unit = max(unit_roundoff(at[name].dtype) for name in directions)
    noise = 64 * unit * float(np.linalg.norm(above * y))
    quotients: dict[float, float] = {}
    bends: dict[float, float] = {}
    for h in FLOAT64_STEPS if double else FLOAT32_STEPS:
        with np.errstate(all="ignore"):
            ahead, back = float(np.vdot(above, output(h) - y)) / h, float(np.vdot(above, y - output(-h))) / h
        quotients[h], bends[h] = (ahead + back) / 2, abs(ahead - back)
        if abs(quotients[h] - claimed) <= MAX_ACCEPTED_ERROR[double] * size + noise / h:
            return True
    return False if _is_rejected(quotients, bends, claimed, size, noise, MIN_REJECTED_ERROR[double]) else None


def directions_together(gradient: Mapping[str, Array], at: Leaves, rng: np.random.Generator) -> dict[str, Array]:
    """Returns a random direction for each leaf, with lengths such that each leaf changes the output equally."""
    scales = {name: float(np.sqrt(np.mean(as_double(at[name]) ** 2))) or 1.0 for name in gradient if at[name].size}
    moves = {n: s * float(np.linalg.norm(as_double(gradient[n]))) / math.sqrt(at[n].size) for n, s in scales.items()}
    least = min((move for move in moves.values() if move), default=1.0)
    lengths = {n: s * max(least / moves[n], MIN_LENGTH_RATIO) if moves[n] else s for n, s in scales.items()}
    return {name: length * rng.standard_normal(at[name].shape) for name, length in lengths.items()}


def direction_of(name: str, at: Leaves, rng: np.random.Generator) -> dict[str, Array]:
    """Returns a random direction for a single leaf."""
    scale = float(np.sqrt(np.mean(as_double(at[name]) ** 2))) or 1.0
    return {name: scale * rng.standard_normal(at[name].shape)}


def _is_rejected(
    quotients: Mapping[float, float],
    bends: Mapping[float, float],
    claimed: float,
    size: float,
    noise: float,
    min_error: float,
) -> bool:
    """Returns whether quotients at three neighbouring steps agree far better with each other than with the claim.

    At a kink the slopes on both sides differ, and each is correct: an error that their difference explains does not
    count.
    """
    steps = sorted(quotients)
    for i in range(len(steps) - 2):
        three = np.array([quotients[h] for h in steps[i : i + 3]])
        if not np.isfinite(three).all():
            continue
        error = float(np.abs(three - claimed).min())
        spread = float(np.ptp(three)) + noise / steps[i]
        bend = max(bends[h] for h in steps[i : i + 3])
        if error > min_error * max(size, float(np.abs(three).max())) and max(8 * spread, 2 * bend) < error:
            return True
    return False
