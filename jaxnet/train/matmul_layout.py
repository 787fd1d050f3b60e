"""The memory layout of weights, and which of XLA's two libraries for a CPU multiplies them.

YNNPACK wants the long side of every result to lie along its rows. Of x W, (N, D) (D, M), with few hidden units M, that
is Wᵀ xᵀ, (M, D) (D, N); of the gradient by W it is dᵀ x, (M, N) (N, D). So a program may keep its weights lying across,
as Wᵀ. Nothing else changes: layers and optimizers see W, activations are only numbered the other way, nothing is moved.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, NamedTuple

import jax
from jax import lax
from jax.tree_util import register_dataclass
from jaxtyping import Array, Float

from jaxnet.nn.layers import Layer, Params

PLAIN = {"Affine", "ReLU", "Sigmoid", "Tanh", "GELU"}  # layers that care for no axis but the last
FEW = 2_000_000  # multiplications of the largest product, below which it is not worth two cores
MANY = 256  # rows, from which YNNPACK gives both cores as much to do
WIDE = 256  # columns of a weight matrix, from which YNNPACK is the quicker one either way round

_as_it_is: Callable[[Array], Array] = lax.optimization_barrier  # or XLA merges transposes, and turns products round


@register_dataclass
@dataclass(frozen=True)
class Across:
    """A weight matrix W (D, M) that lies in memory as its transpose, for x (..., D) @ W + b and nothing else."""

    T: Float[Array, "M D"]
    __array_ufunc__: ClassVar[None] = None  # an x of NumPy's leaves the product to what follows

    def __rmatmul__(self, x: Float[Array, "*N D"]) -> "Product":
        """x W, which waits for its b: the two are made in one."""
        return Product(x, self.T)


@dataclass(frozen=True)
class Product:
    """x W, as yet to be made."""

    x: Float[Array, "*N D"]
    WT: Float[Array, "M D"]

    def __add__(self, b: Float[Array, " M"]) -> Float[Array, "*N M"]:
        """x W + b."""
        return _affine(self.x.reshape(-1, self.x.shape[-1]), self.WT, b).reshape(*self.x.shape[:-1], -1)


@jax.custom_vjp
def _affine(x: Float[Array, "N D"], WT: Float[Array, "M D"], b: Float[Array, " M"]) -> Float[Array, "N M"]:
    return _as_it_is(WT @ x.T + b[:, None]).T


def _affine_forward(x: Array, WT: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    return _affine(x, WT, b), (x, WT)


def _affine_backward(cache: tuple[Array, Array], dout: Float[Array, "N M"]) -> tuple[Array, Array, Array]:
    x, WT = cache
    d = _as_it_is(dout.T)  # (M, N)
    return _as_it_is(WT.T @ d).T, _as_it_is(d @ x), d.sum(axis=1)  # (N, D), (M, D), (M,)


_affine.defvjp(_affine_forward, _affine_backward)


class Way(NamedTuple):
    """Which way round a program makes its products."""

    turn: Callable[[Any], Any]  # matrices, wherever in a tree, as they shall lie; turned again, they are as before
    net: Callable[[Layer], Layer]  # the network of the same parameters, with its products made this way


def _turned(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.T if leaf.ndim == 2 else leaf, tree)


def _across(net: Layer) -> Layer:
    def laid(params: Params) -> Params:
        return jax.tree.map(lambda leaf: Across(leaf.T) if leaf.ndim == 2 else leaf, params)

    return replace(
        net,
        train=lambda params, state, x, draws: net.train(laid(params), state, x, draws),
        infer=lambda params, state, x: net.infer(laid(params), state, x),
    )


AS_WRITTEN = Way(lambda tree: tree, lambda net: net)
ACROSS = Way(_turned, _across)


def way_of(net: Layer, rows: int) -> Way:
    """The quicker one for a program that takes so many rows at once; networks with other layers stay as written.

    Microseconds a step of 784-50-10, on two cores of a Zen 4 and by jaxlib 0.10.2:

    | rows | x W by Eigen | x W by YNNPACK | Wᵀ xᵀ by YNNPACK |
    |---|---|---|---|
    | 32 | 117 | 109 | 64 |
    | 100 | 172 | 219 | 195 |
    | 1,000 | 1,645 | 1,510 | 1,070 |
    """
    if jax.default_backend() != "cpu":
        return AS_WRITTEN
    kind, *layers = net.description
    layers = [description for _, description in layers[0]] if kind == "Sequential" else []
    if not layers or any(kind not in PLAIN for kind, *_ in layers):
        return AS_WRITTEN
    largest = max((math.prod(sizes) for kind, *sizes in layers if kind == "Affine"), default=0)
    return ACROSS if rows >= MANY or rows * largest < FEW else AS_WRITTEN


def by_eigen(net: Layer, params: Params, rows: int) -> bool:
    """Whether Eigen's products are the quicker ones for such a program, rather than YNNPACK's, XLA's own choice."""
    columns = max((leaf.shape[-1] for leaf in jax.tree.leaves(params) if leaf.ndim == 2), default=0)
    return jax.default_backend() == "cpu" and columns < WIDE and way_of(net, rows) is AS_WRITTEN


def compiler_options(net: Layer, params: Params, rows: int) -> dict[str, str]:
    """What `jax.jit` is to tell XLA, so that it takes the quicker library."""
    return _without_ynnpack() if by_eigen(net, params, rows) else {}


@cache
def _without_ynnpack() -> dict[str, str]:
    options = {"xla_cpu_experimental_ynn_fusion_type": ""}
    try:
        jax.jit(lambda: 0, compiler_options=options)()
    except jax.errors.JaxRuntimeError:  # another version or device does not know of it
        return {}
    return options
