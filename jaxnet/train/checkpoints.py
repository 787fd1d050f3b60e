"""A run's last stages on disk, each whole or not there, and taken up again only by the run that they are of.

orbax writes them, beside the training and by renaming; it comes with the extra `train`, and is imported when the first
one is due. What is read is held against the digest that was written with it, and against what the run is made of.
"""

import hashlib
import importlib.metadata
import logging
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int

import jaxnet
from jaxnet.data import Dataset
from jaxnet.nn.layers import Layer
from jaxnet.train.step import History, Stage, TrainState

Tell = Callable[[str], object]


class CheckpointError(RuntimeError):
    """One line: what cannot be saved or read, why, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def identity(
    net: Layer, data: Dataset, batches: Int[Array, "S B"], dtype: Any, settings: Mapping[str, Any]
) -> dict[str, str]:
    """What a run is made of. Where all of this is the same, so is every bit, on the same machine."""
    arrays = dict(zip(data._fields, data, strict=True)) | {"batches": batches}
    return {
        "version of jaxnet": jaxnet.__version__,
        **{f"version of {name}": importlib.metadata.version(name) for name in ("jax", "jaxlib", "optax")},
        "network": repr(net.description),
        "dtype": str(np.dtype(dtype)),
        **{name: f"{a.dtype}{list(a.shape)}, CRC-32 {_crc(a):08x}" for name, a in arrays.items()},
        **{f"option {name}": str(value) for name, value in settings.items()},
    }


@dataclass
class Checkpoints:
    """The folder of one run. Of several processes the first writes it; all can read it, on a file system of all.

    - `identity`: what the run is made of, as from the function of that name; asked for once, when it is needed.
    - `keep`: so many of the latest stay.
    - `seconds`: so long `offer` waits between two.
    """

    folder: Path
    identity: Callable[[], Mapping[str, str]]
    keep: int = 3
    seconds: float = 10.0
    _last: float = field(default_factory=time.monotonic, init=False, repr=False)
    _begun: Path | None = field(default=None, init=False, repr=False)

    def offer(self, stage: Stage) -> None:
        """Save the stage if it is time to. Returns at once: the writing goes on beside the training.

        Raises:
            CheckpointError: It cannot be saved, or the one before could not.
        """
        if time.monotonic() - self._last >= self.seconds:
            try:
                self.finish()
            finally:
                self._write(stage)

    def save(self, stage: Stage) -> None:
        """Save the stage now, and return when it is written.

        Raises:
            CheckpointError: It cannot be.
        """
        with suppress(CheckpointError):  # this one is later
            self.finish()
        self._write(stage)
        self.finish()

    def _write(self, stage: Stage) -> None:
        if jax.process_index() > 0:
            return
        ocp, step = _orbax(), int(stage.state.step)
        self._last = time.monotonic()
        leaves = {name: leaf for name, leaf in _leaves(stage).items() if leaf.size}  # orbax saves nothing empty
        self._guarded(lambda: self._make_room(sum(leaf.nbytes for leaf in leaves.values())))
        if step in self._manager.all_steps():  # it is what the run has just gone on from
            return
        made_of = {**self._made_of, "digest": _digest(leaves)}
        args = ocp.args.Composite(leaves=ocp.args.StandardSave(leaves), made_of=ocp.args.JsonSave(made_of))
        self._begun = self.folder / str(step)
        self._guarded(lambda: self._manager.save(step, args=args, force=True))

    def finish(self) -> None:
        """Wait until the last one is written.

        Raises:
            CheckpointError: It could not be.
        """
        begun, self._begun = self._begun, None
        if begun:
            self._guarded(lambda: self._written(begun))

    def _written(self, path: Path) -> None:
        self._manager.wait_until_finished()
        if not path.exists():  # some versions of orbax say why only when the next is saved
            raise OSError(f"{path.name} is not there after it was written")

    def latest(self, first: TrainState, tell: Tell) -> Stage | None:
        """The last stage that is whole; None if there is none at all.

        Args:
            first: The state that the run begins with, whose tree, shapes and dtypes the stage must have.
            tell: Is told of every one that is damaged, and so passed over and deleted.

        Raises:
            CheckpointError: It is of another run, or all are damaged.
        """
        if not self.folder.exists():
            return None
        if not self.folder.is_dir():
            raise CheckpointError(f"{self.folder}: a file, expected a folder of checkpoints; begin a new run")
        steps, damage = sorted(self._manager.all_steps(), reverse=True), ""
        for step in steps:
            path = self.folder / str(step)
            try:
                leaves, made_of = self._read(step)
            except Exception as error:  # whatever a storage library says of a file that is not what it wrote
                damaged = f"{path} is damaged ({type(error).__name__}: {_first_line(error)})"
                damage = damage or damaged
                tell(f"checkpoint {damaged}; trying the one before")
                continue
            for what, now in self._made_of.items():
                if made_of.get(what) != now:
                    raise CheckpointError(
                        f"{path}: {what} was {made_of.get(what, 'not told')}, is {now}; go on with what the run was "
                        "begun with, or begin another run in a new folder"
                    )
            for later in steps[: steps.index(step)] if jax.process_index() == 0 else ():
                self._manager.delete(later)
            return _stage(leaves, first, path)
        if damage:
            raise CheckpointError(f"no checkpoint can be read, the first of them {damage}; begin a new run")
        return None

    @cached_property
    def _made_of(self) -> Mapping[str, str]:
        return self.identity()

    @cached_property
    def _manager(self) -> Any:
        ocp, me = _orbax(), jax.process_index()
        options = ocp.CheckpointManagerOptions(max_to_keep=self.keep)
        if jax.process_count() > 1:  # none waits for another
            options.create = False
            options.multiprocessing_options = ocp.options.MultiprocessingOptions(
                primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
            )
        return ocp.CheckpointManager(self.folder.absolute(), options=options)

    def _read(self, step: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        ocp = _orbax()
        args = ocp.args.Composite(leaves=ocp.args.StandardRestore(), made_of=ocp.args.JsonRestore())
        found = self._manager.restore(step, args=args)
        leaves, made_of = dict(found["leaves"]), dict(found["made_of"])
        if (digest := _digest(leaves)) != made_of.pop("digest", None):
            raise ValueError(f"its contents have the digest {digest[:12]}..., which is not the one written beside them")
        return leaves, made_of

    def _make_room(self, size: int) -> None:
        """Here a folder that cannot be written, or a disk that is full, is known at once and nothing is begun."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.write(bytes(size))

    def _guarded(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # OSError, or what a storage library makes of it
            vars(self).pop("_manager", None)  # it would raise the same again when the next is saved
            raise CheckpointError(
                f"{self.folder}: no checkpoint could be saved ({_first_line(error)}); make room or name another folder"
            ) from error


def _orbax() -> Any:
    import orbax.checkpoint

    logging.getLogger("absl").setLevel(logging.CRITICAL)  # it prints the traceback of every error, and raises it too
    return orbax.checkpoint


def _leaves(stage: Stage) -> dict[str, np.ndarray]:
    """Every array of a stage under its path, such as .state.params['Affine1']['W']; the key as its words."""
    stage = stage._replace(state=stage.state._replace(key=jax.random.key_data(stage.state.key)))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(stage)}


