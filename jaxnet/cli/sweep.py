"""Train with every combination of learning rates and initial standard deviations at once, and draw a map.

The results are a new folder with the map, `sweep.png`, and a table with a row for each run, `sweep.csv`. The map frames
two combinations: learning rate 0.01 and standard deviation 0.1, which are those of the notebook, and 0.1 and 0.1, the
default of `jaxnet train`. The best combination has the highest accuracy on validation data, which are held out from the
training data. It alone is then trained once more and evaluated on the test data.
"""

import csv
import sys
import time
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import jax
import numpy as np

import jaxnet
from jaxnet.cli.common_options import (
    BatchSize,
    Floats,
    OptionalInt,
    OptionalPath,
    Seed,
    Steps,
    check_devices,
    check_seed,
)
from jaxnet.cli.datasets import load_dataset
from jaxnet.cli.errors import program
from jaxnet.cli.interrupt import interrupt_message, what_is_written
from jaxnet.cli.progress import sweep_progress
from jaxnet.cli.train.options import CLASSES, DatasetName, OptimizerName
from jaxnet.common.progress_line import progress_line
from jaxnet.common.validation import check_counts
from jaxnet.data import DatasetError
from jaxnet.data.validation_split import split_validation
from jaxnet.plots.comparing import sweep_map
from jaxnet.train import run_folder, sharding
from jaxnet.train.run_lock import locked

ERRORS = (DatasetError,)
FRAMES = {"the notebook's": (0.01, 0.1), "the default": (0.1, 0.1)}
COLUMNS = ("learning_rate", "init_std", "seed", "diverged", "final_loss", "train_accuracy")


@dataclass(frozen=True)
class Options:
    """Train a two-layer network with every learning rate and every initial standard deviation."""

    dataset: DatasetName = "digits"
    learning_rates: Floats = tuple(np.logspace(-3, 1.5, 10).tolist())
    """Learning rates of the optimizer. Defaults to ten from 0.001 to 31.6, each √10 times the last one."""
    init_stds: Floats = tuple(np.logspace(-3, 0.5, 8).tolist())
    """Standard deviations of the initial weights. Defaults to eight from 0.001 to 3.16, each √10 times the last one."""
    seeds: int = 1
    """Number of runs of each combination, with different initial weights."""
    optimizer: OptimizerName = "sgd"
    """Optimizer from optax. Defaults to sgd."""
    hidden: int = 50
    """Units of the hidden layer."""
    batch_size: BatchSize = 100
    steps: Steps = 1_000
    validation: float = 0.1
    """Share of the training data that is held out, to choose the best combination. 0 chooses it on the test data."""
    seed: Seed = 0
    devices: OptionalInt = None
    """Number of devices that share the runs; a CPU simulates them. Defaults to one."""
    output: OptionalPath = None
    """New folder for the results. Defaults to runs/sweep-TIME."""


def main(options: Options) -> None:
    """Trains all runs, draws the map, and prints the best combination."""
    check_seed(options.seed + options.seeds - 1)
    if options.devices is not None:
        check_counts(devices=options.devices)
        check_devices(options.devices)
        jax.config.update("jax_num_cpu_devices", options.devices)  # type: ignore[no-untyped-call]
    with (
        run_folder.named_or_reserved(options.output, "sweep") as path,
        locked("output", path),
        interrupt_message(partial(what_is_written, str(path))),
    ):
        sweep_in(path, options)


def sweep_in(path: Path, options: Options) -> None:
    """Trains all runs, writes the folder, and evaluates the best run on the test data."""
    with run_folder.new_folder(path) as folder:
        complete = load_dataset(options.dataset)
        with progress_line("drawing batches"):
            data = split_validation(complete, options.validation, options.seed) if options.validation else complete
            net = jaxnet.two_layer_net(data.x_train.shape[1], options.hidden, CLASSES)
            batches = jaxnet.RandomBatches(
                jax.random.key(options.seed), len(data.x_train), options.batch_size, options.steps
            )
        count = len(options.learning_rates) * len(options.init_stds) * options.seeds
        print(f"{count} runs of {options.steps:,} steps at once", flush=True)
        started = time.perf_counter()
        with sweep_progress(options.steps) as on_steps:
            results = jaxnet.sweep(
                net, data, batches, learning_rates=options.learning_rates, init_stds=options.init_stds,
                seeds=range(options.seed, options.seed + options.seeds), optimizer=options.optimizer, on_steps=on_steps,
                mesh=None if options.devices is None else sharding.mesh(options.devices),
            )  # fmt: skip
        seconds = time.perf_counter() - started
        held_out = "validation" if options.validation else "test"
        write_csv(folder / "sweep.csv", results, held_out)
        network = f"{data.x_train.shape[1]}-{options.hidden}-{CLASSES} on {options.dataset}"
        title = f"{network}: {options.steps:,} steps of {options.optimizer}"
        with progress_line("drawing sweep.png"):
            sweep_map(title, results, FRAMES, held_out).savefig(folder / "sweep.png")
    print(f"{path}: sweep.csv, sweep.png")
    if results.diverged.all():
        sys.exit(f"{program()}: all {count} runs diverged; choose lower learning rates or initial standard deviations")
    best = np.unravel_index(np.nanargmax(results.test_accuracy), results.test_accuracy.shape)
    print(
        f"best: learning rate {results.learning_rate[best[0]]:.2g}, "
        f"initial standard deviation {results.init_std[best[1]]:.2g}, "
        f"{held_out} accuracy {results.test_accuracy[best]:.2%}; {int(results.diverged.sum())} of {count} diverged; "
        f"{seconds:.1f} s with compilation, {1e6 * seconds / count / options.steps:.0f} microseconds per step of a run"
    )
    if options.validation:
        tested = data._replace(x_test=complete.x_test, t_test=complete.t_test)
        rate, init_std = float(results.learning_rate[best[0]]), float(results.init_std[best[1]])
        seed = int(results.seed[best[2]])
        with progress_line("training the best again, for the test data"):
            params = net.init(jax.random.key(seed), init_std)
            _, history = jaxnet.fit(
                net, params, tested, batches, optimizer=options.optimizer, learning_rate=rate, eval_every=options.steps
            )
        print(f"the best, on the test data: accuracy {history.test_accuracy[-1]:.2%}")


def write_csv(path: Path, results: jaxnet.Sweep, held_out: str) -> None:
    """Writes a row for each run: its settings, and its final loss and accuracies, which are empty if they are nan."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*COLUMNS, f"{held_out}_accuracy"])
        settings = product(results.learning_rate, results.init_std, results.seed)
        for run, index in zip(settings, np.ndindex(results.diverged.shape), strict=True):
            figures = results.loss[index][-1], results.train_accuracy[index], results.test_accuracy[index]
            rows.writerow([*run, bool(results.diverged[index]), *("" if np.isnan(f) else f for f in figures)])
