"""Writes the results of a training run: summary, history, parameters, and pictures or a sampled text."""

import math
import platform
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich.console import Console

import jaxnet
from jaxnet.cli.train.loop import Outcome
from jaxnet.cli.train.setup import Setup
from jaxnet.common.progress_line import progress_line
from jaxnet.data import text
from jaxnet.nn.summary import param_shapes
from jaxnet.plots import training as plots  # imports matplotlib, whose faults would otherwise show after the training
from jaxnet.train import run_folder
from jaxnet.train.learned_nothing import learned_nothing, loss_rose

SAMPLED_CHARACTERS = 400


def summarize(setup: Setup, outcome: Outcome, started: datetime, seconds: float) -> dict[str, Any]:
    """Returns the content of `summary.json`; the test data are evaluated here if validation data were held out."""
    history, options = outcome.history, setup.recorded_options
    accuracies = {"train_accuracy": float(history.train_accuracy[-1])}
    accuracies[f"{setup.held_out}_accuracy"] = float(history.test_accuracy[-1])
    test_loss = None
    if not outcome.divergence and (options["validation"] or setup.vocabulary):
        x, t = setup.test
        logits, t = jaxnet.predict(setup.net, outcome.state.params, outcome.state.net_state, x), jnp.asarray(t)
        accuracies["test_accuracy"] = float(jaxnet.accuracy(logits, t))
        test_loss = float(jaxnet.softmax_cross_entropy(logits, t)) if setup.vocabulary else None
    passes = len(history.loss) * options["batch_size"] / len(setup.data.x_train)
    fault = None if outcome.divergence else learned_nothing(history, setup.data.t_train, passes, test_loss)
    return {
        "dataset": options.get("dataset", options["network"]),
        "network": setup.name,
        "parameters": sum(map(math.prod, param_shapes(setup.net).values())),
        "steps": len(history.loss),
        "seed": options["seed"],
        **accuracies,
        **({"test_loss": test_loss} if setup.vocabulary else {}),
        "final_loss": float(history.loss[-1]) if len(history.loss) else None,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "steps_per_second": round(len(history.loss) / seconds, 1),
        "diverged": outcome.divergence,
        "learned_nothing": fault,
        "loss_rose": None if outcome.divergence else loss_rose(history, setup.data.t_train),
        "versions": {"python": platform.python_version(), "jaxnet": jaxnet.__version__}
        | {name: version(name) for name in ("jax", "numpy")},
        "options": options,
    }


def write_results(folder: Path, setup: Setup, outcome: Outcome, summary: dict[str, Any], console: Console) -> None:
    """Writes all files of a run, the summary last. A run that diverged has no parameters."""
    state = outcome.state
    with run_folder.results(folder) as temporary:
        run_folder.write_history(temporary / run_folder.HISTORY, outcome.history, setup.held_out)
        data = "a text" if setup.vocabulary else summary["dataset"]
        title = f"{setup.name} on {data}, run {folder.name}"
        with progress_line("drawing the learning curves"):
            plots.learning_curves(outcome.history, setup.held_out, title).savefig(temporary / "learning_curves.png")
        if not outcome.divergence:
            extra = {"vocabulary": setup.vocabulary} if setup.vocabulary else {}
            run_folder.write_parameters(temporary / run_folder.PARAMETERS, state, **extra)
            run_folder.write_network(temporary / run_folder.NETWORK, setup.net)
            if setup.vocabulary:
                loss = summary["test_loss"]
                bits = loss / math.log(2)
                console.print(f"held-out text: {loss:.3f} nats, {bits:.2f} bits per character", style="bold")
                write_sample(temporary / "sample.txt", setup, state, console)
            else:
                with progress_line("drawing weights and mistakes"):
                    draw_images(setup, state, temporary)
        run_folder.write_summary(temporary / run_folder.SUMMARY, summary)


def draw_images(setup: Setup, state: jaxnet.TrainState, folder: Path) -> None:
    """Draws the weights of the first layer, and the test images that the network classifies wrongly."""
    params, (x, t) = state.params, setup.test
    logits = np.asarray(jaxnet.predict(setup.net, params, state.net_state, x))
    images = x.reshape(len(x), -1)
    side = math.isqrt(images.shape[1])
    if "Convolution1" in params:
        kernels = np.asarray(params["Convolution1"]["W"])  # (F, 1, K, K)
        W, pixels = kernels.reshape(len(kernels), -1).T, kernels.shape[-1]
    else:
        W, pixels = np.asarray(params["Affine1"]["W"]), side
    plots.first_layer_weights(W, (pixels, pixels)).savefig(folder / "first_layer_weights.png")
    plots.mistakes(images, t, logits, (side, side)).savefig(folder / "mistakes.png")


def write_sample(path: Path, setup: Setup, state: jaxnet.TrainState, console: Console) -> None:
    """Samples a text from the network, beginning after a newline, and writes and prints it."""
    vocabulary, options = setup.vocabulary, setup.options
    prompt = text.encode("\n" if "\n" in vocabulary else vocabulary[0], vocabulary)[None]
    with progress_line("sampling a text"):
        ids = jaxnet.sample(
            setup.net, state.params, state.net_state, setup.sampling_key, prompt, options.temperature,
            length=options.context, count=SAMPLED_CHARACTERS,
        )  # fmt: skip
        sampled = text.decode(np.asarray(ids)[0], vocabulary)
    path.write_text(sampled, encoding="utf-8")
    console.print(f"Text sampled at temperature {options.temperature:g}:", style="bold")
    console.print(sampled, highlight=False, markup=False, soft_wrap=True)
