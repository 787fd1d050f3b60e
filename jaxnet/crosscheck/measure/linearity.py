"""Linearity: a backward pass is linear in `dout`, whatever the layer; clipping, flushing and thresholds are not."""

from collections.abc import Mapping

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.form import as_double, unit_roundoff
from jaxnet.crosscheck.measure.trial import SAFETY, effective_unit

# Powers of two: the products are exact. The large and the small ones stay inside the range of the dtype. The second
# is small enough to tell a gradient that is read off an update, and large enough to leave it digits.
FACTORS = {
    np.dtype(np.float64): (-2.0, 2.0**-20, 2.0**20, 2.0**-40, 2.0**40, 2.0**-100),
    np.dtype(np.float32): (-2.0, 2.0**-6, 2.0**-20, 2.0**20, 2.0**-40, 2.0**40, 2.0**-60),
}
IN_HALF = (-2.0, 2.0**-3, 2.0**3)
HALF = 2.0**-13  # a unit roundoff of this size and more is that of 16 bits
UPDATE = 64.0  # a learning rate of 1/64 and more is allowed for


def nonlinear(
    checkable: Checkable,
    at: Leaves,
    dout: Array,
    gradient: Mapping[str, Array],
    allowed: Mapping[str, float],
    rounding: Mapping[str, float],
) -> list[Finding]:
    """Compares the gradients at multiples of `dout` with multiples of the gradient.

    A gradient that is read off an update, dW = W - (W - g), is rounded as W is: its error does not shrink with
    `dout`. Such an error is told by its size, at the first small factor; from there on it is allowed for.

    Args:
        checkable: What was brought.
        at: The leaves.
        dout: The gradient from above.
        gradient: The gradient by leaf, for that `dout`.
        allowed: What two gradients of the same leaf may differ by in any element.
        rounding: What rounding alone may do to any element of a leaf's gradient.

    Returns:
        The first finding: IGNORES_DOUT or NOT_LINEAR, with the factor as its `size`.
    """
    read_off: set[str] = set()
    factors = _factors(dout, gradient)
    for factor in factors:
        with np.errstate(all="ignore"):
            scaled = checkable.backward(at, (factor * dout).astype(dout.dtype))
        for name, value in gradient.items():
            if scaled.get(name) is None:
                continue
            other, value = np.asarray(scaled[name]), np.asarray(value)
            if other.shape != value.shape:
                return [Finding(Behaviour.NOT_LINEAR, Level.FAULT, name, factor)]
            if not np.isfinite(as_double(other)).all() and (abs(factor) > 2 or not np.isfinite(as_double(value)).all()):
                continue  # an overflow, which other inputs would not show
            error = float(np.abs(as_double(other) / factor - as_double(value)).max(initial=0))
            of_update = UPDATE * max(_spacing(at[name]), rounding[name]) / min(abs(factor), 1.0)
            slack = allowed[name] + _underflow(value) / abs(factor)
            if error > slack and error <= slack + of_update and (factor == factors[1] or name in read_off):
                read_off.add(name)
                continue
            if not error <= slack:
                ignores = distance_is_0(other, value) and bool(np.any(value))
                kind = Behaviour.IGNORES_DOUT if ignores else Behaviour.NOT_LINEAR
                return [Finding(kind, Level.FAULT, name, factor)]
    return []


def distance_is_0(value: Array, other: Array) -> bool:
    """Returns whether two arrays are the same to the bit."""
    return bool(np.array_equal(as_double(value), as_double(other), equal_nan=True))


def _factors(dout: Array, gradient: Mapping[str, Array]) -> tuple[float, ...]:
    coarsest = max([effective_unit(np.asarray(value)) for value in gradient.values()], default=0.0)
    if coarsest > HALF or dout.dtype not in FACTORS:
        return IN_HALF
    single = coarsest > unit_roundoff(np.dtype(np.float64))
    return FACTORS[np.dtype(np.float32)] if single else FACTORS[dout.dtype]


def _spacing(leaf: Array) -> float:
    """The rounding of the largest of a leaf's elements."""
    return 2 * unit_roundoff(leaf.dtype) * float(np.abs(as_double(leaf)).max(initial=0))


def _underflow(value: Array) -> float:
    """Numbers below this one may have lost digits in the range where a dtype's smallest numbers are equally spaced."""
    unit = effective_unit(value)
    tiny = np.finfo(np.float64 if unit < 2.0**-30 else np.float32).tiny
    return float(SAFETY * tiny / unit)
