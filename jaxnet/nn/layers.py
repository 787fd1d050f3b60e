"""Layers as values: pure functions, and the plain data that describes them.

All that changes is an argument and a result: parameters, state, what is drawn at random. N samples in rows. Read it
beside `numpy_ref/layers.py`: the same layers in the same order, with the backward half written out.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxnet.validation import check_counts

Tree = dict[str, Any]  # {"Affine1": {"W": ..., "b": ...}, ...}, nested as the layers are, without those that have none
Params = Tree  # what is trained; gradients and optimizer state have the same tree
Scale = float | Float[Array, ""] | str  # a standard deviation, "he" or "xavier"


@dataclass(frozen=True)
class Layer:
    """Training and inference are two functions, and training draws its random arrays beforehand.

    - `init(key, scale) -> params`, which JAX can trace, and whose scale may be a number.
    - `state` is where what training gathers begins, such as running means.
    - `draw(key, x) -> draws`: random arrays, such as Dropout's mask, for an input of the shape of x.
    - `train(params, state, x, draws) -> (y, new state)`.
    - `infer(params, state, x) -> y`.

    `description` names the hand-written layer and its sizes, and crosses over to NumPy. It is the layer's identity:
    two layers of one description are equal, so a program compiled for one serves the other.
    """

    description: tuple[Any, ...]
    init: Callable[[PRNGKeyArray, Scale], Params] = field(compare=False, repr=False)
    state: Tree = field(compare=False, repr=False)
    draw: Callable[[PRNGKeyArray, Any], Tree] = field(compare=False, repr=False)
    train: Callable[[Params, Tree, Array, Tree], tuple[Array, Tree]] = field(compare=False, repr=False)
    infer: Callable[[Params, Tree, Array], Array] = field(compare=False, repr=False)
    layers: Mapping[str, "Layer"] = field(default_factory=dict, compare=False, repr=False)  # within it, if any


def stateless(
    description: tuple[Any, ...],
    init: Callable[[PRNGKeyArray, Scale], Params],
    apply: Callable[[Params, Array], Array],
) -> Layer:
    """A layer that trains as it infers: y = apply(params, x), with no state and nothing drawn."""
    return Layer(
        description,
        init,
        state={},
        draw=draw_nothing,
        train=lambda params, state, x, _draws: (apply(params, x), state),
        infer=lambda params, _state, x: apply(params, x),
    )


def draw_nothing(_key: PRNGKeyArray, _x: Any) -> Tree:
    """For a layer without randomness."""
    return {}


def affine(in_size: int, out_size: int) -> Layer:
    """y = x W + b: x (N, in_size) -> y (N, out_size); W normal of the standard deviation `scale` asks for, b zero.

    Further axes may stand between, (N, T, in_size) -> (N, T, out_size): each position for itself.

    Raises:
        ValueError: A size is below 1; in use, x is of another width.
    """
    check_counts(in_size=in_size, out_size=out_size)

    def init(key: PRNGKeyArray, scale: Scale) -> Params:
        std = standard_deviation(scale, in_size, out_size)
        return {"W": std * jax.random.normal(key, (in_size, out_size)), "b": jnp.zeros(out_size)}

    def apply(params: Params, x: Array) -> Array:
        if x.ndim < 2 or x.shape[-1] != in_size:
            raise ValueError(f"x: shape {x.shape}, expected (N, {in_size}), one sample a row")
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"x: {x.dtype}, expected floats, such as pixels / 255")
        return x @ params["W"] + params["b"]  # (N, in_size) @ (in_size, out_size) + (out_size,) -> (N, out_size)

    return stateless(("Affine", in_size, out_size), init, apply)


def relu() -> Layer:
    """y = max(x, 0), with derivative 0 at the kink x = 0; `jnp.maximum` would take 1/2 there."""
    return _elementwise("ReLU", jax.nn.relu)


def sigmoid() -> Layer:
    """y = 1 / (1 + exp(-x))."""
    return _elementwise("Sigmoid", jax.nn.sigmoid)


def tanh() -> Layer:
    """y = tanh(x)."""
    return _elementwise("Tanh", jnp.tanh)


def gelu() -> Layer:
    """y = x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))): the tanh form, within 5e-4 of x Φ(x), since NumPy has no erf.

    Hendrycks and Gimpel, *Gaussian Error Linear Units*, 2016, section 2.
    """
    return _elementwise("GELU", lambda x: jax.nn.gelu(x, approximate=True))


def flatten() -> Layer:
    """Each sample as one row: (N, ...) -> (N, D)."""
    return stateless(("Flatten",), _nothing, lambda _params, x: x.reshape(len(x), -1))


def dropout(rate: float) -> Layer:
    """y = x mask / (1 - rate) in training, where the mask keeps each element with probability 1 - rate; y = x after.

    Inverted: the division is done in training (Srivastava et al., *Dropout*, 2014, section 10).

    Raises:
        ValueError: The rate is not in [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate: {rate}, expected a share in [0, 1)")

    def train(_params: Params, state: Tree, x: Array, draws: Tree) -> tuple[Array, Tree]:
        if "mask" not in draws:
            raise ValueError("draws: no mask for a Dropout; pass what `draw(key, x)` of the whole network returns")
        return jnp.where(draws["mask"], x / (1 - rate), 0), state

    return Layer(
        ("Dropout", rate),
        _nothing,
        state={},
        draw=lambda key, x: {"mask": jax.random.bernoulli(key, 1 - rate, x.shape)},
        train=train,
        infer=lambda _params, _state, x: x,
    )


def sequential(layers: Mapping[str, Layer]) -> Layer:
    """One layer after the other; trees are {name: that layer's tree}, without the layers that have none."""
    layers = dict(layers)

    def init(key: PRNGKeyArray, scale: Scale) -> Params:
        keys = jax.random.split(key, len(layers))
        return _present({name: layer.init(k, scale) for (name, layer), k in zip(layers.items(), keys, strict=True)})

    def draw(key: PRNGKeyArray, x: Any) -> Tree:
        keys, draws = jax.random.split(key, len(layers)), {}
        for (name, layer), k in zip(layers.items(), keys, strict=True):
            draws[name] = layer.draw(k, x)
            x = jax.eval_shape(lambda k, x, layer=layer: layer.infer(layer.init(k, 1.0), layer.state, x), k, x)
        return _present(draws)

    def train(params: Params, state: Tree, x: Array, draws: Tree) -> tuple[Array, Tree]:
        new = {}
        for name, layer in layers.items():
            x, new[name] = layer.train(params.get(name, {}), state.get(name, {}), x, draws.get(name, {}))
        return x, _present(new)

    def infer(params: Params, state: Tree, x: Array) -> Array:
        for name, layer in layers.items():
            x = layer.infer(params.get(name, {}), state.get(name, {}), x)
        return x

    description = ("Sequential", tuple((name, layer.description) for name, layer in layers.items()))
    state = _present({name: layer.state for name, layer in layers.items()})
    random = any(layer.draw is not draw_nothing for layer in layers.values())
    return Layer(description, init, state, draw if random else draw_nothing, train, infer, layers)


def residual(layers: Mapping[str, Layer]) -> Layer:
    """y = x + f(x), with f the layers one after the other (He et al., *Deep Residual Learning*, 2015, equation 1)."""
    inner = sequential(layers)

    def add(x: Array, y: Array) -> Array:
        if x.shape != y.shape:
            raise ValueError(f"layers: make {y.shape} of {x.shape}, expected the shape they were given, to add to it")
        return x + y

    def train(params: Params, state: Tree, x: Array, draws: Tree) -> tuple[Array, Tree]:
        y, state = inner.train(params, state, x, draws)
        return add(x, y), state

    def infer(params: Params, state: Tree, x: Array) -> Array:
        return add(x, inner.infer(params, state, x))

    return Layer(("Residual", inner.description[1]), inner.init, inner.state, inner.draw, train, infer, inner.layers)


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
    return stateless((kind,), _nothing, lambda _params, x: function(x))


def _nothing(_key: PRNGKeyArray, _scale: Scale) -> Params:
    return {}


def _present(trees: Tree) -> Tree:
    return {name: tree for name, tree in trees.items() if tree}
