"""Layers as a CPU computes them fastest, with the same parameters, state, noise, outputs and gradients.

The layers that readers see are the shortest correct ones. Programs that train or predict on a CPU take `for_cpu(net)`:

- Images have their channels last, (N, H, W, C). With them first, and within a loop, XLA's convolution for a CPU takes
  some ten times as long.
- The gradients of a convolution's weights and bias are one product, for as many images at a time as a cache holds.
- Max pooling remembers the place of each largest element, so that its gradient is one comparison.
- The gradient of a weight matrix is xᵀ dout by rows. From autodiff's doutᵀ x, XLA copies a transposed dout first.
- Attention makes q, k and v in one product, and its backward pass multiplies by no transposed attention matrix.
- The gradient of a small embedding is a product by one-hot rows, as adding row by row takes one core.

Outputs and gradients are equal up to rounding. Derivatives of these forms are taken in reverse mode alone.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxnet.nn.convolution import check_images
from jaxnet.nn.description import COMPOSED
from jaxnet.nn.layers import ACTIVATIONS, Layer, Params, Tree

__all__ = ["for_cpu", "is_faster_for_cpu"]

ELEMENTWISE = {make().description[0] for make in ACTIVATIONS.values()}
MAX_ONE_HOT = 512  # rows of an embedding: by more, the product takes longer than adding row by row
CACHE_BYTES = 2**22  # of copies that stay in a core's cache until a product reads them

Images = Float[Array, "N H W C"]
Apply = Callable[[Params, Images], Images]


def is_faster_for_cpu(net: Layer) -> bool:
    """Returns whether a CPU gains from `for_cpu`: whether there are convolutions or attention in the network."""
    return net.description[0] in ("Convolution", "Attention") or any(map(is_faster_for_cpu, net.layers.values()))


def for_cpu(net: Layer) -> Layer:
    """Returns the network with each layer in its form for a CPU, if it has one. Images stay (N, C, H, W) outside of it.

    Each layer of images transposes its input and its output; XLA removes the pairs between two such layers.

    Example:
        >>> net = jaxnet.simple_conv_net()
        >>> for_cpu(net) == net  # which means: one description, and one tree of parameters
        True
    """
    kind = net.description[0]
    image_layer = _image_layer(net)
    if image_layer is not None:
        return _between_transposes(net, image_layer)
    if kind in COMPOSED:
        return COMPOSED[kind]({name: for_cpu(layer) for name, layer in net.layers.items()})
    apply = {"Affine": _affine, "Attention": _attention, "Embedding": _embedding}.get(kind)
    return net if apply is None else _stateless(net, partial(apply, net))


# Images


def _between_transposes(layer: Layer, image_layer: Layer) -> Layer:
    def train(params: Params, state: Tree, x: Array, noise: Tree) -> tuple[Array, Tree]:
        if x.ndim != 4:
            return layer.train(params, state, x, noise)
        y, state = image_layer.train(params, state, x.transpose(0, 2, 3, 1), noise)
        return y.transpose(0, 3, 1, 2), state

    def infer(params: Params, state: Tree, x: Array) -> Array:
        if x.ndim != 4:
            return layer.infer(params, state, x)
        return image_layer.infer(params, state, x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)

    return replace(layer, train=train, infer=infer)


def _image_layer(layer: Layer) -> Layer | None:
    """Returns the layer as a function of images (N, H, W, C), or None if it has no such form."""
    kind, *sizes = layer.description
    if kind in ELEMENTWISE:
        return layer
    if kind in COMPOSED:
        forms = {name: _image_layer(inner) for name, inner in layer.layers.items()}
        known = {name: form for name, form in forms.items() if form is not None}
        return COMPOSED[kind](known) if len(known) == len(forms) else None
    if kind == "Convolution":
        channels, _, size, stride, padding = sizes
        return _stateless(layer, partial(_convolution, channels, size, padding)) if stride == 1 else None
    if kind == "MaxPool" and sizes[1:] == [sizes[0], 0]:
        return _stateless(layer, partial(_max_of_blocks, sizes[0]))
    if kind in ("AveragePool", "MaxPool"):  # which treat each channel by itself
        return _stateless(layer, jax.vmap(partial(_one_channel, layer), in_axes=(None, -1), out_axes=-1))
    if kind == "BatchNorm":
        return replace(layer, train=partial(_train_on_rows, layer), infer=partial(_infer_on_rows, layer))
    if kind == "Dropout":
        return replace(layer, train=partial(_train_with_mask, layer))
    return None


def _stateless(layer: Layer, apply: Apply) -> Layer:
    return replace(
        layer,
        train=lambda params, state, x, _noise: (apply(params, x), state),
        infer=lambda params, _state, x: apply(params, x),
    )


def _max_of_blocks(size: int, _params: Params, x: Images) -> Images:
    """Returns the largest element of each block of size by size pixels; pixels beyond the last whole one are unused."""
    check_images((x.shape[0], x.shape[3], *x.shape[1:3]), None, size, 0)
    OH, OW = x.shape[1] // size, x.shape[2] // size
    blocks = x[:, : OH * size, : OW * size].reshape(-1, OH, size, OW, size, x.shape[3])
    return _max_of_block(size, blocks)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _max_of_block(size: int, blocks: Float[Array, "N OH K OW K C"]) -> Float[Array, "N OH OW C"]:
    return _max_forward(size, blocks)[0]


def _max_forward(size: int, blocks: Array) -> tuple[Array, Array]:
    """Returns the largest elements, and their places in the blocks, by rows, which is all that the gradient needs."""
    y = blocks[:, :, 0, :, 0]
    place = jnp.zeros(y.shape, jnp.int32)
    for i in range(1, size**2):
        e = blocks[:, :, i // size, :, i % size]
        larger = (e > y) | jnp.isnan(e)
        y, place = jnp.where(larger, e, y), jnp.where(larger, i, place)
    return y, place


def _max_backward(size: int, place: Array, dout: Array) -> tuple[Array]:
    places = jnp.arange(size**2).reshape(size, 1, size, 1)  # (K, 1, K, 1)
    chosen = place[:, :, None, :, None] == places  # (N, OH, K, OW, K, C)
    return (jnp.where(chosen, dout[:, :, None, :, None], 0),)


_max_of_block.defvjp(_max_forward, _max_backward)


def _one_channel(layer: Layer, params: Params, x: Float[Array, "N H W"]) -> Float[Array, "N OH OW"]:
    return layer.infer(params, {}, x[:, None])[:, 0]


def _train_on_rows(layer: Layer, params: Params, state: Tree, x: Images, noise: Tree) -> tuple[Images, Tree]:
    """Trains BatchNorm with each pixel as a sample: it has one mean and variance a channel in either form."""
    rows, state = layer.train(params, state, x.reshape(-1, x.shape[-1]), noise)
    return rows.reshape(x.shape), state


def _infer_on_rows(layer: Layer, params: Params, state: Tree, x: Images) -> Images:
    return layer.infer(params, state, x.reshape(-1, x.shape[-1])).reshape(x.shape)


def _train_with_mask(layer: Layer, params: Params, state: Tree, x: Images, noise: Tree) -> tuple[Images, Tree]:
    mask = noise.get("mask")  # (N, C, H, W)
    return layer.train(params, state, x, noise if mask is None else {"mask": mask.transpose(0, 2, 3, 1)})


def _convolution(channels: int, size: int, padding: int, params: Params, x: Images) -> Images:
    check_images((x.shape[0], x.shape[3], *x.shape[1:3]), channels, size, padding)
    dtype = jnp.result_type(x, params["W"])
    W = jnp.asarray(params["W"], dtype).transpose(2, 3, 1, 0)  # (F, C, K, K) -> (K, K, C, F)
    return _convolve(x.astype(dtype), W, jnp.asarray(params["b"]), padding)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _convolve(x: Images, W: Float[Array, "K K C F"], b: Float[Array, " F"], padding: int) -> Float[Array, "N OH OW F"]:
    """y[n, i, j, f] = Σ_k,l,c x[n, i + k - p, j + l - p, c] W[k, l, c, f] + b[f]."""
    return _correlate(x, W, padding) + b


def _correlate(x: Array, W: Array, padding: int) -> Array:
    borders, axes = [(padding, padding)] * 2, ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, W, (1, 1), borders, dimension_numbers=axes)


def _convolve_forward(x: Array, W: Array, b: Array, padding: int) -> tuple[Array, tuple[Array, Array, Array]]:
    return _convolve(x, W, b, padding), (x, W, b)


def _convolve_backward(padding: int, cache: tuple[Array, Array, Array], dout: Array) -> tuple[Array, Array, Array]:
    x, W, b = cache
    size, channels = len(W), x.shape[3]
    turned = jnp.flip(W, (0, 1)).swapaxes(2, 3)  # (K, K, F, C)
    dx = _correlate(dout, turned, size - 1 - padding)  # (N, H, W, C): x[i] meets W[k] at dout[i + p - k]
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    fewer_windows = size**2 * channels <= size * (channels + dout.shape[3])
    dW, db = (_by_windows if fewer_windows else _by_rows_and_columns)(x, dout, size)
    return dx, dW, db.astype(b.dtype)


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _by_windows(x: Images, dout: Float[Array, "N OH OW F"], size: int) -> tuple[Array, Array]:
    """Returns dW and db of padded images, dW[k, l, c, f] = Σ_n,i,j x[n, i + k, j + l, c] dout[n, i, j, f].

    It is the product of all windows, K² copies of x beside each other, and dout. A column of ones adds db.
    """
    _, oh, ow, filters = dout.shape
    channels = x.shape[3]

    def product(x: Array, dout: Array) -> Array:
        windows = [x[:, k : k + oh, i : i + ow] for k in range(size) for i in range(size)]
        ones = jnp.ones((*dout.shape[:3], 1), dout.dtype)
        rows = jnp.concatenate([*windows, ones], -1)  # (chunk, OH, OW, K²C + 1)
        return rows.reshape(-1, size**2 * channels + 1).T @ dout.reshape(-1, filters)

    total = _sum_of_chunks(product, x, dout, oh * ow * (size**2 * channels + 1 + filters))
    return total[:-1].reshape(size, size, channels, filters), total[-1]


def _by_rows_and_columns(x: Images, dout: Float[Array, "N OH OW F"], size: int) -> tuple[Array, Array]:
    """Returns what `_by_windows` returns, by 2K copies in place of K².

    With j' = j + l, dW is Σ_n,i,j' x[n, i + k, j', c] dout[n, i, j' - l, f]: K copies of x beside each other, shifted
    by k rows, times K copies of dout, shifted by l columns.
    """
    _, oh, _, filters = dout.shape
    width, channels = x.shape[2:]

    def product(x: Array, dout: Array) -> Array:
        dout = jnp.pad(dout, ((0, 0), (0, 0), (size - 1, size - 1), (0, 0)))
        ones = jnp.ones((len(x), oh, width, 1), dout.dtype)
        rows = jnp.concatenate([*(x[:, k : k + oh] for k in range(size)), ones], -1)  # (chunk, OH, W, KC + 1)
        columns = jnp.concatenate([dout[:, :, i : i + width] for i in reversed(range(size))], -1)  # (..., KF)
        return rows.reshape(-1, size * channels + 1).T @ columns.reshape(-1, size * filters)

    total = _sum_of_chunks(product, x, dout, oh * width * (size * (channels + filters) + 1))
    dW = total[:-1].reshape(size, channels, size, filters).transpose(0, 2, 1, 3)
    return dW, total[-1, :filters]


def _sum_of_chunks(product: Callable[[Array, Array], Array], x: Array, dout: Array, copied: int) -> Array:
    """Returns product(x, dout), added up over as many images at a time as have their copied elements in the cache."""
    n, image_bytes = len(x), copied * dout.dtype.itemsize
    chunk = max(i for i in range(1, n + 1) if n % i == 0 and (i == 1 or i * image_bytes <= CACHE_BYTES))
    if chunk == n:
        return product(x, dout)

    def add(i: Array, total: Array) -> Array:
        return total + product(*(lax.dynamic_slice_in_dim(a, i * chunk, chunk) for a in (x, dout)))

    shape = jax.eval_shape(product, x[:chunk], dout[:chunk])
    total: Array = lax.fori_loop(0, n // chunk, add, jnp.zeros(shape.shape, shape.dtype))
    return total


# Products


def _affine(layer: Layer, params: Params, x: Array) -> Array:
    jax.eval_shape(layer.infer, params, {}, x)  # refuses what the layer refuses
    y = _multiply(x.reshape(-1, x.shape[-1]), params["W"]) + params["b"]
    return y.reshape(*x.shape[:-1], -1)


def _embedding(layer: Layer, params: Params, x: Array) -> Array:
    jax.eval_shape(layer.infer, params, {}, x)
    return _look_up(jnp.asarray(params["E"]), x)


def _attention(layer: Layer, params: Params, x: Array) -> Array:
    jax.eval_shape(layer.infer, params, {}, x)
    (N, T, D), heads = x.shape, layer.description[2]
    W = jnp.concatenate([params["Wq"], params["Wk"], params["Wv"]], axis=1)  # (D, 3D)
    qkv = _multiply(x.reshape(-1, D), W).reshape(N, T, 3, heads, D // heads)
    q, k, v = (qkv[:, :, i].swapaxes(1, 2).reshape(N * heads, T, D // heads) for i in range(3))
    o = _attend(q, k, v).reshape(N, heads, T, D // heads).swapaxes(1, 2)  # (N, T, heads, K)
    return _multiply(o.reshape(-1, D), params["Wo"]).reshape(N, T, D)


@jax.custom_vjp
def _multiply(x: Float[Array, "N D"], W: Float[Array, "D M"]) -> Float[Array, "N M"]:
    return x @ W


def _multiply_forward(x: Array, W: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ W, (x, W)


def _multiply_backward(cache: tuple[Array, Array], dout: Float[Array, "N M"]) -> tuple[Array, Array]:
    x, W = cache
    return _contract(dout, W, 1, 1), _contract(x, dout, 0, 0)  # dout Wᵀ (N, D), xᵀ dout (D, M)


_multiply.defvjp(_multiply_forward, _multiply_backward)


def _contract(a: Array, b: Array, axis_of_a: int, axis_of_b: int, batch: tuple[int, ...] = ()) -> Array:
    return lax.dot_general(a, b, (((axis_of_a,), (axis_of_b,)), (batch, batch)))


@jax.custom_vjp
def _attend(q: Float[Array, "G T K"], k: Float[Array, "G T K"], v: Float[Array, "G T K"]) -> Float[Array, "G T K"]:
    """Returns A v with A = softmax(q kᵀ / √K), where t sees s <= t, for each of G sequences and heads."""
    return _attend_forward(q, k, v)[0]


def _attend_forward(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Array, Array, Array, Array]]:
    visible = jnp.tri(q.shape[1], dtype=bool)
    scores = _contract(q, k, 2, 2, (0,)) / math.sqrt(q.shape[2])  # (G, T, T)
    A = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
    return _contract(A, v, 2, 1, (0,)), (q, k, v, A)


def _attend_backward(cache: tuple[Array, Array, Array, Array], dout: Array) -> tuple[Array, Array, Array]:
    q, k, v, A = cache
    dA = _contract(dout, v, 2, 2, (0,))  # (G, T, T)
    dscores = A * (dA - (A * dA).sum(axis=-1, keepdims=True)) / math.sqrt(q.shape[2])
    dq = _contract(dscores, k, 2, 1, (0,))
    return dq, _contract(dscores.swapaxes(1, 2), q, 2, 1, (0,)), _contract(A.swapaxes(1, 2), dout, 2, 1, (0,))


_attend.defvjp(_attend_forward, _attend_backward)


@jax.custom_vjp
def _look_up(E: Float[Array, "V D"], ids: Int[Array, "N T"]) -> Float[Array, "N T D"]:
    return E.at[ids].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)


def _look_up_forward(E: Array, ids: Array) -> tuple[Array, tuple[Array, Array]]:
    return _look_up(E, ids), (E, ids)


def _look_up_backward(cache: tuple[Array, Array], dout: Array) -> tuple[Array, None]:
    E, ids = cache
    if len(E) > MAX_ONE_HOT:
        return jnp.zeros_like(E, dout.dtype).at[ids].add(dout, mode="drop", wrap_negative_indices=False), None
    one_hot = jax.nn.one_hot(ids.reshape(-1), len(E), dtype=dout.dtype)  # (N T, V); a row of zeros if out of range
    return _contract(one_hot, dout.reshape(-1, E.shape[1]), 0, 0), None


_look_up.defvjp(_look_up_forward, _look_up_backward)
