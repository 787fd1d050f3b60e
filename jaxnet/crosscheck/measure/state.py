"""State: calls that follow other calls. A right gradient does not depend on what was called before."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array, Instance
from jaxnet.crosscheck.inspect.inputs import different_inputs
from jaxnet.crosscheck.measure.base_call import BaseCall, Call, apart, distance
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.form import is_floating
from jaxnet.crosscheck.measure.repeats import generators_restored

CALLS = 3  # after one at other inputs: the second, the third and the fourth
OF_OTHER_CALL = -0.75  # times dout, for a call at other inputs


class Lent(NamedTuple):
    """An array as a call returned it, a copy of what it held then, and the leaf whose gradient it is, if any."""

    array: Array
    copy: Array
    leaf: str


def second_backward(base: BaseCall) -> list[Finding]:
    """Runs backward a second time after the same forward pass."""
    found = [Finding(Behaviour.ADDS_UP, Level.NOTE, name) for name in base.checkable.accumulating if name in base.names]
    opened = base.open()
    opened.forward()
    with generators_restored():
        first = base.copied(opened.backward(base.dout))
    try:
        second = base.copied(opened.backward(base.dout))
    except Exception as error:
        return [*found, Finding(Behaviour.RUNS_ONCE, Level.NOTE, detail=f"{type(error).__name__}: {error}")]
    differing = base.differing(second, first)
    twice = {name: np.asarray(2 * first[name]) for name in differing}
    if differing and not any(distance(second.get(n), twice[n]) > 2 * base.allowed(n) for n in differing):
        base.accumulating = set(differing)
        # A gradient by an input is returned: what the caller gets is then the sum of all calls.
        inputs = set(base.inputs)
        added = [Finding(Behaviour.ADDS_UP, Level.FAULT if n in inputs else Level.NOTE, n) for n in differing]
        return found + added
    # Most callers run backward once after each forward, and a layer may use up what it keeps.
    others = [Finding(Behaviour.SECOND_BACKWARD_DIFFERS, Level.WARNING, n, gap) for n, gap in differing.items()]
    return found + others[:1]


def earlier_calls(base: BaseCall) -> list[Finding]:
    """Calls one instance at other inputs, then again and again at the same: the gradient must be that of the base call.

    The arrays that the first call returned must keep their values. Where the earlier call changes the output, as a
    running mean does, `base.stateful` is set and nothing is compared.
    """
    opened = base.open()
    found: list[Finding] = []
    before: Call | None = None
    lent: list[Lent] = []
    own = opened.inputs
    try:
        opened.inputs = different_inputs(own)
        before, lent = _call_elsewhere(base, opened)
    except Exception:
        opened = base.open()  # it refuses the other inputs
        own = opened.inputs
    opened.inputs = own
    for number in range(2, 2 + CALLS):
        try:
            output = np.array(opened.forward())
            if not base.same_output(output):
                base.stateful = True
                return [*found, *(_changed_since(lent) if number == 2 else [])]
            call = Call(output, base.copied(opened.backward(base.dout)))
        except Exception as error:
            detail = f"{type(error).__name__}: {error}"
            return [*found, Finding(Behaviour.LATER_CALL, Level.WARNING, size=number, detail=detail)]
        if number == 2:
            found += _changed_since(lent)
        gradient = _increments(base, call, before)
        if differing := base.differing(gradient):
            kind = Behaviour.EARLIER_CALL if number == 2 and before is not None else Behaviour.LATER_CALL
            return [*found, Finding(kind, Level.FAULT, next(iter(differing)), number)]
        before = call
    return found


def shared_by_class(base: BaseCall) -> list[Finding]:
    """Runs a forward pass of another instance between the forward and the backward pass of one."""
    instance, other = base.open(), base.open()
    instance.forward()
    try:
        other.inputs = different_inputs(other.inputs)
        other.forward()
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
        return []  # it takes this size only
    try:
        opened.inputs = own
        between = base.call(opened)
        opened.inputs = copy.deepcopy(larger)
        again = Call(np.array(opened.forward()), _all_copied(opened.backward(dout)))
    except Exception as error:
        return [Finding(Behaviour.ONE_BATCH_SIZE, Level.WARNING, detail=f"{type(error).__name__}: {error}")]
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
    """Returns inputs of twice the batch size, or None where no input has an axis for the batch.

    All arrays count that are as long as the first one. Their second half is their first one in another order.
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


def _call_elsewhere(base: BaseCall, opened: Instance) -> tuple[Call, list[Lent]]:
    """The call at other inputs, and the very arrays that it returned: the output, and the gradients by inputs."""
    y = opened.forward()
    arrays = [a for a in getattr(opened.outputs, "arrays", None) or [y] if isinstance(a, np.ndarray)]
    lent = [Lent(array, array.copy(), "") for array in arrays]
    dout = base.dout
    if base.checkable.takes_dout:
        dout = (OF_OTHER_CALL * dout).astype(dout.dtype) if y.shape == dout.shape else np.ones_like(y)
    returned = opened.backward(dout)
    own = getattr(base.checkable, "returned", base.inputs)
    gradients = {n: returned[n] for n in base.inputs if n in own and isinstance(returned.get(n), np.ndarray)}
    lent += [Lent(array, array.copy(), name) for name, array in gradients.items()]
    return Call(np.array(y), base.copied(returned)), lent


def _changed_since(lent: list[Lent]) -> list[Finding]:
    """Which of the arrays that an earlier call returned are others since."""
    return [
        Finding(Behaviour.REUSES_GRADIENT if part.leaf else Behaviour.REUSES_OUTPUT, Level.FAULT, part.leaf)
        for part in lent
        if distance(part.array, part.copy) > 0
    ]


def _increments(base: BaseCall, call: Call, before: Call | None) -> Mapping[str, Array]:
    """The gradient of one call alone, where a backward adds to what it finds."""
    if before is None or not base.accumulating:
        return call.gradient
    return {n: g - before.gradient[n] if n in base.accumulating else g for n, g in call.gradient.items()}


def _all_copied(gradient: Mapping[str, Any]) -> dict[str, Array]:
    floats = {name: np.array(value) for name, value in gradient.items() if value is not None}
    return {name: value for name, value in floats.items() if is_floating(value.dtype)}
