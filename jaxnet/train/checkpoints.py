"""Checkpoints of a run: written while it trains, and read by a run with the same identity only.

orbax, of the extra `train`, writes them in the background and makes them visible by renaming. A checkpoint is verified
by the digest that it contains, by the identity of its run, and by how the run was executed.
"""

import errno
import hashlib
import json
import logging
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jaxnet import DISTRIBUTION
from jaxnet.data import Dataset
from jaxnet.nn.layers import Layer
from jaxnet.train.execution import execution
from jaxnet.train.history import History, Progress
from jaxnet.train.random_batches import Batches, RandomBatches
from jaxnet.train.step import TrainState, params_dtype

DAMAGE = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)  # errors of files that are damaged, not merely unreadable


class CheckpointError(RuntimeError):
    """Raised when a checkpoint cannot be saved or read. Its message is one line with the reason and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def identity(net: Layer, data: Dataset, batches: Batches, dtype: Any, settings: Mapping[str, Any]) -> dict[str, str]:
    """Describes the arguments of a run: runs of one identity that are executed alike have the same bits.

    How they are executed is described by `jaxnet.train.execution.execution`.

    Args:
        net: The network.
        data: Its data, described by checksums.
        batches: The row numbers of each step, described by a checksum; `RandomBatches` by what they are drawn from, and
            a checksum of the first and the last ones, as a long run would take minutes to draw all of them.
        dtype: The parameters' dtype.
        settings: All other arguments of `fit` that affect the results, as values whose `str` tells them apart. Neither
            a function nor an `optax.GradientTransformation` does: write a text, such as `{"optimizer": "adam(1e-3)"}`.

    Raises:
        ValueError: If a setting is an optax.GradientTransformation or a function.
    """
    for name, value in settings.items():
        if callable(value) or isinstance(value, optax.GradientTransformation):
            raise ValueError(
                f"settings[{name!r}]: {type(value).__name__}, expected a text that identifies it, such as 'adam(1e-3)'"
            )
    arrays = data._asdict() if isinstance(batches, RandomBatches) else data._asdict() | {"batches": batches}
    return {
        "network": repr(net.description),
        "dtype": str(np.dtype(dtype)),
        **{name: f"{array.dtype}{list(array.shape)}, CRC-32 {crc(array):08x}" for name, array in arrays.items()},
        **({"batches": _drawn(batches)} if isinstance(batches, RandomBatches) else {}),
        **{f"option {name}": str(value) for name, value in settings.items()},
    }


def _drawn(batches: RandomBatches) -> str:
    """Describes row numbers by what they are drawn from, and draws two blocks of them at most."""
    key = np.asarray(jax.random.key_data(batches.key)).tolist()
    ends = np.stack([batches.draw(0), batches.draw(batches.steps - batches.block)])
    return f"{list(batches.shape)} from {batches.samples} rows by the key {key}, CRC-32 of both ends {crc(ends):08x}"


def refuse(differences: str) -> None:
    """Raises CheckpointError with the differences between the executions of a run."""
    raise CheckpointError(f"{differences}; resume as it was started, or pass `differs=print` to continue anyway")


@dataclass
class Checkpoints:
    """The checkpoints of one run. The first of several processes writes them, and all must be able to read them.

    Every method raises CheckpointError if a checkpoint, this one or the one before, could not be saved or read.

    Attributes:
        folder: Where they are written.
        identity: Returns the identity of the run, as the function `identity` does; called once, on first use.
        execution: Returns how the run is executed, called once. Defaults to the function `execution` without a mesh.
        keep: Number of checkpoints that are kept, the latest ones. Defaults to 3.
        seconds: Least time between checkpoints that `offer` saves. Defaults to 10.
        changes: What differed whenever the run was resumed under another execution, so that it has other bits than a
            run in one go; a line each time. It is kept in the checkpoints.
    """

    folder: Path
    identity: Callable[[], Mapping[str, str]]
    execution: Callable[[], Mapping[str, str]] = execution
    keep: int = 3
    seconds: float = 10.0
    changes: list[str] = field(default_factory=list, init=False)
    _last_saved: float = field(default_factory=time.monotonic, init=False, repr=False)
    _pending: Path | None = field(default=None, init=False, repr=False)

    def offer(self, progress: Progress) -> None:
        """Saves the progress if the last checkpoint is old enough; writes in the background."""
        if time.monotonic() - self._last_saved >= self.seconds:
            try:
                self.finish()
            finally:
                self._write(progress)

    def save(self, progress: Progress) -> None:
        """Saves the progress, and returns when it is written."""
        with suppress(CheckpointError):  # the new checkpoint replaces one that failed
            self.finish()
        self._write(progress)
        self.finish()

    def finish(self) -> None:
        """Waits until the last checkpoint is written."""
        pending, self._pending = self._pending, None
        if pending:
            with self._saving():
                self._manager.wait_until_finished()
                if not pending.exists():  # some versions of orbax raise the error at the next save only
                    raise OSError(f"{pending.name} does not exist after it was written")

    def latest(
        self, initial: TrainState, warn: Callable[[str], object], differs: Callable[[str], object] = refuse
    ) -> Progress | None:
        """Reads the latest undamaged checkpoint, and deletes later ones; returns None if there are no checkpoints.

        Args:
            initial: The initial state of the run. The checkpoint must have the same tree, shapes and dtypes.
            warn: Called with a message for every damaged checkpoint.
            differs: Called with one line if the run was executed in another way, so that it continues with other
                bits; the first process compares. Defaults to `refuse`, which raises CheckpointError.

        Raises:
            CheckpointError: If the checkpoint is from another run, all are damaged, or one cannot be read at present.
                Nothing is deleted then.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise CheckpointError(f"{self.folder}: a file, expected a folder of checkpoints; start a new run")
        if not self.folder.exists():
            return None
        require_readable(self.folder)
        damage: list[str] = []
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            path = self.folder / str(step)
            try:
                leaves, recorded = self._read(step)
            except MemoryError:
                raise
            except Exception as error:  # storage libraries raise all kinds of errors for damaged files
                if isinstance(error, OSError) and error.errno not in DAMAGE:
                    raise _unreadable(path, error) from error
                damage.append(f"{path} is damaged ({type(error).__name__}: {_first_line(error)})")
                warn(f"checkpoint {damage[-1]}; trying the one before")
                continue
            self._compare(path, recorded, differs)
            progress = _from_leaves(leaves, initial, path)
            for later in steps[: steps.index(step)] if jax.process_index() == 0 else ():
                self._manager.delete(later)
            return progress
        if damage:
            raise CheckpointError(f"no checkpoint can be read: {damage[0]}; start a new run")
        return None

    def _write(self, progress: Progress) -> None:
        if jax.process_index() > 0:
            return
        ocp, step = _orbax(), int(progress.state.step)
        self._last_saved = time.monotonic()
        leaves = {name: leaf for name, leaf in _to_leaves(progress).items() if leaf.size}  # orbax refuses empty arrays
        with self._saving():
            self._reserve(sum(leaf.nbytes for leaf in leaves.values()))
        if step in self._manager.all_steps():  # the checkpoint that the run was resumed from
            return
        record: dict[str, Any] = {"identity": self._identity, "execution": self._execution, "changes": self.changes}
        record["digest"] = _digest(leaves, record)
        args = ocp.args.Composite(leaves=ocp.args.StandardSave(leaves), record=ocp.args.JsonSave(record))
        self._pending = self.folder / str(step)
        with self._saving():
            self._manager.save(step, args=args, force=True)

    def _compare(self, path: Path, recorded: Mapping[str, Any], differs: Callable[[str], object]) -> None:
        if others := differences(recorded.get("identity", {}), self._identity):
            raise CheckpointError(
                f"{path}: {others}; resume with what the run was started with, or start another run in a new folder"
            )
        if jax.process_index() > 0:  # the first one has the record of all, see `sharding.of_all_processes`
            return
        self.changes = list(recorded.get("changes", []))
        if others := differences(recorded.get("execution", {}), self._execution):
            differs(f"{path}: {others}")
            self.changes.append(f"after step {path.name}: {others}")

    @cached_property
    def _identity(self) -> Mapping[str, str]:
        return self.identity()

    @cached_property
    def _execution(self) -> Mapping[str, str]:
        return self.execution()

    @cached_property
    def _manager(self) -> Any:
        ocp, process = _orbax(), jax.process_index()
        options = ocp.CheckpointManagerOptions(max_to_keep=self.keep)
        if jax.process_count() > 1:  # no process waits for another
            options.create = False
            options.multiprocessing_options = ocp.options.MultiprocessingOptions(
                primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"process{process}"
            )
        return ocp.CheckpointManager(self.folder.absolute(), options=options)

    def _read(self, step: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        ocp = _orbax()
        args = ocp.args.Composite(leaves=ocp.args.StandardRestore(), record=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=args)
        leaves, recorded = dict(restored["leaves"]), dict(restored["record"])
        expected = str(recorded.pop("digest", "missing"))
        if (digest := _digest(leaves, recorded)) != expected:
            raise ValueError(f"its digest is {digest[:12]}..., expected {expected[:12]}...")
        return leaves, recorded

    def _reserve(self, size: int) -> None:
        """Detects a full disk or a folder that cannot be written before the checkpoint is started."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.write(bytes(size))

    @contextmanager
    def _saving(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # OSError, or what a storage library raises instead
            vars(self).pop("_manager", None)  # it would raise the same error at the next save
            raise CheckpointError(
                f"{self.folder}: no checkpoint could be saved ({_first_line(error)}); make room or name another folder"
            ) from error


def differences(was: Mapping[str, str], now: Mapping[str, str], most: int = 3) -> str:
    """Returns in words which texts differ, at most this many of them, or an empty text.

    Example:
        >>> differences({"cores": "2", "processor": "A"}, {"cores": "1", "processor": "A"})
        'cores was 2, is 1'
    """
    names = [name for name in now if was.get(name) != now[name]]
    told = [f"{name} was {was.get(name, 'not recorded')}, is {now[name]}" for name in names[:most]]
    return "; ".join([*told, f"and {len(names) - most} more differ"] if len(names) > most else told)


def require_readable(folder: Path) -> None:
    """Raises CheckpointError if a file of a folder cannot be read at present, which storage libraries call damaged."""

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # another process of this run removed what was unfinished
            raise _unreadable(error.filename or folder, error) from error

    for parent, _, names in os.walk(folder, onerror=fail):
        for name in names:
            path = os.path.join(parent, name)
            try:
                with open(path, "rb") as file:
                    while file.read(2**20):
                        pass
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{path}: cannot be read ({error.strerror or error}); nothing was removed: make it readable and resume again"
    )


def _orbax() -> Any:
    try:
        import orbax.checkpoint
    except ImportError as error:
        raise CheckpointError(
            f'checkpoints need orbax-checkpoint ({error}): pip install "{DISTRIBUTION}[train]"'
        ) from error
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # otherwise it also prints the traceback of every error
    return orbax.checkpoint


def _to_leaves(progress: Progress) -> dict[str, np.ndarray]:
    """Returns every array under its path, such as .state.params['Affine1']['W'], and the key as numbers."""
    progress = progress._replace(state=progress.state._replace(key=jax.random.key_data(progress.state.key)))
    paths = jax.tree_util.tree_leaves_with_path(progress)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in paths}


def _from_leaves(leaves: dict[str, np.ndarray], initial: TrainState, folder: Path) -> Progress:
    """Inverts `_to_leaves`, for a state with the tree, shapes and dtypes of the initial one."""
    history = History(*[np.zeros(0)] * len(History._fields))
    template = Progress(initial._replace(key=jax.random.key_data(initial.key)), history)
    empty = np.zeros(0, params_dtype(initial.params))  # empty arrays were not saved

    def restore(path: Any, leaf: Any) -> np.ndarray:
        name = jax.tree_util.keystr(path)
        saved = leaves.get(name, empty)
        if name.startswith(".state") and (saved.shape, saved.dtype) != (leaf.shape, leaf.dtype):
            raise CheckpointError(
                f"{folder}: {name} is {saved.dtype}{list(saved.shape)}, expected {leaf.dtype}{list(leaf.shape)}; "
                "the checkpoint is from another optimizer or network"
            )
        return saved

    state, history = jax.tree_util.tree_map_with_path(restore, template)
    state = state._replace(key=jax.random.wrap_key_data(state.key))
    return Progress(jax.tree.map(jax.numpy.asarray, state), history)


def _digest(leaves: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the record, and of the names, dtypes, shapes and bytes of all leaves."""
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, leaf in sorted(leaves.items()):
        digest.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def crc(array: Any) -> int:
    """Returns the CRC-32 of the bytes of an array."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)  # a view, as data may be memory maps


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
