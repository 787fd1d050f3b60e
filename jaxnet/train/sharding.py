"""Training on several devices and processes: the same program, with its arrays sharded over a mesh.

Every device holds the whole state and its shard of the rows, and computes with its shard of every batch. The compiler
inserts the sums that this needs: "Distributed arrays and automatic parallelization" in https://docs.jax.dev/en/latest/.
"""

import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.dtypes import prng_key
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from jaxnet.common.validation import check_counts

AXIS = "batch"
HEARTBEAT_SECONDS = 30  # of silence, after which a process is considered dead and the others exit


def join(coordinator: str | None = None, processes: int = 1, process: int = 0) -> None:
    """Connects this process to the others that train with it; does nothing for a single process.

    Call it before anything else of JAX. When a process dies, the others exit with an error: at their next sum over
    devices if its connection breaks, or else after HEARTBEAT_SECONDS.

    Args:
        coordinator: Address on which process 0 listens, the same for all processes: "10.0.0.1:1234".
        processes: Number of processes. Defaults to 1.
        process: Number of this process, from 0.

    Raises:
        ValueError: If `process` is out of range, or the address is missing or has no port.
        RuntimeError: If JAX has been used before, or the other processes do not connect.
    """
    check_counts(processes=processes)
    if not 0 <= process < processes:
        raise ValueError(f"process: {process}, expected 0 to {processes - 1}, a different number in each process")
    if processes == 1:
        return
    if coordinator is None or ":" not in coordinator:
        raise ValueError(
            f"coordinator: {coordinator}, expected host:port where process 0 listens, the same for all {processes}"
        )
    jax.distributed.initialize(
        coordinator,
        processes,
        process,
        cluster_detection_method="deactivate",  # the arguments are complete
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=HEARTBEAT_SECONDS,
    )


def mesh(devices: int | None = None) -> Mesh:
    """Returns a mesh with one axis, "batch", over this many devices.

    Args:
        devices: Number of devices. Defaults to all devices of all processes.

    Raises:
        ValueError: If JAX has fewer devices, or a process would have none.
    """
    available = jax.devices()
    count = len(available) if devices is None else devices
    if not 1 <= count <= len(available):
        raise ValueError(
            f"devices: {count}, expected 1 to {len(available)}, the number that JAX has; to simulate {count} on a CPU, "
            f'call jax.config.update("jax_num_cpu_devices", {count}) before JAX is used'
        )
    if jax.process_count() > 1 and count < len(available):
        raise ValueError(
            f"devices: {count}, expected all {len(available)} with {jax.process_count()} processes; "
            "leave it out, or start fewer processes"
        )
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=available[:count])


def any_process(flag: bool) -> bool:
    """Returns whether the flag is true in any process; all must call it, equally often and in the same order."""
    return bool(np.any(multihost_utils.process_allgather(np.int32(flag))))


def check_on_first_process(check: Callable[[], None]) -> None:
    """Runs a check in the first process, such as that of a folder; its ValueError or OSError fails all processes."""
    failure: Exception | None = None
    if jax.process_index() == 0:
        try:
            check()
        except (ValueError, OSError) as error:
            failure = error
    if any_process(failure is not None):
        raise failure or ValueError("a check failed in the first process, which reports the reason")


def local_copy(tree: Any) -> Any:
    """Copies replicated arrays, such as a state, to this process's first device, for computations of its own."""
    return jax.tree.map(lambda leaf: _with_kind_of(leaf, jnp.asarray(_numbers(leaf))), tree)


@contextmanager
def exit_on_failure() -> Iterator[None]:
    """Exits with one line and status 1 if a computation of several processes fails, as when one has died."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = (str(error).splitlines() or [""])[0][:200]
        message = "a joint computation failed, probably because another process has died; exiting"
        print(f"process {jax.process_index()}: {message} ({reason})", file=sys.stderr, flush=True)
        os._exit(1)  # a normal exit would wait for the others


@dataclass(frozen=True)
class OneDevice:
    """The placement of arrays on JAX's default device, where no method has anything to do."""

    def replicate(self, tree: Any) -> Any:
        """Copies the arrays to every device. Raises AssertionError if the processes pass different ones."""
        return tree

    def shard_rows(self, x: Any) -> Any:
        """Distributes samples or labels over the devices, padded so that all shards have the same size."""
        return x

    def held_rows(self, samples: int) -> Iterator[tuple[str, slice]]:  # noqa: ARG002
        """Yields the slices of rows that this process holds, each with a suffix for the array's name in errors."""
        yield "", slice(None)

    def constrain(self, tree: Any, *axes: str) -> Any:  # noqa: ARG002
        """Within a program, shards arrays along AXIS, or puts whole ones on every device, for every process to read."""
        return tree

    def map_rows(self, function: Callable[..., Array]) -> Callable[..., Array]:
        """Within a program, returns a function that applies a function of rows to each device's own shard."""
        return function

    def any(self, flag: bool) -> bool:
        """Returns whether the flag is true in any process, so that all decide alike what depends on a clock."""
        return flag

    def check_batch_size(self, size: int) -> None:
        """Raises ValueError if the number of devices does not divide the number of rows in a batch."""


