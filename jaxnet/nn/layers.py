"""Layers as pure functions, beside `numpy_ref/layers.py`, which has their backward halves in the same order.

Everything that changes is an argument and a result: parameters, state, random arrays. A batch has N samples, one a row.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxnet.common.validation import check_counts, check_key, check_not_negative, check_share, check_size
from jaxnet.nn.summary import kind_of, summary, summary_html

__all__ = [
    "ACTIVATIONS",
    "Layer",
    "activation",
    "affine",
    "dropout",
    "flatten",
    "gelu",
    "leaky_relu",
    "relu",
    "residual",
    "sequential",
    "sigmoid",
    "stateless",
    "tanh",
]

Tree = dict[str, Any]  # {"Affine1": {"W": ..., "b": ...}, ...}, nested as the layers are; empty trees are left out
Params = Tree  # the trained arrays; gradients have the same tree
P = ParamSpec("P")
InitStd = float | Float[Array, ""] | str  # a standard deviation, "he" or "xavier"


@dataclass(frozen=True, repr=False)
class Layer:
    """A layer: pure functions to initialize it, to train it and to infer with it.

    - `init(key, init_std) -> params`. JAX can trace it.
    - `state`: the initial value of the statistics that training gathers, such as running means.
    - `draw_noise(key, x) -> noise`: the random arrays of a training step, such as Dropout's mask, for inputs like x.
    - `train(params, state, x, noise) -> (y, new state)`.
    - `infer(params, state, x) -> y`.

    `description` is plain data, (kind, *sizes), from which `numpy_ref.build_layers` builds the same layer by hand. Two
    layers with one description are equal, so that a program compiled for one is used for the other as well.

    `last_axis_only` says that each row of x, along the last axis, gives the same row of y whatever the others are, and
    that a matrix W among the parameters only occurs in x W + b. Training may then keep W transposed.
    """

    description: tuple[Any, ...]
    init: Callable[[PRNGKeyArray, InitStd], Params] = field(compare=False, repr=False)
    state: Tree = field(compare=False, repr=False)
    draw_noise: Callable[[PRNGKeyArray, Any], Tree] = field(compare=False, repr=False)
    train: Callable[[Params, Tree, Array, Tree], tuple[Array, Tree]] = field(compare=False, repr=False)
    infer: Callable[[Params, Tree, Array], Array] = field(compare=False, repr=False)
    layers: Mapping[str, "Layer"] = field(default_factory=dict, compare=False)  # the layers within it
    last_axis_only: bool = field(default=False, compare=False)

    def __repr__(self) -> str:
        """Returns a table of the layers within, or the kind and sizes of a single layer."""
        return summary(self) if self.layers else kind_of(self)

    def _repr_html_(self) -> str | None:
        """Returns the table as a notebook shows it; None for a single layer, which is shown as text."""
        return summary_html(self) if self.layers else None


def stateless(
    description: tuple[Any, ...],
    init: Callable[[PRNGKeyArray, InitStd], Params],
    apply: Callable[[Params, Array], Array],
    *,
    last_axis_only: bool = False,
) -> Layer:
    """Returns a layer that does the same in training and inference: y = apply(params, x), without state or noise."""
    return Layer(
        description,
        init,
        state={},
        draw_noise=no_noise,
        train=lambda params, state, x, _noise: (apply(params, x), state),
        infer=lambda params, _state, x: apply(params, x),
        last_axis_only=last_axis_only,
    )


def no_noise(_key: PRNGKeyArray, _x: Any) -> Tree:
    """Returns no random arrays."""
    return {}


def affine(in_size: int, out_size: int) -> Layer:
    """y = x W + b: x (..., in_size) -> y (..., out_size). W is normal with standard deviation `init_std`, and b zero.

    Raises:
        ValueError: If a size is below 1; in use, if x has another width or no floats.
    """
    check_counts(in_size=in_size, out_size=out_size)
    check_size(in_size=in_size, out_size=out_size)

    def init(key: PRNGKeyArray, init_std: InitStd) -> Params:
        std = standard_deviation(init_std, in_size, out_size)
        return {"W": std * jax.random.normal(key, (in_size, out_size)), "b": jnp.zeros(out_size)}

    def apply(params: Params, x: Array) -> Array:
        if x.ndim < 2 or x.shape[-1] != in_size:
            raise ValueError(f"x: shape {x.shape}, expected (N, {in_size}), one sample a row")
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"x: {x.dtype}, expected floats, such as pixels / 255")
        return x @ params["W"] + params["b"]  # (N, in_size) @ (in_size, out_size) + (out_size,) -> (N, out_size)

    return stateless(("Affine", in_size, out_size), init, apply, last_axis_only=True)


ACTIVATIONS: dict[str, Callable[..., Layer]] = {}  # by name: the choices of `multi_layer_net` and the command line


def activation(make: Callable[P, Layer]) -> Callable[P, Layer]:
    """Registers a layer, which needs no arguments, in `ACTIVATIONS` under its function's name."""
    ACTIVATIONS[make.__name__] = make
    return make


