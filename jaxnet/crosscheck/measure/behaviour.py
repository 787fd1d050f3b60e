"""Faults beside the numbers: a right gradient can come from code that goes wrong on its second call.

Everything here runs on copies, in the caller's own dtype, and finds by doing: call, call again, compare.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect import Array, Checkable, Instance, Leaves, is_float
from jaxnet.crosscheck.measure.derivation import Derivation

Rounded = tuple[Array, float]  # a gradient, and what rounding may have done to any element of it
NOT_REPEATABLE = (
    "two forward passes at the same inputs differ, since it draws random numbers that no seed decides: "
    "hold the generator in the layer, or draw from np.random, or fix the mask"
)
COARSE = 1e-6  # values of another call are off by more


def faults(subject: Checkable, dout: Array) -> Iterator[str]:
    """What a correct layer never does, each in a sentence."""
    opened = fresh(subject)
    handed = {name: array.copy() for name, array in opened.handed.items()}
    y = np.asarray(opened.forward())
    yield from (f"forward overwrites {name}" for name in _changed(handed, opened.handed))
    first, given = y.copy(), dout.copy()
    opened.handed = {name: array for name, array in opened.handed.items() if same(array, handed[name])}
    gradient = _kept(opened.backward_as_given(*opened.outputs.unpack(given)))
    if not same(given, dout):
        yield "backward overwrites dout, the array that it is given"
    yield from (f"backward overwrites {name}" for name in _changed(handed, opened.handed))

    try:
        second = _kept(opened.backward(dout.copy()))
        if not _all_same(second, gradient):
            text = "a second backward after the same forward gives another gradient"
            yield f"{text}: it adds to the gradient instead of setting it" if _added(second, gradient) else text
    except Exception as error:
        yield f"a second backward after the same forward raises {type(error).__name__}"

    if not same(np.asarray(fresh(subject).forward()), first):
        yield NOT_REPEATABLE
        return
    later = fresh(subject)
    if _elsewhere(later) and same(np.asarray(later.forward()), first):
        if not _all_same(later.backward(dout.copy()), gradient):
            yield "backward uses values of an earlier call: after forward(A) and forward(B) its gradient is not B's"
        one, two = fresh(subject), fresh(subject)
        one.forward()
        if _elsewhere(two) and not _all_same(one.backward(dout.copy()), gradient):
            yield "backward uses values of another instance's call: what it remembers is shared by the class"


class Later(Checkable):
    """A subject after a call at other inputs, which may change what it computes: the mask drawn next, a state.

    The earlier call is always the same one, from the leaves `at`: what it left is a constant of the call that follows.
    """

    def __init__(self, subject: Checkable, at: Leaves) -> None:
        self.subject, self.leaves, self.takes_dout, self.at = subject, subject.leaves, subject.takes_dout, at

    def open(self, leaves: Leaves) -> Instance:
        """An instance that has been called before."""
        return self.moved(leaves, called=True)

    def moved(self, leaves: Leaves, *, called: bool) -> Instance:
        """An instance at `at`, called or not, whose arrays then get the values of these leaves."""
        own = {name: array.copy() for name, array in self.at.items()}
        opened = self.subject.open(own)
        if called:
            opened.forward_elsewhere()
        for name, array in own.items():
            array[...] = leaves[name]
        return opened

    def movable(self, name: str) -> bool:
        """Whether the instance reads the array that it was opened with, not one made from it: JAX's are made so."""
        leaves = self.at | {name: 1.25 * self.at[name] + 0.125}
        return same(self.moved(leaves, called=False).forward(), self.subject.forward(leaves))


def stale(subject: Checkable, at: Leaves, dout: Array, names: list[str], rng: np.random.Generator) -> Iterator[str]:
    """Where an earlier call changes the output, the gradient must be that of the changed one; by differences.

    Args:
        names: The leaves whose gradient is right without an earlier call: what is wrong anyway says nothing of it.
    """
    try:
        later, first = Later(subject, at), subject.forward(at)
        if same(later.forward(at), first) or not same(later.forward(at), later.forward(at)):
            return
        names = [name for name in names if later.movable(name)]
        witness = Derivation(later, at, dout, names, rng)
    except Exception:
        return  # it refuses the other inputs
    for name in names:
        gap, _ = witness.probe(name, rng.standard_normal(at[name].shape), COARSE)
        if not gap.closed:
            yield f"backward uses values of an earlier call: after a call at other inputs d{name} is not the gradient"
            return


