"""The notebook as it was written, with its nine defects.

`# defect 1` to `# defect 9` mark the wrong lines; `tests/numpy_ref/test_notebook.py` shows how each fails and how it is
corrected. Affine was right and is imported. Samples x are (N, D), labels t are one-hot (N, C).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from numpy_ref.layers import Affine, Array

Tree = dict[str, dict[str, Array]]  # {"Affine1": {"W": ..., "b": ...}, ...}: parameters and gradients alike


def sigmoid(x: Array) -> Array:
    """Returns 1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    """Returns exp(x) / sum(exp(x))."""
    e = np.exp(x - np.max(x))  # defect 1: the maximum of the whole batch
    return e / np.sum(e)  # defect 1: the sum of the whole batch


def cross_entropy_error_one_hot(y: Array, t: Array) -> Any:
    """Returns -sum(t log(y)) / N, from probabilities."""
    return -np.sum(t * np.log(y)) / len(y)  # defect 6: y may have become 0


def _numerical_grad(f: Callable[[Array], Any], x: Array, h: float = 1e-4) -> Array:
    """Returns the gradient of the scalar function `f` at x (D,), by central differences."""
    grad = np.zeros_like(x)
    for dim in range(x.size):
        x[dim] -= h
        down = f(x)
        x[dim] += 2 * h
        grad[dim] = (f(x) - down) / (2 * h)  # defect 2: x[dim] stays h too high
    return grad


def numerical_gradient_batch(f: Callable[[Array], Any], X: Array) -> Array:
    """Returns the gradients at the rows of X, one row at a time."""
    return _numerical_grad(f, X) if X.ndim == 1 else np.stack([_numerical_grad(f, x) for x in X])


def numerical_gradient_batch_v2(f: Callable[[Array], Any], X: Array, h: float = 1e-4) -> Array:
    """Returns the gradients at the rows of X, all rows at once."""
    grad = np.zeros_like(X)
    for dim in range(X.shape[1]):
        X[:, dim] -= h  # defect 3: every row moves, whether or not f returns one value per row
        down = f(X)
        X[:, dim] += 2 * h
        grad[:, dim] = (f(X) - down) / (2 * h)
        X[:, dim] -= h
    return grad


class ReLU:
    """y = max(x, 0); dx = dout where x > 0, else 0."""

    def forward(self, x: Array) -> Array:
        self.mask = x <= 0
        return np.where(self.mask, 0, x)

    def backward(self, dout: Array) -> Array:
        dout[self.mask] = 0  # defect 4: the caller's array is overwritten
        return dout


class SoftmaxWithLoss:
    """loss = -Σₙ t log softmax(x) / N; dx = (y - t) / N."""

    def forward(self, x: Array, t: Array) -> Any:
        self.y, self.t = softmax(x), t
        return cross_entropy_error_one_hot(self.y, t)

    def backward(self, dout: Any = 1) -> Array:  # noqa: ARG002
        return (self.y - self.t) / len(self.t)  # defect 5: dout is ignored


class TwoLayerNet:
    """The network of the notebook: `predict` returns logits, `loss` their cross-entropy. `params` are not copied."""

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
        rng = np.random.default_rng(seed)
        self.params = params or {
            "Affine1": {"W": rng.normal(0, weight_init_std, (input_size, hidden_size)), "b": np.zeros(hidden_size)},
            "Affine2": {"W": rng.normal(0, weight_init_std, (hidden_size, output_size)), "b": np.zeros(output_size)},
        }
        self.layers: dict[str, Affine | ReLU] = {
            "Affine1": Affine(**self.params["Affine1"]),
            "Relu1": ReLU(),
            "Affine2": Affine(**self.params["Affine2"]),
            "Relu2": ReLU(),  # defect 7: no logit is negative, and one that is cut off gets no gradient
        }
        self.last = SoftmaxWithLoss()

    def predict(self, x: Array) -> Array:
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def loss(self, x: Array, t: Array) -> Any:
        return self.last.forward(self.predict(x), t)

    def accuracy(self, x: Array, t: Array) -> float:
        return float(np.mean(self.predict(x).argmax(axis=1) == t.argmax(axis=1)))

    def numerical_gradient(self, x: Array, t: Array) -> Tree:
        return {
            name: {leaf: numerical_gradient_batch(lambda _: self.loss(x, t), array) for leaf, array in leaves.items()}
            for name, leaves in self.params.items()
        }

    def gradient(self, x: Array, t: Array) -> Tree:
        self.loss(x, t)
        dout = self.last.backward()
        for layer in reversed(self.layers.values()):
            dout = layer.backward(dout)
        return {
            name: {"W": layer.dW, "b": layer.db} for name, layer in self.layers.items() if isinstance(layer, Affine)
        }


def train(  # noqa: PLR0917  # as the notebook has it
    network: TwoLayerNet,
    x_train: Array,
    t_train: Array,
    x_test: Array,
    t_test: Array,
    rng: np.random.Generator,
    iterations: int = 10_000,
    learning_rate: float = 0.01,  # defect 8: ten times too small
) -> list[tuple[int, float, float, float]]:
    """Trains by SGD; returns (iteration, loss, train accuracy, test accuracy) for every hundredth iteration."""
    rows = []
    for i in range(iterations):
        batch = rng.choice(len(x_train), 100)
        x, t = x_train[batch], t_train[batch]
        for name, leaves in network.gradient(x, t).items():
            for leaf, grad in leaves.items():
                network.params[name][leaf] -= learning_rate * grad
        if i % 100 == 0:
            rows.append((i, network.loss(x, t), network.accuracy(x_train, t_train), network.accuracy(x_test, t_test)))
    return rows


def gradient_check(network: TwoLayerNet, x: Array, t: Array) -> dict[str, tuple[float, float, float]]:
    """Prints and returns mean |analytic|, mean |numerical| and mean |difference| of each parameter."""
    numerical, analytic = network.numerical_gradient(x, t), network.gradient(x, t)
    means = {}
    for name, leaves in analytic.items():
        for leaf, a in leaves.items():
            n = numerical[name][leaf]
            means[f"{name}.{leaf}"] = float(abs(a).mean()), float(abs(n).mean()), float(abs(a - n).mean())
            print(f"{name}.{leaf}:", *means[f"{name}.{leaf}"])  # defect 9: nothing fails, whatever is printed
    return means