def _stage(leaves: dict[str, np.ndarray], first: TrainState, path: Path) -> Stage:
    """The inverse of `_leaves`, for a state of the same tree, shapes and dtypes."""
    like = Stage(first._replace(key=jax.random.key_data(first.key)), History(*[np.zeros(0)] * len(History._fields)))
    paths, tree = jax.tree_util.tree_flatten_with_path(like)
    nothing, found = np.zeros(0, jax.numpy.result_type(*jax.tree.leaves(first.params))), []
    for at, leaf in paths:
        name = jax.tree_util.keystr(at)
        saved = leaves.get(name, nothing)  # as empty as it was when it was left out
        if name.startswith(".state") and (saved.shape, saved.dtype) != (leaf.shape, leaf.dtype):
            raise CheckpointError(
                f"{path}: {name} is {saved.dtype}{list(saved.shape)}, expected {leaf.dtype}{list(leaf.shape)}; "
                "it is of another optimizer or network"
            )
        found.append(saved)
    stage = jax.tree.unflatten(tree, found)
    state = stage.state._replace(key=jax.random.wrap_key_data(stage.state.key))
    return Stage(jax.tree.map(jax.numpy.asarray, state), stage.history)


def _digest(leaves: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, leaf in sorted(leaves.items()):
        digest.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _crc(a: Any) -> int:
    return zlib.crc32(np.ascontiguousarray(a).data.cast("B") if a.size else b"")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