def lends_its_cache(subject: Checkable, dout: Array) -> Iterator[str]:
    """Warnings: an array that it hands out and still needs, so that whoever writes to it changes the next backward."""
    gradient = _gradient(subject, dout)
    opened = fresh(subject)
    y = opened.forward()
    if is_float(y) and y.flags.writeable and not any(np.shares_memory(y, array) for array in opened.handed.values()):
        y[...] = 7.0
        if not _all_same(opened.backward(dout.copy()), gradient):
            yield "forward hands out an array that backward still reads: writing to the output changes the gradient"


def nonlinear(subject: Checkable, at: Leaves, dout: Array, gradient: Mapping[str, Rounded]) -> Iterator[str]:
    """A backward pass is linear in dout, whatever the layer: gradients at multiples of dout are multiples."""
    for factor in (-2.0, 2.0**-20, 2.0**20):  # powers of two: the products are exact
        scaled = subject.backward(at, factor * dout)
        for name, (value, rounding) in gradient.items():
            error = np.abs(scaled[name] / factor - value).max(initial=0)
            if not error <= 8 * rounding:
                if same(np.asarray(scaled[name]), value):
                    yield f"backward ignores dout: d{name} is the same at {factor:g} dout"
                else:
                    yield f"backward is not linear in dout: {factor:g} dout does not give {factor:g} times d{name}"
                return


def misshapen(name: str, leaf: Array, gradient: Any, y: Array) -> str:
    """What is wrong with the form of one leaf's gradient, in a clause; empty where nothing is."""
    if gradient is None:
        return f"backward returns None for {name}, expected an array of shape {leaf.shape}"
    gradient = np.asarray(gradient)
    if not np.issubdtype(gradient.dtype, np.floating):
        return f"the gradient by {name} is {gradient.dtype}, expected {leaf.dtype}"
    if gradient.shape != leaf.shape:
        broadcasts = ", to which it only broadcasts" if _broadcasts(gradient.shape, leaf.shape) else ""
        transposed = ": it is transposed" if gradient.ndim > 1 and gradient.shape == leaf.shape[::-1] else broadcasts
        return f"the gradient by {name} has shape {gradient.shape}, expected {leaf.shape}{transposed}"
    if not np.isfinite(gradient).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(gradient))[0])
        return f"the gradient by {name} is {gradient[where]} at {list(where)}, where the forward pass is finite"
    if gradient.dtype != leaf.dtype and y.dtype == leaf.dtype:
        return f"the gradient by {name} is {gradient.dtype}, though {leaf.dtype} goes in and comes out of forward"
    return ""


def fresh(subject: Checkable) -> Instance:
    """An instance at copies of the caller's leaves."""
    return subject.open({name: array.copy() for name, array in subject.leaves.items()})


def same(one: Any, other: Any) -> bool:
    """Equal to the bit, nan to nan."""
    return bool(np.array_equal(one, other, equal_nan=is_float(np.asarray(one))))


def _gradient(subject: Checkable, dout: Array) -> dict[str, Any]:
    opened = fresh(subject)
    opened.forward()
    return _kept(opened.backward(dout.copy()))


def _elsewhere(opened: Instance) -> bool:
    """A forward pass at other inputs; false where there are none, or it refuses them."""
    try:
        return opened.forward_elsewhere()
    except Exception:
        return False


def _kept(gradient: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value is None else np.array(value) for name, value in gradient.items()}


def _all_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(same(np.asarray(one[name]), np.asarray(other[name])) for name in other if other[name] is not None)


def _added(second: dict[str, Any], gradient: dict[str, Any]) -> bool:
    """Whether what differs is twice what it was, exactly."""
    once = {name: value for name, value in gradient.items() if value is not None}
    return all(same(second[name], value) or same(second[name], 2 * value) for name, value in once.items())


def _changed(before: Leaves, now: Leaves) -> list[str]:
    return [name for name, array in now.items() if not same(array, before[name])]


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, target) == target or shape == (1, *target)
    except ValueError:
        return False
