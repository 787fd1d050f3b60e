"""The matrix products of a network: their sizes, and how much arithmetic they are.

A product y = x W has two more in its backward pass, dW = xᵀ dout and dx = dout Wᵀ, of as many multiplications each. The
first product of a network needs no dx, unless a layer before it has parameters, such as an embedding.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from jaxnet.nn.layers import Layer


class Convolution(NamedTuple):
    """The sizes of a convolution, of which a product of windows is one form."""

    shape: tuple[int, int, int, int]  # of x, (N, C, H, W)
    filters: int
    size: int
    stride: int
    padding: int


class Product(NamedTuple):
    """The products x W of a batch: x (batch, rows, inner), W (batch, inner, columns)."""

    batch: int
    rows: int
    inner: int
    columns: int
    needs_dx: bool = True
    convolution: Convolution | None = None

    def multiplications(self, *, backward: bool) -> int:
        """Returns the number of multiplications in the forward pass, and in the backward pass if wanted."""
        passes = (2 + self.needs_dx) if backward else 1
        return self.batch * self.rows * self.inner * self.columns * passes


def network_products(net: Layer, x: Any) -> list[Product]:
    """Returns the products of the forward pass, in order.

    Args:
        net: The network.
        x: A batch, or its shape and dtype.

    Examples:
        >>> network_products(jaxnet.two_layer_net(784, 50, 10), jax.ShapeDtypeStruct((100, 784), "float32"))[1]
        Product(batch=1, rows=100, inner=50, columns=10, needs_dx=True, convolution=None)
    """
    products: list[Product] = []
    needs_dx = False
    for layer, shape in layer_inputs(net, x):
        products += _layer_products(layer.description, shape, needs_dx)
        needs_dx = needs_dx or bool(_shapes_of_params(layer))
    return products


def gigaflops(products: list[Product], *, backward: bool) -> float:
    """Returns the arithmetic of the products in 10⁹ operations, two for each multiplication and its addition."""
    return 2e-9 * sum(product.multiplications(backward=backward) for product in products)


def layer_inputs(net: Layer, x: Any) -> Iterator[tuple[Layer, tuple[int, ...]]]:
    """Yields each layer of a network, those within others as well, with the shape of its input."""
    for layer in net.layers.values():
        if layer.layers:
            yield from layer_inputs(layer, x)
        else:
            yield layer, x.shape
        x = jax.eval_shape(layer.infer, _shapes_of_params(layer), layer.state, x)


def _shapes_of_params(layer: Layer) -> Any:
    return jax.eval_shape(lambda: layer.init(jax.random.key(0), 1.0))


def _layer_products(description: tuple[Any, ...], shape: tuple[int, ...], needs_dx: bool) -> list[Product]:
    match description:
        case "Affine", D, M:
            return [Product(1, math.prod(shape[:-1]), D, M, needs_dx)]
        case "Convolution", C, F, K, stride, padding:
            N, _, H, W = shape
            OH, OW = ((side + 2 * padding - K) // stride + 1 for side in (H, W))
            convolution = Convolution((N, C, H, W), F, K, stride, padding)
            return [Product(1, N * OH * OW, K**2 * C, F, needs_dx, convolution)]
        case "Attention", D, heads:
            N, T, _ = shape
            K = D // heads
            q_k_v, output = Product(1, N * T, D, 3 * D, needs_dx), Product(1, N * T, D, D)
            return [q_k_v, Product(N * heads, T, K, T), Product(N * heads, T, T, K), output]
    return []
