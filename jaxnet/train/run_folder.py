"""The folder of a training run: options, history, parameters and summary, written completely or not at all."""

import csv
import hashlib
import io
import json
import re
import reprlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray
from numpy.typing import ArrayLike

from jaxnet import __version__
from jaxnet.common.cleanup import cleanup, temporary_folder
from jaxnet.common.outline import outline
from jaxnet.common.regular_files import open_regular
from jaxnet.common.validation import check_key, check_no_control_characters, native
from jaxnet.nn.description import from_description
from jaxnet.nn.layers import Layer, Params, Tree
from jaxnet.nn.summary import param_shapes
from jaxnet.nn.tree_paths import leaves_by_path, tree_from_paths
from jaxnet.train.history import History
from jaxnet.train.run_lock import can_lock, lock_of, locked
from jaxnet.train.step import TrainState

OPTIONS = "options.json"  # present until the run is complete
DIGEST = "digest"  # the name of the SHA-256 of the other options
SUMMARY = "summary.json"  # present once it is
UNFINISHED = re.compile(r"\.(?P<name>.+)-[0-9a-f]{16}")  # a folder that `new_folder` will rename
HISTORY, PARAMETERS, NETWORK = "history.csv", "parameters.npz", "network.json"
TEXT: tuple[str, Callable[[Any], bool]] = "a text", lambda value: isinstance(value, str)
COUNT: tuple[str, Callable[[Any], bool]] = "a whole number", lambda value: isinstance(value, int) and 0 <= value < 2**63
SHARE: tuple[str, Callable[[Any], bool]] = "a share", lambda value: isinstance(value, int | float) and 0 <= value <= 1
SUMMARY_ENTRIES = {  # what an entry is if it is not null, and whether a value is that
    "dataset": TEXT, "network": TEXT, "diverged": TEXT, "learned_nothing": TEXT, "loss_rose": TEXT,
    "parameters": COUNT, "steps": COUNT,
    "train_accuracy": SHARE, "validation_accuracy": SHARE, "test_accuracy": SHARE,
    "seconds": ("a number of seconds", lambda value: isinstance(value, int | float) and 0 <= value < 1e18),
    "options": ("an object", lambda value: isinstance(value, dict)),
}  # fmt: skip
FORMAT = 1  # of network.json; a version that older ones cannot read has a higher number


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder that is renamed to `path`, which `check_new` checks, or deleted if the block raises."""
    check_new(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(f".{path.name}-", path.parent) as folder:
        yield folder
        folder.chmod(0o755)  # a temporary folder is private
        folder.rename(path)


@contextmanager
def reserved(name: str) -> Iterator[Path]:
    """Yields a new empty folder runs/NAME-TIME that no other process has, and removes it if it is empty in the end."""
    base = Path("runs", f"{name}-{datetime.now():%Y%m%d-%H%M%S}")
    for number in count(1):
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:
            if not path.parent.is_dir():
                raise ValueError(f"output: {path.parent} is a file; name another folder with --output") from None
        except OSError as error:
            raise ValueError(f"output: {path} cannot be written ({error.strerror}); name another folder") from error
    with cleanup(partial(_remove_if_empty, path)):
        yield path


def _remove_if_empty(path: Path) -> None:
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()


@contextmanager
def named_or_reserved(path: Path | None, name: str) -> Iterator[Path]:
    """Yields the path that a user named, or the folder of `reserved`, without what killed processes left beside it."""
    remove_leftovers(path.absolute().parent if path is not None else Path("runs"))
    if path is not None:
        yield path
    else:
        with reserved(name) as new:
            yield new


def remove_leftovers(parent: Path) -> None:
    """Removes the unfinished folders of killed processes: those whose lock remains and is held by nobody.

    On systems without `flock` nothing tells which processes live, and nothing is removed.
    """
    leftovers: dict[str, list[Path]] = {}
    for folder in parent.glob(".*-*"):
        if (match := UNFINISHED.fullmatch(folder.name)) and lock_of(parent / match["name"]).exists():
            leftovers.setdefault(match["name"], []).append(folder)
    for name, folders in leftovers.items() if can_lock() else ():
        with suppress(ValueError), locked("output", parent / name):  # ValueError: its process lives
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            _remove_if_empty(parent / name)


def check_new(path: Path) -> None:
    """Raises ValueError if `path` exists and is not an empty folder, cannot be written, or has control characters."""
    check_no_control_characters("output", path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        advice = f"; to continue it, use --resume {path}" if (path / OPTIONS).exists() else ""
        raise ValueError(f"output: {path} exists already; name another folder or remove it{advice}")
    parent = path if path.exists() else next(folder for folder in path.parents if folder.exists())
    try:
        with temporary_folder(".writable-", parent):
            pass
    except OSError as error:
        raise ValueError(f"output: {path} cannot be written ({error.strerror}); name another folder") from error


def check_resumable(path: Path) -> None:
    """Raises ValueError if no file can be written in the folder of a run, or in that of its checkpoints."""
    for folder in (path, path / "checkpoints"):
        if folder.is_dir():
            try:
                with temporary_folder(".writable-", folder):
                    pass
            except OSError as error:
                raise ValueError(
                    f"resume: {folder} cannot be written ({error.strerror}); make it writable, or resume a copy of it"
                ) from error


def write_options(path: Path, options: Mapping[str, Any]) -> None:
    """Makes the folder of a run that starts, and writes the options that `read_options` reads.

    Raises:
        ValueError: If it cannot be written; nothing is left behind then.
    """
    try:
        with new_folder(path) as folder:
            (folder / OPTIONS).write_text(options_text(options))
    except OSError as error:
        check_new(path)  # another run may have begun there meanwhile
        raise ValueError(f"output: {path} cannot be written ({error.strerror}); make room, or name another") from error


def read_options(path: Path) -> dict[str, Any]:
    """Reads the options of an unfinished run.

    Raises:
        ValueError: If the folder does not exist, has no readable options, or they are not as they were written.
    """
    if not (path / OPTIONS).exists():
        reason = f"it has no {OPTIONS}" if path.is_dir() else "there is no such folder"
        raise ValueError(
            f"resume: {path} is not the folder of an unfinished run ({reason}); jaxnet show lists those in runs"
        )
    options = read_object(path / OPTIONS)
    if options.pop(DIGEST, None) != _digest(options):
        raise ValueError(f"resume: {path / OPTIONS} is damaged: its digest is another; start another run")
    return options


def options_text(options: Mapping[str, Any]) -> str:
    """Returns the content of the file of a run's options: JSON with a digest, as one other digit is another run."""
    return json.dumps({**options, DIGEST: _digest(options)}, indent=2, default=str) + "\n"


