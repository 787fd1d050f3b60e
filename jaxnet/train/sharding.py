"""Training past one device, with JAX's own runtime: the same program, its arrays laid out over a mesh.

Every device holds the whole state and its share of the rows, and computes with its share of every batch; the compiler
puts the sums over devices where a loss, a gradient or BatchNorm's statistics need them. https://docs.jax.dev/en/latest/
has both halves: "Distributed arrays and automatic parallelization", "Introduction to multi-controller JAX".
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

from jaxnet.validation import check_counts

AXIS = "batch"
HEARTBEAT_SECONDS = 30  # a process that was silent for so long is dead, and ends the others


def join(coordinator: str | None = None, processes: int = 1, process: int = 0) -> None:
    """Make this process one of several that compute together. Of one alone nothing is asked.

    To be called before anything else of JAX. On a CPU they talk over gloo, which is JAX's choice there. When one dies,
    the others end too, with an error: at their next sum if its connection breaks, or after HEARTBEAT_SECONDS.

    Args:
        coordinator: Where process 0 listens, the same for all: "10.0.0.1:1234".
        processes: How many there are.
        process: Which of them this is, from 0.

    Raises:
        ValueError: They do not fit.
        RuntimeError: JAX has been used before, or the others did not come.
    """
    check_counts(processes=processes)
    if not 0 <= process < processes:
        raise ValueError(f"process: {process}, expected 0 to {processes - 1}, another one in each of {processes}")
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
        cluster_detection_method="deactivate",  # all is said
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=HEARTBEAT_SECONDS,
    )


def mesh(devices: int | None = None) -> Mesh:
    """One axis, "batch", over the first so many devices; by default over all devices of all processes.

    Raises:
        ValueError: There are not so many, or some of several processes would have none.
    """
    there = jax.devices()
    count = len(there) if devices is None else devices
    if not 1 <= count <= len(there):
        raise ValueError(
            f"devices: {count}, expected 1 to {len(there)}, which is what JAX sees; on a CPU, "
            f'jax.config.update("jax_num_cpu_devices", {count}) before JAX is used simulates as many'
        )
    if jax.process_count() > 1 and count < len(there):
        raise ValueError(
            f"devices: {count}, expected all {len(there)}, since {jax.process_count()} processes take part; "
            "leave it out, or start fewer"
        )
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=there[:count])


def any_process(yes: bool) -> bool:
    """Whether any of the processes says yes; all must ask, as often and in the same order."""
    return bool(np.any(multihost_utils.process_allgather(np.int32(yes))))


def first_checks(check: Callable[[], None]) -> None:
    """What the first process alone looks at, such as a folder; where it refuses, all do, and none waits for it.

    Raises:
        ValueError, OSError: It refuses, or fails.
    """
    refused: Exception | None = None
    if jax.process_index() == 0:
        try:
            check()
        except (ValueError, OSError) as error:
            refused = error
    if jax.process_count() > 1 and any_process(refused is not None) and refused is None:
        raise ValueError("the first process refuses, and says why")
    if refused is not None:
        raise refused


def here(tree: Any) -> Any:
    """What is the same everywhere, such as a state, on this process's first device: for what it does alone with it."""
    return jax.tree.map(lambda leaf: _as(leaf, jnp.asarray(_plain(leaf))), tree)


@contextmanager
def together() -> Iterator[None]:
    """Around what several processes do: where it fails, as when one is gone, this one ends at once: a line, status 1.

    Without it JAX says so too, with a stack trace, and only after HEARTBEAT_SECONDS.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        why, me = (str(error).splitlines() or [""])[0], jax.process_index()
        told = f"process {me}: a step of all processes failed, mostly because another one is gone; this one ends"
        print(f"{told} ({why[:200]})", file=sys.stderr, flush=True)
        os._exit(1)  # a usual end would wait for the others


@dataclass(frozen=True)
class OneDevice:
    """Everything where JAX puts it: nothing here does anything."""

    def copied(self, tree: Any) -> Any:
        """The arrays, all of them on every device."""
        return tree

    def rows(self, x: Any) -> Any:
        """The samples, or their labels: each device has its share, padded, so that all shares are of one size."""
        return x

    def held(self, samples: int) -> Iterator[tuple[str, slice]]:  # noqa: ARG002
        """Which rows, of so many, this process holds: pieces, and how to name them behind an array's name."""
        yield "", slice(None)

    def split(self, batch: Any) -> Any:
        """In a program: a batch's rows, each device its share."""
        return batch

    def whole(self, tree: Any) -> Any:
        """In a program: all of the arrays on every device, so that every process can read what comes out."""
        return tree

    def each(self, function: Callable[..., Array]) -> Callable[..., Array]:
        """In a program: the function, which goes by rows, of all rows, where each device goes through its own."""
        return function

    def any(self, yes: bool) -> bool:
        """Whether any process says yes: where the clock decides, they must not decide differently."""
        return yes

    def check_batch_size(self, size: int) -> None:
        """So many rows a step must be as many for each device.

        Raises:
            ValueError: They are not.
        """


