"""Training samples in the device's memory, where pixels are stored as bytes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

IN_BOUNDS = "promise_in_bounds"  # `fit` has checked the row numbers


class TrainingData(NamedTuple):
    """All training samples, and which of their rows each of S steps takes."""

    x: Array
    t: Array
    batches: Int[Array, "S B"]
    first_step: int | Int[Array, ""] = 0  # whose rows are the first of `batches`

    @property
    def steps(self) -> int:
        """The number of steps that these samples are for."""
        return len(self.batches)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of the samples in a step."""
        return self.batches.shape[1], *self.x.shape[1:]

    def of_steps(self, start: Int[Array, ""], count: int) -> tuple[Array, Array]:
        """Returns the samples (count, B, ...) and labels of steps; `start` counts from `first_step`."""
        return self.gather(lax.dynamic_slice_in_dim(self.batches, start, count))

    def gather(self, rows: Int[Array, "*S B"]) -> tuple[Array, Array]:
        """Returns the samples and labels in these rows."""
        return self.x.at[rows].get(mode=IN_BOUNDS), self.t.at[rows].get(mode=IN_BOUNDS)


class BlockOfSteps(NamedTuple):
    """The samples of some steps, in the order in which the steps take them."""

    x: Array  # (K, B, ...)
    t: Array
    first_step: Int[Array, ""]

    @property
    def steps(self) -> int:
        """The number of steps that these samples are for."""
        return len(self.x)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of the samples in a step."""
        return self.x.shape[1:]

    def of_steps(self, start: Int[Array, ""], count: int) -> tuple[Array, Array]:
        """Returns the samples (count, B, ...) and labels of steps; `start` counts from `first_step`."""
        return lax.dynamic_slice_in_dim(self.x, start, count), lax.dynamic_slice_in_dim(self.t, start, count)


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
