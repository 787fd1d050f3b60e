"""Networks, each written down once: `net.init`, `net.train`, `net.infer`, and `net.description` for the hand-built."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from jaxnet.layers import Layer, affine, relu, sequential, sigmoid, tanh

ACTIVATIONS: dict[str, Callable[[], Layer]] = {"relu": relu, "sigmoid": sigmoid, "tanh": tanh}


def two_layer_net(input_size: int, hidden_size: int, output_size: int, activation: str = "relu") -> Layer:
    """Affine1, Relu1, Affine2: x (N, input_size) -> logits (N, output_size). The book's order, and the default.

    Raises:
        ValueError: A size is below 1, or the activation is unknown.
    """
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


def multi_layer_net(input_size: int, hidden_sizes: Sequence[int], output_size: int, activation: str = "relu") -> Layer:
    """Affine layers with an activation between every two: x (N, input_size) -> logits (N, output_size).

    Layers are named as in the notebook: Affine1, Relu1, Affine2, Relu2, ..., and end in an Affine.

    Raises:
        ValueError: A size is below 1, or the activation is none of `ACTIVATIONS`.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
    layers = {}
    sizes = [input_size, *hidden_sizes, output_size]
    for i, (in_size, out_size) in enumerate(pairwise(sizes), start=1):
        layers[f"Affine{i}"] = affine(in_size, out_size)
        layers[f"{activation.capitalize()}{i}"] = ACTIVATIONS[activation]()
    layers.popitem()  # no activation after the last Affine
    return sequential(layers)
