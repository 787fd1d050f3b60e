"""Defines functions of one array x with known noise, kinks and curvature."""

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Checkable, Instance
from jaxnet.crosscheck.measure.derivation import Derivation
from jaxnet.crosscheck.streams import Stream, stream


class Synthetic(Checkable):
    """A checkable y = f(x), with a gradient (dout, x) -> dx that may be wrong."""

    def __init__(self, f, gradient, x):
        self.name, self.f, self.gradient, self.leaves = "synthetic", f, gradient, {"x": x}
        self.calls = 0

    def open(self, leaves):
        x = leaves["x"]

        def forward(x):
            self.calls += 1
            return self.f(x)

        return Instance(forward, lambda dout: {"x": self.gradient(dout, x)}, (x,), {"x": x})


def derivation_of(f, gradient, x, seed=0):
    """Returns the derivation of a synthetic function at x, with a dout that does not depend on x."""
    checkable = Synthetic(f, gradient, x)
    dout = stream(Stream.DOUT, seed).standard_normal(np.shape(f(x)))
    return Derivation(checkable, {"x": x}, dout, ["x"], stream(Stream.ROUNDING, seed))


def noisy(phi, sigma, seed=0):
    """Returns phi with normal noise that differs at every call and is 0 at 0."""
    rng = np.random.default_rng(seed)
    return lambda t: phi(t) + sigma * rng.standard_normal()
