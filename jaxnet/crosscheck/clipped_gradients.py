"""Recognizes backward passes that clip gradients, `np.clip(dW, -5, 5)`, against exploding gradients.

A clipped gradient is no derivative, but may be meant. Whether it is right otherwise shows with an upstream gradient so
small that nothing is clipped: a backward pass is linear.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.dtypes import in_float64, is_float_dtype
from jaxnet.crosscheck.inspect.checkable import Array, Backward, Checkable, with_backward
from jaxnet.crosscheck.measure.leaf_steps import copies

SCALE = 2.0**-10  # exact in floating point
FACTORS = (1.0, 2.0**5, 2.0**10, 2.0**20)  # of dout, at which a bound may be reached
DIGITS = 2  # of a bound that a person chose
REASON = (
    "backward clips the gradients of {} to [-{:g}, {:g}], so they are no derivatives; all gradients are right for a "
    "dout so small that nothing is clipped: clip after backward, or pass such a dout"
)


class Clipped(NamedTuple):
    """A backward pass that clips: the same code with a small dout, the leaves that are clipped, and the bound."""

    smaller: Checkable
    names: tuple[str, ...]
    bound: float

    @property
    def reason(self) -> str:
        """Why nothing is decided, if all gradients are right for a small dout."""
        return REASON.format(", ".join(self.names), self.bound, self.bound)


def clipped(checkable: Checkable, dout: Array) -> Clipped | None:
    """Returns how a backward pass clips the gradients of parameters alone; None if it does not.

    Args:
        checkable: The code.
        dout: The upstream gradient of the check.
    """
    smaller = with_backward(checkable, _with_small_dout)
    small = smaller.backward(copies(checkable.leaves), dout.copy())
    inputs = checkable.open(leaves := copies(checkable.leaves)).names_of_inputs(leaves)
    for factor in FACTORS:
        found = dict(_clipped_leaves(checkable.backward(copies(checkable.leaves), factor * dout), small, factor))
        bounds = set(found.values())
        if len(bounds) == 1 and not found.keys() & set(inputs):
            return Clipped(smaller, tuple(found), bounds.pop())
    return None


def _clipped_leaves(large: dict[str, Any], small: dict[str, Any], factor: float) -> Iterator[tuple[str, float]]:
    """Yields the leaves whose largest elements are a round number, and would be larger, with that number."""
    for name, gradient in large.items():
        if gradient is None or not is_float_dtype(np.asarray(gradient).dtype) or np.size(gradient) == 0:
            continue
        magnitude, unclipped = np.abs(in_float64(gradient)), factor * np.abs(in_float64(small[name]))
        bound = float(magnitude.max())
        at_bound = magnitude == bound
        is_round = bound > 0 and bound == float(f"{bound:.{DIGITS}g}")
        if is_round and (unclipped[at_bound] > bound).all() and np.allclose(unclipped[~at_bound], magnitude[~at_bound]):
            yield name, bound


def _with_small_dout(backward: Backward) -> Backward:
    """Returns a backward pass that gets a small upstream gradient, and whose gradients are multiplied up."""

    def scaled(*douts: Any) -> dict[str, Any]:
        gradients = backward(*(SCALE * dout for dout in douts))
        return {name: None if g is None else np.asarray(g) / SCALE for name, g in gradients.items()}

    return scaled
