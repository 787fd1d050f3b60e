"""What a training run leaves behind: a folder that is whole or not there."""

import csv
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PRNGKeyArray
from numpy.typing import ArrayLike

from jaxnet.nn.layers import Layer, Params, Tree
from jaxnet.train.step import History, TrainState
from jaxnet.tree_paths import flatten, unflatten

OPTIONS = "options.json"  # of a run that has not come to its end


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to write into, beside `path`, that becomes `path` at the end of the block, or vanishes if it raises.

    Raises:
        ValueError: `path` is there already and not an empty folder, or cannot be written.
    """
    check_new(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield folder
        folder.chmod(0o755)  # mkdtemp's is private
        folder.rename(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_new(path: Path) -> None:
    """`path` must be free, or an empty folder, and such that it can be made.

    Raises:
        ValueError: It is not.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        begun = f"; go on with --resume {path}" if (path / OPTIONS).exists() else ""
        raise ValueError(f"output: {path} is there already; name another folder or remove it{begun}")
    above = path if path.exists() else next(folder for folder in path.parents if folder.exists())
    try:
        os.rmdir(tempfile.mkdtemp(dir=above))
    except OSError as error:
        raise ValueError(f"output: {path} cannot be written ({error.strerror}); name another folder") from error


def begin(path: Path, options: Mapping[str, Any]) -> None:
    """The folder of a run that has not come to its end: checkpoints, and the options that `begun` reads again.

    Raises:
        ValueError: It cannot be written; then it is as it was.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_summary(path / f".{OPTIONS}", options)
        (path / f".{OPTIONS}").rename(path / OPTIONS)
    except OSError as error:
        if path.is_dir():
            (path / f".{OPTIONS}").unlink(missing_ok=True)
        for folder in made:
            if folder.is_dir():
                folder.rmdir()
        raise ValueError(f"output: {path} cannot be written ({error.strerror}); make room, or name another") from error


def begun(path: Path) -> dict[str, Any]:
    """The options of a run that was begun here, and has not come to its end.

    Raises:
        ValueError: There is none.
    """
    if (path / "summary.json").exists():
        raise ValueError(f"resume: {path} has come to its end: its summary is there; begin another run")
    try:
        options = json.loads((path / OPTIONS).read_text())
        if not isinstance(options, dict):
            raise ValueError(f"{OPTIONS} is no object")
        return options
    except (OSError, ValueError) as error:
        raise ValueError(f"resume: {path} is not the folder of a run that was begun ({error}); name another") from error


@contextmanager
def results(path: Path) -> Iterator[Path]:
    """A folder to write into, whose files move into `path` at the end of the block, the summary last.

    With it the run has come to its end, and the options that `begin` wrote, which it has too, are gone.
    """
    path.mkdir(parents=True, exist_ok=True)  # somebody may have removed it while the run went on
    for left in path.glob(".results-*"):  # by one that was killed here
        shutil.rmtree(left)
    into = Path(tempfile.mkdtemp(prefix=".results-", dir=path))
    try:
        yield into
        for file in sorted(into.iterdir(), key=lambda file: file.name == "summary.json"):
            file.rename(path / file.name)
        (path / OPTIONS).unlink(missing_ok=True)
    finally:
        shutil.rmtree(into, ignore_errors=True)


def write_history(path: Path, history: History) -> None:
    """CSV, a row a step: step, loss of its batch, and the accuracies after it where it was evaluated."""
    accuracies = {
        int(step): (train, test)
        for step, train, test in zip(history.eval_step, history.train_accuracy, history.test_accuracy, strict=True)
    }
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "loss", "train_accuracy", "test_accuracy"])
        for step, loss in enumerate(["", *history.loss.tolist()]):
            rows.writerow([step, loss, *accuracies.get(step, ("", ""))])


class Saved(NamedTuple):
    """What is needed to use a trained network, or to train it on."""

    params: Params
    net_state: Tree
    key: PRNGKeyArray
    step: int


def write_parameters(path: Path, state: TrainState, **more: ArrayLike) -> None:
    """NumPy's .npz with one array a leaf, under its name: `np.load(path)["Affine1.W"]`, `["BatchNorm1.mean"]`.

    Beside them `key`, the data of the key that every step's randomness comes from, `step`, how many were made, and
    whatever more is given.
    """
    leaves = flatten(state.params) | flatten(state.net_state)
    np.savez(path, **leaves | {"key": jax.random.key_data(state.key), "step": state.step} | more)


def read_parameters(path: Path, net: Layer) -> Saved:
    """What `write_parameters` wrote of this network.

    Raises:
        ValueError: The file cannot be read, or a leaf of the network is not there or of another shape.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            leaves = dict(file)
    except (
        OSError,
        ValueError,
        EOFError,
        TypeError,
        zipfile.BadZipFile,
    ) as error:  # TypeError: an array and no archive
        raise ValueError(f"{path}: cannot be read ({error}); name a file that `write_parameters` wrote") from error
    shapes = jax.eval_shape(lambda key: net.init(key, 1.0), jax.random.key(0))
    trees = []
    for tree in (shapes, net.state):
        for name, leaf in flatten(tree).items():
            if name not in leaves or leaves[name].shape != leaf.shape:
                found = leaves[name].shape if name in leaves else "nothing"
                raise ValueError(f"{path}: {name} is {found}, expected shape {leaf.shape}; name this network's file")
        trees.append(unflatten({name: leaves[name] for name in flatten(tree)}))
    params, net_state = trees
    return Saved(params, net_state, jax.random.wrap_key_data(leaves["key"]), int(leaves["step"]))


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """JSON, as a person would indent it."""
    path.write_text(json.dumps(summary, indent=2, default=str) + "\n")
