"""Networks of images as a CPU computes them fastest: with the channels last, (N, H, W, C).

Layers take images (N, C, H, W), as in most libraries. In that order, and within a loop, XLA's convolution for a CPU
takes some ten times as long as in this one. On a CPU, training and prediction therefore use `channels_last(net)`, which
has the same parameters, state and noise, and the same outputs and gradients up to rounding.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxnet.nn.convolution import check_images
from jaxnet.nn.description import COMPOSED
from jaxnet.nn.layers import ACTIVATIONS, Layer, Params, Tree

__all__ = ["channels_last", "has_convolution"]

ELEMENTWISE = {make().description[0] for make in ACTIVATIONS.values()}
CACHE_BYTES = 2**21  # of copies that stay in a core's cache until a product reads them

Images = Float[Array, "N H W C"]
Apply = Callable[[Params, Images], Images]


def has_convolution(net: Layer) -> bool:
    """Returns whether the network is a convolution, or one of the layers within it is."""
    return net.description[0] == "Convolution" or any(map(has_convolution, net.layers.values()))


def channels_last(net: Layer) -> Layer:
    """Returns the network with those of its layers that take images computing in the order (N, H, W, C).

    Its inputs and outputs stay (N, C, H, W). Each layer transposes its images and transposes them back; XLA removes the
    pairs of transposes between two such layers.

    Example:
        >>> net = jaxnet.simple_conv_net()
        >>> channels_last(net) == net  # which means: one description, and one tree of parameters
        True
    """
    image_layer = _image_layer(net)
    if image_layer is not None:
        return _between_transposes(net, image_layer)
    kind = net.description[0]
    return COMPOSED[kind]({n: channels_last(layer) for n, layer in net.layers.items()}) if kind in COMPOSED else net


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
    return _convolve(x.astype(dtype), W, padding) + params["b"]  # (N, OH, OW, F) + (F,)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: Images, W: Float[Array, "K K C F"], padding: int) -> Float[Array, "N OH OW F"]:
    """y[n, i, j, f] = Σ_k,l,c x[n, i + k - p, j + l - p, c] W[k, l, c, f]."""
    borders, axes = [(padding, padding)] * 2, ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, W, (1, 1), borders, dimension_numbers=axes)


def _convolve_forward(x: Array, W: Array, padding: int) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, W, padding), (x, W)


def _convolve_backward(padding: int, cache: tuple[Array, Array], dout: Array) -> tuple[Array, Array]:
    x, W = cache
    turned = jnp.flip(W, (0, 1)).swapaxes(2, 3)  # (K, K, F, C)
    dx = _convolve(dout, turned, len(W) - 1 - padding)  # (N, H, W, C): x[i] meets W[k] at dout[i + p - k]
    return dx, _gradient_of_weights(x, dout, len(W), padding)


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _gradient_of_weights(x: Array, dout: Array, size: int, padding: int) -> Float[Array, "K K C F"]:
    """dW[k, l, c, f] = Σ_n,i,j x[n, i + k - p, j + l - p, c] dout[n, i, j, f], as a product for some images at a time.

    With j' = j + l, it is Σ_n,i,j' x[n, i + k - p, j' - p, c] dout[n, i, j' - l, f]: K copies of x beside each other,
    shifted by k rows, times K copies of dout, shifted by l columns. That makes 2K copies, where windows make K².
    """
    n, oh, _, filters = dout.shape
    channels, width = x.shape[-1], x.shape[2] + 2 * padding
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    bytes_of_copies = size * oh * width * (channels + filters) * dout.dtype.itemsize  # of one image
    chunk = max(i for i in range(1, n + 1) if n % i == 0 and (i == 1 or i * bytes_of_copies <= CACHE_BYTES))

    def product(x: Array, dout: Array) -> Array:
        dout = jnp.pad(dout, ((0, 0), (0, 0), (size - 1, size - 1), (0, 0)))
        rows = jnp.concatenate([x[:, k : k + oh] for k in range(size)], -1)  # (chunk, OH, W + 2p, KC)
        columns = jnp.concatenate([dout[:, :, i : i + width] for i in reversed(range(size))], -1)  # (..., KF)
        return rows.reshape(-1, size * channels).T @ columns.reshape(-1, size * filters)  # (KC, KF)

    def add(i: Array, total: Array) -> Array:
        return total + product(*(lax.dynamic_slice_in_dim(a, i * chunk, chunk) for a in (x, dout)))

    zero = jnp.zeros((size * channels, size * filters), dout.dtype)
    total: Any = product(x, dout) if chunk == n else lax.fori_loop(0, n // chunk, add, zero)
    return total.reshape(size, channels, size, filters).transpose(0, 2, 1, 3)