@activation
def relu() -> Layer:
    """y = max(x, 0), with derivative 0 at the kink x = 0, where that of `jnp.maximum` is 1/2."""
    return _elementwise("ReLU", jax.nn.relu)


@activation
def leaky_relu(slope: float = 0.01) -> Layer:
    """y = x where x > 0, else slope x. The derivative at the kink x = 0 is the slope.

    Maas, Hannun and Ng, *Rectifier Nonlinearities Improve Neural Network Acoustic Models*, 2013, section 2.

    Raises:
        ValueError: If the slope is not finite.
    """
    if not math.isfinite(slope):
        raise ValueError(f"slope: {slope}, expected a finite number")
    return _elementwise("LeakyReLU", lambda x: jnp.where(x > 0, x, slope * x), slope)


@activation
def sigmoid() -> Layer:
    """y = 1 / (1 + exp(-x))."""
    return _elementwise("Sigmoid", jax.nn.sigmoid)


@activation
def tanh() -> Layer:
    """y = tanh(x)."""
    return _elementwise("Tanh", jnp.tanh)


@activation
def gelu() -> Layer:
    """y = x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))), Hendrycks and Gimpel, *Gaussian Error Linear Units*, section 2."""
    return _elementwise("GELU", lambda x: jax.nn.gelu(x, approximate=True))


def flatten() -> Layer:
    """y has each sample as one row: (N, ...) -> (N, D)."""
    return stateless(("Flatten",), _no_params, lambda _params, x: x.reshape(len(x), -1))


def dropout(rate: float) -> Layer:
    """y = x mask / (1 - rate) in training; y = x in inference. The mask keeps an element with probability 1 - rate.

    Srivastava et al., *Dropout*, 2014, section 10, with the division in training ("inverted").

    Raises:
        ValueError: If the rate is not in [0, 1); in use, if there is no mask in `noise`.
    """
    check_share("rate", rate)

    def train(_params: Params, state: Tree, x: Array, noise: Tree) -> tuple[Array, Tree]:
        if "mask" not in noise:
            raise ValueError(
                "noise: no mask for a Dropout; pass the result of the whole network's `draw_noise(key, x)`"
            )
        return jnp.where(noise["mask"], x / (1 - rate), 0), state

    return Layer(
        ("Dropout", rate),
        _no_params,
        state={},
        draw_noise=lambda key, x: {"mask": jax.random.bernoulli(key, 1 - rate, x.shape)},
        train=train,
        infer=lambda _params, _state, x: x,
    )


