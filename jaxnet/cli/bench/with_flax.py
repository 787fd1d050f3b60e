"""Training with Flax NNX and optax, as in https://flax.readthedocs.io/en/latest/mnist_tutorial.html."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import optax
from flax import nnx

from jaxnet.cli.bench.problem import LEARNING_RATE, Problem, channels_last, counterparts, mean_cross_entropy


class Position(nnx.Module):  # type: ignore[misc]
    """Adds the embedding of each position."""

    def __init__(self, params: Any, *_sizes: int) -> None:
        self.P = nnx.Param(params["P"])

    def __call__(self, x: Any) -> Any:
        """Maps x (N, T, D) to y (N, T, D)."""
        return x + self.P[: x.shape[1]]


class Attention(nnx.Module):  # type: ignore[misc]
    """Causal self-attention."""

    def __init__(self, params: Any, size: int, heads: int) -> None:
        self.attention = nnx.MultiHeadAttention(heads, size, use_bias=False, decode=False, rngs=nnx.Rngs(0))
        split = size, heads, size // heads
        for name, W in zip(("query", "key", "value"), ("Wq", "Wk", "Wv"), strict=True):
            _set(getattr(self.attention, name), kernel=params[W].reshape(split))
        _set(self.attention.out, kernel=params["Wo"].reshape(*split[1:], size))

    def __call__(self, x: Any) -> Any:
        """Maps x (N, T, D) to y (N, T, D)."""
        return self.attention(x, mask=nnx.make_causal_mask(x[..., 0]))


class Residual(nnx.Module):  # type: ignore[misc]
    """Adds its input to the output of its layers."""

    def __init__(self, layers: list[Any]) -> None:
        self.layers = nnx.Sequential(*layers)

    def __call__(self, x: Any) -> Any:
        """Maps x to x + f(x)."""
        return x + self.layers(x)


def _set(layer: Any, **arrays: np.ndarray) -> Any:
    """Copies arrays into the parameters of these names, and returns the layer."""
    for name, array in arrays.items():
        getattr(layer, name)[...] = array
    return layer


def _convolution(params: Any, channels: int, filters: int, size: int, stride: int, padding: int) -> Any:
    layer = nnx.Conv(channels, filters, (size, size), stride, padding=padding, rngs=nnx.Rngs(0))
    return _set(layer, kernel=params["W"].transpose(2, 3, 1, 0), bias=params["b"])


def _max_pool(_: Any, size: int, stride: int, padding: int) -> Any:
    borders = ((padding, padding),) * 2
    return partial(nnx.max_pool, window_shape=(size, size), strides=(stride, stride), padding=borders)


def _batch_norm(params: Any, size: int, momentum: float, eps: float) -> Any:
    layer = nnx.BatchNorm(size, momentum=momentum, epsilon=eps, rngs=nnx.Rngs(0))
    return _set(layer, scale=params["gamma"], bias=params["beta"])


def _layer_norm(params: Any, size: int, eps: float) -> Any:
    return _set(nnx.LayerNorm(size, epsilon=eps, rngs=nnx.Rngs(0)), scale=params["gamma"], bias=params["beta"])


def _flatten(x: Any) -> Any:
    return x.reshape(len(x), -1)


LAYERS: dict[str, Callable[..., Any]] = {
    "Affine": lambda p, D, M: _set(nnx.Linear(D, M, rngs=nnx.Rngs(0)), kernel=p["W"], bias=p["b"]),
    "Attention": Attention,
    "BatchNorm": _batch_norm,
    "Convolution": _convolution,
    "Dropout": lambda _, rate: nnx.Dropout(rate, rngs=nnx.Rngs(0)),
    "Embedding": lambda p, vocabulary, size: _set(nnx.Embed(vocabulary, size, rngs=nnx.Rngs(0)), embedding=p["E"]),
    "Flatten": lambda _: _flatten,
    "GELU": lambda _: nnx.gelu,
    "LayerNorm": _layer_norm,
    "MaxPool": _max_pool,
    "PositionalEmbedding": Position,
    "ReLU": lambda _: nnx.relu,
    "Residual": Residual,
}


def train_flax(problem: Problem) -> Any:
    """Trains with a compiled step for each batch, of images (N, H, W, C)."""

    @nnx.jit  # type: ignore[untyped-decorator]
    def train_step(model: Any, optimizer: Any, x: Any, t: Any) -> Any:
        def loss(model: Any) -> Any:
            return mean_cross_entropy(model(x), t)

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    problem = channels_last(problem)
    x_train, t_train = problem.data.x_train, problem.data.t_train

    sgd = optax.sgd(LEARNING_RATE)  # another object would be compiled for anew
    initial = nnx.Sequential(*counterparts("Flax", LAYERS, problem.net.description[1], problem.params))
    initial.train()
    graph, arrays = nnx.split(initial)  # training replaces arrays, and leaves these as they are

    def train(batches: np.ndarray) -> np.ndarray:
        model = nnx.merge(graph, arrays)
        optimizer = nnx.Optimizer(model, sgd, wrt=nnx.Param)
        for batch in batches:
            train_step(model, optimizer, x_train[batch], t_train[batch])
        first = model.layers[0]
        weights = np.asarray((first.embedding if problem.has_text else first.kernel)[...])
        return weights.transpose(3, 2, 0, 1) if weights.ndim == 4 else weights

    return train
