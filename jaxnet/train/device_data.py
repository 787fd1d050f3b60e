"""Training samples in the device's memory: pixels are stored as bytes."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def to_device(x: Any, dtype: Any) -> Array:
    """Copies samples to the device: integers as int32, pixels as uint8, other floats in the given dtype.

    Pixels are exactly k/255 with k in 0..255. A step waits for memory: a quarter of the bytes is a third of the wait.
    """
    if jnp.issubdtype(x.dtype, jnp.integer):
        return jnp.asarray(x, jnp.int32)
    x = jnp.asarray(x, dtype)
    pixels, exact = _to_bytes(x)
    return pixels if exact else x


def to_floats(rows: Array, dtype: Any) -> Array:
    """Returns the rows as a network takes them: bytes k become k/255, rounded as a division rounds."""
    if rows.dtype != jnp.uint8:
        return rows
    k = rows.astype(dtype)
    return k * (1 / 256) + k * (1 / 65280)  # 1/255 = 1/256 + 1/65280: one rounding, and cheaper than k / 255


@jax.jit
def _to_bytes(x: Array) -> tuple[Array, Array]:
    k = jnp.clip(jnp.round(x * 255), 0, 255).astype(jnp.uint8)
    return k, jnp.all(to_floats(k, x.dtype) == x)
