"""Row numbers of batches that are drawn a block of steps at a time, as a long run has no room for all of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, PRNGKeyArray, UInt

from jaxnet.common.validation import check_batches
from jaxnet.train.step import check_draw

BLOCK_NUMBERS = 2**20  # row numbers that are drawn together, 4 MB
MIN_BLOCK = 100  # steps


@dataclass(frozen=True)
class RandomBatches:
    """The row numbers that `draw_batches` returns, drawn while a run needs them: memory does not grow with the steps.

    They are the same in 64-bit mode as outside of it. Keys of another kind than JAX's default, threefry, are drawn
    from once for all steps.

    Args:
        key: Determines the row numbers.
        samples: Number of rows to draw from, >= 1.
        batch_size: Rows in a batch, >= 1.
        steps: Number of batches, >= 1.

    Raises:
        ValueError: If a count is below 1, or `steps * batch_size` is 2³¹ or more.

    Example:
        >>> batches = jaxnet.RandomBatches(jax.random.key(0), samples=1000, batch_size=32, steps=500)
        >>> bool((batches[100:200] == jaxnet.draw_batches(jax.random.key(0), 1000, 32, 500)[100:200]).all())
        True
    """

    key: PRNGKeyArray
    samples: int
    batch_size: int
    steps: int
    _latest: list[tuple[int, np.ndarray]] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_draw(self.key, self.samples, self.batch_size, self.steps)

    def __len__(self) -> int:
        """Returns the number of steps."""
        return self.steps

    @property
    def shape(self) -> tuple[int, int]:
        """The number of steps and the rows in a batch."""
        return self.steps, self.batch_size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the row numbers."""
        return np.dtype(np.int32)

    @cached_property
    def block(self) -> int:
        """The number of steps whose batches are drawn together."""
        return min(self.steps, max(MIN_BLOCK, BLOCK_NUMBERS // self.batch_size))

    def draw(self, start: int) -> Int[Array, "{self.block} B"]:
        """Returns the row numbers of a block of steps; `start` is at most `steps - block`."""
        with jax.enable_x64(False):
            key: Any = self.key
            if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
                key = jax.random.wrap_key_data(key)
            config: Any = jax.config
            if jax.random.key_impl(key) != "threefry2x32" or not config.jax_threefry_partitionable:
                rows = jax.random.randint(key, self.shape, 0, self.samples, jnp.int32)
                return lax.dynamic_slice_in_dim(rows, start, self.block)
            return _draw(jax.random.key_data(key), start * self.batch_size, self.samples, (self.block, self.batch_size))

    def __getitem__(self, steps: slice) -> Int[np.ndarray, "K B"]:
        """Returns the row numbers of consecutive steps."""
        start, stop, _ = steps.indices(self.steps)
        parts = [np.zeros((0, self.batch_size), np.int32)]
        while start < stop:
            first, rows = self._block_with(start)
            parts.append(rows[start - first : stop - first])
            start += len(parts[-1])
        return np.concatenate(parts)

    def _block_with(self, step: int) -> tuple[int, np.ndarray]:
        """Returns the block that has this step, and the first step of it; the last one that was drawn is kept."""
        first = min(step // self.block * self.block, self.steps - self.block)
        for latest in self._latest:  # at most one; a thread that reads ahead may replace it meanwhile
            if latest[0] <= step < latest[0] + self.block:
                return latest
        self._latest[:] = [(first, np.asarray(self.draw(first)))]
        return self._latest[0]


Batches = Int[Array, "S B"] | RandomBatches

# A kind of key from which JAX's own `randint` draws as from a threefry key, but from a later number on. Threefry
# computes each random number from the key and the index of the number alone. The third element of a key of this kind is
# the first index.


def _split(key: UInt[Array, "3"], shape: tuple[int, ...]) -> UInt[Array, "*S 3"]:
    keys = jax.random.key_data(jax.random.split(jax.random.wrap_key_data(key[:2], impl="threefry2x32"), shape))
    return jnp.concatenate([keys, jnp.broadcast_to(key[2:], (*shape, 1))], axis=-1)


def _random_bits(key: UInt[Array, "3"], bit_width: int, shape: tuple[int, ...]) -> UInt[Array, "*S"]:
    if bit_width != 32:
        raise ValueError(f"bit_width: {bit_width}, expected 32")
    index = key[2] + lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)  # `check_draw` keeps it below 2^32
    words = jnp.broadcast_arrays(key[0], key[1], jnp.zeros_like(index), index)
    high, low = jax.extend.random.threefry2x32_p.bind(*words)  # type: ignore[no-untyped-call]
    return high ^ low


def _fold_in(key: UInt[Array, "3"], data: int) -> UInt[Array, "3"]:
    raise NotImplementedError


_FROM_INDEX: Any = jax.extend.random.define_prng_impl(
    key_shape=(3,), seed=lambda _: jnp.zeros(3, jnp.uint32), split=_split, random_bits=_random_bits, fold_in=_fold_in
)


@partial(jax.jit, static_argnames=("samples", "shape"))
def _draw(key: UInt[Array, "2"], first: Int[Array, ""], samples: int, shape: tuple[int, int]) -> Int[Array, "K B"]:
    """Returns `jax.random.randint` of the flat indices from `first` on."""
    from_first = jnp.concatenate([key, jnp.asarray(first, jnp.uint32)[None]])
    return jax.random.randint(jax.random.wrap_key_data(from_first, impl=_FROM_INDEX), shape, 0, samples, jnp.int32)


class PlacedBatches:
    """Row numbers on the devices: all that the caller has, or of RandomBatches a block at a time.

    Args:
        batches: The row numbers.
        place: Copies an array to the devices.
    """

    def __init__(self, batches: Batches, place: Callable[[Array], Array]) -> None:
        self._batches, self._place = batches, place
        self._first = 0
        self._rows = place(batches.draw(0) if isinstance(batches, RandomBatches) else batches)

    def of_steps(self, start: int, stop: int) -> tuple[Int[Array, "K B"], int]:
        """Returns row numbers that include those of these steps, at most 100, and the step that they begin with."""
        batches = self._batches
        if isinstance(batches, RandomBatches) and not self._first <= start < stop <= self._first + batches.block:
            self._first = min(start, len(batches) - batches.block)
            self._rows = self._place(batches.draw(self._first))
        return self._rows, self._first


def checked_batches(batches: Any, samples: int) -> Batches:
    """Returns the argument `batches`, on the device if it is an array, with row numbers in [0, samples)."""
    if not isinstance(batches, RandomBatches):
        check_batches("batches", batches, samples)
        return jnp.asarray(batches)
    if batches.samples > samples:
        raise ValueError(f"batches: drawn from {batches.samples} rows, expected at most {samples}, those of x_train")
    return batches
