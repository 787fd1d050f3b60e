"""Layers by hand: `forward` keeps what `backward` needs, `backward(dout)` returns dx and leaves dW beside W.

N samples in rows. No layer writes to an array that it was given or hands out one that it still needs.
Read it beside `jaxnet/layers.py`: the same layers in the same order, with the forward half alone.
"""

from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike

from numpy_ref.functions import Array, log_softmax, one_hot, sigmoid


class Layer(Protocol):
    """What every layer below offers; `parameters` names the arrays that have a gradient, "W" beside "dW"."""

    parameters: ClassVar[tuple[str, ...]]

    def forward(self, x: Array) -> Array:
        """The output at `x`."""

    def backward(self, dout: Array) -> Array:
        """The gradient by the last `forward`'s x, given the gradient by its output."""


class Affine:
    """y = x W + b.

    dx = dout Wᵀ, dW = xᵀ dout, db = Σₙ dout (Goodfellow, Bengio, Courville, *Deep Learning*, section 6.5.6).
    """

    parameters = ("W", "b")

    def __init__(self, W: Array, b: Array) -> None:
        if W.ndim != 2 or b.shape != W.shape[1:]:
            raise ValueError(f"W, b: shapes {W.shape} and {b.shape}, expected (D, M) and (M,)")
        self.W, self.b = W, b

    def forward(self, x: Array) -> Array:
        self.x = x  # (N, D)
        return x @ self.W + self.b  # (N, M)

    def backward(self, dout: Array) -> Array:
        self.dW = self.x.T @ dout  # (D, N) @ (N, M) -> (D, M)
        self.db = dout.sum(axis=0)  # (M,): b was broadcast over the rows, so its gradient is summed over them
        return dout @ self.W.T  # (N, M) @ (M, D) -> (N, D)


class ReLU:
    """y = max(x, 0); dx = dout where x > 0, else 0. At the kink x = 0 the derivative is taken to be 0."""

    parameters = ()

    def forward(self, x: Array) -> Array:
        self.mask = x <= 0
        return np.where(self.mask, 0, x)

    def backward(self, dout: Array) -> Array:
        return np.where(self.mask, 0, dout)


class Sigmoid:
    """y = 1 / (1 + exp(-x)); dx = dout y (1 - y)."""

    parameters = ()

    def forward(self, x: Array) -> Array:
        self.y = sigmoid(x)
        return self.y.copy()

    def backward(self, dout: Array) -> Array:
        return dout * self.y * (1 - self.y)


class Tanh:
    """y = tanh(x); dx = dout (1 - y²)."""

    parameters = ()

    def forward(self, x: Array) -> Array:
        self.y = np.tanh(x)
        return self.y.copy()

    def backward(self, dout: Array) -> Array:
        return dout * (1 - self.y**2)


class SoftmaxWithLoss:
    """loss = -(1/N) Σₙ log softmax(xₙ)[tₙ]; dx = dout (y - t) / N with y = softmax(x).

    The derivative is Bishop, *Pattern Recognition and Machine Learning*, equation 4.109, averaged over the batch.
    The loss is taken from the logits, never from log(y), which is -inf once y has become 0.
    """

    parameters = ()

    def forward(self, x: Array, t: ArrayLike) -> Any:
        self.t = one_hot(t, x)  # (N, C)
        self.log_y = log_softmax(x)  # (N, C)
        return -(self.t * self.log_y).sum() / len(x)

    def backward(self, dout: Any = 1.0) -> Array:
        return dout * (np.exp(self.log_y) - self.t) / len(self.t)
