"""Layers by hand: `forward` keeps what `backward` needs, `backward(dout)` returns dx and leaves dW beside W.

A batch has N samples, one a row. No layer writes to an array that it was given, or returns one that it still needs.
`jaxnet/nn/layers.py` has the forward halves in the same order.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "GELU",
    "Affine",
    "Dropout",
    "Flatten",
    "Layer",
    "LeakyReLU",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "sigmoid",
]

Array = NDArray[np.floating[Any]]
Tree = Mapping[str, Any]  # {"Affine1": {"W": ..., "b": ...}, ...}, nested as the layers are
Spec = tuple[dict[str, tuple[int, ...]], tuple[Any, ...]]  # the shapes of a layer's arrays, and its other arguments


class Layer:
    """The protocol of every layer. Class attributes name the arrays: "W" has a gradient "dW", a statistic has none."""

    parameters: ClassVar[tuple[str, ...]] = ()
    statistics: ClassVar[tuple[str, ...]] = ()  # gathered in training, used in inference

    @staticmethod
    def spec(*sizes: Any) -> Spec:
        """Returns the shapes of the constructor's arrays, and its other arguments, from the sizes in a description."""
        return {}, sizes

    def forward(self, x: Array) -> Array:
        """Returns the output at x in training, and keeps what `backward` needs."""
        raise NotImplementedError

    def backward(self, dout: Array) -> Array:
        """Returns the gradient with respect to the last `forward`'s x, given that with respect to its output."""
        raise NotImplementedError

    def infer(self, x: Array) -> Array:
        """Returns the output at x in inference. It keeps nothing, so `backward` still belongs to the last `forward`."""
        return copy.copy(self).forward(x)

    def draw_noise(self, rng: np.random.Generator, x: Array) -> dict[str, Any]:  # noqa: ARG002
        """Draws the random arrays that `forward` needs at x. Most layers need none."""
        return {}

    def set_noise(self, noise: Tree) -> None:
        """Sets the random arrays for every later `forward`: those of `draw_noise`, or any others of their shapes."""
        for name, array in noise.items():
            setattr(self, name, np.asarray(array))

    def param_tree(self) -> dict[str, Any]:
        """Returns the parameters, {"W": self.W, ...}: the arrays themselves."""
        return {name: getattr(self, name) for name in self.parameters}

    def grad_tree(self) -> dict[str, Any]:
        """Returns the gradients of the last `backward`, {"W": self.dW, ...}."""
        return {name: getattr(self, "d" + name) for name in self.parameters}

    def state_tree(self) -> dict[str, Any]:
        """Returns the statistics, {"mean": self.mean, ...}."""
        return {name: getattr(self, name) for name in self.statistics}


class Affine(Layer):
    """y = x W + b, for the last axis of x.

    dx = dout Wᵀ, dW = xᵀ dout, db = Σₙ dout (Goodfellow, Bengio, Courville, *Deep Learning*, section 6.5.6).

    Raises:
        ValueError: If W is no matrix or b does not fit it; in use, if x has another width.
    """

    parameters = ("W", "b")

    @staticmethod
    def spec(in_size: int, out_size: int) -> Spec:
        return {"W": (in_size, out_size), "b": (out_size,)}, ()

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
    """y = max(x, 0); dx = dout where x > 0, else 0. The derivative at the kink x = 0 is taken to be 0."""

    def forward(self, x: Array) -> Array:
        self.positive = x > 0
        return np.maximum(x, 0)

    def backward(self, dout: Array) -> Array:
        return dout * self.positive


class LeakyReLU(Layer):
    """y = x where x > 0, else slope x; dx = dout where x > 0, else slope dout. The derivative at 0 is the slope.

    Maas, Hannun and Ng, *Rectifier Nonlinearities Improve Neural Network Acoustic Models*, 2013, section 2.

    Raises:
        ValueError: If the slope is not finite.
    """

    def __init__(self, slope: float = 0.01) -> None:
        if not math.isfinite(slope):
            raise ValueError(f"slope: {slope}, expected a finite number")
        self.slope = slope

    def forward(self, x: Array) -> Array:
        self.positive = x > 0
        return np.where(self.positive, x, self.slope * x)

    def backward(self, dout: Array) -> Array:
        return np.where(self.positive, dout, self.slope * dout)


class Sigmoid(Layer):
    """y = 1 / (1 + exp(-x)); dx = dout y (1 - y)."""

    def forward(self, x: Array) -> Array:
        self.y = sigmoid(x)
        return self.y.copy()

    def backward(self, dout: Array) -> Array:
        return dout * self.y * (1 - self.y)


