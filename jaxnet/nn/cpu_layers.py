"""Layers as a CPU computes them fastest, with the same parameters, state, noise, outputs and gradients.

The layers that readers see are the shortest correct ones. Programs that train or predict on a CPU take `for_cpu(net)`:

- Images have their channels last, (N, H, W, C). With them first, and within a loop, XLA's convolution for a CPU takes
  some ten times as long.
- `jaxnet/nn/cpu_convolution.py` has their convolution, and their max pooling, together if ReLU stands between.
- The gradient of a weight matrix is xᵀ dout by rows. From autodiff's doutᵀ x, XLA copies a transposed dout first.
- Attention makes q, k and v in one product, and its backward pass multiplies by no transposed attention matrix.
- The gradient of a small embedding is a product by one-hot rows, as adding row by row takes one core.

Outputs and gradients are equal up to rounding. Derivatives of these forms are taken in reverse mode alone.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxnet.nn.convolution import check_images
from jaxnet.nn.cpu_convolution import Images, convolve, convolve_and_pool, max_of_blocks
from jaxnet.nn.description import COMPOSED
from jaxnet.nn.layers import ACTIVATIONS, Layer, Params, Tree

__all__ = ["for_cpu", "is_faster_for_cpu"]

ELEMENTWISE = {make().description[0] for make in ACTIVATIONS.values()}
MAX_ONE_HOT = 512  # rows of an embedding: by more, the product takes longer than adding row by row

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
        forms = _image_forms(net.layers)
        return COMPOSED[kind](
            {
                name: for_cpu(layer) if form is None else _between_transposes(layer, form)
                for (name, layer), form in zip(net.layers.items(), forms, strict=True)
            }
        )
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
        forms = _image_forms(layer.layers)
        known = {name: form for name, form in zip(layer.layers, forms, strict=True) if form is not None}
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


def _image_forms(layers: Mapping[str, Layer]) -> list[Layer | None]:
    """Returns the forms of layers that are applied one after the other.

    A convolution computes the ReLU and the max pooling that follow it, so that their own forms do nothing.
    """
    chain = list(layers.values())
    forms = [_image_layer(layer) for layer in chain]
    for i in range(len(chain) - 2):
        if [layer.description[0] for layer in chain[i : i + 3]] != ["Convolution", "ReLU", "MaxPool"]:
            continue
        (_, channels, _, size, stride, padding), (_, *pool) = chain[i].description, chain[i + 2].description
        if stride == 1 and pool[1:] == [pool[0], 0]:
            apply = partial(_convolution_and_pool, channels, size, padding, pool[0])
            forms[i : i + 3] = [_stateless(chain[i], apply), *(_stateless(e, _unchanged) for e in chain[i + 1 : i + 3])]
    return forms


def _unchanged(_params: Params, x: Images) -> Images:
    return x


def _stateless(layer: Layer, apply: Apply) -> Layer:
    return replace(
        layer,
        train=lambda params, state, x, _noise: (apply(params, x), state),
        infer=lambda params, _state, x: apply(params, x),
    )


def _max_of_blocks(size: int, _params: Params, x: Images) -> Images:
    check_images((x.shape[0], x.shape[3], *x.shape[1:3]), None, size, 0)
    return max_of_blocks(size, x)


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
    return convolve(*_arguments(channels, size, padding, params, x), padding)


def _convolution_and_pool(channels: int, size: int, padding: int, block: int, params: Params, x: Images) -> Images:
    arguments = _arguments(channels, size, padding, params, x)
    N, *shape, F = jax.eval_shape(partial(convolve, padding=padding), *arguments).shape
    check_images((N, F, *shape), None, block, 0)
    return convolve_and_pool(*arguments, padding, block)


def _arguments(channels: int, size: int, padding: int, params: Params, x: Images) -> tuple[Array, Array, Array]:
    check_images((x.shape[0], x.shape[3], *x.shape[1:3]), channels, size, padding)
    dtype = jnp.result_type(x, params["W"])
    W = jnp.asarray(params["W"], dtype).transpose(2, 3, 1, 0)  # (F, C, K, K) -> (K, K, C, F)
    return x.astype(dtype), W, jnp.asarray(params["b"])


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