def _digest(options: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()


def is_unfinished(path: Path) -> bool:
    """Returns whether a run was started in this folder that is not complete. It may still train."""
    return (path / OPTIONS).exists() and not (path / SUMMARY).exists()


def last_checkpoint(path: Path) -> int | None:
    """Returns the number of steps after which an unfinished run was saved last, or None if it never was."""
    return max((int(folder.name) for folder in path.glob("checkpoints/*") if folder.name.isdecimal()), default=None)


@contextmanager
def results(path: Path) -> Iterator[Path]:
    """Yields a temporary folder whose files move to `path` after the block, the summary last.

    The summary marks the run as complete. The file that `write_options` wrote is then deleted: the summary repeats it.
    """
    path.mkdir(parents=True, exist_ok=True)  # it may have been removed during the run
    for leftover in path.glob(".results-*"):  # of a process that was killed here
        shutil.rmtree(leftover)
    with temporary_folder(".results-", path) as folder:
        yield folder
        for file in sorted(folder.iterdir(), key=lambda file: file.name == SUMMARY):
            file.rename(path / file.name)
        (path / OPTIONS).unlink(missing_ok=True)


def write_history(path: Path, history: History, held_out: str = "test") -> None:
    """Writes a CSV file with a row for each step: its number, its loss, and the accuracies after it, if evaluated.

    `held_out` is the name of the data that `test_accuracy` was evaluated on.
    """
    accuracies = {
        int(step): (train, test)
        for step, train, test in zip(history.eval_step, history.train_accuracy, history.test_accuracy, strict=True)
    }
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "loss", "train_accuracy", f"{held_out}_accuracy"])
        for step, loss in enumerate(["", *history.loss.tolist()]):
            rows.writerow([step, loss, *accuracies.get(step, ("", ""))])


def read_history(path: Path) -> History:
    """Reads what `write_history` wrote; `test_accuracy` is that of the held-out data.

    Raises:
        ValueError: If the file is missing or damaged.
    """
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8", newline="") as file:
            _, *rows = csv.reader(file)
        loss = np.array([float(row[1]) for row in rows[1:]])
        evaluated = [(int(row[0]), float(row[2]), float(row[3])) for row in rows if row[2]]
        steps, train, held_out = (np.array(column) for column in zip(*evaluated, strict=True))
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read ({error}); train again") from error
    return History(loss, steps, train, held_out)


class SavedParameters(NamedTuple):
    """The parameters and state of a trained network, and the key and step count that further training needs."""

    params: Params
    net_state: Tree
    key: PRNGKeyArray
    step: int

    def __repr__(self) -> str:
        """Returns the shapes of the fields."""
        return outline(self)