def sigmoid(x: Array) -> Array:
    """Returns 1 / (1 + exp(-x)), elementwise, without overflow: exp is only taken of -|x|."""
    e = np.exp(-np.abs(x))  # in (0, 1]
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


class Tanh(Layer):
    """y = tanh(x); dx = dout (1 - y²)."""

    def forward(self, x: Array) -> Array:
        self.y = np.tanh(x)
        return self.y.copy()

    def backward(self, dout: Array) -> Array:
        return dout * (1 - self.y**2)


class GELU(Layer):
    """y = x/2 (1 + tanh u), u = c (x + a x³) with c = √(2/π), a = 0.044715.

    dx = dout ((1 + tanh u)/2 + x/2 (1 - tanh² u) c (1 + 3 a x²)). This is the tanh form of Hendrycks and Gimpel,
    *Gaussian Error Linear Units*, 2016, section 2, within 5e-4 of x Φ(x): NumPy has no erf.
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
    """y has each sample as one row, (N, ...) -> (N, D); dx has the shape of x."""

    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        return x.reshape(len(x), -1).copy()

    def backward(self, dout: Array) -> Array:
        return dout.reshape(self.shape).copy()


class Dropout(Layer):
    """y = x mask / (1 - rate) in training; y = x in inference. dx = dout mask / (1 - rate).

    Srivastava et al., *Dropout*, 2014, section 10, with the division in training ("inverted"). The mask has the shape
    of x, is true where an element is kept, and is set beforehand: `set_noise({"mask": ...})`.

    Raises:
        ValueError: If the rate is not in [0, 1); in use, if no mask of the shape of x was set.
    """

    mask: Any = None

    def __init__(self, rate: float) -> None:
        if not 0 <= rate < 1:
            raise ValueError(f"rate: {rate}, expected a share in [0, 1)")
        self.rate = rate

    def forward(self, x: Array) -> Array:
        if self.mask is None or self.mask.shape != x.shape:
            raise ValueError(
                f"mask: shape {np.shape(self.mask)}, expected {x.shape}; call `set_noise(draw_noise(rng, x))` first"
            )
        return np.where(self.mask, x / (1 - self.rate), 0)

    def backward(self, dout: Array) -> Array:
        return np.where(self.mask, dout / (1 - self.rate), 0)

    def infer(self, x: Array) -> Array:
        return x.copy()

    def draw_noise(self, rng: np.random.Generator, x: Array) -> dict[str, Any]:
        return {"mask": rng.random(x.shape) >= self.rate}


class Sequential(Layer):
    """y = f₃(f₂(f₁(x))), layer after layer; backward goes through them in the opposite order, by the chain rule."""

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

    def draw_noise(self, rng: np.random.Generator, x: Array) -> dict[str, Any]:
        noise = {}
        for name, layer in self.layers.items():
            noise[name] = layer.draw_noise(rng, x)
            x = layer.infer(x)
        return _nonempty(noise)

    def set_noise(self, noise: Tree) -> None:
        for name, arrays in noise.items():
            self.layers[name].set_noise(arrays)

    def param_tree(self) -> dict[str, Any]:
        return _nonempty({name: layer.param_tree() for name, layer in self.layers.items()})

    def grad_tree(self) -> dict[str, Any]:
        return _nonempty({name: layer.grad_tree() for name, layer in self.layers.items()})

    def state_tree(self) -> dict[str, Any]:
        return _nonempty({name: layer.state_tree() for name, layer in self.layers.items()})


class Residual(Sequential):
    """y = x + f(x), where f applies the layers one after the other; dx = dout + the gradient that comes through f.

    He et al., *Deep Residual Learning for Image Recognition*, 2015, equation 1.

    Raises:
        ValueError: In use, if f(x) and x have different shapes.
    """

    def forward(self, x: Array) -> Array:
        return self._add(x, super().forward(x))

    def backward(self, dout: Array) -> Array:
        return dout + super().backward(dout)

    def infer(self, x: Array) -> Array:
        return self._add(x, super().infer(x))

    def _add(self, x: Array, y: Array) -> Array:
        if x.shape != y.shape:
            raise ValueError(f"layers: their output has shape {y.shape}, expected that of their input, {x.shape}")
        return x + y


def rows(x: Array) -> Array:
    """Returns x with every axis but the last made one: (N, T, D) -> (N T, D)."""
    return x.reshape(-1, x.shape[-1])


def _nonempty(trees: Tree) -> dict[str, Any]:
    return {name: tree for name, tree in trees.items() if tree}
