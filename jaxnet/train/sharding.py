"""Training on several devices and processes: the same program, with its arrays sharded over a mesh.

The devices stand in rows and columns. Those of one row share a shard of the samples and of every batch; each of them
holds one part of every large weight and of what the optimizer keeps for it, and the whole of all else. With a single
column, every device holds the whole state. The compiler inserts the sums and the exchanges that this needs:
"Distributed arrays and automatic parallelization" in https://docs.jax.dev/en/latest/.
"""

import json
import math
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
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
from jaxnet.train.rendezvous import gather

BATCH, MODEL = "batch", "model"  # the axes of a mesh: samples are divided along one, large weights along the other
LARGE_WEIGHT = 2**14  # elements, from which a weight is divided
PROCESS_DIED = 4  # the exit status of a process that another one left alone
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
        ValueError: If `process` is out of range, the address is missing, has no port or is in use, or the other
            processes do not connect in time, see `jaxnet.train.rendezvous`.
        RuntimeError: If JAX has been used before.
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
    host, _, port = coordinator.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"coordinator: {coordinator}, expected host:port with a port from 1 to 65535")
    gather(host, int(port), processes, process)
    jax.distributed.initialize(
        coordinator,
        processes,
        process,
        cluster_detection_method="deactivate",  # the arguments are complete
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=HEARTBEAT_SECONDS,
    )


def differing(texts: Mapping[str, str]) -> list[str]:
    """Returns the names whose texts are not the same in all processes; all must call it, with the same names."""
    checksums = np.array([zlib.crc32(text.encode()) for text in texts.values()], np.uint32)
    by_process = multihost_utils.process_allgather(checksums).reshape(jax.process_count(), -1)
    return [name for name, column in zip(texts, by_process.T, strict=True) if len(set(column.tolist())) > 1]


def of_all_processes(texts: Mapping[str, str]) -> dict[str, str]:
    """Returns the texts of the first process, and those of the others that differ, such as `processor of process 1`.

    All processes must call it.
    """
    own = json.dumps(dict(texts)).encode()
    sizes = multihost_utils.process_allgather(np.array([len(own)])).reshape(-1)
    padded = np.frombuffer(own.ljust(int(sizes.max())), np.uint8)
    rows = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    first, *others = [json.loads(row.tobytes()) for row in rows]
    further = {
        f"{name} of process {process}": text
        for process, other in enumerate(others, 1)
        for name, text in other.items()
        if text != first.get(name)
    }
    return first | further


