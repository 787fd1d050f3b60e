"""Finds stale values: outputs and gradients computed from a parameter before its update, or from an earlier call."""

from collections.abc import Callable, Mapping

import numpy as np

from jaxnet.crosscheck.dtypes import as_double
from jaxnet.crosscheck.inspect.checkable import Array, Instance, Leaves
from jaxnet.crosscheck.inspect.inputs import different_inputs
from jaxnet.crosscheck.inspect.objects import floats_in
from jaxnet.crosscheck.measure.base_call import BaseCall, Call, apart
from jaxnet.crosscheck.measure.coarse_differences import Forward, belongs, direction_of, directions_together
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level

STEP = (1.25, 0.125)  # W *= 1.25; W += 0.125
FURTHER_STEPS = ((1.1417, 0.0631), (0.8723, -0.0417))
SHARES = (0.3717, 0.6143, 0.8269)  # the weights of the next row in a mixed row
DIRECTIONS = 3  # tried at further values
CONTROLS = 3  # further directions along which the first gradient must be right; a single one may agree by chance

Move = Callable[[Array], Array]  # the new values of a leaf, from its values in double precision


def after_a_step(base: BaseCall, rng: np.random.Generator) -> list[Finding]:
    """Changes parameters in place after a first call, as an optimizer's step does, and calls again.

    The output must equal that of a fresh instance at the new values, and the gradient must agree with difference
    quotients there. If there are no parameters, the inputs are changed. An error that only difference quotients show
    must also occur at further values: a kink near one point is not near another, and a step may leave the domain in
    which a gradient is right, such as the range of a table. Mixed values stay in the domain.
    """
    live = base.leaves_of(base.open(base.at))
    moved = [name for name in live if name not in base.inputs] or list(live)
    findings = _at_other_values(base, rng, moved, _affine(*STEP))
    if findings and findings[0].kind is Behaviour.WRONG_AFTER_STEP:
        further = [*(_affine(*step) for step in FURTHER_STEPS), _mixed(SHARES[0])]
        if not all(_wrong_at(base, rng, moved, move) for move in further):
            return []
    return findings


def at_mixed_values(base: BaseCall, rng: np.random.Generator) -> list[Finding]:
    """Mixes the values of parameters and inputs in place after a first call, so that masks change, and calls again.

    A mask that is cached in the first call is rarely wrong after an update, but is wrong at most mixed values.
    """
    moved = list(base.leaves_of(base.open(base.at)))
    findings = _at_other_values(base, rng, moved, _mixed(SHARES[0]))
    wrong = findings[:1] if findings and findings[0].kind is Behaviour.WRONG_AFTER_STEP else []
    return wrong if wrong and all(_wrong_at(base, rng, moved, _mixed(share)) for share in SHARES[1:]) else []


def _wrong_at(base: BaseCall, rng: np.random.Generator, moved: list[str], move: Move) -> bool:
    """Returns whether the gradient is wrong only after this move."""
    findings = _at_other_values(base, rng, moved, move, tries=DIRECTIONS)
    return [f.kind for f in findings] == [Behaviour.WRONG_AFTER_STEP]


def _affine(factor: float, offset: float) -> Move:
    return lambda values: factor * values + offset


def _mixed(share: float) -> Move:
    """Returns a move of every row towards the next one, which stays in every convex set that contains all rows.

    Sorted rows stay sorted, and a symmetric matrix stays symmetric. Arrays of equal rows are moved by `STEP` instead.
    """

    def move(values: Array) -> Array:
        axis = next((axis for axis, length in enumerate(values.shape) if length > 1), None)
        if axis is None or not values.size or np.ptp(values, axis=axis).max() == 0:
            return _affine(*STEP)(values)
        positions = np.arange(values.shape[axis]) + 1
        order = np.minimum(positions, len(positions) - 1) if (np.diff(values, axis=axis) >= 0).all() else positions
        other = np.take(values, order, axis=axis, mode="wrap")
        if values.ndim == 2 and np.array_equal(values, values.T):
            other = np.take(other, order, axis=1, mode="wrap")
        return np.asarray((1 - share) * values + share * other)

    return move