def write_parameters(path: Path, state: TrainState, **more: ArrayLike) -> None:
    """Writes a NumPy .npz file with an array for each leaf: `np.load(path)["Affine1.W"]`, `["BatchNorm1.mean"]`.

    The state's key and step count are written as `key` and `step`, and further arrays by their names.
    """
    leaves = leaves_by_path(state.params) | leaves_by_path(state.net_state)
    np.savez(path, **leaves | {"key": jax.random.key_data(state.key), "step": state.step} | more)


def read_parameters(path: Path, net: Layer) -> SavedParameters:
    """Reads what `write_parameters` wrote for this network.

    Raises:
        ValueError: If the file cannot be read, a leaf of the network is missing, has a different shape, or has values
            other than finite floats, or the key or the step is none.
    """
    leaves = {name: native(array) for name, array in read_arrays(path).items()}
    shapes, state_shapes = param_shapes(net), {name: leaf.shape for name, leaf in leaves_by_path(net.state).items()}
    for name, shape in (shapes | state_shapes).items():
        if name not in leaves or leaves[name].shape != shape:
            actual = leaves[name].shape if name in leaves else "missing"
            raise ValueError(f"{path}: {name} is {actual}, expected shape {shape}; name this network's file")
        if leaves[name].dtype.kind != "f" or not np.isfinite(leaves[name]).all():
            actual = f"{leaves[name].dtype}, some not finite" if leaves[name].dtype.kind == "f" else leaves[name].dtype
            raise ValueError(f"{path}: {name} is {actual}, expected finite floats; train again")
    step = leaves["step"]
    if step.ndim or step.dtype.kind not in "iu" or step < 0:
        raise ValueError(f"{path}: step is {step.tolist()}, expected a whole number of at least 0; train again")
    check_key(f"{path}: key", leaves["key"])
    params, net_state = (tree_from_paths({name: leaves[name] for name in names}) for names in (shapes, state_shapes))
    return SavedParameters(params, net_state, jax.random.wrap_key_data(jnp.asarray(leaves["key"])), int(step))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads all arrays of a NumPy .npz file, by name, without unpickling anything.

    Raises:
        ValueError: If the file cannot be read, or has no `key` and `step` of a training run.
    """
    try:
        with open_regular(path) as file:  # NumPy leaves a damaged file open that it opened itself
            leaves = dict(np.load(file, allow_pickle=False))
        if not {"key", "step"} <= set(leaves):
            raise ValueError("it has no key and step")
        return leaves
    except Exception as error:  # a damaged archive raises errors of many kinds
        raise ValueError(f"{path}: cannot be read ({error}); name a file that `write_parameters` wrote") from error


def write_network(path: Path, net: Layer) -> None:
    """Writes the description of a network as JSON, from which `jaxnet.load` builds it."""
    content = {"format": FORMAT, "jaxnet": __version__, "description": net.description}
    path.write_text(json.dumps(content) + "\n")


def read_network(path: Path) -> Layer:
    """Reads what `write_network` wrote.

    Raises:
        ValueError: If the file is missing or damaged, or a newer version wrote it.
    """
    content = read_object(path)
    version = content.get("jaxnet", "an unknown version")
    if content.get("format") != FORMAT:
        raise ValueError(
            f"{path}: format {content.get('format')!r}, written by jaxnet {version}, but jaxnet {__version__} reads "
            f"format {FORMAT}; install the version that wrote it"
        )
    try:
        return from_description(content.get("description"))
    except ValueError as error:
        raise ValueError(f"{path}: written by jaxnet {version}, but is damaged ({error}); train again") from error


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        ValueError: If the file is missing, or is something else.
    """
    try:
        with open_regular(path) as file:
            content = json.loads(file.read().decode())
    except FileNotFoundError:
        raise ValueError(
            f"{path}: does not exist; name the folder of a run, or train it again if an older version wrote it"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); train again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: {type(content).__name__}, expected a JSON object; train again")
    return content


def read_summary(path: Path) -> dict[str, Any]:
    """Reads the summary of a finished run, of which other versions may have written more or less.

    Raises:
        ValueError: If the file is missing, or an entry is not as runs write it.
    """
    summary = read_object(path)
    for name, value in summary.items():
        expected, valid = SUMMARY_ENTRIES.get(name, ("", bool))
        if expected and value is not None and not valid(value):
            raise ValueError(f"{path}: {name} is {reprlib.repr(value)}, expected {expected}; train again")
    return summary


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Writes indented JSON."""
    path.write_text(json.dumps(summary, indent=2, default=str) + "\n")