def sequential(layers: Mapping[str, Layer]) -> Layer:
    """y = f₃(f₂(f₁(x))), layer after layer. Its trees are {name: tree of that layer}, without the empty ones."""
    layers = dict(layers)

    def init(key: PRNGKeyArray, init_std: InitStd) -> Params:
        check_key("key", key)
        keys = jax.random.split(key, len(layers))
        return _nonempty({name: layer.init(k, init_std) for (name, layer), k in zip(layers.items(), keys, strict=True)})

    def draw_noise(key: PRNGKeyArray, x: Any) -> Tree:
        keys, noise = jax.random.split(key, len(layers)), {}
        for (name, layer), k in zip(layers.items(), keys, strict=True):
            noise[name] = layer.draw_noise(k, x)
            x = jax.eval_shape(lambda k, x, layer=layer: layer.infer(layer.init(k, 1.0), layer.state, x), k, x)
        return _nonempty(noise)

    def train(params: Params, state: Tree, x: Array, noise: Tree) -> tuple[Array, Tree]:
        new = {}
        for name, layer in layers.items():
            x, new[name] = layer.train(params.get(name, {}), state.get(name, {}), x, noise.get(name, {}))
        return x, _nonempty(new)

    def infer(params: Params, state: Tree, x: Array) -> Array:
        for name, layer in layers.items():
            x = layer.infer(params.get(name, {}), state.get(name, {}), x)
        return x

    return Layer(
        ("Sequential", tuple((name, layer.description) for name, layer in layers.items())),
        init,
        state=_nonempty({name: layer.state for name, layer in layers.items()}),
        draw_noise=no_noise if all(layer.draw_noise is no_noise for layer in layers.values()) else draw_noise,
        train=train,
        infer=infer,
        layers=layers,
        last_axis_only=all(layer.last_axis_only for layer in layers.values()),
    )


def residual(layers: Mapping[str, Layer]) -> Layer:
    """y = x + f(x), where f applies the layers one after the other.

    He et al., *Deep Residual Learning for Image Recognition*, 2015, equation 1.

    Raises:
        ValueError: In use, if f(x) and x have different shapes.
    """
    inner = sequential(layers)

    def add(x: Array, y: Array) -> Array:
        if x.shape != y.shape:
            raise ValueError(f"layers: their output has shape {y.shape}, expected that of their input, {x.shape}")
        return x + y

    def train(params: Params, state: Tree, x: Array, noise: Tree) -> tuple[Array, Tree]:
        y, state = inner.train(params, state, x, noise)
        return add(x, y), state

    def infer(params: Params, state: Tree, x: Array) -> Array:
        return add(x, inner.infer(params, state, x))

    return Layer(
        ("Residual", inner.description[1]), inner.init, inner.state, inner.draw_noise, train, infer, inner.layers
    )


def standard_deviation(init_std: InitStd, in_size: int, out_size: int) -> Any:
    """Returns the standard deviation of the initial weights of a layer with `in_size` inputs and `out_size` outputs.

    A number is returned unchanged. "he" is sqrt(2 / in_size), for ReLU (He et al., *Delving Deep into Rectifiers*,
    2015, equation 10); "xavier" is sqrt(2 / (in_size + out_size)), for tanh and sigmoid (Glorot and Bengio,
    *Understanding the difficulty of training deep feedforward neural networks*, 2010, equation 12).

    Raises:
        ValueError: If it is another name, or a number that is negative or not finite.
    """
    if isinstance(init_std, str):
        named = {"he": math.sqrt(2 / in_size), "xavier": math.sqrt(2 / (in_size + out_size))}
        if init_std not in named:
            raise ValueError(f"init_std: {init_std!r}, expected a number, 'he' or 'xavier'")
        return named[init_std]
    if isinstance(init_std, jax.core.Tracer) and init_std.ndim == 0:
        return init_std
    try:
        check_not_negative("init_std", init_std)
    except ValueError as error:
        raise ValueError(f"{error}, or 'he' or 'xavier'") from None
    return init_std


def _elementwise(kind: str, function: Callable[[Array], Array], *sizes: float) -> Layer:
    return stateless((kind, *sizes), _no_params, lambda _params, x: function(x), last_axis_only=True)


def _no_params(_key: PRNGKeyArray, _init_std: InitStd) -> Params:
    return {}


def _nonempty(trees: Tree) -> Tree:
    return {name: tree for name, tree in trees.items() if tree}