def _at_other_values(
    base: BaseCall, rng: np.random.Generator, names: list[str], move: Move, tries: int = 1
) -> list[Finding]:
    at, dout = base.at, base.dout.astype(np.float64) if base.at_double() else base.dout
    used = base.open(at)
    used.forward()
    first = base.copied(used.backward(dout))
    live = base.leaves_of(used)
    moved = [name for name in names if live[name].flags.writeable and not _is_viewed(base, name)]
    new = at | {name: move(as_double(at[name])).astype(at[name].dtype) for name in moved}
    for name in moved:
        live[name][...] = new[name]
    try:
        y = np.array(used.forward())
        gradient = base.copied(used.backward(dout))
        fresh = base.open(new)
        expected = Call(np.array(fresh.forward()), base.copied(fresh.backward(dout)))
    except Exception:
        return []  # the user's code rejects the new values
    gradient = {n: g - first[n] if n in base.accumulating else g for n, g in gradient.items()}
    if not moved or not np.isfinite(as_double(expected.output)).all() or y.shape != dout.shape:
        return []
    if apart(y, expected.output):
        reaches = not apart(_output_after_move(base, new, moved, after_forward=False), expected.output)
        follows = not apart(_output_after_move(base, new, moved, after_forward=True), expected.output)
        return [Finding(Behaviour.STALE_FORWARD, Level.FAULT, ", ".join(moved))] if reaches and not follows else []
    for name in base.names:
        if apart(gradient[name], expected.gradient[name], base.rounding[name]):
            return [Finding(Behaviour.STALE_BACKWARD, Level.FAULT, name, detail=", ".join(moved))]
    name = _inconsistent(base, base.checkable.forward, gradient, new, dout, rng, tries)
    return [Finding(Behaviour.WRONG_AFTER_STEP, Level.FAULT, name, detail=", ".join(moved))] if name else []


def after_an_earlier_call(base: BaseCall, rng: np.random.Generator) -> list[Finding]:
    """Compares the gradient after an earlier call with difference quotients, if that call changes the output.

    The earlier call is always the same, at other inputs, so its state is a constant of the following call.
    """
    at, dout = base.at, base.dout.astype(np.float64) if base.at_double() else base.dout

    def later(leaves: Leaves) -> Instance:
        opened = base.open(at)
        own = opened.inputs
        opened.inputs = different_inputs(own)
        opened.forward()
        opened.inputs = own
        for name, array in base.leaves_of(opened).items():
            array[...] = leaves[name]
        return opened

    try:
        y = later(at).forward()
        opened = later(at)
        call = base.call(opened, dout)
        moved = list(base.leaves_of(opened))
        new = at | {name: (STEP[0] * as_double(at[name]) + STEP[1]).astype(at[name].dtype) for name in moved}
        reached = _output_after_move(base, new, moved, after_forward=False)
        reaches = not apart(reached, base.checkable.forward(new))
    except Exception:
        return []
    if apart(y, call.output) or not reaches or y.shape != dout.shape:
        return []
    name = _inconsistent(base, lambda leaves: later(leaves).forward(), call.gradient, at, dout, rng)
    return [Finding(Behaviour.EARLIER_CALL, Level.FAULT, name, detail="by differences")] if name else []


def _output_after_move(base: BaseCall, new: Leaves, moved: list[str], *, after_forward: bool) -> Array:
    """Returns the output of an instance whose arrays got other values, before its first call or after a forward pass.

    Before any call, it differs from the output at the new values if the instance reads other arrays, made from these.
    After a forward pass, it equals that output if only backward replaces the arrays, as an update does.
    """
    opened = base.open(base.at)
    if after_forward:
        opened.forward()
    for name in moved:
        base.leaves_of(opened)[name][...] = new[name]
    return np.array(opened.forward())


def _inconsistent(
    base: BaseCall,
    forward: Forward,
    gradient: Mapping[str, Array],
    at: Leaves,
    dout: Array,
    rng: np.random.Generator,
    tries: int = 1,
) -> str:
    """Returns the leaf whose gradient contradicts the forward pass, although that of a fresh instance agrees; else "".

    A wrong gradient may agree along a random direction by chance, so `tries` directions are tried.
    """
    try:
        directions = (directions_together(gradient, at, rng) for _ in range(tries))
        together = next((d for d in directions if belongs(forward, gradient, at, dout, d) is False), None)
        if together is None:
            return ""
        control = base.checkable.backward({n: a.copy() for n, a in base.at.items()}, dout)
        if belongs(base.checkable.forward, control, base.at, dout, directions_together(control, base.at, rng)) is False:
            return ""  # the gradient is wrong at the first point, too
        for name in together:
            d = direction_of(name, at, rng)
            if belongs(forward, gradient, at, dout, d) is not False:
                continue
            controls = [d, *(direction_of(name, base.at, rng) for _ in range(CONTROLS))]
            if all(belongs(base.checkable.forward, control, base.at, dout, other) for other in controls):
                return name
    except Exception:  # the user's code rejects values nearby
        pass
    return ""


def _is_viewed(base: BaseCall, name: str) -> bool:
    """Returns whether another array of the object views the same memory, such as W.T, which a copy may separate."""
    leaf, arrays = base.checkable.leaves[name], floats_in(base.checkable.owner)
    return any(a is not leaf and isinstance(a, np.ndarray) and np.shares_memory(a, leaf) for a in arrays)
