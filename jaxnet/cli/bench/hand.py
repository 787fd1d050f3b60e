"""Measures hand-written networks: `numpy_ref`, and NumPy layers of other projects, whose folders are given.

Those compute in float64 whatever they are given, so that `numpy_ref` is measured in float64 beside them, and also in
float32. All make the same steps from the same parameters, without Dropout, whose masks each would draw for itself.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jaxnet.cli.bench.contenders import Train, by_hand
from jaxnet.cli.bench.hand_layers import train_book, train_numpy_ml
from jaxnet.cli.bench.problem import Problem, Skip, draw_rows, relative_difference, without_dropout
from jaxnet.cli.bench.tables import make_table
from jaxnet.cli.bench.timing import StepTimer, summarize
from jaxnet.cli.progress import track

COMPARED_STEPS = 10
REFERENCE, IN_FLOAT32 = "numpy_ref, float64", "numpy_ref, float32"
LAYERS = {"book": "common/layers.py", "numpy-ml": "numpy_ml/neural_nets/layers/layers.py"}  # in a folder


def tolerance(name: str) -> float:
    """Returns the largest difference of the weights after ten steps, as a share of their change."""
    return 1e-2 if name == IN_FLOAT32 else 1e-9  # as in the other tables; rounding is 1e-14


def check_folders(folders: Mapping[str, Path | None]) -> dict[str, Path]:
    """Returns the folders that are given, by contender.

    Raises:
        ValueError: If one of them lacks the layers.
    """
    given = {name: folder for name, folder in folders.items() if folder is not None}
    for name, folder in given.items():
        if not (folder / LAYERS[name]).is_file():
            raise ValueError(f"{name}: {folder}, expected a folder with {LAYERS[name]}; clone its repository")
    return given


def compare_by_hand(
    problem: Problem, folders: Mapping[str, Path], rounds: int, seconds: float, console: Console
) -> dict[str, Any]:
    """Measures a step of each contender in turn, prints a table, and returns the results.

    Args:
        problem: The network.
        folders: Those of "book" and "numpy-ml". A contender whose folder is missing is left out.
        rounds: Number of rounds, in each of which everything is measured once.
        seconds: Approximate duration of a measurement; two steps at least are made.
        console: Where the table is printed.
    """
    in_float32 = without_dropout(problem)
    in_float64 = in_float32._replace(
        params=jax.tree.map(np.float64, in_float32.params),
        data=in_float32.data._replace(x_train=in_float32.data.x_train.astype(np.float64)),
    )
    makers: dict[str, Callable[[], Train]] = {
        REFERENCE: partial(by_hand, in_float64),
        IN_FLOAT32: partial(by_hand, in_float32),
    }
    for name, make in {"book": train_book, "numpy-ml": train_numpy_ml}.items():
        if name in folders:
            makers[name] = partial(make, in_float64, folders[name])
    timers, results = prepare(makers, in_float64, seconds)
    for timer in track([*timers.values()] * rounds, f"{problem.name}: measuring"):
        timer.measure()
    least = timers[REFERENCE].microseconds
    rows = {name: summarize(timer.microseconds, least) for name, timer in timers.items()}
    title = f"{problem.name}, written by hand: microseconds per step"
    console.print(make_table(title, rows, reference="numpy_ref"))
    for name, reason in results["skipped"].items():
        console.print(f"skipped: {name}: {reason}")
    return results | {"contenders": rows}


def prepare(
    makers: Mapping[str, Callable[[], Train]], problem: Problem, seconds: float
) -> tuple[dict[str, StepTimer], dict[str, Any]]:
    """Returns a timer for each contender whose weights are right after ten steps; differences, and reasons to skip."""
    batches = draw_rows(problem, COMPARED_STEPS)
    reference = makers[REFERENCE]()(batches)
    timers, differences, skipped = dict[str, StepTimer](), dict[str, float](), dict[str, str]()

    def make_timer(train: Train) -> StepTimer:
        return StepTimer(lambda steps: train(draw_rows(problem, steps)), seconds)

    for name in track(tuple(makers), f"{problem.name}: comparing the weights", str):
        try:
            train = makers[name]()
        except (ImportError, Skip) as error:
            skipped[name] = str(error)
            continue
        difference = relative_difference(train(batches), reference, problem.first_weights)
        differences[name] = difference
        if difference < tolerance(name):
            timers[name] = make_timer(train)
        else:
            skipped[name] = f"its weights are {difference:.1e} off after {COMPARED_STEPS} steps"
    return timers, {"difference": differences, "skipped": skipped}
