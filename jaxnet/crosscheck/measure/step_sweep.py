"""Measures the difference between a gradient and its difference quotient for every step size: the V-shaped curve.

At large steps the error is truncation, which falls with h²; at small steps it is roundoff, which grows with 1/h. For a
correct gradient the minimum is at rounding level. For a wrong one the curve is flat at the height of its error.
"""

from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.dtypes import in_float64
from jaxnet.crosscheck.inspect.checkable import Array, Checkable
from jaxnet.crosscheck.inspect.global_state import preserve_global_state
from jaxnet.crosscheck.measure.derivation import Derivation
from jaxnet.crosscheck.measure.gradient_form import misshapen
from jaxnet.crosscheck.streams import Stream, stream

STEP_EXPONENTS = np.arange(-1, -46, -1)
LARGE_STEPS = 5  # from half of a leaf's size down: the truncation error falls to 1/256
NO_TRUNCATION = 1e-9  # far above roundoff at large steps in float64


class StepErrors(NamedTuple):
    """The errors of one leaf's difference quotients along a random direction."""

    step: Array  # relative to the size of the leaf
    error: Array  # of the central difference at each step, relative to the gradient's norm

    @property
    def floor(self) -> float:
        """The least median of five neighbouring errors; a single error may be small by chance."""
        return float(np.median(np.lib.stride_tricks.sliding_window_view(self.error, 5), axis=1).min())

    @property
    def linear(self) -> bool:
        """Whether the error is the same at all large steps: a linear function has no truncation error."""
        return bool(np.ptp(self.error[:LARGE_STEPS]) < NO_TRUNCATION)


@preserve_global_state()
def step_errors(checkable: Checkable, seed: int = 0) -> dict[str, StepErrors]:
    """Returns |D(h) - <g, d>| / |g| for each leaf whose gradient has its shape, at h = 1/2, 1/4, ... of its size.

    D(h) = (phi(h) - phi(-h)) / 2h, with phi(h) = <dout, forward> as the leaf moves by h along d, in float64.
    """
    rng = stream(Stream.DIRECTIONS, seed)
    y = checkable.open({name: array.copy() for name, array in checkable.leaves.items()}).forward()
    dout = np.asarray(rng.standard_normal(y.shape) if checkable.takes_dout and y.ndim else np.ones_like(y), np.float64)
    at = {name: in_float64(array) for name, array in checkable.leaves.items()}
    gradients = checkable.backward(at, dout)
    names = [n for n, leaf in at.items() if leaf.size and not misshapen(n, leaf, gradients.get(n))]
    derivation, steps, errors = Derivation(checkable, at, dout, names, rng), 2.0**STEP_EXPONENTS, {}
    for name in names:
        d = rng.standard_normal(at[name].shape)
        phi = derivation.phi(name, d)
        quotients = np.array([(phi(h) - phi(-h)) / (2 * h) for h in steps])
        G = derivation.scaled_gradient(name)
        errors[name] = StepErrors(steps, np.abs(quotients - float(np.vdot(G, d))) / (float(np.linalg.norm(G)) or 1.0))
    return errors
