"""Checks behaviour: the faults of code whose gradient may be correct at the first call and wrong at the next.

Every check runs the code on copies: it calls, calls again, and compares. Memory and state are checked in the leaves'
own dtype, linearity at the point where the gradient was measured.
"""

from collections.abc import Mapping

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves
from jaxnet.crosscheck.measure import call_history, memory, staleness
from jaxnet.crosscheck.measure.base_call import BaseCall
from jaxnet.crosscheck.measure.derivation import Measured
from jaxnet.crosscheck.measure.findings import Behaviour, Finding
from jaxnet.crosscheck.measure.linearity import nonlinear
from jaxnet.crosscheck.measure.repeatability import compare_repeated_calls

INPUT_OVERWRITES = (Behaviour.FORWARD_OVERWRITES, Behaviour.BACKWARD_OVERWRITES)


def check_behaviour(
    checkable: Checkable,
    dout: Array,
    at: Leaves,
    gradient: Mapping[str, Measured],
    rng: np.random.Generator,
    output_rounding: float = 0.0,
) -> list[Finding]:
    """Returns faults of the code, and properties that its users should know.

    Args:
        checkable: The code that is checked.
        dout: The upstream gradient, of the output's shape.
        at: The leaves, in float64 or in their own dtype.
        gradient: The gradients at these leaves, by leaf, without those of a wrong form.
        rng: Draws directions and samples.
        output_rounding: The rounding error of an element of the output.

    Returns:
        The findings. If calls at the same inputs differ by more than rounding, or if an array of the caller is
        overwritten, the consequences are not listed as separate findings.
    """
    with np.errstate(all="ignore"):
        base = BaseCall(checkable, dout, at, {name: part.rounding for name, part in gradient.items()})
        base.output_spread = output_rounding
        return _findings(base, dout, at, gradient, rng)


def _findings(
    base: BaseCall, dout: Array, at: Leaves, gradient: Mapping[str, Measured], rng: np.random.Generator
) -> list[Finding]:
    checkable = base.checkable
    repeated = compare_repeated_calls(base)
    overwriting = [] if base.by_jax else memory.overwriting(base)
    findings = [*overwriting, *repeated]
    if any(finding.kind in (Behaviour.NOT_REPEATABLE, Behaviour.DRAWS_AGAIN) for finding in repeated):
        return findings
    if not base.by_jax:
        overwritten = {finding.kind for finding in overwriting}
        if checkable.takes_dout and Behaviour.OVERWRITES_DOUT not in overwritten:
            findings += memory.dout_layouts(base)
        if overwritten.isdisjoint(INPUT_OVERWRITES):
            findings += memory.input_layouts(base, rng)
            state = _state_findings(base, rng)
            if Behaviour.REPLACES_PARAMETER in overwritten:  # this explains why a second backward differs
                state = [finding for finding in state if finding.kind is not Behaviour.SECOND_BACKWARD_DIFFERS]
            findings += state
        findings += memory.lends_its_cache(base)
    if checkable.takes_dout:
        values = {name: part.value for name, part in gradient.items() if name in base.names}
        rounding = {name: gradient[name].rounding for name in values}
        above = np.asarray(dout).astype(np.float64) if base.at_double() else base.dout
        allowed = {name: base.allowed_at(name, rounding[name]) for name in values}
        findings += nonlinear(checkable, at, above, values, allowed, rounding)
    return findings


def _state_findings(base: BaseCall, rng: np.random.Generator) -> list[Finding]:
    """Returns the faults of a second call; if several have the same cause, only the first."""
    findings = call_history.second_backward(base)
    if base.by_torch:  # the function holds no state of its own, but its class may
        return findings + call_history.shared_by_class(base)
    findings += call_history.earlier_calls(base)
    if base.stateful:
        return findings + staleness.after_an_earlier_call(base, rng)
    findings += call_history.shared_by_class(base)
    if not any(f.kind in (Behaviour.EARLIER_CALL, Behaviour.LATER_CALL, Behaviour.SHARED_BY_CLASS) for f in findings):
        findings += staleness.after_a_step(base, rng) or staleness.at_mixed_values(base, rng)
        findings += call_history.other_batch_sizes(base, rng)
    return findings
