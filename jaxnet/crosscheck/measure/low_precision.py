"""Compares gradients computed in the arrays' own precision with those in float64.

The rounding error in the lower precision is measured: every element moves by one unit in its last place, and the
change of the gradient is recorded.
"""

import math

import numpy as np

from jaxnet.crosscheck.dtypes import eps_of, in_float64
from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves
from jaxnet.crosscheck.measure.derivation import SAFETY, Derivation, Gap

# Numbers of nudges. Large rounding errors may be rare, so more are tried before a gradient is reported as wrong.
FEW_NUDGES, MANY_NUDGES = 2, 16


def low_precision_gap(
    checkable: Checkable, analytic: Derivation, dout: Array, names: list[str], rng: np.random.Generator
) -> dict[str, Gap]:
    """Returns, for each leaf, the gap between its gradient in its own dtype and in float64, in units of G.

    The result is empty if all leaves are float64, or if the check computes in their own dtype. The tolerance includes
    half of the dtype's digits, for rounding within a layer.
    """
    own = checkable.leaves
    if all(a.dtype == np.float64 for a in own.values()) or any(a.dtype != np.float64 for a in analytic.at.values()):
        return {}
    gaps = _gaps(checkable, analytic, dout, names, rng, FEW_NUDGES)
    if all(gap.within_tolerance for gap in gaps.values()):
        return gaps
    return _gaps(checkable, analytic, dout, names, rng, MANY_NUDGES)


def _gaps(
    checkable: Checkable, analytic: Derivation, dout: Array, names: list[str], rng: np.random.Generator, nudges: int
) -> dict[str, Gap]:
    own = checkable.leaves
    values = _backward(checkable, own, dout, names)
    nudged = [
        _backward(checkable, {name: _nudged(a, rng) for name, a in own.items()}, dout, names) for _ in range(nudges)
    ]
    terms = sum(a.size for a in own.values())
    gaps = {}
    for name in names:
        factor, value = analytic.factor(name), values[name]
        moved = max((float(np.abs(other[name] - value).max(initial=0.0)) for other in nudged), default=0.0)
        eps = eps_of(own[name])
        largest = float(np.abs(value).max(initial=0.0))
        rounding = moved + math.sqrt(terms) * eps / 2 * largest
        allowed = SAFETY * rounding * factor + math.sqrt(eps) * _magnitude(analytic, name)
        error = float(np.abs(value - analytic.gradient[name]).max(initial=0.0)) * factor
        gaps[name] = Gap(error, allowed + SAFETY * analytic.rounding(name))
    return gaps


def _magnitude(analytic: Derivation, name: str) -> float:
    """Returns the size of an element to which rounding errors within a layer are relative.

    If the layer saturates, this size is larger than the gradient.
    """
    shuffled = {key: np.roll(a.ravel(), 1).reshape(a.shape) for key, a in analytic.at.items()}
    output = analytic.forward_at(shuffled)  # the loss at the given point may be 0 by chance
    other = (
        float(np.linalg.norm(analytic.dout * output / analytic.unit)) if output.shape == analytic.dout.shape else 0.0
    )
    phi_size = max(analytic.phi_size, other if math.isfinite(other) else 0.0)
    whole = phi_size / math.sqrt(analytic.at[name].size)
    return max(whole, float(np.abs(analytic.scaled_gradient(name)).max(initial=0.0)))


def _backward(checkable: Checkable, leaves: Leaves, dout: Array, names: list[str]) -> Leaves:
    gradients = checkable.backward({name: a.copy() for name, a in leaves.items()}, dout)
    return {name: in_float64(gradients[name]) for name in names}


def _nudged(array: Array, rng: np.random.Generator) -> Array:
    """Moves every element up or down by a unit in its last place. Equal elements stay equal, so ties are preserved."""
    if array.dtype.kind != "f":  # nextafter does not support bfloat16
        values = in_float64(array)
        return np.asarray(values * (1 + eps_of(array) * _signs(values, rng))).astype(array.dtype)
    away = np.where(_signs(array, rng) > 0, np.inf, -np.inf).astype(array.dtype)
    return np.where(array == 0, array, np.nextafter(array, away))


def _signs(array: Array, rng: np.random.Generator) -> Array:
    """Returns random signs, the same for equal elements."""
    odd = np.uint64(rng.integers(2**62) * 2 + 1)
    up = (np.asarray(array, np.float64).view(np.uint64) * odd) >> np.uint64(63) == 1
    return np.where(up, 1.0, -1.0)
