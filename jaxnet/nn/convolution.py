"""Layers that slide a window over images x (N, C, H, W). Read this file beside `numpy_ref/convolution.py`.

A K by K window has OH = (H + 2 padding - K) // stride + 1 positions along the height of a padded image, and OW along
its width. Elements beyond the last whole window, at the bottom and at the right, are unused.
"""

from collections.abc import Callable
from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PRNGKeyArray

from jaxnet.common.validation import check_counts, check_size
from jaxnet.nn.layers import InitStd, Layer, Params, standard_deviation, stateless

__all__ = ["average_pool", "convolution", "max_pool"]


def convolution(in_channels: int, filters: int, size: int, stride: int = 1, padding: int = 0) -> Layer:
    """y[n, f, i, j] = Σ_c,k,l x[n, c, i s + k - p, j s + l - p] W[f, c, k, l] + b[f], with stride s and padding p.

    x (N, in_channels, H, W) -> y (N, filters, OH, OW). W is normal, with the standard deviation `init_std` for
    in_channels * size² inputs, and b zero. On a CPU the windows are copied next to each other for one product: within a
    loop, XLA's own convolution takes 5 to 30 times as long (https://github.com/jax-ml/jax/issues/12868). Training and
    prediction on a CPU take the faster form of `jaxnet/nn/cpu_layers.py`.

    Raises:
        ValueError: If a size is out of range; in use, if x has other channels or no room for a window.
    """
    check_counts(in_channels=in_channels, filters=filters, size=size, stride=stride)
    check_size(filters=filters, in_channels=in_channels, height=size, width=size)
    check_counts(0, padding=padding)

    def init(key: PRNGKeyArray, init_std: InitStd) -> Params:
        std = standard_deviation(init_std, in_channels * size**2, filters * size**2)
        return {"W": std * jax.random.normal(key, (filters, in_channels, size, size)), "b": jnp.zeros(filters)}

    def by_lax(x: Array, W: Array) -> Array:
        borders, axes = [(padding, padding)] * 2, ("NCHW", "OIHW", "NCHW")
        return lax.conv_general_dilated(x, W, (stride, stride), borders, dimension_numbers=axes)

    def by_windows(x: Array, W: Array) -> Array:
        windows = jnp.stack(_shifted(x, size, stride, padding, 0.0), axis=2)  # (N, C, K², OH, OW)
        return jnp.einsum("fck,nckij->nfij", W.reshape(*W.shape[:2], -1), windows)

    def apply(params: Params, x: Array) -> Array:
        check_images(x.shape, in_channels, size, padding)
        dtype = jnp.result_type(x, params["W"])  # lax, unlike NumPy, requires one dtype
        y = lax.platform_dependent(x.astype(dtype), jnp.asarray(params["W"], dtype), cpu=by_windows, default=by_lax)
        return y + params["b"][:, None, None]  # (N, F, OH, OW) + (F, 1, 1)

    return stateless(("Convolution", in_channels, filters, size, stride, padding), init, apply)


def max_pool(size: int, stride: int | None = None, padding: int = 0) -> Layer:
    """y = the largest element of each window, of each channel. The stride defaults to the size.

    Of several largest elements, the first one by rows gets the gradient. Padding is -inf, and nan the largest.

    Raises:
        ValueError: If a size is out of range; in use, if x is no batch of images or has no room for a window.
    """

    def larger(y: Array, e: Array) -> Array:  # the gradient of `lax.reduce_window` takes eight times as long on a CPU
        return jnp.where((e > y) | jnp.isnan(e), e, y)

    return _pool("MaxPool", size, stride, padding, -jnp.inf, lambda elements: reduce(larger, elements))


def average_pool(size: int, stride: int | None = None, padding: int = 0) -> Layer:
    """y = the mean of each window, of each channel. The stride defaults to the size. Padding counts as 0.

    Raises:
        ValueError: If a size is out of range; in use, if x is no batch of images or has no room for a window.
    """
    return _pool("AveragePool", size, stride, padding, 0.0, lambda elements: reduce(jnp.add, elements) / size**2)


def _pool(
    kind: str, size: int, stride: int | None, padding: int, fill: float, function: Callable[[list[Array]], Array]
) -> Layer:
    stride = size if stride is None else stride
    check_counts(size=size, stride=stride)
    check_counts(0, padding=padding)
    if padding >= size:
        raise ValueError(f"padding: {padding}, expected less than the size, {size}")

    def apply(_params: Params, x: Array) -> Array:
        check_images(x.shape, None, size, padding)
        return function(_shifted(x, size, stride, padding, fill))  # (N, C, OH, OW)

    return stateless((kind, size, stride, padding), lambda _key, _init_std: {}, apply)


def _shifted(x: Array, size: int, stride: int, padding: int, fill: float) -> list[Array]:
    """Returns the first elements of all windows, (N, C, OH, OW), then the second ones, and so on by rows."""
    x = jnp.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=fill)
    bottom, right = x.shape[2] - size, x.shape[3] - size
    return [x[:, :, i : i + bottom + 1 : stride, j : j + right + 1 : stride] for i in range(size) for j in range(size)]


def check_images(shape: tuple[int, ...], channels: int | None, size: int, padding: int) -> None:
    """Raises a ValueError if x has no such shape (N, C, H, W), or no room for a window."""
    if len(shape) != 4 or channels not in (None, shape[1]) or min(shape[2:]) + 2 * padding < size:
        wanted = f"(N, {'C' if channels is None else channels}, H, W)"
        raise ValueError(f"x: shape {shape}, expected {wanted} with H and W at least {size - 2 * padding}")
