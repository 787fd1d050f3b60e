"""Compares the gradient of one leaf alone, where the others need none, with the gradient of all leaves.

Rules may compute only what is needed: by `needs_input_grad` in PyTorch, by symbolic zeros in JAX.
"""

from collections.abc import Mapping

from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves
from jaxnet.crosscheck.inspect.errors import describe
from jaxnet.crosscheck.measure.base_call import distance, largest
from jaxnet.crosscheck.measure.derivation import SAFETY, Measured
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.leaf_steps import copies
from jaxnet.crosscheck.meter import OutOfTime

MAX_LEAVES = 8  # more leaves are a model's parameters, and no arguments of one rule
MIN_RELATIVE_GAP = 1e-6  # relative to the gradient; another order of its terms differs by less


def compare_partial_gradients(
    checkable: Checkable, at: Leaves, dout: Array, gradient: Mapping[str, Measured]
) -> list[Finding]:
    """Returns a finding if the gradient of a leaf alone raises or is another one.

    Args:
        checkable: The code that is checked.
        at: The leaves.
        dout: The gradient from above.
        gradient: The gradients of all leaves.
    """
    if not 2 <= len(gradient) <= MAX_LEAVES:
        return []
    for name, (value, rounding) in gradient.items():
        try:
            partial = checkable.partial_gradient(copies(at), dout, {name})
        except OutOfTime:
            raise
        except Exception as error:  # raised by the user's rule
            return [Finding(Behaviour.PARTIAL_RAISES, Level.FAULT, name, detail=describe(error))]
        if partial is None:
            return []
        gap = distance(partial.get(name), value)
        if gap > SAFETY * rounding + MIN_RELATIVE_GAP * largest(value):
            return [Finding(Behaviour.PARTIAL_DIFFERS, Level.FAULT, name, gap)]
    return []
