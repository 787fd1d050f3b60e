"""Layers by hand: `forward` keeps what `backward` needs, `backward(dout)` returns dx and leaves dW beside W.

N samples in rows. No layer writes to an array that it was given or hands out one that it still needs.
Read it beside `jaxnet/layers.py`: the same layers in the same order, with the forward half alone.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from numpy_ref.functions import Array, log_softmax, one_hot, sigmoid
from numpy_ref.trees import Tree


class Layer:
    """What every layer offers. Class attributes name the arrays: "W" has a gradient "dW", a statistic has none."""

    parameters: ClassVar[tuple[str, ...]] = ()
    statistics: ClassVar[tuple[str, ...]] = ()  # what training gathers and inference takes

    def forward(self, x: Array) -> Array:
        """The output at x, in training."""
        raise NotImplementedError

    def backward(self, dout: Array) -> Array:
        """The gradient by the last `forward`'s x, given the gradient by its output."""
        raise NotImplementedError

    def infer(self, x: Array) -> Array:
        """The output at x, in inference: it keeps nothing, so a `backward` may still come."""
        return copy.copy(self).forward(x)

    def draw(self, rng: np.random.Generator, x: Array) -> dict[str, Any]:  # noqa: ARG002
        """The random arrays that a `forward` at x needs; none, unless a layer says otherwise."""
        return {}

    def give(self, draws: Tree) -> None:
        """Random arrays for every `forward` from here on, as from `draw`, or drawn by somebody else."""
        for name, array in draws.items():
            setattr(self, name, np.asarray(array))

    def tree(self, which: str, prefix: str = "") -> dict[str, Any]:
        """{"W": self.W, ...} of the "parameters" or "statistics"; with the prefix "d", {"W": self.dW, ...}."""
        return {name: getattr(self, prefix + name) for name in getattr(self, which)}


class Affine(Layer):
    """y = x W + b, for the last axis of x.

    dx = dout Wᵀ, dW = xᵀ dout, db = Σₙ dout (Goodfellow, Bengio, Courville, *Deep Learning*, section 6.5.6).

    Raises:
        ValueError: W is no matrix or b does not fit it; in use, x is of another width.
    """

    parameters = ("W", "b")

    def __init__(self, W: Array, b: Array) -> None:
        if W.ndim != 2 or b.shape != W.shape[1:]:
            raise ValueError(f"W, b: shapes {W.shape} and {b.shape}, expected (D, M) and (M,)")
        self.W, self.b = W, b

    def forward(self, x: Array) -> Array:
        if x.ndim < 2 or x.shape[-1] != len(self.W):
            raise ValueError(f"x: shape {x.shape}, expected (N, {len(self.W)}), one sample a row")
        self.x = x  # (N, D), or (N, T, D)
        return x @ self.W + self.b  # (N, M)

    def backward(self, dout: Array) -> Array:
        self.dW = rows(self.x).T @ rows(dout)  # (D, N) @ (N, M) -> (D, M)
        self.db = rows(dout).sum(axis=0)  # (M,): b was broadcast over the rows, so its gradient is summed over them
        return dout @ self.W.T  # (N, M) @ (M, D) -> (N, D)


class ReLU(Layer):
    """y = max(x, 0); dx = dout where x > 0, else 0. At the kink x = 0 the derivative is taken to be 0."""

    def forward(self, x: Array) -> Array:
        self.mask = x <= 0
        return np.where(self.mask, 0, x)

    def backward(self, dout: Array) -> Array:
        return np.where(self.mask, 0, dout)


class Sigmoid(Layer):
    """y = 1 / (1 + exp(-x)); dx = dout y (1 - y)."""

    def forward(self, x: Array) -> Array:
        self.y = sigmoid(x)
        return self.y.copy()

    def backward(self, dout: Array) -> Array:
        return dout * self.y * (1 - self.y)


class Tanh(Layer):
    """y = tanh(x); dx = dout (1 - y²)."""

    def forward(self, x: Array) -> Array:
        self.y = np.tanh(x)
        return self.y.copy()

    def backward(self, dout: Array) -> Array:
        return dout * (1 - self.y**2)


class GELU(Layer):
    """y = x/2 (1 + tanh u), u = c (x + a x³) with c = √(2/π), a = 0.044715.

    dx = dout ((1 + tanh u)/2 + x/2 (1 - tanh² u) c (1 + 3 a x²)). The tanh form of Hendrycks and Gimpel, *Gaussian
    Error Linear Units*, 2016, section 2: within 5e-4 of x Φ(x), since NumPy has no erf.
    """

    c, a = math.sqrt(2 / math.pi), 0.044715

    def forward(self, x: Array) -> Array:
        self.x = x
        self.tanh = np.tanh(self.c * (x + self.a * x**3))
        return x / 2 * (1 + self.tanh)

    def backward(self, dout: Array) -> Array:
        x, du = self.x, self.c * (1 + 3 * self.a * self.x**2)
        return dout * ((1 + self.tanh) / 2 + x / 2 * (1 - self.tanh**2) * du)


