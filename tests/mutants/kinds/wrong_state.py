"""Layers that are wrong after the first call: stale copies, reused buffers, other sizes, other magnitudes."""

import numpy as np

from jaxnet.crosscheck import check_layer
from mutants.kinds import Draw, wrong


class Dense:
    """y = tanh(x W + b), without a fault."""

    def __init__(self, draw, n=4, m=3):
        self.W, self.b = draw(n, m), draw(m)

    def forward(self, x):
        self.x = x
        self.y = np.tanh(x @ self.W + self.b)
        return self.y.copy()

    def backward(self, dout):
        d = dout * (1 - self.y**2)
        self.dW, self.db = self.x.T @ d, d.sum(0)
        return d @ self.W.T


def off(got, right):
    """Returns the relative error by norm."""
    return float(np.linalg.norm(got - right) / np.linalg.norm(right))


def registered(name, sentence, exercise, says=""):
    """Registers a class; `exercise(layer, right, draw)` returns an error that the right layer does not have."""

    def register(kind):
        def true(seed):
            draw = Draw(seed)
            W, b = draw(4, 3), draw(3)
            right, layer = Dense(Draw(seed)), kind(Draw(seed))
            for each in (layer, right):
                each.W[...], each.b[...] = W, b
            return exercise(layer, right, draw)

        def run(seed):
            return check_layer(kind(Draw(seed)), Draw(seed + 1)(5, 4))

        wrong(name, sentence, says=says, true=true)(run)
        return kind

    return register


def after_a_step(layer, right, draw):
    """Changes W in place, as an optimizer does."""
    x, dout = draw(5, 4), draw(5, 3)
    layer.forward(x)
    layer.backward(dout)
    for each in (layer, right):
        each.W *= -0.5
        each.forward(x)
    return off(layer.backward(dout), right.backward(dout))


def two_outputs(layer, right, draw):
    """Returns the error in the output of a first call after a second."""
    first = layer.forward(draw(5, 4))
    before = first.copy()
    layer.forward(draw(5, 4))
    return off(first, before)


def two_gradients(layer, right, draw):
    """Returns the error in dx of a first call after a second."""
    layer.forward(draw(5, 4))
    first = layer.backward(draw(5, 3))
    before = first.copy()
    layer.forward(draw(5, 4))
    layer.backward(draw(5, 3))
    return off(first, before)


def smaller_batch(layer, right, draw):
    """Passes in a batch of 3 after one of 5."""
    layer.forward(draw(5, 4))
    layer.backward(draw(5, 3))
    x, dout = draw(3, 4), draw(3, 3)
    for each in (layer, right):
        each.forward(x)
        each.backward(dout)
    return off(layer.db, right.db)


def third_call(layer, right, draw):
    """Calls both layers repeatedly."""
    worst = 0.0
    for _ in range(6):
        x, dout = draw(5, 4), draw(5, 3)
        layer.forward(x)
        right.forward(x)
        worst = max(worst, off(layer.backward(dout.copy()), right.backward(dout)))
    return worst


def of_size(scale):
    """Returns an exercise with a dout of this size."""

    def exercise(layer, right, draw):
        x, dout = draw(5, 4), scale * draw(5, 3)
        layer.forward(x)
        right.forward(x)
        return off(layer.backward(dout.copy()), right.backward(dout))

    return exercise


@registered("state/transpose-from-construction", "dx uses a copy of W.T that was made at construction.", after_a_step)
class _Constructed(Dense):
    def __init__(self, draw):
        super().__init__(draw)
        self.WT = np.ascontiguousarray(self.W.T)

    def backward(self, dout):
        super().backward(dout)
        return dout * (1 - self.y**2) @ self.WT


@registered("state/transpose-from-first-call", "dx uses a copy of W.T that was made at the first call.", after_a_step)
class _FirstCall(Dense):
    WT = None

    def forward(self, x):
        if self.WT is None:
            self.WT = self.W.T.copy()
        return super().forward(x)

    def backward(self, dout):
        super().backward(dout)
        return dout * (1 - self.y**2) @ self.WT


@registered("state/norm-of-first-w", "The norm of W at the first call scales dx at every call.", after_a_step)
class _Norm(Dense):
    norm = None

    def backward(self, dout):
        if self.norm is None:
            self.norm = np.abs(self.W).max()
        return super().backward(dout) / np.abs(self.W).max() * self.norm


@registered("state/one-output-buffer", "forward returns the same buffer at every call.", two_outputs)
class _Output(Dense):
    out = None

    def forward(self, x):
        y = super().forward(x)
        if self.out is None or self.out.shape != y.shape:
            self.out = np.empty_like(y)
        self.out[...] = y
        return self.out


@registered("state/one-dx-buffer", "backward returns the same buffer at every call.", two_gradients)
class _Gradient(Dense):
    dx = None

    def backward(self, dout):
        dx = super().backward(dout)
        if self.dx is None or self.dx.shape != dx.shape:
            self.dx = np.empty_like(dx)
        self.dx[...] = dx
        return self.dx


@registered(
    "state/buffer-of-a-larger-batch",
    "db is the sum of a buffer that contains rows of an earlier, larger batch.",
    smaller_batch,
)
class _Larger(Dense):
    buffer = None

    def backward(self, dout):
        dx = super().backward(dout)
        if self.buffer is None or len(self.buffer) < len(dout):
            self.buffer = np.zeros_like(dout)
        self.buffer[: len(dout)] = dout * (1 - self.y**2)
        self.db = self.buffer.sum(0)
        return dx


@registered("state/batch-size-of-the-first-call", "db is always divided by the size of the first batch.", smaller_batch)
class _Count(Dense):
    n = None

    def forward(self, x):
        self.n = self.n or len(x)
        return super().forward(x)

    def backward(self, dout):
        dx = super().backward(dout)
        self.db = self.db * len(dout) / self.n
        return dx


@registered("state/wrong-from-the-third-call", "From the third call on, dx is scaled down.", third_call)
class _Third(Dense):
    calls = 0

    def backward(self, dout):
        self.calls += 1
        return super().backward(dout) * (0.9 if self.calls > 2 else 1)


@registered("state/mask-by-shape", "1 - y^2 is cached by shape.", third_call)
class _Shape(Dense):
    def __init__(self, draw):
        super().__init__(draw)
        self.slopes = {}

    def backward(self, dout):
        slope = self.slopes.setdefault(dout.shape, 1 - self.y**2)
        return dout * slope @ self.W.T + 0 * super().backward(dout)