@dataclass(frozen=True)
class ManyDevices(OneDevice):
    """State and batches' row numbers on every device, the data's rows shared out. As in `OneDevice`, method by method.

    `copied` raises an AssertionError where the processes bring different arrays.
    """

    mesh: Mesh

    def copied(self, tree: Any) -> Any:  # noqa: D102
        leaves, shape = jax.tree.flatten(tree)
        plain = [_plain(leaf) for leaf in leaves]
        check = reduce(lambda crc, leaf: zlib.crc32(leaf.tobytes(), crc), plain, 0)
        multihost_utils.assert_equal(np.uint32(check), "the processes begin with different parameters, keys or batches")
        placed = [jax.make_array_from_callback(leaf.shape, self._over(), leaf.__getitem__) for leaf in plain]
        return jax.tree.unflatten(shape, [_as(leaf, array) for leaf, array in zip(leaves, placed, strict=True)])

    def rows(self, x: Any) -> Any:  # noqa: D102
        def share(index: Any) -> np.ndarray:
            rows = np.arange(padded)[index[0]]
            return np.asarray(
                x[np.minimum(rows, len(x) - 1)], dtype
            )  # the last row again and again, which nobody looks at

        padded = self._share(len(x)) * self.mesh.size
        dtype = jax.dtypes.canonicalize_dtype(x.dtype)
        return jax.make_array_from_callback((padded, *x.shape[1:]), self._over(AXIS), share, dtype)

    def held(self, samples: int) -> Iterator[tuple[str, slice]]:  # noqa: D102
        padded = self._share(samples) * self.mesh.size
        shares: Any = self._over(AXIS).addressable_devices_indices_map((padded,))
        for (index,) in shares.values():
            start, stop, _ = index.indices(padded)
            if start < max(samples, 1):
                last = stop >= samples  # open-ended there, so that an array that is too long is seen to be
                yield f"[{start}:{min(stop, samples)}]", slice(start, None if last else stop)

    def split(self, batch: Any) -> Any:  # noqa: D102
        return lax.with_sharding_constraint(batch, self._over(AXIS))  # type: ignore[no-untyped-call]

    def whole(self, tree: Any) -> Any:  # noqa: D102
        return lax.with_sharding_constraint(tree, self._over())  # type: ignore[no-untyped-call]

    def each(self, function: Callable[..., Array]) -> Callable[..., Array]:  # noqa: D102
        by_rows = self._over(AXIS).spec
        return jax.shard_map(function, mesh=self.mesh, in_specs=by_rows, out_specs=by_rows)

    def any(self, yes: bool) -> bool:  # noqa: D102
        return any_process(yes)

    def check_batch_size(self, size: int) -> None:  # noqa: D102
        if size % self.mesh.size:
            raise ValueError(
                f"batches: {size} rows a step, which {self.mesh.size} devices cannot share evenly; "
                f"take a multiple of {self.mesh.size}, or as many devices as divide {size}"
            )

    def _over(self, *axes: str) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))  # type: ignore[no-untyped-call]

    def _share(self, samples: int) -> int:
        return -(-samples // self.mesh.size)


ONE_DEVICE = OneDevice()


def placement(mesh: Mesh | None) -> OneDevice:
    """Where `fit` puts things."""
    return ONE_DEVICE if mesh is None else ManyDevices(mesh)


def _plain(leaf: Any) -> np.ndarray:
    """The numbers, of a key too: a key cannot be put where other processes are."""
    return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, prng_key) else leaf)


def _as(leaf: Any, numbers: Array) -> Array:
    """The inverse: a key again if the leaf is one."""
    if not jnp.issubdtype(leaf.dtype, prng_key):
        return numbers
    return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(leaf))
