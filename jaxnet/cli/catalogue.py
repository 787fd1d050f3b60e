"""Pairs each layer in JAX with the same layer by hand. Checks, tests and the table in docs/layers.md follow from it.

An entry makes the layer in JAX at small sizes; the description of that layer builds the one by hand. The fault of the
entry is a wrong `backward`: a check of the layer must report the leaf whose gradient it changes.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import numpy_ref
from jaxnet import nn
from numpy_ref.networks import COMPOSED
from numpy_ref.networks import LAYERS as BY_HAND

Shape = tuple[int, ...]


class Fault(NamedTuple):
    """A wrong backward pass, `backward(layer, dout)`, and the leaf whose gradient is wrong."""

    leaf: str
    backward: Callable[[Any, Any], Any]


class Entry(NamedTuple):
    """The function that makes a layer in JAX and its arguments, the shapes of example inputs, and a planted fault."""

    make: Callable[..., nn.Layer]
    arguments: tuple[Any, ...]
    shapes: list[Shape]
    fault: Fault
    chapter: int | None = None  # of the book
    ids: int = 0  # if not 0, inputs are integers below this number

    @property
    def layer(self) -> nn.Layer:
        """The layer in JAX."""
        return self.make(*self.arguments)

    def example(self, shape: Shape, rng: np.random.Generator, dtype: Any = np.float64) -> np.ndarray:
        """Draws an input: integers below `ids`, or normal numbers at least 0.1 away from the kink at 0."""
        if self.ids:
            return rng.integers(0, self.ids, shape)
        x = rng.standard_normal(shape)
        return (x + 0.1 * np.sign(x)).astype(dtype)

    def by_hand(self, params: Any, state: Any = None) -> Any:
        """Builds the layer in NumPy around its parameters and state."""
        description = ("Sequential", (("Layer", self.layer.description),))
        return numpy_ref.build_layers(description, {"Layer": params}, {"Layer": state or {}})["Layer"]


def scaled(leaf: str, factor: float = 2.0) -> Fault:
    """Returns a fault that scales the gradient of a leaf."""

    def backward(layer: Any, dout: Any) -> Any:
        dx = super(type(layer), layer).backward(dout)
        if leaf == "x":
            return factor * dx
        setattr(layer, f"d{leaf}", factor * getattr(layer, f"d{leaf}"))
        return dx

    return Fault(leaf, backward)


def with_fault(layer: Any, fault: Fault) -> Any:
    """Gives a hand-written layer a wrong backward pass, and returns it."""
    layer.__class__ = type(f"Wrong{type(layer).__name__}", (type(layer),), {"backward": fault.backward})
    return layer


dx = partial(Fault, "x")


def mask_forgotten(_layer: Any, dout: Any) -> Any:
    """Returns dout itself, as if the layer were the identity."""
    return dout


def statistics_held_constant(layer: Any, dout: Any) -> Any:
    """Omits the terms of dx that come from the mean and the variance of a normalization."""
    dx = super(type(layer), layer).backward(dout)
    shape = [1, -1] + [1] * (dx.ndim - 2) if isinstance(layer, numpy_ref.BatchNorm) else [-1]
    return dout * layer.gamma.reshape(shape) / layer.std


def repeated_ids_counted_once(layer: Any, dout: Any) -> Any:
    """Assigns the rows of dE, although those of repeated ids must be added."""
    layer.dE = np.zeros_like(layer.E)
    layer.dE[layer.x] += dout
    return np.zeros(layer.x.shape, dout.dtype)


def first_to_last(layers: Any, dout: Any) -> Any:
    """Runs the backward passes of a Sequential in the order of the forward pass."""
    for layer in layers.layers.values():
        dout = layer.backward(dout)
    return dout


ROWS: list[Shape] = [(1, 6), (4, 6)]
SEQUENCES: list[Shape] = [(1, 1, 6), (1, 5, 6), (3, 4, 6)]
IMAGES: list[Shape] = [(1, 3, 7, 7), (2, 3, 6, 8)]
IDS: list[Shape] = [(1, 1), (2, 7)]  # 14 ids below 5, so that some are repeated
BLOCK = {"LayerNorm": nn.layer_norm(6), "Affine": nn.affine(6, 6), "Dropout": nn.dropout(0.5)}

# fmt: off  # one line a layer
CATALOGUE: dict[str, Entry] = {
    "Affine": Entry(nn.affine, (6, 4), ROWS + SEQUENCES, scaled("W"), 5),
    "ReLU": Entry(nn.relu, (), ROWS, dx(mask_forgotten), 5),
    "LeakyReLU": Entry(nn.leaky_relu, (0.2,), ROWS, dx(mask_forgotten)),
    "Sigmoid": Entry(nn.sigmoid, (), ROWS, dx(lambda layer, dout: dout * layer.y), 5),
    "Tanh": Entry(nn.tanh, (), ROWS, dx(lambda layer, dout: dout * (1 - layer.y))),
    "GELU": Entry(nn.gelu, (), ROWS + SEQUENCES, dx(lambda layer, dout: dout * (1 + layer.tanh) / 2)),
    "Flatten": Entry(nn.flatten, (), ROWS + IMAGES, dx(lambda layer, dout: dout[:, ::-1].reshape(layer.shape)), 7),
    "Dropout": Entry(nn.dropout, (0.4,), ROWS + IMAGES, dx(lambda layer, dout: np.where(layer.mask, dout, 0)), 6),
    "Dropout of nothing": Entry(nn.dropout, (0.0,), ROWS, scaled("x"), 6),
    "BatchNorm of vectors": Entry(nn.batch_norm, (6,), [*ROWS, (9, 6)], dx(statistics_held_constant), 6),
    "BatchNorm of images": Entry(nn.batch_norm, (3, 0.5, 1e-3), IMAGES, dx(statistics_held_constant), 6),
    "LayerNorm": Entry(nn.layer_norm, (6,), ROWS + SEQUENCES, dx(statistics_held_constant)),
    "GroupNorm of vectors": Entry(nn.group_norm, (2, 6), [*ROWS, (9, 6)], scaled("gamma")),
    "GroupNorm of images": Entry(nn.group_norm, (3, 6), [(1, 6, 4, 4), (2, 6, 3, 5)], scaled("x")),
    "Convolution": Entry(nn.convolution, (3, 4, 3), IMAGES, scaled("W"), 7),
    "Convolution, strides": Entry(nn.convolution, (3, 2, 3, 2), IMAGES, scaled("x"), 7),
    "Convolution, padding": Entry(nn.convolution, (3, 2, 5, 1, 2), IMAGES, scaled("b", 0.1), 7),
    "Convolution, both": Entry(nn.convolution, (3, 2, 4, 3, 1), IMAGES, scaled("W", 1.001), 7),
    "Convolution, 1 by 1": Entry(nn.convolution, (3, 2, 1), IMAGES, scaled("x", 1.001), 7),
    "MaxPool": Entry(nn.max_pool, (2,), IMAGES, dx(numpy_ref.AveragePool.backward), 7),
    "MaxPool, overlapping": Entry(nn.max_pool, (3, 2), IMAGES, scaled("x"), 7),
    "MaxPool, padding": Entry(nn.max_pool, (3, 1, 1), IMAGES, scaled("x"), 7),
    "AveragePool": Entry(nn.average_pool, (2,), IMAGES, scaled("x", 4)),
    "AveragePool, overlapping": Entry(nn.average_pool, (3, 2), IMAGES, scaled("x")),
    "AveragePool, padding": Entry(nn.average_pool, (3, 2, 2), IMAGES, scaled("x")),
    "Embedding": Entry(nn.embedding, (5, 3), IDS, Fault("E", repeated_ids_counted_once), ids=5),
    "PositionalEmbedding": Entry(nn.positional_embedding, (5, 6), SEQUENCES, scaled("P", 1 / 3)),
    "Attention, one head": Entry(nn.attention, (6, 1), SEQUENCES, scaled("Wo")),
    "Attention, heads": Entry(nn.attention, (6, 3), SEQUENCES, scaled("Wk", 1.001)),
    "Residual": Entry(nn.residual, (BLOCK,), ROWS + SEQUENCES, dx(numpy_ref.Sequential.backward)),
    "Sequential": Entry(nn.sequential, (BLOCK | {"Nested": nn.residual(BLOCK)},), ROWS, dx(first_to_last)),
}
# fmt: on


def table() -> str:
    """Returns the table of docs/layers.md, with a row for each kind of layer, in the order of the catalogue."""
    lines = ["| in JAX, `jaxnet.nn` | by hand, `numpy_ref` | file in both | chapter of the book |", "|---|---|---|---|"]
    for entry in {entry.make: entry for entry in CATALOGUE.values()}.values():
        by_hand = (BY_HAND | COMPOSED)[entry.layer.description[0]]
        file = by_hand.__module__.rpartition(".")[2]
        in_jax, by_hand = (f"`{made.__name__}({_arguments(made)})`" for made in (entry.make, by_hand))
        lines.append(f"| {in_jax} | {by_hand} | `{file}.py` | {entry.chapter or 'beyond'} |")
    return "\n".join(lines)


def _arguments(made: Callable[..., Any]) -> str:
    return ", ".join(str(p.replace(annotation=p.empty)) for p in inspect.signature(made).parameters.values())
