"""Cross-check a network's gradients, then train it, and leave a folder with what came of it.

Without options: 64-50-10 on the handwritten digits that scikit-learn embeds. `--dataset mnist` is the notebook's run.
"""

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import jaxnet
import numpy_ref
from jaxnet import plots, runs
from jaxnet.crosscheck import check_network
from jaxnet.datasets import DATASETS, Dataset, DatasetError
from jaxnet.layers import Params
from jaxnet.training import OPTIMIZERS, OnEvaluation

CLASSES = 10
IMAGES_CHECKED = 3  # as in the notebook's last cell
STEPS = {"digits": 2_000, "mnist": 10_000}
LINES = 10  # of progress, where it cannot be shown live


@dataclass(frozen=True)
class Options:
    """Train a network whose gradients have been cross-checked."""

    dataset: Literal["digits", "mnist"] = "digits"
    """digits: 8 by 8 pixels, embedded. mnist: 28 by 28, fetched once (or taken from $JAXNET_DATA/mnist)."""
    hidden: tuple[int, ...] = (50,)
    """Units of the hidden layer, or of several, first to last."""
    activation: Literal["relu", "sigmoid", "tanh"] = "relu"
    """Between two affine layers."""
    scale: str = "0.1"
    """Standard deviation of the initial weights: a number, he or xavier."""
    optimizer: Literal["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"] = "sgd"
    """From optax."""
    learning_rate: float | None = None
    """The optimizer's usual one unless given; 0.1 for sgd."""
    clip_norm: float | None = None
    """Scale a gradient whose norm over all leaves is larger down to this."""
    batch_size: int = 100
    """Images a step, drawn with replacement."""
    steps: int | None = None
    """2,000 for digits and 10,000 for mnist unless given."""
    eval_every: int = 100
    """Steps between two evaluations of all training and test images."""
    seed: int = 0
    """The same seed gives the same bits."""
    output: Path | None = None
    """A new folder; runs/DATASET-TIME unless given."""


def main(options: Options, console: Console) -> None:
    """Everything in order: data, network, cross-check, training, folder.

    Raises:
        ValueError: An option is out of range.
        DatasetError: The data cannot be had.
        SystemExit: The gradients disagree, or training diverged.
    """
    steps = STEPS[options.dataset] if options.steps is None else options.steps
    rate = OPTIMIZERS[options.optimizer].learning_rate if options.learning_rate is None else options.learning_rate
    if options.seed < 0:
        raise ValueError(f"seed: {options.seed}, expected a whole number >= 0")
    output = options.output or Path("runs", f"{options.dataset}-{datetime.now():%Y%m%d-%H%M%S}")

    with runs.new_folder(output) as folder:
        data = DATASETS[options.dataset]()
        samples, features = data.x_train.shape
        key_params, key_batches = jax.random.split(jax.random.key(options.seed))
        net = jaxnet.multi_layer_net(features, options.hidden, CLASSES, options.activation)
        params = net.init(key_params, parse_scale(options.scale))
        batches = jaxnet.draw_batches(key_batches, samples, options.batch_size, steps)

        sizes = "-".join(map(str, (features, *options.hidden, CLASSES)))
        console.print(f"Cross-check on {IMAGES_CHECKED} training images", style="bold")
        cross_check(sizes, net, params, data, console)
        console.print(f"Training on {samples:,} images: {steps:,} steps of {options.batch_size}", style="bold")
        started = time.perf_counter()
        try:
            with progress(console, steps) as on_evaluation:
                state, history = jaxnet.fit(
                    net,
                    params,
                    data,
                    batches,
                    optimizer=options.optimizer,
                    learning_rate=rate,
                    clip_norm=options.clip_norm,
                    eval_every=options.eval_every,
                    on_evaluation=on_evaluation,
                )
            diverged = None
        except jaxnet.DivergedError as error:
            state, history, diverged = None, error.history, str(error)
        seconds = time.perf_counter() - started

        done = len(history.loss)
        summary = {
            "dataset": options.dataset,
            "network": sizes,
            "steps": done,
            "seed": options.seed,
            "train_accuracy": float(history.train_accuracy[-1]),
            "test_accuracy": float(history.test_accuracy[-1]),
            "final_loss": float(history.loss[-1]) if done else None,
            "seconds": round(seconds, 3),
            "steps_per_second": round(done / seconds, 1),
            "diverged": diverged,
            "options": asdict(options) | {"steps": steps, "learning_rate": rate, "output": str(output)},
        }
        runs.write_summary(folder / "summary.json", summary)
        runs.write_history(folder / "history.csv", history)
        plots.learning_curves(history).savefig(folder / "learning_curves.png")
        if state is not None:
            side = math.isqrt(features)
            logits = np.asarray(net.infer(state.params, state.net_state, jnp.asarray(data.x_test)))
            W = np.asarray(state.params["Affine1"]["W"])
            runs.write_parameters(folder / "parameters.npz", state.params)
            plots.first_layer_weights(W, (side, side)).savefig(folder / "first_layer_weights.png")
            plots.mistakes(data.x_test, data.t_test, logits, (side, side)).savefig(folder / "mistakes.png")

    names = ", ".join(sorted(path.name for path in output.iterdir()))
    console.print(
        f"train accuracy {summary['train_accuracy']:.2%}, test accuracy {summary['test_accuracy']:.2%}, "
        f"{seconds:.1f} s with compilation",
        style="bold",
    )
    console.print(f"{output}: {names}", highlight=False, soft_wrap=True)
    if diverged:
        sys.exit(f"train.py: {diverged}")


def cross_check(name: str, net: jaxnet.Layer, params: Params, data: Dataset, console: Console) -> None:
    """Hand, autodiff and differences, leaf by leaf, on a few images.

    Raises:
        SystemExit: They disagree.
    """
    hand = numpy_ref.Network(numpy_ref.build_layers(net.description, params))
    x, t = data.x_train[:IMAGES_CHECKED], data.t_train[:IMAGES_CHECKED]
    report = check_network(hand, x, t, reference=partial(jaxnet.loss, net), name=name)
    console.print(str(report), highlight=False, soft_wrap=True, markup=False)
    if report.verdict == "FAIL":
        sys.exit("train.py: the gradients disagree where the table says so; not training")


@contextmanager
def progress(console: Console, steps: int) -> Iterator[OnEvaluation]:
    """What `fit` is to call while it runs: a live bar on a terminal, a line now and then elsewhere."""
    if not console.is_terminal:
        every = max(1, steps // LINES)
        printed = 0

        def line(step: int, loss: float, train: float, test: float) -> None:
            nonlocal printed
            if step // every > printed or step == steps:
                printed = step // every
                print(f"step {step:>6}  loss {loss:.4f}  train {train:.4f}  test {test:.4f}", flush=True)

        yield line
        return

    columns = [BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("compiling", total=steps)

        def update(step: int, loss: float, train: float, test: float) -> None:
            bar.update(task, completed=step, description=f"loss {loss:.4f}  train {train:.4f}  test {test:.4f}")

        yield update


def parse_scale(text: str) -> float | str:
    """A number, or the name of a rule.

    Raises:
        ValueError: It is neither.
    """
    if text in ("he", "xavier"):
        return text
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"scale: {text!r}, expected a number, he or xavier") from None


if __name__ == "__main__":
    try:
        main(tyro.cli(Options), Console())
    except (ValueError, DatasetError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("train.py: interrupted; the run is not kept", file=sys.stderr, flush=True)
        os._exit(130)  # at once: the compiled loop still runs, and would call back into an interpreter that is leaving
