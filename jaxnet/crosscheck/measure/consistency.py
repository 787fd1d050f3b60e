"""Consistency: whether a gradient belongs to a forward pass, by coarse differences that need no measured noise.

What is looked for is large, such as a gradient at parameters of an earlier step. So one step size that agrees is enough
for a gradient to be taken for right, and several that agree with each other, and not with it, are needed to prove that
it is wrong.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array, Leaves
from jaxnet.crosscheck.measure.form import as_double, unit_roundoff

IN_DOUBLE = tuple(2.0**-k for k in (10, 7, 13, 16, 19))  # steps, relative to a leaf's size; tried in this order
IN_SINGLE = tuple(2.0**-k for k in (6, 4, 5, 7, 8))
AGREES = {True: 2e-4, False: 3e-2}  # in float64 or in less: an error that is taken for none
PROVED = {True: 1e-3, False: 1e-1}  # an error that is taken for one
AT_MOST = 1e-4  # of a leaf's size: what the leaf with the largest gradient is moved by, relative to the one with least

Forward = Callable[[Leaves], Array]


def belongs(
    forward: Forward, gradient: Mapping[str, Array], at: Leaves, dout: Array, directions: Mapping[str, Array]
) -> bool | None:
    """Returns whether a gradient is that of a forward pass, along one direction.

    Args:
        forward: The output at leaves.
        gradient: The gradient of <dout, forward> by leaf.
        at: The leaves.
        dout: The gradient from above.
        directions: How each leaf moves; leaves that it does not name stay.

    Returns:
        True where a difference quotient agrees, False where several agree that it is wrong, None where neither is so.
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
    for h in IN_DOUBLE if double else IN_SINGLE:
        with np.errstate(all="ignore"):
            ahead, back = float(np.vdot(above, output(h) - y)) / h, float(np.vdot(above, y - output(-h))) / h
        quotients[h], bends[h] = (ahead + back) / 2, abs(ahead - back)
        if abs(quotients[h] - claimed) <= AGREES[double] * size + noise / h:
            return True
    return False if _prove(quotients, bends, claimed, size, noise, PROVED[double]) else None


def directions_together(gradient: Mapping[str, Array], at: Leaves, rng: np.random.Generator) -> dict[str, Array]:
    """Returns a random direction for each leaf, of such lengths that each moves the output by as much."""
    scales = {name: float(np.sqrt(np.mean(as_double(at[name]) ** 2))) or 1.0 for name in gradient if at[name].size}
    moves = {n: s * float(np.linalg.norm(as_double(gradient[n]))) / math.sqrt(at[n].size) for n, s in scales.items()}
    least = min((move for move in moves.values() if move), default=1.0)
    lengths = {n: s * max(least / moves[n], AT_MOST) if moves[n] else s for n, s in scales.items()}
    return {name: length * rng.standard_normal(at[name].shape) for name, length in lengths.items()}


def direction_of(name: str, at: Leaves, rng: np.random.Generator) -> dict[str, Array]:
    """Returns a random direction for a single leaf."""
    scale = float(np.sqrt(np.mean(as_double(at[name]) ** 2))) or 1.0
    return {name: scale * rng.standard_normal(at[name].shape)}


def _prove(
    quotients: Mapping[float, float],
    bends: Mapping[float, float],
    claimed: float,
    size: float,
    noise: float,
    proved: float,
) -> bool:
    """Whether three neighbouring step sizes agree with each other, by far better than with what is claimed.

    At a kink the slopes on both sides differ, and each is right: an error that they explain proves nothing.
    """
    steps = sorted(quotients)
    for i in range(len(steps) - 2):
        three = np.array([quotients[h] for h in steps[i : i + 3]])
        if not np.isfinite(three).all():
            continue
        error = float(np.abs(three - claimed).min())
        spread = float(np.ptp(three)) + noise / steps[i]
        bend = max(bends[h] for h in steps[i : i + 3])
        if error > proved * max(size, float(np.abs(three).max())) and max(8 * spread, 2 * bend) < error:
            return True
    return False
