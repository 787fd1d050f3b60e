"""Measures the jitter of an output and its gradients: how much lost digits make single elements vary."""

from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.dtypes import in_float64
from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves
from jaxnet.crosscheck.measure.leaf_steps import own_scales, scale_of, stepped

# Steps relative to each element's own size at which curvature is negligible against rounding. Where the forward pass
# computes in less than float64, further steps are relative to the step at which its noise was measured.
STEPS = tuple(2.0**-k for k in (52, 48, 44, 40, 38, 36, 34, 33, 32, 31, 30, 29, 28))
COARSE_STEPS = (2.0**-6, 2.0**-4)
# Further steps for elements that none of these changes, because their intermediate values have too few digits.
PLATEAU_STEPS = (2.0**-24, 2.0**-20, 2.0**-16, 2.0**-12, 2.0**-8, 2.0**-6, 2.0**-4)
PLATEAU_DRAWS = 3  # draws of the signs for each of these steps
MAX_CONSTANT_CHANGE = 2.0**-46  # the largest relative change of an element that counts as unchanged
MAX_JUMP = 1e-3  # the largest relative jump between two plateaus; a larger one is a kink


class Values(NamedTuple):
    """An output and its gradients by leaf, or a number for each of their elements."""

    output: Array
    gradient: dict[str, Array]


def measure_jitter(
    checkable: Checkable, at: Leaves, dout: Array, values: Values, rng: np.random.Generator, coarse_step: float | None
) -> Values:
    """Returns the largest second difference of each element, over several small steps.

    Some elements lose far more digits than the others, such as 1 - tanh² where tanh is nearly 1. If an element has so
    few digits left that small steps do not change it, its jitter is its first change at larger steps.

    Args:
        checkable: The code that is checked.
        at: The values of its leaves.
        dout: The upstream gradient.
        values: The output and the gradients at these leaves.
        rng: Draws the signs of the steps.
        coarse_step: The step at which the noise was measured, if the forward pass computes in less than float64.
    """
    output = np.zeros(values.output.shape)
    gradient = {name: np.zeros(at[name].shape) for name in values.gradient}
    constant = {name: np.full(at[name].shape, True) for name in values.gradient}
    coarse_steps = [] if coarse_step is None else [part * coarse_step for part in COARSE_STEPS]
    for step in (*STEPS, *coarse_steps):
        signs = {name: rng.choice([-1.0, 1.0], a.shape) for name, a in at.items()}
        try:
            near, far = (_values_at(checkable, _moved(at, j * step, signs), dout, list(gradient)) for j in (1, 2))
        except Exception:  # the user's code rejects these values: they are outside its domain
            continue
        output = np.fmax(output, np.abs(far.output - 2 * near.output + values.output))
        for name, largest in gradient.items():
            bend = far.gradient[name] - 2 * near.gradient[name] + values.gradient[name]
            gradient[name] = np.fmax(largest, np.abs(bend))
            constant[name] &= _is_unchanged(far.gradient[name], values.gradient[name])
    if any(places.any() for places in constant.values()):
        _add_jumps(checkable, at, dout, values, gradient, constant, rng)
    return Values(output, gradient)


def _add_jumps(
    checkable: Checkable,
    at: Leaves,
    dout: Array,
    values: Values,
    jitter: dict[str, Array],
    constant: dict[str, Array],
    rng: np.random.Generator,
) -> None:
    """Sets the jitter of the elements at these places to their first change at larger steps."""
    unit = np.finfo(np.float64).eps * float(np.abs(dout).max(initial=0))
    for step in np.repeat(PLATEAU_STEPS, PLATEAU_DRAWS):
        signs = {name: rng.choice([-1.0, 1.0], a.shape) for name, a in at.items()}
        try:
            gradient = _values_at(checkable, _moved(at, step, signs), dout, list(jitter)).gradient
        except Exception:  # the user's code rejects these values
            return
        for name, places in constant.items():
            jump = np.abs(gradient[name] - values.gradient[name])
            allowed = np.fmax(MAX_JUMP * np.abs(values.gradient[name]), 8 * unit)
            jitter[name] = np.where(places & (jump <= allowed), np.fmax(jitter[name], jump), jitter[name])
            constant[name] = places & _is_unchanged(gradient[name], values.gradient[name])


def _is_unchanged(value: Array, before: Array) -> Array:
    return np.asarray(np.abs(value - before) <= MAX_CONSTANT_CHANGE * np.abs(before))


def _moved(at: Leaves, step: float, signs: Leaves) -> Leaves:
    """Returns the leaves with every element moved by a multiple of its own size."""
    return {name: stepped(a, step, own_scales(a) * scale_of(a) * signs[name]) for name, a in at.items()}


def _values_at(checkable: Checkable, at: Leaves, dout: Array, names: list[str]) -> Values:
    instance = checkable.open(at)
    output, gradients = in_float64(instance.forward()), instance.backward(dout)
    return Values(output, {name: in_float64(gradients[name]) for name in names})
