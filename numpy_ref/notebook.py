"""The notebook as written, defects and all: kept to be shown failing.

`# defect 1` to `# defect 9` mark the lines that are wrong. The rest of numpy_ref is the same code cured, and
`tests/test_notebook.py` shows each defect's failure beside its cure. N samples in rows, C classes, t one-hot (N, C).
"""
# ruff: noqa: D102  # forward and backward: the class docstring is their formula

from collections.abc import Callable
from typing import Any

import numpy as np

from numpy_ref.functions import Array

Tree = dict[str, dict[str, Array]]  # {"Affine1": {"W": ..., "b": ...}, ...}: parameters and gradients alike


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    """exp(x) / sum(exp(x))."""
    e = np.exp(x - np.max(x))  # defect 1: the maximum of the whole batch
    return e / np.sum(e)  # defect 1: the sum of the whole batch


def cross_entropy_error_one_hot(y: Array, t: Array) -> Any:
    """-sum(t log(y)) / N, from probabilities."""
    return -np.sum(t * np.log(y)) / len(y)  # defect 6: a probability may have become 0


def _numerical_grad(f: Callable[[Array], Any], x: Array, h: float = 1e-4) -> Array:
    """The gradient of the scalar `f` at x (D,), by central differences."""
    grad = np.zeros_like(x)
    for dim in range(x.size):
        x[dim] -= h
        down = f(x)
        x[dim] += 2 * h
        grad[dim] = (f(x) - down) / (2 * h)  # defect 2: x[dim] stays h too high
    return grad


def numerical_gradient_batch(f: Callable[[Array], Any], X: Array) -> Array:
    """Row by row."""
    if X.ndim == 1:
        return _numerical_grad(f, X)
    return np.stack([_numerical_grad(f, x) for x in X])


def numerical_gradient_batch_v2(f: Callable[[Array], Any], X: Array, h: float = 1e-4) -> Array:
    """All rows at once."""
    grad = np.zeros_like(X)
    for dim in range(X.shape[1]):
        column = X[:, dim].copy()
        X[:, dim] = column - h  # defect 3: every row moves, whether or not f returns one value per row
        down = f(X)
        X[:, dim] = column + h
        grad[:, dim] = (f(X) - down) / (2 * h)
        X[:, dim] = column
    return grad


class Affine:
    """y = x W + b; dx = dout Wᵀ, dW = xᵀ dout, db = Σₙ dout."""

    def __init__(self, W: Array, b: Array) -> None:
        self.W, self.b = W, b

    def forward(self, x: Array) -> Array:
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout: Array) -> Array:
        self.dW = self.x.T @ dout
        self.db = np.sum(dout, axis=0)
        return dout @ self.W.T


class ReLU:
    """y = max(x, 0); dx = dout where x > 0, else 0."""

    def forward(self, x: Array) -> Array:
        self.mask = x <= 0
        return np.where(self.mask, 0, x)

    def backward(self, dout: Array) -> Array:
        dout[self.mask] = 0  # defect 4: the array is the caller's
        return dout


class SoftmaxWithLoss:
    """loss = -Σₙ t log softmax(x) / N; dx = (y - t) / N."""

    def forward(self, x: Array, t: Array) -> Any:
        self.y, self.t = softmax(x), t
        return cross_entropy_error_one_hot(self.y, t)

    def backward(self, dout: Any = 1) -> Array:  # noqa: ARG002
        return (self.y - self.t) / len(self.t)  # defect 5: dout is ignored


class TwoLayerNet:
    """Affine1, Relu1, Affine2, Relu2, then softmax and cross-entropy; `params` given are computed with, not copied."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: float = 0.1,
        *,
        seed: int | np.random.Generator = 0,
        params: Tree | None = None,
    ) -> None:
        if params is None:
            rng = np.random.default_rng(seed)
            W1 = weight_init_std * rng.standard_normal((input_size, hidden_size))
            W2 = weight_init_std * rng.standard_normal((hidden_size, output_size))
            b1, b2 = np.zeros(hidden_size), np.zeros(output_size)
            params = {"Affine1": {"W": W1, "b": b1}, "Affine2": {"W": W2, "b": b2}}
        self.params = params
        self.layers: dict[str, Affine | ReLU] = {
            "Affine1": Affine(**self.params["Affine1"]),
            "Relu1": ReLU(),
            "Affine2": Affine(**self.params["Affine2"]),
            "Relu2": ReLU(),  # defect 7: no logit can be negative, and a dead one learns nothing
        }
        self.last = SoftmaxWithLoss()

    def predict(self, x: Array) -> Array:
        """The logits, (N, D) -> (N, C)."""
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def loss(self, x: Array, t: Array) -> Any:
        """Mean cross-entropy over the batch."""
        return self.last.forward(self.predict(x), t)

    def accuracy(self, x: Array, t: Array) -> float:
        """The share of samples whose largest logit is the true class's."""
        return float(np.mean(self.predict(x).argmax(axis=1) == t.argmax(axis=1)))

    def numerical_gradient(self, x: Array, t: Array) -> Tree:
        """Of the loss by every parameter, by central differences."""
        return {
            name: {leaf: numerical_gradient_batch(lambda _: self.loss(x, t), array) for leaf, array in leaves.items()}
            for name, leaves in self.params.items()
        }

    def gradient(self, x: Array, t: Array) -> Tree:
        """Of the loss by every parameter, by back propagation."""
        self.loss(x, t)
        dout = self.last.backward()
        for layer in reversed(self.layers.values()):
            dout = layer.backward(dout)
        return {name: {"W": layer.dW, "b": layer.db} for name, layer in self.layers.items() if isinstance(layer, Affine)}


def train(
    network: TwoLayerNet,
    data: tuple[Array, Array, Array, Array],
    rng: np.random.Generator,
    iterations: int = 10_000,
    learning_rate: float = 0.01,  # defect 8: ten times too small
) -> list[tuple[int, float, float, float]]:
    """Stochastic gradient descent: (iteration, loss, train accuracy, test accuracy), every hundredth."""
    x_train, t_train, x_test, t_test = data
    history = []
    for i in range(iterations):
        batch = rng.choice(len(x_train), 100)
        x, t = x_train[batch], t_train[batch]
        grads = network.gradient(x, t)
        for name, leaves in network.params.items():
            for leaf in leaves:
                leaves[leaf] -= learning_rate * grads[name][leaf]
        if i % 100 == 0:
            accuracies = network.accuracy(x_train, t_train), network.accuracy(x_test, t_test)
            history.append((i, float(network.loss(x, t)), *accuracies))
    return history


def gradient_check(network: TwoLayerNet, x: Array, t: Array) -> dict[str, tuple[float, float, float]]:
    """Mean |analytic|, mean |numerical| and mean |difference|, by parameter."""
    numerical, analytic = network.numerical_gradient(x, t), network.gradient(x, t)
    means = {}
    for name, leaves in analytic.items():
        for leaf, a in leaves.items():
            n = numerical[name][leaf]
            means[f"{name}.{leaf}"] = float(abs(a).mean()), float(abs(n).mean()), float(abs(a - n).mean())
            print(f"{name}.{leaf}:", *means[f"{name}.{leaf}"])  # defect 9: whatever it says, nothing fails
    return means
