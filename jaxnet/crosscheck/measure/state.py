"""State: calls that follow other calls. A right gradient does not depend on what was called before."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array, Instance, Leaves, elsewhere
from jaxnet.crosscheck.measure.consistency import belongs, direction_of, directions_together
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.form import as_double, is_floating
from jaxnet.crosscheck.measure.repeats import generators_restored
from jaxnet.crosscheck.measure.trial import Call, Trial, distance

CALLS = 3  # after one at other inputs: the second, the third and the fourth
OF_OTHER_CALL = -0.75  # times dout, for a call at other inputs
COARSE = 1e-6  # values of another call are off by more


class Lent(NamedTuple):
    """An array as a call returned it, a copy of what it held then, and the leaf whose gradient it is, if any."""

    array: Array
    copy: Array
    leaf: str


def second_backward(trial: Trial) -> list[Finding]:
    """Runs backward a second time after the same forward pass."""
    opened = trial.open()
    opened.forward()
    with generators_restored():
        first = trial.copied(opened.backward(trial.dout))
    try:
        second = trial.copied(opened.backward(trial.dout))
    except Exception as error:
        return [Finding(Behaviour.RUNS_ONCE, Level.NOTE, detail=f"{type(error).__name__}: {error}")]
    differing = trial.differing(second, first)
    twice = {name: np.asarray(2 * first[name]) for name in differing}
    if differing and not any(distance(second.get(n), twice[n]) > 2 * trial.allowed(n) for n in differing):
        trial.accumulating = set(differing)
        return [Finding(Behaviour.ADDS_UP, Level.NOTE, name) for name in differing]
    return [Finding(Behaviour.SECOND_BACKWARD_DIFFERS, Level.FAULT, n, gap) for n, gap in list(differing.items())[:1]]


def earlier_calls(trial: Trial) -> list[Finding]:
    """Calls one instance at other inputs, then again and again at the same: the gradient must be that of the base call.

    The arrays that the first call returned must keep their values. Where the earlier call changes the output, as a
    running mean does, `trial.stateful` is set and nothing is compared.
    """
    opened = trial.open()
    found: list[Finding] = []
    before: Call | None = None
    lent: list[Lent] = []
    own = opened.inputs
    try:
        opened.inputs = elsewhere(own)
        before, lent = _call_elsewhere(trial, opened)
    except Exception:
        opened = trial.open()  # it refuses the other inputs
        own = opened.inputs
    opened.inputs = own
    for number in range(2, 2 + CALLS):
        try:
            with generators_restored():
                call = trial.call(opened)
        except Exception as error:
            detail = f"{type(error).__name__}: {error}"
            return [*found, Finding(Behaviour.LATER_CALL, Level.FAULT, size=number, detail=detail)]
        if number == 2:
            found += _changed_since(lent)
        if not trial.same_output(call.output):
            trial.stateful = True
            return found
        set_apart = _increments(trial, call, before)
        if differing := trial.differing(set_apart):
            kind = Behaviour.EARLIER_CALL if number == 2 and before is not None else Behaviour.LATER_CALL
            return [*found, Finding(kind, Level.FAULT, next(iter(differing)), number)]
        before = call
    return found


def shared_by_class(trial: Trial) -> list[Finding]:
    """Runs a forward pass of another instance between the forward and the backward pass of one."""
    one, other = trial.open(), trial.open()
    one.forward()
    try:
        other.inputs = elsewhere(other.inputs)
        other.forward()
    except Exception:
        return []
    try:
        gradient = trial.copied(one.backward(trial.dout))
    except Exception:
        return [Finding(Behaviour.SHARED_BY_CLASS, Level.FAULT)]
    return [Finding(Behaviour.SHARED_BY_CLASS, Level.FAULT, n) for n in list(trial.differing(gradient))[:1]]


def after_a_step(trial: Trial, rng: np.random.Generator) -> list[Finding]:
    """Changes parameters in place after a first call, as an optimizer's step does, and calls again.

    The output must be that of a fresh instance at the new values, and the gradient that of differences of the forward
    pass there. Where there are no parameters, the inputs are changed.
    """
    at, dout = trial.at, trial.dout.astype(np.float64) if trial.at_double() else trial.dout
    used = trial.open(at)
    used.forward()
    first = trial.copied(used.backward(dout))
    live = trial.leaves_of(used)
    moved = [name for name in live if name not in trial.inputs] or list(live)
    moved = [name for name in moved if live[name].flags.writeable]
    new = at | {name: (1.25 * as_double(at[name]) + 0.125).astype(at[name].dtype) for name in moved}
    for name in moved:
        live[name][...] = new[name]
    try:
        y = np.array(used.forward())
        gradient = trial.copied(used.backward(dout))
        fresh = trial.open(new)
        expected = Call(np.array(fresh.forward()), trial.copied(fresh.backward(dout)))
    except Exception:
        return []  # it refuses the new values
    gradient = {n: g - first[n] if n in trial.accumulating else g for n, g in gradient.items()}
    if not moved or not np.isfinite(as_double(expected.output)).all() or y.shape != dout.shape:
        return []
    if _apart(y, expected.output):
        reaches = not _apart(_moved_before_any_call(trial, new, moved), expected.output)
        return [Finding(Behaviour.STALE_FORWARD, Level.FAULT, ", ".join(moved))] if reaches else []
    for name in trial.names:
        if _apart(gradient[name], expected.gradient[name], trial.rounding[name]):
            return [Finding(Behaviour.STALE_BACKWARD, Level.FAULT, name, detail=", ".join(moved))]
    name = _inconsistent(trial, trial.checkable.forward, gradient, new, dout, rng)
    return [Finding(Behaviour.WRONG_AFTER_STEP, Level.FAULT, name, detail=", ".join(moved))] if name else []


def after_an_earlier_call(trial: Trial, rng: np.random.Generator) -> list[Finding]:
    """Where an earlier call changes the output, the gradient must be that of the changed one, by differences.

    The earlier call is always the same, at other inputs: what it left is a constant of the call that follows.
    """
    at, dout = trial.at, trial.dout.astype(np.float64) if trial.at_double() else trial.dout

    def later(leaves: Leaves) -> Instance:
        opened = trial.open(at)
        own = opened.inputs
        opened.inputs = elsewhere(own)
        opened.forward()
        opened.inputs = own
        for name, array in trial.leaves_of(opened).items():
            array[...] = leaves[name]
        return opened

    try:
        y = later(at).forward()
        opened = later(at)
        call = trial.call(opened, dout)
        moved = list(trial.leaves_of(opened))
        new = at | {name: (1.25 * as_double(at[name]) + 0.125).astype(at[name].dtype) for name in moved}
        reaches = not _apart(_moved_before_any_call(trial, new, moved), trial.checkable.forward(new))
    except Exception:
        return []
    if _apart(y, call.output) or not reaches:
        return []
    name = _inconsistent(trial, lambda leaves: later(leaves).forward(), call.gradient, at, dout, rng)
    return [Finding(Behaviour.EARLIER_CALL, Level.FAULT, name, detail="by differences")] if name else []


def other_batch_sizes(trial: Trial, rng: np.random.Generator) -> list[Finding]:
    """Calls one instance with a larger batch, with the original one, and with the larger one again."""
    opened = trial.open()
    own = opened.inputs
    larger = enlarged(own)
    if larger is None:
        return []
    opened.inputs = copy.deepcopy(larger)
    try:
        y = np.array(opened.forward())
        dout = trial.dout
        if y.shape != dout.shape:
            dout = np.asarray(rng.standard_normal(y.shape)).astype(y.dtype)
        first = Call(y, _all_copied(opened.backward(dout)))
    except Exception:
        return []  # it takes this size only
    try:
        opened.inputs = own
        between = trial.call(opened)
        opened.inputs = copy.deepcopy(larger)
        again = Call(np.array(opened.forward()), _all_copied(opened.backward(dout)))
    except Exception as error:
        return [Finding(Behaviour.ONE_BATCH_SIZE, Level.WARNING, detail=f"{type(error).__name__}: {error}")]
    names = [name for name in trial.names if name not in trial.accumulating]
    if not trial.same_output(between.output):
        return [Finding(Behaviour.OTHER_BATCH_SIZE, Level.FAULT, detail="forward")]
    if differing := [name for name in trial.differing(between.gradient) if name in names]:
        return [Finding(Behaviour.OTHER_BATCH_SIZE, Level.FAULT, differing[0], detail="backward")]
    for name in names:
        if first.gradient.get(name) is not None and _apart(again.gradient.get(name), first.gradient[name]):
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
    other = elsewhere(inputs)
    return tuple(
        np.concatenate([a, b]) if isinstance(a, np.ndarray) and a.ndim and len(a) == length else copy.deepcopy(a)
        for a, b in zip(inputs, other, strict=True)
    )


def _call_elsewhere(trial: Trial, opened: Instance) -> tuple[Call, list[Lent]]:
    """The call at other inputs, and the very arrays that it returned: the output, and the gradients by inputs."""
    y = opened.forward()
    arrays = [a for a in getattr(opened.outputs, "arrays", None) or [y] if isinstance(a, np.ndarray)]
    lent = [Lent(array, array.copy(), "") for array in arrays]
    dout = trial.dout
    if trial.checkable.takes_dout:
        dout = (OF_OTHER_CALL * dout).astype(dout.dtype) if y.shape == dout.shape else np.ones_like(y)
    returned = opened.backward(dout)
    own = getattr(trial.checkable, "returned", trial.inputs)
    gradients = {n: returned[n] for n in trial.inputs if n in own and isinstance(returned.get(n), np.ndarray)}
    lent += [Lent(array, array.copy(), name) for name, array in gradients.items()]
    return Call(np.array(y), trial.copied(returned)), lent


def _changed_since(lent: list[Lent]) -> list[Finding]:
    """Which of the arrays that an earlier call returned are others since."""
    return [
        Finding(Behaviour.REUSES_GRADIENT if part.leaf else Behaviour.REUSES_OUTPUT, Level.FAULT, part.leaf)
        for part in lent
        if distance(part.array, part.copy) > 0
    ]


def _increments(trial: Trial, call: Call, before: Call | None) -> Mapping[str, Array]:
    """The gradient of one call alone, where a backward adds to what it finds."""
    if before is None or not trial.accumulating:
        return call.gradient
    return {n: g - before.gradient[n] if n in trial.accumulating else g for n, g in call.gradient.items()}


def _moved_before_any_call(trial: Trial, new: Leaves, moved: list[str]) -> Array:
    """The output of an instance whose arrays got other values before its first call.

    Where it is not that of the new values, the instance reads arrays that were made from these.
    """
    opened = trial.open(trial.at)
    for name in moved:
        trial.leaves_of(opened)[name][...] = new[name]
    return np.array(opened.forward())


def _inconsistent(
    trial: Trial, forward: Any, gradient: Mapping[str, Array], at: Leaves, dout: Array, rng: np.random.Generator
) -> str:
    """The leaf whose gradient is not that of the forward pass, though it is for a fresh instance at the first point."""
    together = directions_together(gradient, at, rng)
    if belongs(forward, gradient, at, dout, together) is not False:
        return ""
    control = trial.checkable.backward({n: a.copy() for n, a in trial.at.items()}, dout)
    for name in together:
        d = direction_of(name, at, rng)
        wrong = belongs(forward, gradient, at, dout, d) is False
        if wrong and belongs(trial.checkable.forward, control, trial.at, dout, d):
            return name
    return ""


def _apart(value: Any, other: Any, rounding: float = 0.0) -> bool:
    """Whether two results differ by more than any rounding: those of another call do."""
    if value is None or other is None or np.shape(value) != np.shape(other):
        return (value is None) != (other is None) or np.shape(value) != np.shape(other)
    coarse = COARSE if np.asarray(other).dtype.itemsize >= 8 else 1e3 * COARSE
    size = float(np.abs(as_double(np.asarray(other))).max(initial=0))
    return distance(value, other) > coarse * size + 1e2 * rounding


def _all_copied(gradient: Mapping[str, Any]) -> dict[str, Array]:
    floats = {name: np.array(value) for name, value in gradient.items() if value is not None}
    return {name: value for name, value in floats.items() if is_floating(value.dtype)}
