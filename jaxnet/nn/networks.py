"""Networks, each written down once: `net.init`, `net.train`, `net.infer`, and `net.description` for the hand-built."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxnet.nn import normalization
from jaxnet.nn.attention import attention, embedding, position
from jaxnet.nn.convolution import convolution, max_pool
from jaxnet.nn.layers import Layer, affine, flatten, gelu, relu, residual, sequential, sigmoid, tanh
from jaxnet.nn.layers import dropout as drop
from jaxnet.nn.normalization import layer_norm
from jaxnet.validation import check_counts

ACTIVATIONS: dict[str, Callable[[], Layer]] = {"relu": relu, "sigmoid": sigmoid, "tanh": tanh, "gelu": gelu}


def two_layer_net(input_size: int, hidden_size: int, output_size: int, activation: str = "relu") -> Layer:
    """Affine1, Relu1, Affine2: x (N, input_size) -> logits (N, output_size). The book's order, and the default.

    Raises:
        ValueError: A size is below 1, or the activation is unknown.
    """
    check_counts(hidden_size=hidden_size)
    return multi_layer_net(input_size, [hidden_size], output_size, activation)


def notebook_net(input_size: int, hidden_size: int, output_size: int) -> Layer:
    """Affine1, Relu1, Affine2, Relu2: the notebook's order, whose logits cannot be negative.

    A logit that the last ReLU has cut off gets no gradient, so it learns from fewer samples than the book's order.

    Raises:
        ValueError: A size is below 1.
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
    hidden_sizes: Sequence[int],
    output_size: int,
    activation: str = "relu",
    *,
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> Layer:
    """Affine layers with an activation between every two: x (N, input_size) -> logits (N, output_size).

    Layers are named as in the notebook: Affine1, Relu1, Affine2, Relu2, ..., and end in an Affine. As in the book's
    chapter 6, batch normalization comes before an activation, BatchNorm1, and Dropout, of this rate, after: Dropout1.

    Raises:
        ValueError: A size is below 1, the activation is none of `ACTIVATIONS`, or the rate is not in [0, 1).
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
    hidden = {f"hidden_sizes[{i}]": size for i, size in enumerate(hidden_sizes)}
    check_counts(input_size=input_size, **hidden, output_size=output_size)
    layers, sizes = {}, [input_size, *hidden_sizes]
    for i, (in_size, out_size) in enumerate(pairwise(sizes), start=1):
        layers[f"Affine{i}"] = affine(in_size, out_size)
        if batch_norm:
            layers[f"BatchNorm{i}"] = normalization.batch_norm(out_size)
        layers[f"{activation.capitalize()}{i}"] = ACTIVATIONS[activation]()
        if dropout:
            layers[f"Dropout{i}"] = drop(dropout)
    return sequential(layers | {f"Affine{len(sizes)}": affine(sizes[-1], output_size)})


def simple_conv_net(
    input_shape: tuple[int, int, int] = (1, 28, 28),
    filters: int = 30,
    filter_size: int = 5,
    hidden_size: int = 100,
    output_size: int = 10,
) -> Layer:
    """The book's chapter 7: convolution, ReLU, 2 by 2 max pooling, affine, ReLU, affine.

    Images x (N, *input_shape), channels first -> logits (N, output_size).

    Raises:
        ValueError: A size is below 1, or the images leave no room for a window.
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
    filters: Sequence[int] = (16, 32, 64),
    hidden_size: int = 50,
    output_size: int = 10,
    dropout: float = 0.5,
) -> Layer:
    """The book's chapter 8: twice 3 by 3 convolution and ReLU, then max pooling, for each number of filters.

    Then affine, ReLU, Dropout, affine, and Dropout again. Each convolution keeps the image's size, but the fourth pads
    by 2, so that 14 by 14 becomes 16 by 16 and can be halved to the end. Images x (N, *input_shape), channels first ->
    logits (N, output_size).

    Raises:
        ValueError: A size is below 1, the rate is not in [0, 1), or the images leave no room for a window.
    """
    images: dict[str, Layer] = {}
    channels, i = input_shape[0], 0
    for block, out in enumerate(filters, start=1):
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
        "Dropout1": drop(dropout),
        "Affine2": affine(hidden_size, output_size),
        "Dropout2": drop(dropout),
    }
    return sequential(images | rows)


def transformer(
    vocabulary: int, length: int, size: int = 64, heads: int = 4, blocks: int = 2, dropout: float = 0.0
) -> Layer:
    """A small character model: ids x (N, T), T up to `length` -> logits (N, T, vocabulary) of what comes next.

    Embedding and positions, then blocks of attention and of a hidden layer four times as wide, with GELU, each within
    a residual connection and after a LayerNorm: the pre-LayerNorm order of Radford et al., *Language Models are
    Unsupervised Multitask Learners*, 2019, section 2.3. Leaves are named Attend1.Attention.Wq, Think1.Affine1.W, ...

    Raises:
        ValueError: A size is below 1, the heads do not divide the size, or the rate is not in [0, 1).
    """
    check_counts(blocks=blocks)
    dropped = {"Dropout": drop(dropout)} if dropout else {}
    layers = {"Embedding": embedding(vocabulary, size), "Position": position(length, size)}
    for i in range(1, blocks + 1):
        attend = {"LayerNorm": layer_norm(size), "Attention": attention(size, heads)}
        think = {
            "LayerNorm": layer_norm(size),
            "Affine1": affine(size, 4 * size),
            "Gelu": gelu(),
            "Affine2": affine(4 * size, size),
        }
        layers[f"Attend{i}"] = residual(attend | dropped)
        layers[f"Think{i}"] = residual(think | dropped)
    return sequential(layers | {"LayerNorm": layer_norm(size), "Affine": affine(size, vocabulary)})


def _features(layers: dict[str, Layer], input_shape: tuple[int, int, int]) -> int:
    """How many numbers these layers, which end in a Flatten, make of an image."""
    net = sequential(layers)

    def infer(x: Array) -> Array:
        return net.infer(net.init(jax.random.key(0), 1.0), net.state, x)

    return int(jax.eval_shape(infer, jnp.zeros((1, *input_shape))).shape[1])
