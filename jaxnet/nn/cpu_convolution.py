"""Convolution of images with their channels last, (N, H, W, C), as a CPU computes it fastest.

- The gradients of the weights and the bias are one product, for as many images at a time as a cache holds.
- A convolution that is followed by ReLU and max pooling is computed with them, for a few images at a time. So its
  output stays in the cache until its largest elements are found, and is written to no memory. Of each block only the
  largest element and its place are kept, which is all that the gradient needs.
"""

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt

__all__ = ["Images", "convolve", "convolve_and_pool", "max_of_blocks"]

CACHE_BYTES = 2**22  # of copies that stay in a core's cache until a product reads them

Images = Float[Array, "N H W C"]
Filters = Float[Array, "K K C F"]
Places = UInt[Array, "N OH OW C"]  # of the largest element of each block, by rows


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def convolve(x: Images, W: Filters, b: Float[Array, " F"], padding: int) -> Float[Array, "N OH OW F"]:
    """y[n, i, j, f] = Σ_k,l,c x[n, i + k - p, j + l - p, c] W[k, l, c, f] + b[f]."""
    return _correlate(x, W, padding) + b


def _correlate(x: Array, W: Array, padding: int) -> Array:
    borders, axes = [(padding, padding)] * 2, ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, W, (1, 1), borders, dimension_numbers=axes)


def _convolve_forward(x: Array, W: Array, b: Array, padding: int) -> tuple[Array, tuple[Array, Array, Array]]:
    return convolve(x, W, b, padding), (x, W, b)


