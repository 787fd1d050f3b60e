"""Checks that gradients do not depend on earlier calls."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.dtypes import is_float_dtype
from jaxnet.crosscheck.inspect.checkable import Array, Instance
from jaxnet.crosscheck.inspect.errors import describe
from jaxnet.crosscheck.inspect.global_state import preserve_global_state
from jaxnet.crosscheck.inspect.inputs import different_inputs
from jaxnet.crosscheck.measure.base_call import BaseCall, Call, apart, distance
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level

LATER_CALLS = 3  # the number of calls after one at other inputs
OTHER_DOUT_FACTOR = -0.75  # the factor of dout in a call at other inputs


class Returned(NamedTuple):
    """An array that a call returned, a copy of it, and the leaf whose gradient it is ("" for an output)."""

    array: Array
    copy: Array
    leaf: str


def second_backward(base: BaseCall) -> list[Finding]:
    """Runs backward twice after the same forward pass."""
    notes = [Finding(Behaviour.ADDS_UP, Level.NOTE, name) for name in base.checkable.accumulating if name in base.names]
    opened = base.open()
    opened.forward()
    with preserve_global_state():  # the second backward draws the same numbers
        first = base.copied(opened.backward(base.dout))
    try:
        second = base.copied(opened.backward(base.dout))
    except Exception as error:
        return [*notes, Finding(Behaviour.RUNS_ONCE, Level.NOTE, detail=describe(error))]
    differing = base.differing(second, first)
    twice = {name: np.asarray(2 * first[name]) for name in differing}
    if differing and not any(distance(second.get(n), twice[n]) > 2 * base.allowed(n) for n in differing):
        base.accumulating = set(differing)
        # The gradient of an input is a return value, so the caller receives the sum over all calls.
        inputs = set(base.inputs)
        added = [Finding(Behaviour.ADDS_UP, Level.FAULT if n in inputs else Level.NOTE, n) for n in differing]
        return notes + added
    # Most callers run backward once after each forward, and a layer may modify its cache. PyTorch promises the same
    # gradient for each backward pass through a graph that is retained, as for a Jacobian.
    level = Level.FAULT if base.by_torch else Level.WARNING
    others = [Finding(Behaviour.SECOND_BACKWARD_DIFFERS, level, n, gap) for n, gap in differing.items()]
    return notes + others[:1]


def earlier_calls(base: BaseCall) -> list[Finding]:
    """Calls one instance at other inputs, then repeatedly at the given ones, and compares with the base call.

    The arrays that the first call returned must keep their values. If the earlier call changes the output, as a
    running mean does, `base.stateful` is set and gradients are not compared.
    """
    opened = base.open()
    findings: list[Finding] = []
    before: Call | None = None
    returned: list[Returned] = []
    own = opened.inputs
    try:
        opened.inputs = different_inputs(own)
        before, returned = _call_elsewhere(base, opened)
    except Exception:
        opened = base.open()  # the user's code rejects the other inputs
        own = opened.inputs
    opened.inputs = own
    for number in range(2, 2 + LATER_CALLS):
        try:
            output = np.array(opened.forward())
            if not base.same_output(output):
                base.stateful = True
                return [*findings, *(_overwritten(returned) if number == 2 else [])]
            call = Call(output, base.copied(opened.backward(base.dout)))
        except Exception as error:
            return [*findings, Finding(Behaviour.LATER_CALL, Level.WARNING, size=number, detail=describe(error))]
        if number == 2:
            findings += _overwritten(returned)
        gradient = _increments(base, call, before)
        if differing := base.differing(gradient):
            kind = Behaviour.EARLIER_CALL if number == 2 and before is not None else Behaviour.LATER_CALL
            return [*findings, Finding(kind, Level.FAULT, next(iter(differing)), number)]
        before = call
    return findings


def shared_by_class(base: BaseCall) -> list[Finding]:
    """Runs a forward pass of another instance between the forward and the backward pass of the first one."""
    instance, other = base.open(), base.open()
    instance.forward()
    try:
        other.forward_at_different_inputs()
    except Exception:
        return []
    try:
        gradient = base.copied(instance.backward(base.dout))
    except Exception:
        return [Finding(Behaviour.SHARED_BY_CLASS, Level.FAULT)]
    return [Finding(Behaviour.SHARED_BY_CLASS, Level.FAULT, n) for n in list(base.differing(gradient))[:1]]


def other_batch_sizes(base: BaseCall, rng: np.random.Generator) -> list[Finding]:
    """Calls one instance with a larger batch, with the original one, and with the larger one again."""
    opened = base.open()
    own = opened.inputs
    larger = enlarged(own)
    if larger is None:
        return []
    opened.inputs = copy.deepcopy(larger)
    try:
        y = np.array(opened.forward())
        dout = base.dout
        if y.shape != dout.shape:
            dout = np.asarray(rng.standard_normal(y.shape)).astype(y.dtype)
        first = Call(y, _all_copied(opened.backward(dout)))
    except Exception:
        return []  # the user's code supports only this size
    try:
        opened.inputs = own
        between = base.call(opened)
        opened.inputs = copy.deepcopy(larger)
        again = Call(np.array(opened.forward()), _all_copied(opened.backward(dout)))
    except Exception as error:
        return [Finding(Behaviour.ONE_BATCH_SIZE, Level.WARNING, detail=describe(error))]
    names = [name for name in base.names if name not in base.accumulating]
    if not base.same_output(between.output):
        return [Finding(Behaviour.OTHER_BATCH_SIZE, Level.FAULT, detail="forward")]
    if differing := [name for name in base.differing(between.gradient) if name in names]:
        return [Finding(Behaviour.OTHER_BATCH_SIZE, Level.FAULT, differing[0], detail="backward")]
    for name in names:
        if first.gradient.get(name) is not None and apart(again.gradient.get(name), first.gradient[name]):
            return [Finding(Behaviour.OTHER_BATCH_SIZE, Level.FAULT, name, detail="backward")]
    return []


def enlarged(inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Returns inputs of twice the batch size, or None if no input has a batch axis.

    All arrays that are as long as the first one are enlarged. Their second half is the first half in another order.
    """
    arrays = [a for a in inputs if isinstance(a, np.ndarray) and a.ndim and a.size]
    if not arrays:
        return None
    length = len(arrays[0])
    other = different_inputs(inputs)
    return tuple(
        np.concatenate([a, b]) if isinstance(a, np.ndarray) and a.ndim and len(a) == length else copy.deepcopy(a)
        for a, b in zip(inputs, other, strict=True)
    )


