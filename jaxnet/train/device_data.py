"""Samples as they lie on the device while a network trains: pixels as the bytes that they were."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def to_device(x: Any, dtype: Any) -> Array:
    """x on the device: integers as int32, floats in this dtype, or as uint8 if they are exactly k/255, k in 0..255.

    A step picks its rows at random, so it waits for memory: a quarter of the bytes is a third of the wait.
    """
    if jnp.issubdtype(x.dtype, jnp.integer):
        return jnp.asarray(x, jnp.int32)
    x = jnp.asarray(x, dtype)
    bytes_, exact = _as_bytes(x)
    return bytes_ if exact else x


def to_floats(rows: Array, dtype: Any) -> Array:
    """What a network takes: bytes k become k/255, bit for bit as a division rounds it; all else stays as it is."""
    if rows.dtype != jnp.uint8:
        return rows
    k = rows.astype(dtype)
    return k * (1 / 256) + k * (1 / 65280)  # 1/255 = 1/256 + 1/65280: exact but for the last sum; cheaper than k / 255


@jax.jit
def _as_bytes(x: Array) -> tuple[Array, Array]:
    bytes_ = jnp.clip(jnp.round(x * 255), 0, 255).astype(jnp.uint8)
    return bytes_, jnp.all(to_floats(bytes_, x.dtype) == x)