def _convolve_backward(padding: int, cache: tuple[Array, Array, Array], dout: Array) -> tuple[Array, Array, Array]:
    x, W, b = cache
    gradients = partial(_gradients_of_weights, size=len(W), padding=padding)
    chunk = _images_in_cache(x, W, dout)
    if chunk == len(x):
        dW, db = gradients(x, dout)
    else:
        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(gradients, x[:chunk], dout[:chunk]))

        def add(total: tuple[Array, Array], images: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
            return jax.tree.map(jnp.add, total, gradients(*images)), None

        (dW, db), _ = lax.scan(add, zeros, (_in_chunks(x, chunk), _in_chunks(dout, chunk)))
    return _gradient_of_images(dout, W, padding), dW, db.astype(b.dtype)


convolve.defvjp(_convolve_forward, _convolve_backward)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def convolve_and_pool(
    x: Images, W: Filters, b: Float[Array, " F"], padding: int, size: int
) -> Float[Array, "N OH OW F"]:
    """y = the largest element of each block of size by size pixels of ReLU(convolve(x, W, b, padding))."""

    def of_chunk(x: Array) -> Array:
        elements = _elements_of_blocks(x, W, padding, size)
        return jax.nn.relu(reduce(jnp.maximum, elements) + b)  # as the largest of ReLU is ReLU of the largest

    chunk = _images_in_cache(x, W, jax.eval_shape(lambda: _correlate(x, W, padding)))
    return _joined(lax.map(of_chunk, _in_chunks(x, chunk)))


def _convolve_and_pool_forward(x: Array, W: Array, b: Array, padding: int, size: int) -> tuple[Array, Any]:
    def of_chunk(x: Array) -> tuple[Array, Array]:
        y, places = _largest(_elements_of_blocks(x, W, padding, size))
        return jax.nn.relu(y + b), places

    chunk = _images_in_cache(x, W, jax.eval_shape(lambda: _correlate(x, W, padding)))
    y, places = (_joined(a) for a in lax.map(of_chunk, _in_chunks(x, chunk)))
    return y, (x, W, b, y, places)


def _convolve_and_pool_backward(padding: int, size: int, cache: Any, dout: Array) -> tuple[Array, Array, Array]:
    x, W, b, y, places = cache
    convolved = jax.eval_shape(lambda: _correlate(x, W, padding))
    chunk = _images_in_cache(x, W, convolved)

    def add(total: tuple[Array, Array], images: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        x, y, places, dout = images
        dout = jnp.where(y > 0, dout, 0)  # of ReLU
        dout = _spread(size, places, dout, convolved.shape[1:3])
        gradients = _gradients_of_weights(x, dout, len(W), padding)
        return jax.tree.map(jnp.add, total, gradients), _gradient_of_images(dout, W, padding)

    zeros = jnp.zeros(W.shape, dout.dtype), jnp.zeros(b.shape, dout.dtype)
    (dW, db), dx = lax.scan(add, zeros, tuple(_in_chunks(a, chunk) for a in (x, y, places, dout)))
    return _joined(dx), dW, db.astype(b.dtype)


convolve_and_pool.defvjp(_convolve_and_pool_forward, _convolve_and_pool_backward)


def _images_in_cache(x: Array, W: Array, y: Any) -> int:
    """Returns how many images, a divisor of their number, have all copies that a product reads in the cache."""
    (n, _, width, channels), size, filters = x.shape, len(W), W.shape[3]
    copied = y.shape[1] * width * (min(size**2 * channels, size * (channels + filters)) + 1 + filters)
    return max(i for i in range(1, n + 1) if n % i == 0 and (i == 1 or i * copied * x.dtype.itemsize <= CACHE_BYTES))


def _in_chunks(a: Array, chunk: int) -> Array:
    return a.reshape(-1, chunk, *a.shape[1:])


def _joined(a: Array) -> Array:
    return a.reshape(-1, *a.shape[2:])


# Blocks of a convolution


def _elements_of_blocks(x: Images, W: Filters, padding: int, size: int) -> list[Float[Array, "N OH OW F"]]:
    """Returns the elements of each block of size by size pixels of a convolution, place by place."""
    if x.shape[3] == 1:
        return _by_windows_of_blocks(x, W, padding, size)
    return _blocks(size, _correlate(x, W, padding))


def _by_windows_of_blocks(x: Images, W: Filters, padding: int, size: int) -> list[Float[Array, "N OH OW F"]]:
    """Returns what `_elements_of_blocks` returns for one channel, as one product.

    A block reads a window of K + size - 1 by K + size - 1 pixels, and each of its elements K² of them. So the filters
    are repeated for each element, with zeros at the other pixels. The product is larger, for 5 by 5 and blocks of 2 by
    2 by 1.44, but reads 9 copies of x in place of 25.
    """
    x = jnp.pad(x[..., 0], ((0, 0), (padding, padding), (padding, padding)))
    k, (n, height, width), filters = len(W), x.shape, W.shape[3]
    oh, ow, whole = (height - k + 1) // size, (width - k + 1) // size, k + size - 1
    pixels = [(i, j) for i in range(whole) for j in range(whole)]
    rows = [x[:, i : i + oh * size : size, j : j + ow * size : size].reshape(1, -1) for i, j in pixels]
    repeated = [jnp.pad(W[:, :, 0], ((i, size - 1 - i), (j, size - 1 - j), (0, 0))) for i, j in np.ndindex(size, size)]
    columns = jnp.stack(repeated, 2).reshape(whole**2, -1)  # (whole², size² F)
    y = (jnp.concatenate(rows).T @ columns).reshape(n, oh, ow, size**2, filters)
    return [y[:, :, :, i] for i in range(size**2)]


# Gradients of a convolution


def _gradient_of_images(dout: Array, W: Filters, padding: int) -> Images:
    """Returns dx: x[i] meets W[k] at dout[i + p - k]."""
    turned = jnp.flip(W, (0, 1)).swapaxes(2, 3)  # (K, K, F, C)
    return _correlate(dout, turned, len(W) - 1 - padding)


def _gradients_of_weights(x: Images, dout: Array, size: int, padding: int) -> tuple[Array, Array]:
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    channels, filters = x.shape[3], dout.shape[3]
    if channels == 1:
        return _by_rows_of_windows(x, dout, size)
    fewer_windows = size**2 * channels <= size * (channels + filters)
    return (_by_windows if fewer_windows else _by_rows_and_columns)(x, dout, size)


def _by_windows(x: Images, dout: Float[Array, "N OH OW F"], size: int) -> tuple[Filters, Float[Array, " F"]]:
    """Returns dW and db of padded images, dW[k, l, c, f] = Σ_n,i,j x[n, i + k, j + l, c] dout[n, i, j, f].

    It is the product of all windows, K² copies of x beside each other, and dout. A column of ones adds db.
    """
    _, oh, ow, filters = dout.shape
    channels = x.shape[3]
    windows = [x[:, k : k + oh, i : i + ow] for k in range(size) for i in range(size)]
    rows = jnp.concatenate([*windows, jnp.ones((*dout.shape[:3], 1), dout.dtype)], -1)  # (N, OH, OW, K²C + 1)
    total = rows.reshape(-1, size**2 * channels + 1).T @ dout.reshape(-1, filters)
    return total[:-1].reshape(size, size, channels, filters), total[-1]


def _by_rows_of_windows(x: Images, dout: Float[Array, "N OH OW F"], size: int) -> tuple[Filters, Float[Array, " F"]]:
    """Returns what `_by_windows` returns for one channel: its copies are below each other, as whole rows of pixels."""
    _, oh, ow, filters = dout.shape
    windows = [x[:, k : k + oh, i : i + ow, 0].reshape(1, -1) for k in range(size) for i in range(size)]
    rows = jnp.concatenate([*windows, jnp.ones((1, dout[..., 0].size), dout.dtype)])  # (K² + 1, N OH OW)
    total = rows @ dout.reshape(-1, filters)
    return total[:-1].reshape(size, size, 1, filters), total[-1]


def _by_rows_and_columns(x: Images, dout: Float[Array, "N OH OW F"], size: int) -> tuple[Filters, Float[Array, " F"]]:
    """Returns what `_by_windows` returns, by 2K copies in place of K².

    With j' = j + l, dW is Σ_n,i,j' x[n, i + k, j', c] dout[n, i, j' - l, f]: K copies of x beside each other, shifted
    by k rows, times K copies of dout, shifted by l columns.
    """
    _, oh, _, filters = dout.shape
    width, channels = x.shape[2:]
    dout = jnp.pad(dout, ((0, 0), (0, 0), (size - 1, size - 1), (0, 0)))
    ones = jnp.ones((len(x), oh, width, 1), dout.dtype)
    rows = jnp.concatenate([*(x[:, k : k + oh] for k in range(size)), ones], -1)  # (N, OH, W, KC + 1)
    columns = jnp.concatenate([dout[:, :, i : i + width] for i in reversed(range(size))], -1)  # (N, OH, W, KF)
    total = rows.reshape(-1, size * channels + 1).T @ columns.reshape(-1, size * filters)
    dW = total[:-1].reshape(size, channels, size, filters).transpose(0, 2, 1, 3)
    return dW, total[-1, :filters]


# Max pooling


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def max_of_blocks(size: int, x: Images) -> Float[Array, "N OH OW C"]:
    """Returns the largest element of each block of size by size pixels; pixels beyond the last whole one are unused."""
    return _largest(_blocks(size, x))[0]


def _max_forward(size: int, x: Array) -> tuple[Array, tuple[Array, tuple[int, ...]]]:
    y, places = _largest(_blocks(size, x))
    return y, (places, x.shape[1:3])


def _max_backward(size: int, cache: tuple[Array, tuple[int, ...]], dout: Array) -> tuple[Array]:
    places, shape = cache
    return (_spread(size, places, dout, shape),)


max_of_blocks.defvjp(_max_forward, _max_backward)


def _blocks(size: int, x: Images) -> list[Float[Array, "N OH OW C"]]:
    """Returns the elements of each block of size by size pixels, place by place, by rows."""
    oh, ow = x.shape[1] // size, x.shape[2] // size
    blocks = x[:, : oh * size, : ow * size].reshape(-1, oh, size, ow, size, x.shape[3])
    return [blocks[:, :, i, :, j] for i, j in np.ndindex(size, size)]


def _largest(elements: list[Float[Array, "N OH OW C"]]) -> tuple[Array, Places]:
    """Returns the largest element of each block, nan if there is one, and its place; the first one of several."""
    y, *others = elements
    places = jnp.zeros(y.shape, np.min_scalar_type(len(elements)))
    for i, e in enumerate(others, start=1):
        larger = (e > y) | jnp.isnan(e)
        y, places = jnp.where(larger, e, y), jnp.where(larger, places.dtype.type(i), places)
    return y, places


def _spread(size: int, places: Places, dout: Array, shape: tuple[int, ...]) -> Images:
    """Returns the gradient of images (N, *shape, C), where each element of dout stands at its place in its block."""
    _, oh, ow, channels = dout.shape
    each = jnp.arange(size**2, dtype=places.dtype).reshape(size, 1, size, 1)  # (K, 1, K, 1)
    chosen = places[:, :, None, :, None] == each  # (N, OH, K, OW, K, C)
    dx = jnp.where(chosen, dout[:, :, None, :, None], 0).reshape(-1, oh * size, ow * size, channels)
    return jnp.pad(dx, ((0, 0), (0, shape[0] - oh * size), (0, shape[1] - ow * size), (0, 0)))
