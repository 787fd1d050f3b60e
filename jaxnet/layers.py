"""Layers as values: a pair of pure functions, `init` and `apply`, and the plain data that describes them.

N samples in rows. Read it beside `numpy_ref/layers.py`: the same layers in the same order, with the backward half
written out.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Params = dict[str, Any]  # {"Affine1": {"W": ..., "b": ...}, ...}; gradients and optimizer state have the same tree
Scale = float | Float[Array, ""] | str  # a standard deviation, "he" or "xavier"


@dataclass(frozen=True)
class Layer:
    """`init(key, scale) -> params` and `apply(params, x) -> y`.

    `description` names the hand-written layer and its sizes, and crosses over to NumPy. It is the layer's identity:
    two layers of one description are equal, so a program compiled for one serves the other.
    """

    description: tuple[Any, ...]
    init: Callable[[PRNGKeyArray, Scale], Params] = field(compare=False, repr=False)
    apply: Callable[[Params, Array], Array] = field(compare=False, repr=False)


def affine(in_size: int, out_size: int) -> Layer:
    """y = x W + b: x (N, in_size) -> y (N, out_size); W normal of the standard deviation `scale` asks for, b zero.

    Raises:
        ValueError: A size is below 1; in `apply`, x is of another width.
    """
    for argument, size in {"in_size": in_size, "out_size": out_size}.items():
        if size < 1:
            raise ValueError(f"{argument}: {size}, expected at least 1")

    def init(key: PRNGKeyArray, scale: Scale) -> Params:
        std = standard_deviation(scale, in_size, out_size)
        return {"W": std * jax.random.normal(key, (in_size, out_size)), "b": jnp.zeros(out_size)}

    def apply(params: Params, x: Array) -> Array:
        if x.ndim != 2 or x.shape[1] != in_size:
            raise ValueError(f"x: shape {x.shape}, expected (N, {in_size}), one sample a row")
        return x @ params["W"] + params["b"]  # (N, in_size) @ (in_size, out_size) + (out_size,) -> (N, out_size)

    return Layer(("Affine", in_size, out_size), init, apply)


def relu() -> Layer:
    """y = max(x, 0), with derivative 0 at the kink x = 0; `jnp.maximum` would take 1/2 there."""
    return _elementwise("ReLU", jax.nn.relu)


def sigmoid() -> Layer:
    """y = 1 / (1 + exp(-x))."""
    return _elementwise("Sigmoid", jax.nn.sigmoid)


def tanh() -> Layer:
    """y = tanh(x)."""
    return _elementwise("Tanh", jnp.tanh)


def sequential(layers: Mapping[str, Layer]) -> Layer:
    """One layer after the other; params are {name: that layer's params}, without the layers that have none."""
    layers = dict(layers)

    def init(key: PRNGKeyArray, scale: Scale) -> Params:
        keys = jax.random.split(key, len(layers))
        params = {name: layer.init(k, scale) for (name, layer), k in zip(layers.items(), keys, strict=True)}
        return {name: leaves for name, leaves in params.items() if leaves}

    def apply(params: Params, x: Array) -> Array:
        for name, layer in layers.items():
            x = layer.apply(params.get(name, {}), x)
        return x

    return Layer(("Sequential", tuple((name, layer.description) for name, layer in layers.items())), init, apply)


def standard_deviation(scale: Scale, in_size: int, out_size: int) -> Any:
    """Of the initial weights of a layer with `in_size` inputs and `out_size` outputs.

    A number is taken as it is, as the notebook's `weight_init_std`. "he" is sqrt(2 / in_size), for ReLU (He et al.,
    *Delving Deep into Rectifiers*, 2015, equation 10). "xavier" is sqrt(2 / (in_size + out_size)), for tanh and
    sigmoid (Glorot and Bengio, *Understanding the difficulty of training deep feedforward neural networks*, 2010,
    equation 12).

    Raises:
        ValueError: Another name, or a number that is negative or not finite.
    """
    if isinstance(scale, str):
        named = {"he": math.sqrt(2 / in_size), "xavier": math.sqrt(2 / (in_size + out_size))}
        if scale not in named:
            raise ValueError(f"scale: {scale!r}, expected a number, 'he' or 'xavier'")
        return named[scale]
    if isinstance(scale, (int, float)) and not 0 <= scale < math.inf:
        raise ValueError(f"scale: {scale}, expected a finite standard deviation >= 0")
    return scale


def _elementwise(kind: str, function: Callable[[Array], Array]) -> Layer:
    return Layer((kind,), lambda _key, _scale: {}, lambda _params, x: function(x))
