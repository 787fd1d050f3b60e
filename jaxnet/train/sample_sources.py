"""Where a run has its samples: all of them on the devices, or on the host, which reads those of the next steps ahead.

Both sources give each step the same numbers. Grain, of the extra `stream`, reads ahead in a thread, so that the device
computes meanwhile. It is JAX's own loader, and takes any function of an index.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxnet import DISTRIBUTION
from jaxnet.data import Dataset
from jaxnet.nn.inference import chunk_of
from jaxnet.train.device_data import BlockOfSteps, TrainingData, to_device
from jaxnet.train.random_batches import Batches, PlacedBatches, RandomBatches
from jaxnet.train.sharding import OneDevice

SHARES = 6  # of the allowed bytes: steps and evaluation each have a block in use, one ready, and one being read


class Part(NamedTuple):
    """Samples on the devices, of which the first `rows` are evaluated; the rest is padding."""

    x: Array
    t: Array
    rows: int


class DeviceSamples:
    """All samples on the devices."""

    def __init__(self, data: Dataset, batches: Batches, devices: OneDevice, dtype: Any) -> None:
        x_train, x_test = (to_device(devices.shard_rows(x), dtype) for x in (data.x_train, data.x_test))
        t_train, t_test = (jnp.asarray(devices.shard_rows(t)) for t in (data.t_train, data.t_test))
        self._batches, self._x, self._t = PlacedBatches(batches, devices.replicate), x_train, t_train
        self.train, self.test = Part(x_train, t_train, len(data.x_train)), Part(x_test, t_test, len(data.x_test))

    @property
    def rows_at_a_time(self) -> int:
        """The number of samples that an evaluation computes with at a time."""
        return chunk_of(self._x)

    def of_steps(self, first: int, stop: int) -> Iterator[tuple[TrainingData, int]]:
        """Yields samples for the steps from the first one on, and the step before which they end."""
        while first < stop:
            data = self._data_of(first)
            first = min(stop, int(data.first_step) + data.steps)
            yield data, first

    def of_step(self, step: int) -> tuple[Array, Array]:
        """Returns the samples and labels of one step."""
        data = self._data_of(step)
        return data.gather(data.batches[step - int(data.first_step)])

    def evaluated(self) -> Iterator[Iterator[Part]]:
        """Yields the training samples in parts, then the test samples."""
        yield iter([self.train])
        yield iter([self.test])

    def _data_of(self, step: int) -> TrainingData:
        return TrainingData(self._x, self._t, *self._batches.of_steps(step, step + 1))


class HostSamples:
    """All samples on the host, such as memory maps, and a few blocks of them on the devices."""

    def __init__(self, data: Dataset, batches: Batches, devices: OneDevice, dtype: Any, max_bytes: int) -> None:
        self.data, self.devices = data, devices
        self.batches = batches if isinstance(batches, RandomBatches) else np.asarray(batches)
        self.dtype = np.int32 if np.issubdtype(data.x_train.dtype, np.integer) else dtype
        share, batch_size = max_bytes // SHARES, batches.shape[1]
        self.block = min(len(batches), share // bytes_of(data, batch_size, dtype))  # steps
        self.part = devices.divisible(max(1, share // bytes_of(data, 1, dtype)))  # samples
        if not self.block:
            needed = SHARES * bytes_of(data, batch_size, dtype)
            raise ValueError(f"max_data_bytes: {max_bytes}, expected at least {needed}, room for {SHARES} batches")
        self._ahead: Iterator[BlockOfSteps] = iter(())
        self._last: tuple[int, BlockOfSteps | None] = -1, None

    @property
    def rows_at_a_time(self) -> int:
        """The number of samples that an evaluation computes with at a time."""
        return min(self.part, chunk_of(np.broadcast_to(np.zeros((), self.dtype), self.data.x_train.shape)))

    def of_steps(self, first: int, stop: int) -> Iterator[tuple[BlockOfSteps, int]]:
        """Yields samples for the steps from the first one on, and the step before which they end."""
        while first < stop:
            end = min(stop, (first // self.block + 1) * self.block)
            yield self._block(first // self.block), end
            first = end

    def of_step(self, step: int) -> tuple[Array, Array]:
        """Returns the samples and labels of one step."""
        block = self._block(step // self.block)
        return block.x[step % self.block], block.t[step % self.block]

    def evaluated(self) -> Iterator[Iterator[Part]]:
        """Yields the training samples in parts, then the test samples."""
        for x, t in ((self.data.x_train, self.data.t_train), (self.data.x_test, self.data.t_test)):
            yield read_ahead(partial(self._read_part, x, t), 0, -(-len(x) // self.part))

    def _block(self, number: int) -> BlockOfSteps:
        last, block = self._last
        if block is None or number != last:
            if block is None or number != last + 1:
                self._ahead = read_ahead(self._read_block, number, -(-len(self.batches) // self.block))
            block = next(self._ahead)
            self._last = number, block
        return block

    def _read_block(self, number: int) -> BlockOfSteps:
        steps = np.arange(number * self.block, (number + 1) * self.block)
        rows = self.batches[steps[0] : steps[-1] + 1]
        rows = np.pad(rows, ((0, self.block - len(rows)), (0, 0)), "edge")  # the last block has the shape of the others
        x, t = self.data.x_train, self.data.t_train
        samples = self.devices.place_batches(rows, lambda rows: np.asarray(x[rows], self.dtype))
        labels = self.devices.place_batches(rows, lambda rows: np.asarray(t[rows]))
        return BlockOfSteps(samples, labels, jnp.asarray(steps[0], jnp.int32))

    def _read_part(self, x: Any, t: Any, number: int) -> Part:
        start = number * self.part
        rows = np.minimum(np.arange(start, start + self.part), len(x) - 1)
        samples, labels = self.devices.shard_rows(np.asarray(x[rows], self.dtype)), self.devices.shard_rows(t[rows])
        return Part(jnp.asarray(samples), jnp.asarray(labels), min(self.part, len(x) - start))


def bytes_of(data: Dataset, samples: int, dtype: Any) -> int:
    """Returns the bytes of so many samples and their labels, pixels as floats."""
    per_sample = [
        np.prod(array.shape[1:], dtype=int)
        * np.dtype(dtype if np.issubdtype(array.dtype, np.floating) else np.int32).itemsize
        for array in (data.x_train, data.t_train)
    ]
    return samples * int(sum(per_sample))


def read_ahead(read: Callable[[int], Any], first: int, stop: int) -> Iterator[Any]:
    """Yields read(i) for i from `first` up to but not including `stop`; a thread reads the next one meanwhile."""
    import grain

    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    with closing(iter(grain.MapDataset.range(first, stop).map(read).to_iter_dataset(options))) as blocks:
        yield from blocks


def require_grain() -> None:
    """Raises ValueError, which says what to install, unless samples can be read ahead."""
    try:
        import grain  # noqa: F401
    except ModuleNotFoundError:
        raise ValueError(f'max_data_bytes: needs grain: pip install "{DISTRIBUTION}[stream]"') from None
