"""Measures the jitter of an output and its gradients: how much lost digits make single elements vary."""

from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.dtypes import in_float64
from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves
from jaxnet.crosscheck.measure.leaf_steps import own_scales, scale_of, stepped

# Steps relative to each element's own size at which curvature is negligible against rounding. Where the forward pass
# computes in less than float64, further steps are relative to the step at which its noise was measured.
STEPS = (2.0**-52, 2.0**-44, 2.0**-36, 2.0**-28)
COARSE_STEPS = (2.0**-6, 2.0**-4)


class Values(NamedTuple):
    """An output and its gradients by leaf, or a number for each of their elements."""

    output: Array
    gradient: dict[str, Array]


def measure_jitter(
    checkable: Checkable, at: Leaves, dout: Array, values: Values, rng: np.random.Generator, coarse_step: float | None
) -> Values:
    """Returns the largest second difference of each element, over several small steps.

    Some elements lose far more digits than the others, such as 1 - tanh² where tanh is nearly 1.

    Args:
        checkable: The code that is checked.
        at: The values of its leaves.
        dout: The gradient from above.
        values: The output and the gradients at these leaves.
        rng: Draws the signs of the steps.
        coarse_step: The step at which the noise was measured, if the forward pass computes in less than float64.
    """
    output = np.zeros(values.output.shape)
    gradient = {name: np.zeros(at[name].shape) for name in values.gradient}
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
    return Values(output, gradient)


def _moved(at: Leaves, step: float, signs: Leaves) -> Leaves:
    """Returns the leaves with every element moved by a multiple of its own size."""
    return {name: stepped(a, step, own_scales(a) * scale_of(a) * signs[name]) for name, a in at.items()}


def _values_at(checkable: Checkable, at: Leaves, dout: Array, names: list[str]) -> Values:
    instance = checkable.open(at)
    output, gradients = in_float64(instance.forward()), instance.backward(dout)
    return Values(output, {name: in_float64(gradients[name]) for name in names})