def _call_elsewhere(base: BaseCall, opened: Instance) -> tuple[Call, list[Returned]]:
    """Returns the call at other inputs, and the arrays that it returned: outputs and gradients of inputs."""
    y = opened.forward()
    outputs = [Returned(array, array.copy(), "") for array in opened.outputs.arrays]
    dout = base.dout
    if base.checkable.takes_dout:
        dout = (OTHER_DOUT_FACTOR * dout).astype(dout.dtype) if y.shape == dout.shape else np.ones_like(y)
    gradient = opened.backward(dout)
    by_input = {name: gradient[name] for name in base.inputs if isinstance(gradient.get(name), np.ndarray)}
    gradients = [Returned(array, array.copy(), name) for name, array in by_input.items()]
    return Call(np.array(y), base.copied(gradient)), outputs + gradients


def _overwritten(returned: list[Returned]) -> list[Finding]:
    """Returns a finding for each array that a later call has changed."""
    return [
        Finding(Behaviour.REUSES_GRADIENT if part.leaf else Behaviour.REUSES_OUTPUT, Level.FAULT, part.leaf)
        for part in returned
        if distance(part.array, part.copy) > 0
    ]


def _increments(base: BaseCall, call: Call, before: Call | None) -> Mapping[str, Array]:
    """Returns the gradient of one call, if each backward pass adds to the gradient of the previous one."""
    if before is None or not base.accumulating:
        return call.gradient
    return {n: g - before.gradient[n] if n in base.accumulating else g for n, g in call.gradient.items()}


def _all_copied(gradient: Mapping[str, Any]) -> dict[str, Array]:
    floats = {name: np.array(value) for name, value in gradient.items() if value is not None}
    return {name: value for name, value in floats.items() if is_float_dtype(value.dtype)}
