"""Networks from their descriptions, which are plain data and can be stored beside the parameters."""

from importlib import import_module
from typing import Any

from jaxnet.nn.layers import Layer, residual, sequential

__all__ = ["from_description"]

COMPOSED = {"Sequential": sequential, "Residual": residual}
MODULES = [import_module(f"jaxnet.nn.{name}") for name in ("attention", "convolution", "layers", "normalization")]
FACTORIES = {  # by the kind in lower case: ("LeakyReLU", 0.01) describes what leaky_relu(0.01) returns
    name.replace("_", ""): getattr(module, name) for module in MODULES for name in module.__all__
}


def from_description(description: Any) -> Layer:
    """Builds the layer that has a description, which may have lists where `Layer.description` has tuples, as JSON does.

    Args:
        description: (kind, *sizes). The sizes of a "Sequential" or "Residual" are pairs of a name and a description.

    Raises:
        ValueError: If it does not describe a layer of this version.

    Example:
        >>> net = jaxnet.two_layer_net(64, 50, 10)
        >>> jaxnet.nn.from_description(net.description) == net
        True
    """
    try:
        return _build(description)
    except RecursionError:
        raise ValueError("description: nested too deeply, expected (kind, *sizes) of a layer") from None


def _build(description: Any) -> Layer:
    try:
        kind, *sizes = description
        inner = dict(sizes[0]) if kind in COMPOSED else None
        if inner is None:
            layer: Layer = FACTORIES[kind.lower()](*sizes)
            expected = layer.description
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"description: {description!r}, expected (kind, *sizes) of a layer ({error})") from error
    if inner is not None:
        return COMPOSED[kind]({name: _build(pair) for name, pair in inner.items()})
    if expected != (kind, *sizes):  # of a function that makes no layer, or with sizes left out
        raise ValueError(f"description: {description!r}, expected {expected!r}, with all sizes")
    return layer


def symbol_count(net: Layer) -> int | None:
    """Returns how many symbols a network of ids knows, which its first layer embeds; None for another network.

    Example:
        >>> symbol_count(jaxnet.transformer(65, 8)), symbol_count(jaxnet.two_layer_net(4, 3, 2))
        (65, None)
    """
    while net.layers:
        net = next(iter(net.layers.values()))
    return net.description[1] if net.description[0] == "Embedding" else None
