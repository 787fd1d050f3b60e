"""Defines layers with faults other than wrong numbers, such as at the second call or in the caller's arrays."""

import jax.numpy as jnp
import numpy as np

from mutants.case import Case, Example, add, in_dtype


class Right:
    """y = tanh(x W)."""

    def __init__(self, W):
        self.W = W

    def forward(self, x):
        self.x, self.y = x, np.tanh(x @ self.W)
        return self.y.copy()

    def backward(self, dout):
        d = dout * (1 - self.y**2)
        self.dW = self.x.T @ d
        return d @ self.W.T


def maker(kind):
    def make(rng, dtype, scale):
        W, x = in_dtype(rng.standard_normal((4, 3)) / 2, dtype), in_dtype(scale * rng.standard_normal((5, 4)), dtype)
        return Example(kind(W), (x,), lambda params, x: jnp.tanh(x @ params["W"]))

    return make


def wrong(sentence, says, leaf=""):
    def register(kind):
        add(Case(f"behaviour_{kind.__name__.lower()}", sentence, maker(kind), right=False, leaf=leaf, says=says))
        return kind

    return register


def right(sentence):
    def register(kind):
        add(Case(f"behaviour_{kind.__name__.lower()}", sentence, maker(kind), right=True))
        return kind

    return register


right("without a fault")(Right)


@right("backward stores a copy of the input")
class Spare(Right):
    def backward(self, dout):
        dx = super().backward(dout)
        self.spare = self.x.copy()
        return dx


@right("backward writes into new buffers")
class Buffered(Right):
    def backward(self, dout):
        self.buffer = np.empty_like(self.x)
        np.matmul(dout * (1 - self.y**2), self.W.T, out=self.buffer)
        self.dW = self.x.T @ (dout * (1 - self.y**2))
        return self.buffer.copy()


@right("forward counts its calls, without an effect on the output")
class Counting(Right):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


@right("forward returns the array that it caches, which is a risk but not wrong")
class Lending(Right):
    def forward(self, x):
        self.x, self.y = x, np.tanh(x @ self.W)
        return self.y


@wrong("dout is multiplied in place", "overwrites dout")
class InPlace(Right):
    def backward(self, dout):
        dout *= 1 - self.y**2
        self.dW = self.x.T @ dout
        return dout @ self.W.T


@wrong("the input is overwritten in forward", "forward overwrites x")
class Consumes(Right):
    def forward(self, x):
        y = super().forward(x.copy())
        x[...] = 0
        return y


@wrong("the cached input is overwritten in backward", "backward overwrites x")
class Normalises(Right):
    def backward(self, dout):
        dx = super().backward(dout)
        self.x *= 0.5
        return dx


@wrong("backward updates the parameters", "backward overwrites W")
class Learns(Right):
    def backward(self, dout):
        dx = super().backward(dout)
        self.W -= 0.1 * self.dW
        return dx


@wrong("half of the old dW is added to the new one", "an earlier call")
class HalfAccumulates(Right):
    def __init__(self, W):
        super().__init__(W)
        self.dW = np.zeros_like(W)

    def backward(self, dout):
        d = dout * (1 - self.y**2)
        self.dW = self.dW / 2 + self.x.T @ d
        return d @ self.W.T


@wrong("backward halves a factor at each call", "an earlier call")
class UsesUp(Right):
    def __init__(self, W):
        super().__init__(W)
        self.gain = np.ones(W.shape[1])

    def backward(self, dout):
        dx = super().backward(dout * self.gain)
        self.gain /= 2
        return dx


@wrong("the input of the first call is used in every backward pass", "earlier call")
class KeepsFirst(Right):
    first = None

    def forward(self, x):
        self.first = x.copy() if self.first is None else self.first
        return super().forward(x)

    def backward(self, dout):
        self.x = self.first
        return super().backward(dout)


@wrong("the derivative of the first call is used in every backward pass", "earlier call")
class Memoises(Right):
    slope = None

    def forward(self, x):
        y = super().forward(x)
        self.slope = 1 - y**2 if self.slope is None else self.slope
        return y

    def backward(self, dout):
        d = dout * self.slope
        self.dW = self.x.T @ d
        return d @ self.W.T


@wrong("the cache belongs to the class, not to the instance", "another instance")
class Shared(Right):
    cache = {}  # noqa: RUF012

    def forward(self, x):
        y = super().forward(x)
        Shared.cache = {"x": x, "y": y}
        return y

    def backward(self, dout):
        self.x, self.y = Shared.cache["x"], Shared.cache["y"]
        return super().backward(dout)


@wrong("backward adds noise from an unseeded generator", "draws its own random numbers")
class NoisyBackward(Right):
    def backward(self, dout):
        dx = super().backward(dout)
        return dx * (1 + 1e-3 * np.random.default_rng().standard_normal(dx.shape)).astype(dx.dtype)


@wrong("dx is returned as float16", "float16", "x")
class HalfPrecision(Right):
    def backward(self, dout):
        return super().backward(dout).astype(np.float16)


@wrong("dx is None", "None", "x")
class Nothing(Right):
    def backward(self, dout):
        super().backward(dout)


@wrong("dW is left None", "None", "W")
class Unfilled(Right):
    dW = None

    def __init__(self, W):
        super().__init__(W)
        self.dW = None

    def backward(self, dout):
        dx = super().backward(dout)
        self.dW = None
        return dx


@wrong("dx has a nan in one place", "nan", "x")
class OneNan(Right):
    def backward(self, dout):
        dx = super().backward(dout)
        dx[1, 2] = np.nan
        return dx


@wrong("dx is summed over each row", "shape", "x")
class Summed(Right):
    def backward(self, dout):
        return super().backward(dout).sum(axis=1)


@wrong("backward raises", "raises")
class Raises(Right):
    def backward(self, dout):
        return dout @ self.W


@wrong("dout is clipped first", "not linear")
class Clips(Right):
    def backward(self, dout):
        return super().backward(np.clip(dout, -0.5, 0.5))


@wrong("dout is treated as 1", "ignores dout")
class Ignores(Right):
    def backward(self, dout):
        return super().backward(np.ones_like(dout))


@wrong("small gradients are set to 0", "not linear")
class Cuts(Right):
    def backward(self, dout):
        dx = super().backward(dout)
        return np.where(np.abs(dx) < 1e-3, 0, dx)


@wrong("backward computes in float32, and is off by 1e-4", "")
class Casts(Right):
    def backward(self, dout):
        dx = super().backward(dout.astype(np.float32)).astype(self.x.dtype)
        self.dW = self.dW.astype(np.float32).astype(self.x.dtype)
        return (dx.astype(np.float32) * np.float32(1.0001)).astype(self.x.dtype)
