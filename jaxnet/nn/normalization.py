"""Layers that normalize their inputs to mean 0 and variance 1, beside `numpy_ref/normalization.py`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from jaxnet.common.validation import check_counts
from jaxnet.nn.layers import InitStd, Layer, Params, Tree, no_noise, stateless

__all__ = ["batch_norm", "group_norm", "layer_norm"]


def batch_norm(size: int, momentum: float = 0.9, eps: float = 1e-5) -> Layer:
    """y = gamma (x - mean) / sqrt(var + eps) + beta: a vector's elements (N, D), an image's channels (N, D, H, W).

    Training uses the mean and variance of the batch, and updates running ones for inference:
    running = momentum * running + (1 - momentum) * batch. Both variances are divided by the number of elements; Ioffe
    and Szegedy, *Batch Normalization*, 2015, algorithm 1, divide the running one by that less one.

    Raises:
        ValueError: If a number is out of range; in use, if x has another number of elements or channels.
    """
    check_counts(size=size)
    if not (0 <= momentum < 1 and eps > 0):
        raise ValueError(f"momentum, eps: {momentum}, {eps}, expected a share in [0, 1) and a number > 0")

    def normalize(params: Params, x: Array, mean: Array, var: Array) -> Array:
        gamma, beta, mean, var = (_along_channels(a, x) for a in (params["gamma"], params["beta"], mean, var))
        return gamma * ((x - mean) / jnp.sqrt(var + eps)) + beta

    def train(params: Params, state: Tree, x: Array, _noise: Tree) -> tuple[Array, Tree]:
        _check_channels(x, size)
        axes = (0, *range(2, x.ndim))
        batch = {"mean": x.mean(axes), "var": x.var(axes)}  # (D,), (D,)
        running = jax.tree.map(lambda old, new: momentum * old + (1 - momentum) * new, state, batch)
        return normalize(params, x, **batch), running

    def infer(params: Params, state: Tree, x: Array) -> Array:
        _check_channels(x, size)
        return normalize(params, x, **state)

    return Layer(
        ("BatchNorm", size, momentum, eps),
        _identity(size),
        state={"mean": np.zeros(size, np.float32), "var": np.ones(size, np.float32)},
        draw_noise=no_noise,
        train=train,
        infer=infer,
    )


def layer_norm(size: int, eps: float = 1e-5) -> Layer:
    """y = gamma (x - mean) / sqrt(var + eps) + beta, over the last axis: (..., D) -> (..., D).

    Training and inference do the same. Ba, Kiros and Hinton, *Layer Normalization*, 2016, equation 4.

    Raises:
        ValueError: If a number is out of range; in use, if x has another width.
    """
    check_counts(size=size)
    if not eps > 0:
        raise ValueError(f"eps: {eps}, expected a number > 0")

    def apply(params: Params, x: Array) -> Array:
        if x.ndim < 2 or x.shape[-1] != size:
            raise ValueError(f"x: shape {x.shape}, expected (N, ..., {size})")
        mean, var = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)  # (..., 1)
        return params["gamma"] * ((x - mean) / jnp.sqrt(var + eps)) + params["beta"]

    return stateless(("LayerNorm", size, eps), _identity(size), apply, last_axis_only=True)


def group_norm(groups: int, size: int, eps: float = 1e-5) -> Layer:
    """y = gamma (x - mean) / sqrt(var + eps) + beta, over each group of a sample's channels: (N, D) or (N, D, H, W).

    A group has size / groups channels that follow each other. gamma and beta have an element for each channel. Training
    and inference do the same. Wu and He, *Group Normalization*, 2018, equations 1 and 6.

    Raises:
        ValueError: If a number is out of range, or the groups do not divide the size; in use, if x has another size.
    """
    check_counts(groups=groups, size=size)
    if size % groups:
        raise ValueError(f"groups: {groups}, expected a divisor of the size, {size}")
    if not eps > 0:
        raise ValueError(f"eps: {eps}, expected a number > 0")

    def apply(params: Params, x: Array) -> Array:
        _check_channels(x, size)
        rows = x.reshape(len(x), groups, -1)  # (N, G, D/G H W)
        mean, var = rows.mean(axis=-1, keepdims=True), rows.var(axis=-1, keepdims=True)  # (N, G, 1)
        x_hat = ((rows - mean) / jnp.sqrt(var + eps)).reshape(x.shape)
        return _along_channels(params["gamma"], x) * x_hat + _along_channels(params["beta"], x)

    return stateless(("GroupNorm", groups, size, eps), _identity(size), apply)


def _identity(size: int) -> Callable[[PRNGKeyArray, InitStd], Params]:
    return lambda _key, _init_std: {"gamma": jnp.ones(size), "beta": jnp.zeros(size)}


def _along_channels(a: Array, x: Array) -> Array:
    return a.reshape(1, -1, *(1,) * (x.ndim - 2))  # (1, D) or (1, D, 1, 1)


def _check_channels(x: Array, size: int) -> None:
    if x.ndim not in (2, 4) or x.shape[1] != size:
        raise ValueError(f"x: shape {x.shape}, expected (N, {size}) or (N, {size}, H, W)")
