"""Layers of a transformer, beside `numpy_ref/attention.py`: sequences of T positions, x (N, T, D)."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from jaxnet.common.validation import check_counts, check_size
from jaxnet.nn.layers import InitStd, Layer, Params, standard_deviation, stateless

__all__ = ["attention", "embedding", "positional_embedding"]


def embedding(vocabulary: int, size: int) -> Layer:
    """y[n, t] = E[x[n, t]]: ids x (N, T) in [0, vocabulary) -> y (N, T, size).

    E is normal, with the standard deviation `init_std` for `size` inputs and outputs. An id out of range gives nan.

    Raises:
        ValueError: If a size is below 1; in use, if x is no matrix of integers.
    """
    check_counts(vocabulary=vocabulary, size=size)
    check_size(vocabulary=vocabulary, size=size)

    def apply(params: Params, x: Array) -> Array:
        if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(f"x: {x.dtype} of shape {x.shape}, expected integers (N, T)")
        E = jnp.asarray(params["E"])  # (V, D)
        return E.at[x].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)  # (N, T, D)

    return stateless(("Embedding", vocabulary, size), _normal_rows("E", vocabulary, size), apply)


def positional_embedding(length: int, size: int) -> Layer:
    """y[n, t] = x[n, t] + P[t]: x (N, T, size) with T up to `length`. P is drawn as the rows of an embedding are.

    Raises:
        ValueError: If a size is below 1; in use, if x has more positions or another width.
    """
    check_counts(length=length, size=size)
    check_size(length=length, size=size)

    def apply(params: Params, x: Array) -> Array:
        if x.ndim != 3 or x.shape[1] > length or x.shape[2] != size:
            raise ValueError(f"x: shape {x.shape}, expected (N, T, {size}) with T up to {length}")
        return x + params["P"][: x.shape[1]]  # (N, T, D) + (T, D)

    return stateless(("PositionalEmbedding", length, size), _normal_rows("P", length, size), apply)


def _normal_rows(name: str, count: int, size: int) -> Callable[[PRNGKeyArray, InitStd], Params]:
    return lambda key, std: {name: standard_deviation(std, size, size) * jax.random.normal(key, (count, size))}


def attention(size: int, heads: int) -> Layer:
    """Causal multi-head self-attention: y = concat_h(A_h v_h) Wo, A_h = softmax(q_h k_hᵀ / √K), where t sees s <= t.

    q = x Wq, k = x Wk and v = x Wv are each split into heads of K = size / heads columns: (N, T, size) -> (N, T, size).
    Vaswani et al., *Attention Is All You Need*, 2017, section 3.2.

    Raises:
        ValueError: If a number is below 1, or the heads do not divide the size; in use, if x has another width.
    """
    check_counts(size=size, heads=heads)
    check_size(size=size, inner_size=size)
    if size % heads:
        raise ValueError(f"heads: {heads}, expected a divisor of the size, {size}")

    def init(key: PRNGKeyArray, init_std: InitStd) -> Params:
        std = standard_deviation(init_std, size, size)
        Wq, Wk, Wv, Wo = std * jax.random.normal(key, (4, size, size))
        return {"Wq": Wq, "Wk": Wk, "Wv": Wv, "Wo": Wo}

    def apply(params: Params, x: Array) -> Array:
        if x.ndim != 3 or x.shape[2] != size:
            raise ValueError(f"x: shape {x.shape}, expected (N, T, {size})")
        N, T, D = x.shape
        q, k, v = (
            (x @ params[W]).reshape(N, T, heads, D // heads).swapaxes(1, 2)  # (N, heads, T, K)
            for W in ("Wq", "Wk", "Wv")
        )
        scores = q @ k.swapaxes(-1, -2) / math.sqrt(D // heads)  # (N, heads, T, T)
        A = jax.nn.softmax(jnp.where(jnp.tri(T, dtype=bool), scores, -jnp.inf), axis=-1)
        o = (A @ v).swapaxes(1, 2).reshape(N, T, D)
        return o @ params["Wo"]

    return stateless(("Attention", size, heads), init, apply)
