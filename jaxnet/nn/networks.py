"""Networks, each defined once: `numpy_ref.build_layers` builds the hand-written one from `net.description`."""

from collections.abc import Iterable
from itertools import pairwise

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxnet.common.validation import as_list, check_counts
from jaxnet.nn import normalization
from jaxnet.nn.attention import attention, embedding, positional_embedding
from jaxnet.nn.convolution import convolution, max_pool
from jaxnet.nn.layers import ACTIVATIONS, Layer, affine, flatten, gelu, relu, residual, sequential
from jaxnet.nn.layers import dropout as dropout_layer
from jaxnet.nn.normalization import layer_norm

__all__ = ["deep_conv_net", "multi_layer_net", "notebook_net", "simple_conv_net", "transformer", "two_layer_net"]


def two_layer_net(input_size: int, hidden_size: int, output_size: int, activation: str = "relu") -> Layer:
    """Returns Affine1, Relu1, Affine2, the network of the book: x (N, input_size) -> logits (N, output_size).

    Args:
        input_size: The number of features of a sample, at least 1.
        hidden_size: The number of hidden units, at least 1.
        output_size: The number of classes, at least 1.
        activation: A name in `ACTIVATIONS`. Defaults to "relu".

    Raises:
        ValueError: If a size is below 1, or the activation is unknown.

    Example:
        >>> net = two_layer_net(784, 50, 10)
        >>> params = net.init(jax.random.key(0), 0.1)
        >>> net.infer(params, net.state, jnp.zeros((32, 784))).shape
        (32, 10)
    """
    check_counts(hidden_size=hidden_size)
    return multi_layer_net(input_size, [hidden_size], output_size, activation)


def notebook_net(input_size: int, hidden_size: int, output_size: int) -> Layer:
    """Returns Affine1, Relu1, Affine2, Relu2, the network of the notebook, whose logits cannot be negative.

    A negative logit becomes 0 in the last ReLU and gets no gradient, so that this network learns from fewer samples
    than `two_layer_net`.

    Raises:
        ValueError: If a size is below 1.
    """
    return sequential(
        {
            "Affine1": affine(input_size, hidden_size),
            "Relu1": relu(),
            "Affine2": affine(hidden_size, output_size),
            "Relu2": relu(),
        }
    )


