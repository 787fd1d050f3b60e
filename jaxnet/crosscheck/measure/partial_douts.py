"""Compares the gradient for outputs without an upstream gradient with the one for an upstream gradient of zeros.

Where an output is not used, PyTorch passes zeros to a backward, or None if it asks for that.
"""

from collections.abc import Mapping

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves, PartialDout
from jaxnet.crosscheck.inspect.errors import describe
from jaxnet.crosscheck.measure.base_call import distance, largest
from jaxnet.crosscheck.measure.derivation import SAFETY, Measured
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.leaf_steps import copies
from jaxnet.crosscheck.measure.partial_gradients import MIN_RELATIVE_GAP
from jaxnet.crosscheck.meter import OutOfTime


def compare_partial_douts(
    checkable: Checkable, at: Leaves, dout: Array, gradient: Mapping[str, Measured], accuracy: float
) -> list[Finding]:
    """Returns a finding if the gradient raises or is another one where outputs have no upstream gradient.

    Args:
        checkable: The code that is checked.
        at: The leaves.
        dout: The upstream gradient of all outputs.
        gradient: The gradients of all leaves.
        accuracy: The relative error that is allowed by design.
    """
    if not gradient:
        return []
    for part in checkable.partial_douts(copies(at), dout):
        finding = _compare(checkable, at, part, gradient, accuracy)
        if finding is not None:
            return [finding]
    return []


def _compare(
    checkable: Checkable, at: Leaves, part: PartialDout, gradient: Mapping[str, Measured], accuracy: float
) -> Finding | None:
    expected = checkable.backward(copies(at), part.dout.copy()) if part.dout.any() else {}
    try:
        partial = part.gradients()
    except OutOfTime:
        raise
    except Exception as error:  # raised by the user's rule
        level = Level.FAULT if part.certain else Level.WARNING
        return Finding(Behaviour.UNDEFINED_RAISES, level, detail=f"{describe(error)}, {part.condition}")
    for name, (value, rounding) in gradient.items():
        gap = distance(_or_zeros(partial.get(name), at[name]), _or_zeros(expected.get(name), at[name]))
        if gap > SAFETY * rounding + max(MIN_RELATIVE_GAP, accuracy) * largest(value):
            return Finding(Behaviour.UNDEFINED_DIFFERS, Level.FAULT, name, gap, part.condition)
    return None


def _or_zeros(value: Array | None, leaf: Array) -> Array:
    """Returns a gradient, or zeros for None: PyTorch takes the one for the other."""
    return np.zeros(leaf.shape) if value is None else value