class Flatten(Layer):
    """Each sample as one row, (N, ...) -> (N, D); dx has the shape that x had."""

    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        return x.reshape(len(x), -1).copy()

    def backward(self, dout: Array) -> Array:
        return dout.reshape(self.shape).copy()


class Dropout(Layer):
    """y = x mask / (1 - rate) in training; y = x in inference. dx = dout mask / (1 - rate).

    Srivastava et al., *Dropout*, 2014, section 10, where the division is done in training ("inverted"). The mask,
    of x's shape and true where an element is kept, is given: `give({"mask": ...})`.

    Raises:
        ValueError: The rate is not in [0, 1); in use, no mask of the shape of x was given.
    """

    mask: Any = None

    def __init__(self, rate: float) -> None:
        if not 0 <= rate < 1:
            raise ValueError(f"rate: {rate}, expected a share in [0, 1)")
        self.rate = rate

    def forward(self, x: Array) -> Array:
        if self.mask is None or self.mask.shape != x.shape:
            raise ValueError(
                f"mask: {np.shape(self.mask)}, expected {x.shape}; `give` what `draw` returns, or JAX drew"
            )
        return np.where(self.mask, x / (1 - self.rate), 0)

    def backward(self, dout: Array) -> Array:
        return np.where(self.mask, dout / (1 - self.rate), 0)

    def infer(self, x: Array) -> Array:
        return x.copy()

    def draw(self, rng: np.random.Generator, x: Array) -> dict[str, Any]:
        return {"mask": rng.random(x.shape) >= self.rate}


class Sequential(Layer):
    """One layer after the other, by name: y = f₃(f₂(f₁(x))), and backward the other way round, by the chain rule."""

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        self.layers = dict(layers)

    def forward(self, x: Array) -> Array:
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def backward(self, dout: Array) -> Array:
        for layer in reversed(self.layers.values()):
            dout = layer.backward(dout)
        return dout

    def infer(self, x: Array) -> Array:
        for layer in self.layers.values():
            x = layer.infer(x)
        return x

    def draw(self, rng: np.random.Generator, x: Array) -> dict[str, Any]:
        draws = {}
        for name, layer in self.layers.items():
            draws[name] = layer.draw(rng, x)
            x = layer.infer(x)
        return {name: drawn for name, drawn in draws.items() if drawn}

    def give(self, draws: Tree) -> None:
        for name, drawn in draws.items():
            self.layers[name].give(drawn)

    def tree(self, which: str, prefix: str = "") -> dict[str, Any]:
        trees = {name: layer.tree(which, prefix) for name, layer in self.layers.items()}
        return {name: tree for name, tree in trees.items() if tree}


class Residual(Sequential):
    """y = x + f(x), with f the layers one after the other; dx = dout + what comes back through f.

    He et al., *Deep Residual Learning for Image Recognition*, 2015, equation 1.

    Raises:
        ValueError: In use, f(x) has not the shape of x.
    """

    def forward(self, x: Array) -> Array:
        return self._add(x, super().forward(x))

    def backward(self, dout: Array) -> Array:
        return dout + super().backward(dout)

    def infer(self, x: Array) -> Array:
        return self._add(x, super().infer(x))

    def _add(self, x: Array, y: Array) -> Array:
        if x.shape != y.shape:
            raise ValueError(f"layers: make {y.shape} of {x.shape}, expected the shape they were given, to add to it")
        return x + y


class SoftmaxWithLoss:
    """loss = -(1/N) Σₙ log softmax(xₙ)[tₙ]; dx = dout (y - t) / N with y = softmax(x).

    The derivative is Bishop, *Pattern Recognition and Machine Learning*, equation 4.109, averaged over the batch.
    The loss is taken from the logits, never from log(y), which is -inf once y has become 0. Positions with a label
    each, (N, T, C), are averaged over alike.
    """

    def forward(self, x: Array, t: ArrayLike) -> Any:
        self.t = one_hot(t, x)  # (N, C)
        self.log_y = log_softmax(x)  # (N, C)
        return -(self.t * self.log_y).sum() / len(rows(x))

    def backward(self, dout: Any = 1.0) -> Array:
        return dout * (np.exp(self.log_y) - self.t) / len(rows(self.t))


class MeanSquaredError:
    """loss = (1/N) Σₙ ½ |xₙ - tₙ|²; dx = dout (x - t) / N. Class numbers t stand for their one-hot rows.

    The half is the book's, and Bishop's (*Pattern Recognition and Machine Learning*, equation 5.11).
    """

    def forward(self, x: Array, t: ArrayLike) -> Any:
        t = np.asarray(t)
        self.error = x - (t.astype(x.dtype) if t.shape == x.shape else one_hot(t, x))  # (N, C)
        return (self.error**2).sum() / (2 * len(rows(x)))

    def backward(self, dout: Any = 1.0) -> Array:
        return dout * self.error / len(rows(self.error))


def rows(x: Array) -> Array:
    """Every axis but the last as one: (N, T, D) -> (N T, D)."""
    return x.reshape(-1, x.shape[-1])
