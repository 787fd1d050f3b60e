"""What a training run leaves behind: a folder that is whole or not there."""

import csv
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxnet.layers import Params
from jaxnet.training import History
from jaxnet.trees import flatten


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to write into, beside `path`, that becomes `path` at the end of the block, or vanishes if it raises.

    Raises:
        ValueError: `path` is there already and not an empty folder, or cannot be written.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"output: {path} is there already; name another folder or remove it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise ValueError(f"output: {path} cannot be written ({error.strerror}); name another folder") from error
    try:
        yield folder
        folder.chmod(0o755)  # mkdtemp's is private
        folder.rename(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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


def write_parameters(path: Path, params: Params) -> None:
    """NumPy's .npz with one array a leaf, under its name: `np.load(path)["Affine1.W"]`."""
    np.savez(path, **flatten(params))


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """JSON, as a person would indent it."""
    path.write_text(json.dumps(summary, indent=2) + "\n")