def mesh(devices: int | None = None, *, model_devices: int = 1) -> Mesh:
    """Returns a mesh over this many devices, with the axes "batch" and "model".

    Args:
        devices: Number of devices. Defaults to all devices of all processes.
        model_devices: Number >= 1 of devices that share the same rows, and of the parts that each weight of at least
            LARGE_WEIGHT elements is divided into; a divisor of `devices`. Defaults to 1: weights are whole.

    Raises:
        ValueError: If JAX has fewer devices, a process would have none, or `model_devices` does not divide them.

    Example:
        >>> dict(jaxnet.train.sharding.mesh(1).shape)
        {'batch': 1, 'model': 1}
    """
    check_counts(model_devices=model_devices)
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
    if count % model_devices:
        raise ValueError(f"model_devices: {model_devices}, expected a divisor of {count}, the number of devices")
    shape, types = (count // model_devices, model_devices), (AxisType.Auto,) * 2
    return jax.make_mesh(shape, (BATCH, MODEL), axis_types=types, devices=available[:count])


def divided_axis(shape: tuple[int, ...], parts: int) -> int | None:
    """Returns the axis along which an array of a state is divided: the longest that can be, of a large weight.

    Example:
        >>> jaxnet.train.sharding.divided_axis((784, 50), 2), jaxnet.train.sharding.divided_axis((50, 10), 2)
        (0, None)
    """
    divisible = [axis for axis, size in enumerate(shape) if size % parts == 0]
    if parts == 1 or len(shape) < 2 or math.prod(shape) < LARGE_WEIGHT or not divisible:
        return None
    return max(divisible, key=lambda axis: shape[axis])


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
    """Exits with one line and status PROCESS_DIED if a computation of several processes fails, as when one has died."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = (str(error).splitlines() or [""])[0][:200]
        message = "a joint computation failed, probably because another process has died; exiting"
        print(f"process {jax.process_index()}: {message} ({reason})", file=sys.stderr, flush=True)
        os._exit(PROCESS_DIED)  # a normal exit would wait for the others


@dataclass(frozen=True)
class OneDevice:
    """The placement of arrays on JAX's default device, where no method has anything to do."""

    def replicate(self, tree: Any) -> Any:
        """Copies the arrays to every device. Raises AssertionError if the processes pass different ones."""
        return tree

    def place_state(self, state: Any) -> Any:
        """Places a state as `constrain_state` does. Raises AssertionError if the processes pass different ones."""
        return state

    def place_along(self, tree: Any, axes: Any) -> Any:  # noqa: ARG002
        """Divides each array between all devices along its axis in `axes`; those with None are on every device."""
        return tree

    def shard_rows(self, x: Any) -> Any:
        """Distributes samples or labels over the devices, padded so that all shards have the same size."""
        return x

    def place_batches(self, rows: np.ndarray, read: Callable[[np.ndarray], np.ndarray]) -> Array:
        """Returns read(rows), of row numbers (K, B), on the devices, each batch divided between them; in a thread."""
        return jnp.asarray(read(rows))

    def held_rows(self, samples: int) -> Iterator[tuple[str, slice]]:  # noqa: ARG002
        """Yields the slices of rows that this process holds, each with a suffix for the array's name in errors."""
        yield "", slice(None)

    def constrain_rows(self, tree: Any) -> Any:
        """Within a program, shards arrays along their first axis."""
        return tree

    def constrain_state(self, state: Any) -> Any:
        """Within a program, divides large weights between the devices that share rows."""
        return state

    def constrain_result(self, state: Any) -> Any:
        """Within a program, does as `constrain_state`, but keeps weights whole that several processes must read."""
        return state

    def constrain_whole(self, tree: Any) -> Any:
        """Within a program, puts whole arrays on every device, for every process to read."""
        return tree

    def map_rows(self, function: Callable[..., Array], tree: Any, *rows: Array) -> Array:
        """Within a program, returns function(tree, *rows), computed by each device for its own shard of the rows."""
        return function(tree, *rows)

    def map_along(self, function: Callable[..., Any], in_axes: Any, out_axes: Any) -> Callable[..., Any]:  # noqa: ARG002
        """Returns a function that each device applies to its own parts, without communication: see `place_along`."""
        return function

    def divisible(self, count: int) -> int:
        """Returns the smallest number from `count` on that all devices can share evenly."""
        return count

    def any(self, flag: bool) -> bool:
        """Returns whether the flag is true in any process, so that all decide alike what depends on a clock."""
        return flag

    def check_batch_size(self, size: int) -> None:
        """Raises ValueError if the number of devices does not divide the number of rows in a batch."""


@dataclass(frozen=True)
class ManyDevices(OneDevice):
    """The placement over a mesh: row numbers on every device, rows and large weights sharded."""

    mesh: Mesh

    def replicate(self, tree: Any) -> Any:  # noqa: D102
        return self._place(tree, jax.tree.map(lambda _leaf: self._sharding(), tree))

    def place_state(self, state: Any) -> Any:  # noqa: D102
        return self._place(state, jax.tree.map(self._sharding_of_weight, state))

    def place_along(self, tree: Any, axes: Any) -> Any:  # noqa: D102
        specs = self._specs_along(axes)
        return self._place(
            tree, jax.tree.map(lambda spec, leaf: leaf if leaf is None else NamedSharding(self.mesh, spec), specs, tree)
        )

    def _place(self, tree: Any, shardings: Any) -> Any:
        numbers = jax.tree.map(_numbers, tree)
        checksum = reduce(lambda crc, leaf: zlib.crc32(leaf.tobytes(), crc), jax.tree.leaves(numbers), 0)
        multihost_utils.assert_equal(np.uint32(checksum), "the processes have different parameters, keys or batches")

        def place(leaf: Any, numbers: np.ndarray, sharding: NamedSharding) -> Array:
            array = jax.make_array_from_callback(numbers.shape, sharding, numbers.__getitem__)
            return _with_kind_of(leaf, array)

        return jax.tree.map(place, tree, numbers, shardings)

    def shard_rows(self, x: Any) -> Any:  # noqa: D102
        padded, dtype = self._padded(len(x)), jax.dtypes.canonicalize_dtype(x.dtype)

        def shard(index: Any) -> np.ndarray:
            rows = np.arange(padded)[index[0]]
            return np.asarray(x[np.minimum(rows, len(x) - 1)], dtype)  # the padding repeats the last row

        return jax.make_array_from_callback((padded, *x.shape[1:]), self._sharding(BATCH), shard, dtype)

    def place_batches(self, rows: np.ndarray, read: Callable[[np.ndarray], np.ndarray]) -> Array:  # noqa: D102
        shape = (*rows.shape, *read(rows[:1, :1]).shape[2:])

        def read_shard(index: Any) -> np.ndarray:
            return read(rows[index[:2]])

        return jax.make_array_from_callback(shape, self._sharding(None, BATCH), read_shard)

    def held_rows(self, samples: int) -> Iterator[tuple[str, slice]]:  # noqa: D102
        padded = self._padded(samples)
        shards: Any = self._sharding(BATCH).addressable_devices_indices_map((padded,))
        for (index,) in shards.values():
            start, stop, _ = index.indices(padded)
            if start < max(samples, 1):
                last = stop >= samples  # then open-ended, so that a check sees an array that is too long
                yield f"[{start}:{min(stop, samples)}]", slice(start, None if last else stop)

    def constrain_rows(self, tree: Any) -> Any:  # noqa: D102
        return _constrain(tree, self._sharding(BATCH))

    def constrain_state(self, state: Any) -> Any:  # noqa: D102
        return jax.tree.map(lambda leaf: _constrain(leaf, self._sharding_of_weight(leaf)), state)

    def constrain_result(self, state: Any) -> Any:  # noqa: D102
        return self.constrain_state(state) if jax.process_count() == 1 else self.constrain_whole(state)

    def constrain_whole(self, tree: Any) -> Any:  # noqa: D102
        return _constrain(tree, self._sharding())

    def map_rows(self, function: Callable[..., Array], tree: Any, *rows: Array) -> Array:  # noqa: D102
        whole, by_rows = PartitionSpec(), PartitionSpec(BATCH)  # type: ignore[no-untyped-call]
        shardings = (whole, *[by_rows] * len(rows))  # along "model", the compiler divides the work as in a step
        mapped = jax.shard_map(
            function, mesh=self.mesh, in_specs=shardings, out_specs=by_rows, axis_names=frozenset({BATCH})
        )
        result: Array = mapped(tree, *rows)
        return result

    def map_along(self, function: Callable[..., Any], in_axes: Any, out_axes: Any) -> Callable[..., Any]:  # noqa: D102
        in_specs, out_specs = self._specs_along(in_axes), self._specs_along(out_axes)
        mapped: Callable[..., Any] = jax.shard_map(
            function, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        )  # it would want a loop's initial values marked as different on each device
        return mapped

    def divisible(self, count: int) -> int:  # noqa: D102
        return -(-count // self.mesh.size) * self.mesh.size

    def any(self, flag: bool) -> bool:  # noqa: D102
        return any_process(flag)

    def check_batch_size(self, size: int) -> None:  # noqa: D102
        if size % self._shards:
            raise ValueError(
                f"batches: {size} rows a step, expected a multiple of {self._shards}, the number of devices that "
                f"divide the rows; change the batch size, or take a number of devices that divides {size}"
            )

    @property
    def _shards(self) -> int:
        return self.mesh.shape[BATCH]

    def _sharding(self, *axes: str | None) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))  # type: ignore[no-untyped-call]

    def _specs_along(self, axes: Any) -> Any:
        """Returns the partition of arrays between all devices, along an axis each; whole arrays where it is None."""

        def spec(axis: int | None) -> PartitionSpec:
            return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, self.mesh.axis_names)  # type: ignore[no-untyped-call]

        return jax.tree.map(spec, axes, is_leaf=lambda axis: axis is None)

    def _sharding_of_weight(self, leaf: Any) -> NamedSharding:
        """Returns the sharding of a leaf of a state."""
        axis = divided_axis(leaf.shape, self.mesh.shape.get(MODEL, 1))
        return self._sharding() if axis is None else self._sharding(*[None] * axis, MODEL)

    def _padded(self, samples: int) -> int:
        return -(-samples // self._shards) * self._shards  # rounded up to a multiple of the number of shards


ONE_DEVICE = OneDevice()


def placement(mesh: Mesh | None) -> OneDevice:
    """Returns the placement for `fit(mesh=mesh)`.

    Raises:
        ValueError: If it is no mesh with an axis "batch", and "model" if there is another.
    """
    if mesh is None:
        return ONE_DEVICE
    if not isinstance(mesh, Mesh) or not {BATCH} <= set(mesh.axis_names) <= {BATCH, MODEL}:
        axes = f"a mesh with the axes {mesh.axis_names}" if isinstance(mesh, Mesh) else repr(mesh)
        raise ValueError(f"mesh: {axes}, expected one as from jaxnet.train.sharding.mesh(devices)")
    return ManyDevices(mesh)


def _constrain(tree: Any, sharding: NamedSharding) -> Any:
    return lax.with_sharding_constraint(tree, sharding)  # type: ignore[no-untyped-call]


def _numbers(leaf: Any) -> np.ndarray:
    """Returns the numbers in an array or a key; JAX cannot place keys on devices of other processes."""
    return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, prng_key) else leaf)


def _with_kind_of(leaf: Any, numbers: Array) -> Array:
    """Returns the numbers as a key if the leaf is one: the inverse of `_numbers`."""
    if not jnp.issubdtype(leaf.dtype, prng_key):
        return numbers
    return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(leaf))
