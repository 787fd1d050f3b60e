"""The derivative of a function of one variable by differences, with an error that is estimated, not assumed.

The function is looked at in nine places, t = -4h ... 4h. They give, together: three central differences and with them
Richardson's extrapolation and its error; and the function's own noise, from differences of high order, where a smooth
function has nothing left to say (ECnoise: Moré and Wild, *Estimating Computational Noise*, SIAM J. Sci. Comput. 33,
2011, section 5).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Relative to the size of what is moved. The first is small enough that a ReLU's kink seldom lies within 4h, and large
# enough that roundoff leaves nine digits; smaller ones step out of the reach of a kink, larger ones out of the noise.
STEP = 2.0**-17
SMALLER, LARGER = (tuple(2.0**-k for k in powers) for powers in ((19, 21, 23, 25), (15, 13, 11, 9, 7, 5)))
SMALLEST = tuple(2.0**-k for k in range(27, 43, 2))  # for a point so near the edge of the domain that others leave it
OUTSIDE = "the step leaves the function's domain: give it inputs further inside"


class Derivative(NamedTuple):
    """phi'(0), and how far off it may be; nan, and any way off, where phi is finite at no step."""

    value: float
    error: float
    limit: str  # what makes the error: "roundoff", "truncation" or OUTSIDE
    quantum: float  # the least step in which phi was seen to move, where it moves in steps


def derivative(
    phi: Callable[[float], float], floor: float, target: float, quantum: float = 0.0, argument: float = 0.0
) -> Derivative:
    """phi'(0) to an error of `target`, or as near to it as steps away from what limits it get.

    Args:
        phi: A function of one variable, evaluated eight times a step; its value at 0 is 0.
        floor: The smallest noise that phi can have: unit roundoff times what it is the sum of.
        target: The error below which no other step is tried.
        quantum: How far phi may move without showing it: its noise where it does not move at all.
        argument: What it does to phi that what is moved is rounded. It counts near the edge of phi's domain, where phi
            may be steep and the steps are short.
    """
    best = _at_step(phi, STEP, floor, quantum)
    outside = best.limit == OUTSIDE
    ways: tuple[tuple[float, ...], ...]
    if outside:
        floor, ways = floor + argument, ((*SMALLER, *SMALLEST),)
    else:
        ways = (LARGER, SMALLER) if best.limit == "roundoff" else (SMALLER, LARGER)
    for others in ways:
        for h in others:
            if best.error <= target:
                return best
            seen = best.quantum if best.quantum > quantum else 0.0  # steps seen at one h are there at another
            found = _at_step(phi, h, max(floor, seen), best.quantum)
            outside = outside or found.limit == OUTSIDE
            if found.error >= best.error and math.isfinite(best.error):
                best = best._replace(quantum=found.quantum)
                break  # the other way, then
            best = found
    return best._replace(limit=OUTSIDE) if outside and not best.error <= target else best


def _at_step(phi: Callable[[float], float], h: float, floor: float, quantum: float) -> Derivative:
    """Richardson's fine = (4 D(h) - D(2h)) / 3, of D(h) = (phi(h) - phi(-h)) / 2h, and a bound on its error.

    Truncation is taken to be |fine - coarse|, coarse = (4 D(2h) - D(4h)) / 3. Both err by a multiple of h⁴, coarse by
    16 times as much, so that this is about 15 times fine's own error: on the safe side. Roundoff is 3 noise / 2h, what
    fine is off by where each of its four values is off by the noise, and the worst way. Where neighbouring values are
    the same, phi moves in steps, and the step is its noise.
    """
    values = np.array([phi(j * h) if j else 0.0 for j in range(-4, 5)])
    if not np.isfinite(values).all():
        return Derivative(math.nan, math.inf, OUTSIDE, quantum)
    jumps = np.abs(np.diff(values))
    if moved := jumps[jumps > 0].tolist():
        quantum = max(quantum, min(moved)) if len(moved) < len(jumps) else quantum
    plateau = max([quantum, *moved]) if len(moved) < len(jumps) else 0.0
    D_h, D_2h, D_4h = ((values[4 + j] - values[4 - j]) / (2 * j * h) for j in (1, 2, 4))
    roundoff = 3 * max(noise(values), floor, plateau) / (2 * h)
    fine, coarse = (4 * D_h - D_2h) / 3, (4 * D_2h - D_4h) / 3
    truncation = abs(fine - coarse)
    limit = "truncation" if truncation > roundoff else "roundoff"
    return Derivative(fine, truncation + roundoff, limit, quantum)


def noise(values: NDArray[Any]) -> float:
    """The standard deviation of the noise in equispaced values of a smooth function, by ECnoise.

    sigma_k² = (k!)² / (2k)! mean((Delta^k phi)²) settles, as k grows, on the noise. The first k counts where three
    neighbours agree within a factor of four and Delta^k changes its sign; 0 where none does.
    """
    sigmas, changes = [], []
    for k in range(1, len(values) - 1):
        values = np.diff(values)
        gamma = math.factorial(k) ** 2 / math.factorial(2 * k)
        sigmas.append(math.sqrt(gamma * float(np.mean(values**2))))
        changes.append(bool((values > 0).any() and (values < 0).any()))
    for k in range(len(sigmas) - 2):
        three = sigmas[k : k + 3]
        if changes[k] and max(three) <= 4 * min(three):
            return three[0]
    return 0.0
