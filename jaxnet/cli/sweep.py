"""Train with every combination of learning rates and initial standard deviations, in one program, and draw a map.

The notebook's own setting, 0.01 and 0.1, is framed. A new folder is left with `sweep.png`, and `sweep.csv` with a row
for each run.
"""

import csv
import sys
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import tyro

import jaxnet
from jaxnet.cli.ending import one_line, program
from jaxnet.cli.option_types import check_seed
from jaxnet.cli.options import check_hidden
from jaxnet.cli.progress import steps_of
from jaxnet.data import DATASETS, DatasetError
from jaxnet.plots.comparing import sweep_map
from jaxnet.train import run_folder
from jaxnet.validation import check_counts

CLASSES = 10
MARKED = {"the notebook's": (0.01, 0.1), "the default": (0.1, 0.1)}


@dataclass(frozen=True)
class Options:
    """Train a two-layer network with every learning rate and every initial standard deviation."""

    dataset: Literal["digits", "mnist"] = "digits"
    """digits: 8 by 8 pixels, embedded. mnist: 28 by 28, fetched once (or taken from $JAXNET_DATA/mnist)."""
    learning_rates: tuple[float, ...] = tuple(float(rate) for rate in np.logspace(-3, 1.5, 10))
    """Of plain SGD, or of the optimizer that is named."""
    init_stds: tuple[float, ...] = tuple(float(init_std) for init_std in np.logspace(-3, 0.5, 8))
    """Standard deviations of the initial weights."""
    seeds: int = 1
    """So many runs of each combination, with other initial weights."""
    optimizer: Literal["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"] = "sgd"
    """From optax."""
    hidden: int = 50
    """Units of the hidden layer."""
    batch_size: int = 100
    """Images a step, the same ones for all runs."""
    steps: int = 1_000
    """Of every run."""
    seed: int = 0
    """Of the batches, and the first of the initial weights."""
    output: Path = Path("runs", "sweep")
    """A new folder."""


def main(options: Options) -> None:
    """Sweep, draw, and say what was best.

    Raises:
        ValueError: An option is out of range.
        DatasetError: The data cannot be had.
    """
    check_counts(seeds=options.seeds)
    check_seed(options.seed)
    check_seed(options.seed + options.seeds - 1)
    check_hidden((options.hidden,))
    with run_folder.new_folder(options.output) as folder:
        data = DATASETS[options.dataset]()
        net = jaxnet.two_layer_net(data.x_train.shape[1], options.hidden, CLASSES)
        key = jax.random.key(options.seed)
        batches = jaxnet.draw_batches(key, len(data.x_train), options.batch_size, options.steps)
        seeds = range(options.seed, options.seed + options.seeds)
        count = len(options.learning_rates) * len(options.init_stds) * options.seeds
        print(f"{count} runs of {options.steps:,} steps at once", flush=True)
        started = time.perf_counter()
        with steps_of("training", options.steps) as on_steps:
            swept = jaxnet.sweep(
                net,
                data,
                batches,
                learning_rates=options.learning_rates,
                init_stds=options.init_stds,
                seeds=seeds,
                optimizer=options.optimizer,
                on_steps=on_steps,
            )
        seconds = time.perf_counter() - started
        write_csv(folder / "sweep.csv", swept)
        name = f"{data.x_train.shape[1]}-{options.hidden}-{CLASSES} on {options.dataset}"
        title = f"{name}: {options.steps:,} steps of {options.optimizer}"
        sweep_map(title, swept, MARKED).savefig(folder / "sweep.png")
    print(f"{options.output}: sweep.csv, sweep.png")
    if np.isnan(swept.test_accuracy).all():
        sys.exit(f"{program()}: all {count} runs diverged; take lower learning rates or initial standard deviations")
    best = np.unravel_index(np.argmax(np.nan_to_num(swept.test_accuracy)), swept.test_accuracy.shape)
    print(
        f"best: learning rate {swept.learning_rate[best[0]]:.2g}, "
        f"initial standard deviation {swept.init_std[best[1]]:.2g}, "
        f"test accuracy {swept.test_accuracy[best]:.2%}; {int(swept.diverged.sum())} of {count} diverged; "
        f"{seconds:.1f} s with compilation, {1e6 * seconds / count / options.steps:.0f} us a step of each"
    )


def write_csv(path: Path, swept: jaxnet.Sweep) -> None:
    """A row for each run: what it was, and where it ended."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ["learning_rate", "init_std", "seed", "diverged", "final_loss", "train_accuracy", "test_accuracy"]
        )
        places = product(*(range(n) for n in swept.diverged.shape))
        for (i, j, k), run in zip(places, product(swept.learning_rate, swept.init_std, swept.seed), strict=True):
            at = i, j, k
            ends = swept.loss[at][-1], swept.train_accuracy[at], swept.test_accuracy[at]
            rows.writerow([*run, bool(swept.diverged[at]), *("" if np.isnan(end) else end for end in ends)])


def run() -> None:
    """Runs the command with the arguments of this process, and ends it where they cannot be followed."""
    with one_line(DatasetError):
        main(tyro.cli(Options, description=__doc__))
