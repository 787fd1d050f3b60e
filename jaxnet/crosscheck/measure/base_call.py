"""Runs the base call: one forward and one backward pass, with which all other calls are compared."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.dtypes import as_double, effective_unit, is_float_dtype, unit_roundoff
from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Instance, Leaves

ROUNDING_SAFETY = 8.0  # ratio of the tolerance to the estimated rounding error
SUM_ROUNDING = 64.0  # reordered sums of n terms differ by less than this times sqrt(n) u
OTHER_CALL_ERROR = 1e-6  # the smallest relative difference between values of different calls; rounding causes less


class Call(NamedTuple):
    """Copies of the results of one forward and one backward pass."""

    output: Array
    gradient: dict[str, Array]


class BaseCall:
    """The output and the gradients at the leaves, in their own dtype, and the tolerances of comparisons with them.

    Args:
        checkable: The code that is checked.
        dout: The upstream gradient.
        at: The leaves, in float64 or in their own dtype.
        rounding: The rounding error of an element of each leaf's gradient, in the dtype of `at`.
    """

    def __init__(self, checkable: Checkable, dout: Array, at: Leaves, rounding: Mapping[str, float]) -> None:
        self.checkable, self.at, self.names = checkable, at, list(rounding)
        self.leaves = {name: np.asarray(at[name]).astype(leaf.dtype) for name, leaf in checkable.leaves.items()}
        self.by_jax = checkable.derived_by == "JAX"
        self.by_torch = checkable.derived_by == "PyTorch"
        self.stateful = False  # whether an earlier call changes the output
        self.accumulating: set[str] = set()  # leaves whose gradient each backward pass adds to
        opened = self.open()
        self.output = np.array(opened.forward())
        self.inputs = opened.names_of_inputs(self.leaves_of(opened))
        self.dout = np.asarray(dout).astype(self.output.dtype)
        self.gradient = self.copied(opened.backward(self.dout))
        self.names = [name for name in self.names if name in self.gradient]
        self.terms = sum(leaf.size for leaf in self.leaves.values())
        self.unit = max((unit_roundoff(leaf.dtype) for leaf in self.leaves.values()), default=0.0)
        coarser = {n: max(1.0, unit_roundoff(self.leaves[n].dtype) / unit_roundoff(at[n].dtype)) for n in self.names}
        self.rounding = {name: rounding[name] * coarser[name] for name in self.names}
        # Every comparison asks for these, and they take several passes over a gradient.
        self._sizes = {name: largest(self.gradient[name]) for name in self.names}
        self._units = {name: max(self.unit, effective_unit(self.gradient[name])) for name in self.names}
        self._output_allowed = self._output_rounding(self.output)
        self.spread = dict.fromkeys(self.names, 0.0)
        self.output_spread = 0.0

    def open(self, leaves: Leaves | None = None) -> Instance:
        """Returns a fresh instance at copies of the leaves."""
        return self.checkable.open({name: array.copy() for name, array in (leaves or self.leaves).items()})

    def at_double(self) -> bool:
        """Returns whether the point is given in float64."""
        return all(array.dtype == np.float64 for array in self.at.values())

    def leaves_of(self, opened: Instance) -> Leaves:
        """Returns the arrays of an instance, by leaf."""
        return {name: array for name, array in opened.arrays.items() if name in self.leaves}

    def copied(self, gradient: Mapping[str, Any]) -> dict[str, Array]:
        """Returns copies of the gradients of the checked leaves, because later calls may change them."""
        return {name: np.array(gradient[name]) for name in self.names if gradient.get(name) is not None}

    def call(self, opened: Instance, dout: Array | None = None) -> Call:
        """Returns the output and the gradient of one more call of an instance."""
        output = np.array(opened.forward())
        return Call(output, self.copied(opened.backward(self.dout if dout is None else dout)))

    def allowed(self, name: str) -> float:
        """Returns the largest allowed difference of two gradients of the same leaf, in any element."""
        safety = SUM_ROUNDING if self.spread[name] else ROUNDING_SAFETY
        sums = safety * math.sqrt(self.terms) * self._units[name] * self._sizes[name]
        return ROUNDING_SAFETY * (self.rounding[name] + self.spread[name]) + sums

    def allowed_at(self, name: str, rounding: float) -> float:
        """Returns the largest allowed difference of two gradients in the dtype of the point, for a rounding error."""
        return ROUNDING_SAFETY * (rounding + self.spread[name])

    def differing(self, gradient: Mapping[str, Any], other: Mapping[str, Any] | None = None) -> dict[str, float]:
        """Returns the largest difference by leaf, for leaves in which it exceeds the allowed one.

        Args:
            gradient: The gradient by leaf.
            other: The gradient to compare it with. Defaults to that of the base call.
        """
        other = self.gradient if other is None else other
        gaps = {name: distance(gradient.get(name), other.get(name)) for name in self.names}
        return {n: gap for n, gap in gaps.items() if gap and not gap <= self._times_larger(n, other) * self.allowed(n)}

    def _times_larger(self, name: str, gradients: Mapping[str, Any]) -> float:
        """Returns the size of a gradient relative to that of the base call, at least 1."""
        size, gradient = self._sizes[name], gradients.get(name)
        return max(1.0, largest(gradient) / size) if gradient is not None and size else 1.0

    def same_output(self, output: Array, other: Array | None = None) -> bool:
        """Returns whether an output equals another one, that of the base call by default, up to rounding."""
        allowed = self._output_allowed if other is None else self._output_rounding(other)
        return distance(output, self.output if other is None else other) <= (
            allowed + ROUNDING_SAFETY * self.output_spread
        )

    def _output_rounding(self, output: Array) -> float:
        """Returns the largest allowed difference of an output from another, if its calls do not differ."""
        unit = max(self.unit, effective_unit(output))
        return SUM_ROUNDING * math.sqrt(self.terms + output.size) * unit * largest(output)


def distance(value: Any, other: Any) -> float:
    """Returns the largest difference of two arrays: 0 if both are nan or the same infinity, inf if shapes differ."""
    if value is None or other is None:
        return 0.0 if value is other else math.inf
    if np.shape(value) != np.shape(other):
        return math.inf
    if np.asarray(value).dtype == np.asarray(other).dtype and np.array_equal(value, other):  # as they mostly are
        return 0.0
    a, b = as_double(np.asarray(value)), as_double(np.asarray(other))
    alike = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(all="ignore"):
        gap = np.where(alike, 0.0, np.abs(a - b))
    return float(np.where(np.isnan(gap), math.inf, gap).max(initial=0))


def apart(value: Any, other: Any, rounding: float = 0.0) -> bool:
    """Returns whether two results differ by more than rounding, as the values of different calls do."""
    if value is None or other is None or np.shape(value) != np.shape(other):
        return (value is None) != (other is None) or np.shape(value) != np.shape(other)
    coarse = OTHER_CALL_ERROR if np.asarray(other).dtype.itemsize >= 8 else 1e3 * OTHER_CALL_ERROR
    size = float(np.abs(as_double(np.asarray(other))).max(initial=0))
    return distance(value, other) > coarse * size + 1e2 * rounding


def largest(values: Array) -> float:
    """Returns the size of the largest finite element."""
    return float(np.abs(as_double(values)).max(initial=0, where=_finite(values)))


def _finite(values: Array) -> Array:
    return np.isfinite(as_double(values)) if is_float_dtype(values.dtype) else np.ones(values.shape, bool)
