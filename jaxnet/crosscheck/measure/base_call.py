"""The base call: one forward and one backward pass of what was brought, with which all other calls are compared."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Instance, Leaves
from jaxnet.crosscheck.inspect.objects import floats_in
from jaxnet.crosscheck.measure.form import as_double, effective_unit, is_floating, unit_roundoff

SAFETY = 8.0  # from a rounding that is estimated to one that is allowed
ROUNDING_LEVEL = 64.0  # sums of n terms in another order differ by less than this times sqrt(n) u
COARSE = 1e-6  # a relative error that is no rounding: values of another call are off by more


class Call(NamedTuple):
    """What one forward and one backward pass returned, as copies."""

    output: Array
    gradient: dict[str, Array]


class BaseCall:
    """What was brought, with its output and gradient at the leaves, in the dtype in which they were brought.

    Args:
        checkable: What was brought.
        dout: The gradient from above.
        at: The leaves, in float64 or in the dtype in which they were brought.
        rounding: What rounding may do to any element of each leaf's gradient, in the dtype of `at`.
    """

    def __init__(self, checkable: Checkable, dout: Array, at: Leaves, rounding: Mapping[str, float]) -> None:
        self.checkable, self.at, self.names = checkable, at, list(rounding)
        self.leaves = {name: np.asarray(at[name]).astype(leaf.dtype) for name, leaf in checkable.leaves.items()}
        self.by_jax = checkable.derived_by == "JAX"
        self.by_torch = checkable.derived_by == "PyTorch"
        self.stateful = False  # whether an earlier call changes the output
        self.accumulating: set[str] = set()  # leaves to whose gradient a backward adds
        opened = self.open()
        self.output = np.array(opened.forward())
        self.inputs = _inputs_of(opened, self.leaves_of(opened))
        self.dout = np.asarray(dout).astype(self.output.dtype)
        self.gradient = self.copied(opened.backward(self.dout))
        self.names = [name for name in self.names if name in self.gradient]
        self.terms = sum(leaf.size for leaf in self.leaves.values())
        self.unit = max((unit_roundoff(leaf.dtype) for leaf in self.leaves.values()), default=0.0)
        coarser = {n: max(1.0, unit_roundoff(self.leaves[n].dtype) / unit_roundoff(at[n].dtype)) for n in self.names}
        self.rounding = {name: rounding[name] * coarser[name] for name in self.names}
        self.spread = dict.fromkeys(self.names, 0.0)
        self.output_spread = 0.0

    def open(self, leaves: Leaves | None = None) -> Instance:
        """Returns a fresh instance at copies of the leaves."""
        return self.checkable.open({name: array.copy() for name, array in (leaves or self.leaves).items()})

    def at_double(self) -> bool:
        """Returns whether the point is given in float64."""
        return all(array.dtype == np.float64 for array in self.at.values())

    def leaves_of(self, opened: Instance) -> Leaves:
        """Returns the arrays that an instance holds or is handed, by leaf."""
        return {name: array for name, array in opened.arrays.items() if name in self.leaves}

    def copied(self, gradient: Mapping[str, Any]) -> dict[str, Array]:
        """Returns copies of the gradients by the leaves that are judged, for what is returned may change later."""
        return {name: np.array(gradient[name]) for name in self.names if gradient.get(name) is not None}

    def call(self, opened: Instance, dout: Array | None = None) -> Call:
        """Returns the output and the gradient of one more call of an instance."""
        output = np.array(opened.forward())
        return Call(output, self.copied(opened.backward(self.dout if dout is None else dout)))

    def allowed(self, name: str) -> float:
        """Returns what two gradients of the same leaf may differ by in any element."""
        size = largest(self.gradient[name])
        unit = max(self.unit, effective_unit(self.gradient[name]))
        sums = (ROUNDING_LEVEL if self.spread[name] else SAFETY) * math.sqrt(self.terms) * unit * size
        return SAFETY * (self.rounding[name] + self.spread[name]) + sums

    def allowed_at(self, name: str, rounding: float) -> float:
        """Returns what two gradients may differ by at the point, in its dtype, where rounding does so much."""
        return SAFETY * (rounding + self.spread[name])

    def differing(self, gradient: Mapping[str, Any], other: Mapping[str, Any] | None = None) -> dict[str, float]:
        """Returns the leaves in which a gradient differs by more than is allowed, and by how much.

        Args:
            gradient: The gradient by leaf.
            other: What it is compared with; the gradient of the base call by default.
        """
        other = self.gradient if other is None else other
        gaps = {name: distance(gradient.get(name), other.get(name)) for name in self.names}
        larger = {name: max(1.0, _ratio(other.get(name), self.gradient[name])) for name in self.names}
        return {name: gap for name, gap in gaps.items() if not gap <= larger[name] * self.allowed(name)}

    def same_output(self, output: Array, other: Array | None = None) -> bool:
        """Returns whether an output is that of the base call, or another, up to rounding."""
        other = self.output if other is None else other
        allowed = (
            ROUNDING_LEVEL * math.sqrt(self.terms + other.size) * max(self.unit, effective_unit(other)) * largest(other)
        )
        return distance(output, other) <= allowed + SAFETY * self.output_spread


def distance(value: Any, other: Any) -> float:
    """Returns the largest difference of two arrays; 0 where both are nan or the same infinity, inf for other shapes."""
    if value is None or other is None:
        return 0.0 if value is other else math.inf
    if np.shape(value) != np.shape(other):
        return math.inf
    a, b = as_double(np.asarray(value)), as_double(np.asarray(other))
    alike = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(all="ignore"):
        gap = np.where(alike, 0.0, np.abs(a - b))
    return float(np.where(np.isnan(gap), math.inf, gap).max(initial=0))


def apart(value: Any, other: Any, rounding: float = 0.0) -> bool:
    """Returns whether two results differ by more than rounding makes: values of another call do."""
    if value is None or other is None or np.shape(value) != np.shape(other):
        return (value is None) != (other is None) or np.shape(value) != np.shape(other)
    coarse = COARSE if np.asarray(other).dtype.itemsize >= 8 else 1e3 * COARSE
    size = float(np.abs(as_double(np.asarray(other))).max(initial=0))
    return distance(value, other) > coarse * size + 1e2 * rounding


def largest(values: Array) -> float:
    """Returns the size of the largest finite element."""
    return float(np.abs(as_double(values)).max(initial=0, where=_finite(values)))


def _ratio(values: Array | None, other: Array) -> float:
    size = largest(other)
    return largest(values) / size if values is not None and size else 1.0


def _finite(values: Array) -> Array:
    return np.isfinite(as_double(values)) if is_floating(values.dtype) else np.ones(values.shape, bool)


def _inputs_of(opened: Instance, leaves: Leaves) -> list[str]:
    """The leaves that stand among the inputs; the others are parameters that the instance holds."""
    inputs = list(floats_in(list(opened.inputs)))
    return [name for name, leaf in leaves.items() if any(leaf is array for array in inputs)]
