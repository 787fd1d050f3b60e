"""Behaviour: what is wrong beside the numbers. A right gradient can come from code that goes wrong on its second call.

Everything is found by doing, on copies: call, call again, compare. Memory and state are judged in the dtype in which
the leaves were brought, linearity at the point where the gradient was measured.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Instance, Leaves
from jaxnet.crosscheck.measure import memory, staleness, state
from jaxnet.crosscheck.measure.base_call import BaseCall
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.form import as_double, is_floating, misshapen
from jaxnet.crosscheck.measure.linearity import nonlinear
from jaxnet.crosscheck.measure.repeats import call_to_call

__all__ = ["Behaviour", "Finding", "Level", "findings", "fresh", "misshapen", "same"]
OVERWRITTEN = (Behaviour.FORWARD_OVERWRITES, Behaviour.BACKWARD_OVERWRITES)


class Rounded(Protocol):
    """A gradient, and what rounding may have done to any element of it."""

    @property
    def value(self) -> Array:
        """Returns the gradient."""
        ...

    @property
    def rounding(self) -> float:
        """Returns the error that rounding may have caused."""
        ...


def findings(
    checkable: Checkable,
    dout: Array,
    at: Leaves,
    gradient: Mapping[str, Rounded],
    rng: np.random.Generator,
    output_rounding: float = 0.0,
) -> list[Finding]:
    """Finds what a right layer never does, and what a user of it should know.

    Args:
        checkable: What was brought.
        dout: The gradient from above, of the output's shape.
        at: The leaves, in float64 or in the dtype in which they were brought.
        gradient: The gradients of right form at these leaves, by leaf.
        rng: A generator for directions and samples.
        output_rounding: What rounding may do to an element of the output.

    Returns:
        The findings, each of a kind and a level. Where two calls at the same inputs differ by more than rounding, or
        an array of the caller is overwritten, what follows from that is not listed as well.
    """
    with np.errstate(all="ignore"):
        base = BaseCall(checkable, dout, at, {name: part.rounding for name, part in gradient.items()})
        base.output_spread = output_rounding
        return _findings(base, dout, at, gradient, rng)


def _findings(
    base: BaseCall, dout: Array, at: Leaves, gradient: Mapping[str, Rounded], rng: np.random.Generator
) -> list[Finding]:
    checkable = base.checkable
    found = call_to_call(base)
    overwriting = [] if base.by_jax else memory.overwriting(base)
    if any(finding.kind in (Behaviour.NOT_REPEATABLE, Behaviour.DRAWS_AGAIN) for finding in found):
        return [*overwriting, *found]
    found = [*overwriting, *found]
    if not base.by_jax:
        if not any(finding.kind is Behaviour.OVERWRITES_DOUT for finding in overwriting):
            found += memory.dout_layouts(base) if checkable.takes_dout else []
        if not any(finding.kind in OVERWRITTEN for finding in overwriting):
            found += memory.input_layouts(base, rng)
            found += _of_state(base, rng)
        found += memory.lends_its_cache(base)
    if checkable.takes_dout:
        values = {name: part.value for name, part in gradient.items() if name in base.names}
        rounding = {name: gradient[name].rounding for name in values}
        above = np.asarray(dout).astype(np.float64) if base.at_double() else base.dout
        allowed = {name: base.allowed_at(name, rounding[name]) for name in values}
        found += nonlinear(checkable, at, above, values, allowed, rounding)
    return found


def _of_state(base: BaseCall, rng: np.random.Generator) -> list[Finding]:
    """What is found by calling twice; of several findings with one cause, the first."""
    found = state.second_backward(base)
    if base.by_torch:
        return found
    found += state.earlier_calls(base)
    if base.stateful:
        return found + staleness.after_an_earlier_call(base, rng)
    found += state.shared_by_class(base)
    if not any(f.kind in (Behaviour.EARLIER_CALL, Behaviour.LATER_CALL, Behaviour.SHARED_BY_CLASS) for f in found):
        found += staleness.after_a_step(base, rng) or staleness.at_mixed_values(base, rng)
        found += state.other_batch_sizes(base, rng)
    return found


def fresh(checkable: Checkable) -> Instance:
    """Returns an instance at copies of the caller's leaves."""
    return checkable.open({name: array.copy() for name, array in checkable.leaves.items()})


def same(array: Any, other: Any) -> bool:
    """Returns whether two arrays are equal to the bit, nan to nan."""
    a, b = np.asarray(array), np.asarray(other)
    if is_floating(a.dtype) and is_floating(b.dtype):
        return bool(np.array_equal(as_double(a), as_double(b), equal_nan=True))
    return bool(np.array_equal(a, b))
