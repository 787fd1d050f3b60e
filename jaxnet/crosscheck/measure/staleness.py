"""Staleness: gradients at values that are no longer there, of a parameter before its step or of an earlier state."""

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
SHARES = (0.3717, 0.6143, 0.8269)  # of the next row in a mixed one
DIRECTIONS = 3  # tried at further values
Move = Callable[[Array], Array]  # the new values of a leaf, from its values in double precision
CONTROLS = 3  # further directions along which a gradient must be right at first: a single one may agree by chance


def after_a_step(base: BaseCall, rng: np.random.Generator) -> list[Finding]:
    """Changes parameters in place after a first call, as an optimizer's step does, and calls again.

    The output must be that of a fresh instance at the new values, and the gradient that of differences of the forward
    pass there. Where there are no parameters, the inputs are changed. What differences alone find must be found at
    further values too: a kink near one point is not near another, and a step may leave the domain of a gradient that
    is right within it, such as the range of a table. Mixed values do not.
    """
    live = base.leaves_of(base.open(base.at))
    moved = [name for name in live if name not in base.inputs] or list(live)
    found = _at_other_values(base, rng, moved, _affine(*STEP))
    if found and found[0].kind is Behaviour.WRONG_AFTER_STEP:
        further = [*(_affine(*step) for step in FURTHER_STEPS), _mixed(SHARES[0])]
        if not all(_wrong_at(base, rng, moved, move) for move in further):
            return []
    return found


def at_mixed_values(base: BaseCall, rng: np.random.Generator) -> list[Finding]:
    """Mixes the values of parameters and inputs in place after a first call, so that masks change, and calls again.

    A mask that is kept for ever from the first call shows at few steps, and at most of such mixtures.
    """
    moved = list(base.leaves_of(base.open(base.at)))
    found = _at_other_values(base, rng, moved, _mixed(SHARES[0]))
    wrong = found[:1] if found and found[0].kind is Behaviour.WRONG_AFTER_STEP else []
    return wrong if wrong and all(_wrong_at(base, rng, moved, _mixed(share)) for share in SHARES[1:]) else []


def _wrong_at(base: BaseCall, rng: np.random.Generator, moved: list[str], move: Move) -> bool:
    found = _at_other_values(base, rng, moved, move, tries=DIRECTIONS)
    return [f.kind for f in found] == [Behaviour.WRONG_AFTER_STEP]


def _affine(factor: float, offset: float) -> Move:
    return lambda values: factor * values + offset


def _mixed(share: float) -> Move:
    """Returns a move of every row towards the next one, which leaves no convex set that all rows lie in.

    Sorted rows stay sorted, and a symmetric matrix symmetric. Arrays of equal rows take the step of `_affine` instead.
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
        return []  # it refuses the new values
    gradient = {n: g - first[n] if n in base.accumulating else g for n, g in gradient.items()}
    if not moved or not np.isfinite(as_double(expected.output)).all() or y.shape != dout.shape:
        return []
    if apart(y, expected.output):
        reaches = not apart(_moved_before_any_call(base, new, moved), expected.output)
        follows = not apart(_moved_after_a_forward(base, new, moved), expected.output)
        return [Finding(Behaviour.STALE_FORWARD, Level.FAULT, ", ".join(moved))] if reaches and not follows else []
    for name in base.names:
        if apart(gradient[name], expected.gradient[name], base.rounding[name]):
            return [Finding(Behaviour.STALE_BACKWARD, Level.FAULT, name, detail=", ".join(moved))]
    name = _inconsistent(base, base.checkable.forward, gradient, new, dout, rng, tries)
    return [Finding(Behaviour.WRONG_AFTER_STEP, Level.FAULT, name, detail=", ".join(moved))] if name else []


def after_an_earlier_call(base: BaseCall, rng: np.random.Generator) -> list[Finding]:
    """Where an earlier call changes the output, the gradient must be that of the changed one, by differences.

    The earlier call is always the same, at other inputs: what it left is a constant of the call that follows.
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
        reaches = not apart(_moved_before_any_call(base, new, moved), base.checkable.forward(new))
    except Exception:
        return []
    if apart(y, call.output) or not reaches or y.shape != dout.shape:
        return []
    name = _inconsistent(base, lambda leaves: later(leaves).forward(), call.gradient, at, dout, rng)
    return [Finding(Behaviour.EARLIER_CALL, Level.FAULT, name, detail="by differences")] if name else []


def _moved_before_any_call(base: BaseCall, new: Leaves, moved: list[str]) -> Array:
    """The output of an instance whose arrays got other values before its first call.

    Where it is not that of the new values, the instance reads arrays that were made from these.
    """
    opened = base.open(base.at)
    for name in moved:
        base.leaves_of(opened)[name][...] = new[name]
    return np.array(opened.forward())


def _moved_after_a_forward(base: BaseCall, new: Leaves, moved: list[str]) -> Array:
    """The output of an instance whose arrays got other values after a forward pass.

    A backward that updates its parameters may put other arrays in their place, which a change of the first ones misses.
    """
    opened = base.open(base.at)
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
    """The leaf whose gradient is not that of the forward pass, though it is for a fresh instance at the first point.

    Along a single random direction a wrong one may agree by chance: `tries` directions are tried.
    """
    try:
        directions = (directions_together(gradient, at, rng) for _ in range(tries))
        together = next((d for d in directions if belongs(forward, gradient, at, dout, d) is False), None)
        if together is None:
            return ""
        control = base.checkable.backward({n: a.copy() for n, a in base.at.items()}, dout)
        if belongs(base.checkable.forward, control, base.at, dout, directions_together(control, base.at, rng)) is False:
            return ""  # wrong at the first point, too
        for name in together:
            d = direction_of(name, at, rng)
            if belongs(forward, gradient, at, dout, d) is not False:
                continue
            controls = [d, *(direction_of(name, base.at, rng) for _ in range(CONTROLS))]
            if all(belongs(base.checkable.forward, control, base.at, dout, other) for other in controls):
                return name
    except Exception:  # it refuses values nearby
        return ""
    return ""


def _is_viewed(base: BaseCall, name: str) -> bool:
    """Whether another array of the object shows the same memory, such as W.T: in a copy it may stand apart."""
    leaf, arrays = base.checkable.leaves[name], floats_in(base.checkable.owner)
    return any(a is not leaf and isinstance(a, np.ndarray) and np.shares_memory(a, leaf) for a in arrays)
