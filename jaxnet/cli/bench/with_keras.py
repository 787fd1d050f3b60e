"""Training with Keras on JAX by `train_on_batch`, with the layers of https://keras.io/examples/vision/mnist_convnet/."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from jaxnet.cli.bench.problem import LEARNING_RATE, Problem, Skip, channels_last, counterparts

os.environ.setdefault("KERAS_BACKEND", "jax")  # read when Keras is imported

import keras
from keras import layers


class Position(layers.Layer):  # type: ignore[misc]
    """Adds the embedding of each position."""

    def __init__(self, params: Any, length: int, size: int) -> None:
        super().__init__()
        self.P = self.add_weight(shape=(length, size))
        self.P.assign(params["P"])

    def call(self, x: Any) -> Any:
        """Maps x (N, T, D) to y (N, T, D)."""
        return x + self.P[: x.shape[1]]


class Attention(layers.Layer):  # type: ignore[misc]
    """Causal self-attention."""

    def __init__(self, params: Any, size: int, heads: int) -> None:
        super().__init__()
        self.attention = layers.MultiHeadAttention(heads, size // heads, use_bias=False)
        self.attention.build((None, None, size), (None, None, size))
        q_k_v = [params[name].reshape(size, heads, -1) for name in ("Wq", "Wk", "Wv")]
        self.attention.set_weights([*q_k_v, params["Wo"].reshape(heads, -1, size)])

    def call(self, x: Any) -> Any:
        """Maps x (N, T, D) to y (N, T, D)."""
        return self.attention(x, x, use_causal_mask=True)


class Residual(layers.Layer):  # type: ignore[misc]
    """Adds its input to the output of its layers."""

    def __init__(self, inner: list[Any]) -> None:
        super().__init__()
        self.inner = keras.Sequential(inner)

    def call(self, x: Any) -> Any:
        """Maps x to x + f(x)."""
        return x + self.inner(x)


def _set(layer: Any, shape: tuple[int | None, ...], *weights: np.ndarray) -> Any:
    """Builds a layer for inputs of this shape, copies its first weights, and returns it."""
    layer.build(shape)
    layer.set_weights([*weights, *layer.get_weights()[len(weights) :]])
    return layer


def _convolution(params: Any, channels: int, filters: int, size: int, stride: int, padding: int) -> Any:
    same = padding and 2 * padding == size - 1 and stride == 1
    layer = layers.Conv2D(filters, size, stride, padding="same" if same else "valid")
    _set(layer, (None, None, None, channels), params["W"].transpose(2, 3, 1, 0), params["b"])
    return layer if same or not padding else keras.Sequential([layers.ZeroPadding2D(padding), layer])


def _max_pool(_: Any, size: int, stride: int, padding: int) -> Any:
    if padding:
        raise Skip("Keras pads no pooling by a number")
    return layers.MaxPooling2D(size, stride)


def _normalized(layer: Any, params: Any, shape: tuple[int | None, ...]) -> Any:
    return _set(layer, shape, params["gamma"], params["beta"])


LAYERS: dict[str, Callable[..., Any]] = {
    "Affine": lambda p, D, M: _set(layers.Dense(M), (None, D), p["W"], p["b"]),
    "Attention": Attention,
    "BatchNorm": lambda p, size, momentum, eps: _normalized(
        layers.BatchNormalization(momentum=momentum, epsilon=eps), p, (None, size)
    ),
    "Convolution": _convolution,
    "Dropout": lambda _, rate: layers.Dropout(rate),
    "Embedding": lambda p, vocabulary, size: _set(layers.Embedding(vocabulary, size), (None, None), p["E"]),
    "Flatten": lambda _: layers.Flatten(),
    "GELU": lambda _: layers.Activation(partial(keras.activations.gelu, approximate=True)),
    "LayerNorm": lambda p, size, eps: _normalized(layers.LayerNormalization(epsilon=eps), p, (None, None, size)),
    "MaxPool": _max_pool,
    "PositionalEmbedding": Position,
    "ReLU": lambda _: layers.ReLU(),
    "Residual": Residual,
}


def train_keras(problem: Problem) -> Any:
    """Trains with a compiled step for each batch, of images (N, H, W, C)."""
    if keras.backend.backend() != "jax":
        raise Skip(f"Keras runs on {keras.backend.backend()}, not on JAX; unset KERAS_BACKEND")
    problem = channels_last(problem)
    x_train, t_train = problem.data.x_train, problem.data.t_train
    model = keras.Sequential(
        [
            keras.Input(x_train.shape[1:], dtype=str(x_train.dtype)),
            *counterparts("Keras", LAYERS, problem.net.description[1], problem.params),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(LEARNING_RATE), loss)
    initial = model.get_weights()

    def train(batches: np.ndarray) -> np.ndarray:
        model.set_weights(initial)
        for batch in batches:
            model.train_on_batch(x_train[batch], t_train[batch])
        weights = np.asarray(model.get_weights()[0])
        return weights.transpose(3, 2, 0, 1) if weights.ndim == 4 else weights

    return train
