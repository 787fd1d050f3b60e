"""Compares the gradients of some leaves, where the others need none, with the gradients of all leaves.

Rules may compute only what is needed: by `needs_input_grad` in PyTorch, by symbolic zeros in JAX.
"""

from collections.abc import Iterator, Mapping
from itertools import chain, combinations

from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves
from jaxnet.crosscheck.inspect.errors import describe
from jaxnet.crosscheck.measure.base_call import distance, largest
from jaxnet.crosscheck.measure.derivation import SAFETY, Measured
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.leaf_steps import copies
from jaxnet.crosscheck.meter import OutOfTime

MAX_LEAVES = 8  # more leaves are a model's parameters, and no arguments of one rule
MAX_ALL_SUBSETS = 3  # leaves of which every subset is tried
MIN_RELATIVE_GAP = 1e-6  # relative to the gradient; another order of its terms differs by less


def compare_partial_gradients(
    checkable: Checkable, at: Leaves, dout: Array, gradient: Mapping[str, Measured], accuracy: float
) -> list[Finding]:
    """Returns a finding if the gradients of some leaves raise, or are others than those of all leaves.

    Args:
        checkable: The code that is checked.
        at: The leaves.
        dout: The upstream gradient.
        gradient: The gradients of all leaves.
        accuracy: The relative error that is allowed by design.
    """
    if not 2 <= len(gradient) <= MAX_LEAVES:
        return []
    for names in _subsets(list(gradient)):
        only = " and ".join(names)
        try:
            partial = checkable.partial_gradient(copies(at), dout, set(names))
        except OutOfTime:
            raise
        except Exception as error:  # raised by the user's rule
            return [Finding(Behaviour.PARTIAL_RAISES, Level.FAULT, only, detail=describe(error))]
        if partial is None:
            return []
        for name in names:
            value, rounding = gradient[name]
            gap = distance(partial.get(name), value)
            if gap > SAFETY * rounding + max(MIN_RELATIVE_GAP, accuracy) * largest(value):
                return [Finding(Behaviour.PARTIAL_DIFFERS, Level.FAULT, name, gap, only)]
    return []


def _subsets(names: list[str]) -> Iterator[tuple[str, ...]]:
    """Yields each leaf alone, and if they are few, every other choice of some of them."""
    sizes = range(1, len(names) if len(names) <= MAX_ALL_SUBSETS else 2)
    return chain.from_iterable(combinations(names, size) for size in sizes)
