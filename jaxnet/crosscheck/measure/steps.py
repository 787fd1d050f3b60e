"""The V: how far a gradient and its difference quotient lie apart, for every step size.

To the right of the V's foot the error is truncation and falls with h²; to the left it is roundoff and grows with 1/h.
A right gradient has its foot at rounding; a wrong one has a floor across, at the height of its error.
"""

from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.inspect import Array, Checkable, surroundings_kept
from jaxnet.crosscheck.measure import behaviour
from jaxnet.crosscheck.measure.derivation import Derivation, scale_of

POWERS = np.arange(-1, -46, -1)


class StepErrors(NamedTuple):
    """Of one leaf, along one random direction."""

    step: Array  # relative to the size of the leaf
    error: Array  # of the central difference at each step, relative to the gradient's norm

    @property
    def floor(self) -> float:
        """The least error, as the median of five neighbours: roundoff may hit any number once."""
        return float(np.median(np.lib.stride_tricks.sliding_window_view(self.error, 5), axis=1).min())


@surroundings_kept()
def step_errors(subject: Checkable, seed: int = 0) -> dict[str, StepErrors]:
    """For each leaf with a gradient of its own shape: |D(h) - <g, d>| / |g| at h = 1/2, 1/4, ... of the leaf's size.

    D(h) = (phi(h) - phi(-h)) / 2h, with phi(h) = <dout, forward> as the leaf moves by h along d, in float64.
    """
    rng = np.random.default_rng(seed)
    y = behaviour.fresh(subject).forward()
    dout = np.asarray(rng.standard_normal(y.shape) if subject.takes_dout and y.ndim else np.ones_like(y), np.float64)
    at = {name: array.astype(np.float64) for name, array in subject.leaves.items()}
    gradients = subject.backward(at, dout)
    sound = [n for n, g in gradients.items() if not behaviour.misshapen(n, at[n], g, dout)]
    witness, steps, found = Derivation(subject, at, dout, sound, rng), 2.0**POWERS, {}
    for name in sound:
        d = rng.standard_normal(at[name].shape)
        phi, scale = witness.along(name, scale_of(at[name]) * d), scale_of(at[name])
        quotients = np.array([(phi(h) - phi(-h)) / (2 * h * scale) for h in steps])
        claimed = float(np.vdot(witness.gradient[name].value, d))
        found[name] = StepErrors(steps, np.abs(quotients - claimed) / (witness.size(name) or 1.0))
    return found
