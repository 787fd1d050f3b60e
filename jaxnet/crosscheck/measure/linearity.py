"""Checks that a backward pass is linear in `dout`: clipping, flushing and thresholds are not."""

import math
from collections.abc import Mapping

import numpy as np

from jaxnet.crosscheck.dtypes import MIN_HALF_ROUNDOFF, as_double, effective_unit, unit_roundoff
from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves
from jaxnet.crosscheck.measure.base_call import ROUNDING_SAFETY
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.leaf_steps import copies

# Factors of dout. They are powers of two, so products are exact, and products stay within the range of the dtype. The
# second factor is small enough to detect a gradient that was computed from an update, and large enough to leave digits.
DOUT_FACTORS = {
    np.dtype(np.float64): (-2.0, 2.0**-20, 2.0**20, 2.0**-40, 2.0**40, 2.0**-100),
    np.dtype(np.float32): (-2.0, 2.0**-10, 2.0**-20, 2.0**20, 2.0**-40, 2.0**40, 2.0**-80),
}
HALF_DOUT_FACTORS = (-2.0, 2.0**-3, 2.0**3)
LOSSY_FACTOR = 2.0**40  # at this factor a correct formula may lose all digits
MAX_LOST_SHARE = 1e-3  # the largest share of a gradient that rounding may lose; clipping and flushing lose more
MIN_LOST_SHARE = 1e-11  # allowed in float64, because a formula may use another series for another size of dout
MAX_INVERSE_RATE = 64.0  # the largest inverse learning rate of a gradient computed from an update


def nonlinear(
    checkable: Checkable,
    at: Leaves,
    dout: Array,
    gradient: Mapping[str, Array],
    allowed: Mapping[str, float],
    rounding: Mapping[str, float],
) -> list[Finding]:
    """Compares the gradients at multiples of `dout` with multiples of the gradient.

    A gradient that is computed from an update, dW = W - (W - g), is rounded as W is, so its error does not shrink with
    `dout`. Such an error is recognised by its size at the first two factors, and is tolerated from there on.

    Args:
        checkable: The code that is checked.
        at: The leaves.
        dout: The upstream gradient.
        gradient: The gradient by leaf, for that `dout`.
        allowed: The largest difference of two gradients of the same leaf, in any element.
        rounding: The rounding error of an element of each leaf's gradient.

    Returns:
        The first finding, IGNORES_DOUT or NOT_LINEAR with the factor as its `size`, or an empty list.
    """
    from_update: set[str] = set()
    factors = _factors(dout, gradient)
    for factor in factors:
        try:
            scaled = checkable.backward(copies(at), (factor * dout).astype(dout.dtype))
        except Exception:
            continue  # the code rejects a dout of this size
        for name, value in gradient.items():
            if scaled.get(name) is None:
                continue
            other = np.asarray(scaled[name])
            error = _error(other, value, factor)
            tolerance = allowed[name] + _underflow(value) / abs(factor)
            if error <= tolerance:
                continue
            update_error = MAX_INVERSE_RATE * max(_spacing(at[name]), rounding[name]) / min(abs(factor), 1.0)
            if error <= tolerance + update_error and (factor in factors[:2] or name in from_update):
                from_update.add(name)
            elif np.any(value) and np.array_equal(other, value):
                return [Finding(Behaviour.IGNORES_DOUT, Level.FAULT, name, factor)]
            elif not error <= _max_lost_share(value, factor) * float(np.abs(as_double(value)).max(initial=0)):
                clipped = np.linalg.norm(as_double(other)) / abs(factor) < np.linalg.norm(as_double(value)) / 2
                level = Level.FAULT if clipped or abs(factor) < LOSSY_FACTOR else Level.WARNING
                return [Finding(Behaviour.NOT_LINEAR, level, name, factor)]
    return []


def _error(scaled: Array, value: Array, factor: float) -> float:
    """Returns the deviation from linearity of a gradient at a multiple of dout; 0 if it overflows."""
    if scaled.shape != value.shape:
        return math.inf
    if abs(factor) > 2 and not np.isfinite(as_double(scaled)).all():
        return 0.0
    error = float(np.abs(as_double(scaled) / factor - as_double(value)).max(initial=0))
    return math.inf if math.isnan(error) else error


def _max_lost_share(value: Array, factor: float) -> float:
    """Returns the share of a gradient that a correct formula may lose at this factor of dout.

    A sum of numbers of the size of dout and of others, such as `expm` of a block matrix that contains both, loses as
    many digits as lie between them. `expm` also scales the matrix by its size, which changes the error of its series.
    """
    unit = effective_unit(value)
    least = MIN_LOST_SHARE if unit <= unit_roundoff(np.dtype(np.float64)) else 0.0
    return min(MAX_LOST_SHARE, max(least, ROUNDING_SAFETY * unit * max(abs(factor), 1 / abs(factor))))


def _factors(dout: Array, gradient: Mapping[str, Array]) -> tuple[float, ...]:
    coarsest = max([effective_unit(np.asarray(value)) for value in gradient.values()], default=0.0)
    if coarsest > MIN_HALF_ROUNDOFF or dout.dtype not in DOUT_FACTORS:
        return HALF_DOUT_FACTORS
    single = coarsest > unit_roundoff(np.dtype(np.float64))
    return DOUT_FACTORS[np.dtype(np.float32)] if single else DOUT_FACTORS[dout.dtype]


def _spacing(leaf: Array) -> float:
    """Returns the spacing of the dtype at the largest of a leaf's elements."""
    return 2 * unit_roundoff(leaf.dtype) * float(np.abs(as_double(leaf)).max(initial=0))


def _underflow(value: Array) -> float:
    """Returns the magnitude below which elements may lose digits because they are near the smallest normal number."""
    unit = effective_unit(value)
    tiny = np.finfo(np.float64 if unit < 2.0**-30 else np.float32).tiny
    return float(ROUNDING_SAFETY * tiny / unit)