@dataclass(frozen=True)
class ManyDevices(OneDevice):
    """The placement over a mesh: state and row numbers on every device, the data's rows sharded."""

    mesh: Mesh

    def replicate(self, tree: Any) -> Any:  # noqa: D102
        numbers = jax.tree.map(_numbers, tree)
        checksum = reduce(lambda crc, leaf: zlib.crc32(leaf.tobytes(), crc), jax.tree.leaves(numbers), 0)
        multihost_utils.assert_equal(np.uint32(checksum), "the processes have different parameters, keys or batches")

        def place(leaf: Any, numbers: np.ndarray) -> Array:
            array = jax.make_array_from_callback(numbers.shape, self._sharding(), numbers.__getitem__)
            return _with_kind_of(leaf, array)

        return jax.tree.map(place, tree, numbers)

    def shard_rows(self, x: Any) -> Any:  # noqa: D102
        padded, dtype = self._padded(len(x)), jax.dtypes.canonicalize_dtype(x.dtype)

        def shard(index: Any) -> np.ndarray:
            rows = np.arange(padded)[index[0]]
            return np.asarray(x[np.minimum(rows, len(x) - 1)], dtype)  # the padding repeats the last row

        return jax.make_array_from_callback((padded, *x.shape[1:]), self._sharding(AXIS), shard, dtype)

    def held_rows(self, samples: int) -> Iterator[tuple[str, slice]]:  # noqa: D102
        padded = self._padded(samples)
        shards: Any = self._sharding(AXIS).addressable_devices_indices_map((padded,))
        for (index,) in shards.values():
            start, stop, _ = index.indices(padded)
            if start < max(samples, 1):
                last = stop >= samples  # then open-ended, so that a check sees an array that is too long
                yield f"[{start}:{min(stop, samples)}]", slice(start, None if last else stop)

    def constrain(self, tree: Any, *axes: str) -> Any:  # noqa: D102
        return lax.with_sharding_constraint(tree, self._sharding(*axes))  # type: ignore[no-untyped-call]

    def map_rows(self, function: Callable[..., Array]) -> Callable[..., Array]:  # noqa: D102
        by_rows = self._sharding(AXIS).spec
        return jax.shard_map(function, mesh=self.mesh, in_specs=by_rows, out_specs=by_rows)

    def any(self, flag: bool) -> bool:  # noqa: D102
        return any_process(flag)

    def check_batch_size(self, size: int) -> None:  # noqa: D102
        if size % self.mesh.size:
            raise ValueError(
                f"batches: {size} rows a step, expected a multiple of {self.mesh.size}, the number of devices; "
                f"change the batch size, or take a number of devices that divides {size}"
            )

    def _sharding(self, *axes: str) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))  # type: ignore[no-untyped-call]

    def _padded(self, samples: int) -> int:
        return -(-samples // self.mesh.size) * self.mesh.size  # rounded up to a multiple of the number of devices


ONE_DEVICE = OneDevice()


def placement(mesh: Mesh | None) -> OneDevice:
    """Returns the placement for `fit(mesh=mesh)`."""
    return ONE_DEVICE if mesh is None else ManyDevices(mesh)


def _numbers(leaf: Any) -> np.ndarray:
    """Returns the numbers in an array or a key; JAX cannot place keys on devices of other processes."""
    return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, prng_key) else leaf)


def _with_kind_of(leaf: Any, numbers: Array) -> Array:
    """Returns the numbers as a key if the leaf is one: the inverse of `_numbers`."""
    if not jnp.issubdtype(leaf.dtype, prng_key):
        return numbers
    return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(leaf))
