"""Linearity: a backward pass is linear in `dout`, whatever the layer; clipping, flushing and thresholds are not."""

import math
from collections.abc import Mapping

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves
from jaxnet.crosscheck.measure.base_call import SAFETY
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.form import as_double, effective_unit, unit_roundoff

# Powers of two: the products are exact. The large and the small ones stay inside the range of the dtype. The second
# is small enough to recognise a gradient that is read off an update, and large enough to leave it digits.
FACTORS = {
    np.dtype(np.float64): (-2.0, 2.0**-20, 2.0**20, 2.0**-40, 2.0**40, 2.0**-100),
    np.dtype(np.float32): (-2.0, 2.0**-10, 2.0**-20, 2.0**20, 2.0**-40, 2.0**40, 2.0**-80),
}
IN_HALF = (-2.0, 2.0**-3, 2.0**3)
HALF = 2.0**-13  # a unit roundoff of this size and more is that of 16 bits
HUGE = 2.0**40  # a factor at which a right formula may lose all digits
LOST = 1e-3  # of a gradient: what is clipped or flushed is off by more
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
    `dout`. Such an error is recognised by its size, at the first two factors; from there on it is allowed for.

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
        try:
            scaled = checkable.backward(_copies(at), (factor * dout).astype(dout.dtype))
        except Exception:
            continue  # it refuses a dout of this size
        for name, value in gradient.items():
            if scaled.get(name) is None:
                continue
            other = np.asarray(scaled[name])
            error = _error(other, value, factor)
            of_update = UPDATE * max(_spacing(at[name]), rounding[name]) / min(abs(factor), 1.0)
            slack = allowed[name] + _underflow(value) / abs(factor)
            if error <= slack:
                continue
            if error <= slack + of_update and (factor in factors[:2] or name in read_off):
                read_off.add(name)
                continue
            ignores = bool(np.any(value)) and np.array_equal(other, value)
            if ignores:
                return [Finding(Behaviour.IGNORES_DOUT, Level.FAULT, name, factor)]
            if error <= _lost(value, factor) * float(np.abs(as_double(value)).max(initial=0)):
                continue
            clipped = np.linalg.norm(as_double(other)) / abs(factor) < np.linalg.norm(as_double(value)) / 2
            level = Level.FAULT if clipped or abs(factor) < HUGE else Level.WARNING
            return [Finding(Behaviour.NOT_LINEAR, level, name, factor)]
    return []


def _copies(at: Leaves) -> Leaves:
    return {name: array.copy(order="K") for name, array in at.items()}


def _error(scaled: Array, value: Array, factor: float) -> float:
    """How far a gradient at a multiple of dout is from linear; 0 where it overflows."""
    if scaled.shape != value.shape:
        return math.inf
    if abs(factor) > 2 and not np.isfinite(as_double(scaled)).all():
        return 0.0
    error = float(np.abs(as_double(scaled) / factor - as_double(value)).max(initial=0))
    return math.inf if math.isnan(error) else error


def _lost(value: Array, factor: float) -> float:
    """What part of a gradient a right formula may lose where dout is so many times larger or smaller.

    A sum of numbers of the size of dout and of others, like `expm` of a block matrix that holds both, loses as many
    digits as lie between them; what is clipped or flushed is off by more than `LOST`.
    """
    return min(LOST, SAFETY * effective_unit(value) * max(abs(factor), 1 / abs(factor)))


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
