"""Networks of ids one position at a time: attention keeps the keys and values of the positions before.

A whole window of T positions costs T times as much for each new id. A position that is computed with this cache has the
same logits up to rounding, because attention is causal, and all other layers treat each position by itself.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxnet.nn.layers import Layer, Params, Tree

__all__ = ["Position", "can_decode", "decode", "empty_cache"]

COMPOSED = ("Sequential", "Residual")


class Position(NamedTuple):
    """A position of N sequences: its number, and what the network knows of it so far."""

    number: Int[Array, ""]
    x: Array  # ids (N, 1), then vectors (N, 1, D)


def can_decode(net: Layer) -> bool:
    """Returns whether every layer treats positions by themselves, but for causal attention."""
    kind = net.description[0]
    if kind in COMPOSED:
        return all(map(can_decode, net.layers.values()))
    return net.last_axis_only or kind in ("Attention", "Dropout", "Embedding", "PositionalEmbedding")


def empty_cache(net: Layer, samples: int, length: int, dtype: Any) -> Tree:
    """Returns zeros for the keys and values (N, heads, length, K) of attention layers, in the tree of the layers."""
    kind, *sizes = net.description
    if kind in COMPOSED:
        caches = {name: empty_cache(layer, samples, length, dtype) for name, layer in net.layers.items()}
        return {name: cache for name, cache in caches.items() if cache}
    if kind != "Attention":
        return {}
    size, heads = sizes
    zeros = jnp.zeros((samples, heads, length, size // heads), dtype)
    return {"k": zeros, "v": zeros}


def decode(net: Layer, params: Params, state: Tree, cache: Tree, position: Position) -> tuple[Array, Tree]:
    """Returns the output (N, 1, ...) of a network at a position, and the cache with its keys and values.

    Args:
        net: A network that `can_decode`.
        params: Its parameters; `state` is its state.
        cache: Keys and values of the positions before.
        position: The number of the position, less than the length of the cache, and its ids (N, 1).
    """
    kind = net.description[0]
    if kind in COMPOSED:
        x, new = position.x, {}
        for name, layer in net.layers.items():
            params_of, state_of, cache_of = (tree.get(name, {}) for tree in (params, state, cache))
            x, new[name] = decode(layer, params_of, state_of, cache_of, position._replace(x=x))
        y = position.x + x if kind == "Residual" else x
        return y, {name: tree for name, tree in new.items() if tree}
    if kind == "PositionalEmbedding":
        return position.x + jnp.asarray(params["P"])[position.number], {}
    if kind == "Attention":
        return _attend_to_cache(params, cache, position)
    return net.infer(params, state, position.x), {}


def _attend_to_cache(params: Params, cache: Tree, position: Position) -> tuple[Float[Array, "N 1 D"], Tree]:
    number, x = position
    samples, heads, length, size = cache["k"].shape
    q, k, v = ((x @ params[W]).reshape(samples, heads, 1, size) for W in ("Wq", "Wk", "Wv"))
    keys, values = (cache[name].at[:, :, number].set(new[:, :, 0]) for name, new in (("k", k), ("v", v)))
    scores = q @ keys.swapaxes(-1, -2) / math.sqrt(size)  # (N, heads, 1, length)
    A = jax.nn.softmax(jnp.where(jnp.arange(length) <= number, scores, -jnp.inf), axis=-1)
    return (A @ values).reshape(samples, 1, -1) @ params["Wo"], {"k": keys, "v": values}