def multi_layer_net(
    input_size: int,
    hidden_sizes: Iterable[int],
    output_size: int,
    activation: str = "relu",
    *,
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> Layer:
    """Returns affine layers with activations between them: x (N, input_size) -> logits (N, output_size).

    Layers are named as in the notebook, Affine1, Relu1, Affine2, Relu2, ..., and the last one is an Affine.

    Args:
        input_size: The number of features of a sample, at least 1.
        hidden_sizes: The number of units of each hidden layer, at least 1 each.
        output_size: The number of classes, at least 1.
        activation: A name in `ACTIVATIONS`. Defaults to "relu".
        batch_norm: Whether each activation has a BatchNorm before it, as in the book's chapter 6.
        dropout: The rate, in [0, 1), of a Dropout after each activation. Defaults to 0, which means no Dropout.

    Raises:
        ValueError: If a size is below 1, the activation is unknown, or the rate is not in [0, 1).
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
    sizes = [input_size, *as_list("hidden_sizes", hidden_sizes), output_size]
    hidden = {f"hidden_sizes[{i}]": size for i, size in enumerate(sizes[1:-1])}
    check_counts(input_size=input_size, **hidden, output_size=output_size)
    layers = {}
    for i, (in_size, out_size) in enumerate(pairwise(sizes[:-1]), start=1):
        layers[f"Affine{i}"] = affine(in_size, out_size)
        if batch_norm:
            layers[f"BatchNorm{i}"] = normalization.batch_norm(out_size)
        layers[f"{activation.title().replace('_', '')}{i}"] = ACTIVATIONS[activation]()  # leaky_relu: LeakyRelu1
        if dropout:
            layers[f"Dropout{i}"] = dropout_layer(dropout)
    return sequential(layers | {f"Affine{len(sizes) - 1}": affine(*sizes[-2:])})


def simple_conv_net(
    input_shape: tuple[int, int, int] = (1, 28, 28),
    filters: int = 30,
    filter_size: int = 5,
    hidden_size: int = 100,
    output_size: int = 10,
) -> Layer:
    """Returns the network of the book's chapter 7: convolution, ReLU, 2 by 2 max pooling, affine, ReLU, affine.

    It maps images x (N, *input_shape), channels first, to logits (N, output_size).

    Raises:
        ValueError: If a size is below 1, or the images have no room for a window.
    """
    channels, _, _ = input_shape
    images = {
        "Convolution1": convolution(channels, filters, filter_size),
        "Relu1": relu(),
        "Pool1": max_pool(2),
        "Flatten1": flatten(),
    }
    rows = {
        "Affine1": affine(_features(images, input_shape), hidden_size),
        "Relu2": relu(),
        "Affine2": affine(hidden_size, output_size),
    }
    return sequential(images | rows)


def deep_conv_net(
    input_shape: tuple[int, int, int] = (1, 28, 28),
    filters: Iterable[int] = (16, 32, 64),
    hidden_size: int = 50,
    output_size: int = 10,
    dropout: float = 0.5,
) -> Layer:
    """Returns the network of the book's chapter 8, which maps images x (N, *input_shape) to logits (N, output_size).

    For each number of filters it has two 3 by 3 convolutions, each with a ReLU, and max pooling; then affine, ReLU,
    Dropout, affine and Dropout. Each convolution keeps the size of the image, except the fourth: it pads by 2, so that
    14 by 14 becomes 16 by 16, which can be halved further.

    Raises:
        ValueError: If a size is below 1, the rate is not in [0, 1), or the images have no room for a window.
    """
    images: dict[str, Layer] = {}
    channels, i = input_shape[0], 0
    for block, out in enumerate(as_list("filters", filters), start=1):
        for _ in range(2):
            i += 1
            images[f"Convolution{i}"] = convolution(channels, out, 3, padding=2 if i == 4 else 1)
            images[f"Relu{i}"] = relu()
            channels = out
        images[f"Pool{block}"] = max_pool(2)
    images["Flatten1"] = flatten()
    rows = {
        "Affine1": affine(_features(images, input_shape), hidden_size),
        f"Relu{i + 1}": relu(),
        "Dropout1": dropout_layer(dropout),
        "Affine2": affine(hidden_size, output_size),
        "Dropout2": dropout_layer(dropout),
    }
    return sequential(images | rows)


def transformer(
    vocabulary: int, length: int, size: int = 64, heads: int = 4, blocks: int = 2, dropout: float = 0.0
) -> Layer:
    """Returns a small language model: ids x (N, T), T up to `length` -> logits (N, T, vocabulary) of the next ids.

    Token and positional embeddings are followed by blocks of attention and of an MLP four times as wide, with GELU.
    Each is in a residual connection and after a LayerNorm, the order of Radford et al., *Language Models are
    Unsupervised Multitask Learners*, 2019, section 2.3. Leaves are named Attention1.Attention.Wq, MLP1.Affine1.W, ...

    Raises:
        ValueError: If a size is below 1, the heads do not divide the size, or the rate is not in [0, 1).
    """
    check_counts(blocks=blocks)
    dropouts = {"Dropout": dropout_layer(dropout)} if dropout else {}
    layers = {"Embedding": embedding(vocabulary, size), "PositionalEmbedding": positional_embedding(length, size)}
    for i in range(1, blocks + 1):
        attention_block = {"LayerNorm": layer_norm(size), "Attention": attention(size, heads)}
        mlp_block = {
            "LayerNorm": layer_norm(size),
            "Affine1": affine(size, 4 * size),
            "Gelu": gelu(),
            "Affine2": affine(4 * size, size),
        }
        layers[f"Attention{i}"] = residual(attention_block | dropouts)
        layers[f"MLP{i}"] = residual(mlp_block | dropouts)
    return sequential(layers | {"LayerNorm": layer_norm(size), "Affine": affine(size, vocabulary)})


def _features(layers: dict[str, Layer], input_shape: tuple[int, int, int]) -> int:
    """Returns the width of the rows that these layers, the last of which is a Flatten, make of images."""
    net = sequential(layers)

    def rows() -> Array:
        return net.infer(net.init(jax.random.key(0), 1.0), net.state, jnp.zeros((1, *input_shape)))

    return int(jax.eval_shape(rows).shape[1])
