"""The forms in which a CPU computes products: the memory layout of weights, the form of layers, and the library.

YNNPACK is fastest where the long side of the result is along its rows. For x W, (N, D) (D, M) with few hidden units M,
that is Wᵀ xᵀ, (M, D) (D, N); for the gradient with respect to W it is dᵀ x, (M, N) (N, D). A program may therefore
store weights as Wᵀ. Layers and optimizers still see W, and XLA moves no data for it: a transpose only relabels axes.
"""

import math
from enum import Enum
from functools import cache
from typing import Any, NamedTuple

import jax
from jax import lax
from jaxtyping import Array, Float

from jaxnet.nn.cpu_layers import for_cpu, is_faster_for_cpu
from jaxnet.nn.layers import Layer, Params, sequential, stateless

SMALL_PRODUCT = 2_000_000  # multiplications, below which a product gains nothing from a second core
MANY_ROWS = 256  # from which YNNPACK divides the work evenly between two cores
WIDE_MATRIX = 256  # columns of a weight matrix, from which YNNPACK is faster than Eigen in either layout


class Layout(Enum):
    """How a program stores its weight matrices, and in which form it computes layers."""

    AS_WRITTEN = "as-written"  # W
    TRANSPOSED = "transposed"  # Wᵀ
    FOR_CPU = "for-cpu"  # the layers of `for_cpu`, with W as written

    def convert(self, tree: Any) -> Any:
        """Converts the matrices of a tree from W to this layout, or back: the conversion is its own inverse."""
        if self is not Layout.TRANSPOSED:
            return tree
        return jax.tree.map(lambda leaf: leaf.T if leaf.ndim == 2 else leaf, tree)

    def network(self, net: Layer) -> Layer:
        """Returns a network with the same parameters and outputs whose products suit this layout."""
        if self is Layout.FOR_CPU:
            return for_cpu(net)
        if self is Layout.TRANSPOSED:
            return sequential({name: _transposed(layer) for name, layer in net.layers.items()})
        return net


class Form(NamedTuple):
    """How a program computes its products. All forms have the same results up to rounding.

    Args:
        layout: Its layout.
        uses_eigen: Whether Eigen multiplies, instead of YNNPACK, which is XLA's own choice.

    Example:
        >>> FORMS["for-cpu-eigen"] == Form(Layout.FOR_CPU, uses_eigen=True)
        True
    """

    layout: Layout = Layout.AS_WRITTEN
    uses_eigen: bool = False

    def __str__(self) -> str:
        """Returns the name of the form, one of `FORMS`, such as "as-written-eigen"."""
        return f"{self.layout.value}{'-eigen' * self.uses_eigen}"

    @property
    def compiler_options(self) -> dict[str, str]:
        """The options for `jax.jit` that select the library."""
        return _without_ynnpack() if self.uses_eigen else {}


FORMS = {str(form): form for layout in Layout for form in (Form(layout), Form(layout, uses_eigen=True))}


def possible_forms(net: Layer) -> list[Form]:
    """Returns the forms in which this device can compute a network.

    Weights are transposed only if every layer has `last_axis_only`.
    """
    if jax.default_backend() != "cpu":
        return [Form()]
    flat = bool(net.layers) and not any(layer.layers for layer in net.layers.values())
    layouts = {Layout.FOR_CPU: is_faster_for_cpu(net), Layout.TRANSPOSED: flat and net.last_axis_only}
    possible = [*(layout for layout, is_possible in layouts.items() if is_possible), Layout.AS_WRITTEN]
    forms = [Form(layout) for layout in possible]
    return forms + [Form(layout, uses_eigen=True) for layout in possible if layout is not Layout.TRANSPOSED]


def usual_form(net: Layer, params: Params, rows: int) -> Form:
    """Returns the form that is usually the fastest for a program with this many rows at a time.

    Microseconds of 784-50-10, 2 cores, jaxlib 0.10.2:

    | rows | x W by Eigen | x W by YNNPACK | Wᵀ xᵀ by YNNPACK |
    |---|---|---|---|
    | 32 | 117 | 109 | 64 |
    | 100 | 172 | 219 | 195 |
    | 1,000 | 1,645 | 1,510 | 1,070 |
    """
    first, *others = possible_forms(net)
    layout = first.layout
    if layout is Layout.TRANSPOSED:
        sizes = [layer.description[1:] for layer in net.layers.values() if layer.description[0] == "Affine"]
        largest = max(map(math.prod, sizes), default=0)
        if rows >= MANY_ROWS or rows * largest < SMALL_PRODUCT:
            return first
        layout = Layout.AS_WRITTEN
    columns = max((leaf.shape[-1] for leaf in jax.tree.leaves(params) if leaf.ndim == 2), default=0)
    return Form(layout, uses_eigen=bool(others) and columns < WIDE_MATRIX)


@cache
def _without_ynnpack() -> dict[str, str]:
    options = {"xla_cpu_experimental_ynn_fusion_type": ""}
    try:
        jax.jit(lambda: 0, compiler_options=options)()
    except jax.errors.JaxRuntimeError:  # this version of XLA does not have the option
        return {}
    return options


def _transposed(layer: Layer) -> Layer:
    """Returns an Affine layer that computes with Wᵀ; other layers as they are."""
    if layer.description[0] != "Affine":
        return layer

    def apply(params: Params, x: Array) -> Array:
        rows = x.reshape(-1, x.shape[-1])
        return _affine(rows, params["W"].T, params["b"]).reshape(*x.shape[:-1], -1)

    return stateless(layer.description, layer.init, apply, last_axis_only=True)


@jax.custom_vjp
def _affine(x: Float[Array, "N D"], WT: Float[Array, "M D"], b: Float[Array, " M"]) -> Float[Array, "N M"]:
    return _keep_order(WT @ x.T + b[:, None]).T


def _affine_forward(x: Array, WT: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    return _affine(x, WT, b), (x, WT)


def _affine_backward(cache: tuple[Array, Array], dout: Float[Array, "N M"]) -> tuple[Array, Array, Array]:
    x, WT = cache
    d = _keep_order(dout.T)  # (M, N)
    return _keep_order(WT.T @ d).T, _keep_order(d @ x), d.sum(axis=1)  # (N, D), (M, D), (M,)


_affine.defvjp(_affine_forward, _affine_backward)


def _keep_order(product: Array) -> Array:
    """Keeps XLA from merging the transposes around a product, which would swap its operands."""
    return lax.optimization_barrier(product)  # type: ignore[no-untyped-call]
