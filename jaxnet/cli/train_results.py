"""Writes the results of a training run: summary, history, parameters, and pictures or a sampled text."""

import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich.console import Console

import jaxnet
from jaxnet import plots
from jaxnet.cli.train_loop import Outcome
from jaxnet.cli.train_setup import Setup
from jaxnet.data import Dataset, text
from jaxnet.nn.layers import Params
from jaxnet.train import run_folder

SAMPLED_CHARACTERS = 400


def summarize(setup: Setup, outcome: Outcome, seconds: float) -> dict[str, Any]:
    """Returns the content of `summary.json`."""
    history, options = outcome.history, setup.recorded_options
    return {
        "dataset": options.get("dataset", options["network"]),
        "network": setup.name,
        "steps": len(history.loss),
        "seed": options["seed"],
        "train_accuracy": float(history.train_accuracy[-1]),
        "test_accuracy": float(history.test_accuracy[-1]),
        "final_loss": float(history.loss[-1]) if len(history.loss) else None,
        "seconds": round(seconds, 3),
        "steps_per_second": round(len(history.loss) / seconds, 1),
        "diverged": outcome.divergence,
        "options": options,
    }


def write_results(folder: Path, setup: Setup, outcome: Outcome, summary: dict[str, Any], console: Console) -> None:
    """Writes all files of a run, the summary last. A run that diverged has no parameters."""
    state = outcome.state
    with run_folder.results(folder) as temporary:
        run_folder.write_history(temporary / "history.csv", outcome.history)
        plots.learning_curves(outcome.history).savefig(temporary / "learning_curves.png")
        if not outcome.divergence:
            extra = {"vocabulary": setup.vocabulary} if setup.vocabulary else {}
            run_folder.write_parameters(temporary / run_folder.PARAMETERS, state, **extra)
            run_folder.write_network(temporary / run_folder.NETWORK, setup.net)
            logits = jaxnet.predict(setup.net, state.params, state.net_state, setup.data.x_test)
            if setup.vocabulary:
                loss = float(jaxnet.softmax_cross_entropy(logits, jnp.asarray(setup.data.t_test)))
                summary = summary | {"test_loss": loss}
                bits = loss / math.log(2)
                console.print(f"held-out text: {loss:.3f} nats, {bits:.2f} bits per character", style="bold")
                write_sample(temporary / "sample.txt", setup, state, console)
            else:
                draw_images(state.params, setup.data, np.asarray(logits), temporary)
        run_folder.write_summary(temporary / "summary.json", summary)


def draw_images(params: Params, data: Dataset, logits: np.ndarray, folder: Path) -> None:
    """Draws the weights of the first layer, and the test images that the network classifies wrongly."""
    images = data.x_test.reshape(len(data.x_test), -1)
    side = math.isqrt(images.shape[1])
    if "Convolution1" in params:
        kernels = np.asarray(params["Convolution1"]["W"])  # (F, 1, K, K)
        W, pixels = kernels.reshape(len(kernels), -1).T, kernels.shape[-1]
    else:
        W, pixels = np.asarray(params["Affine1"]["W"]), side
    plots.first_layer_weights(W, (pixels, pixels)).savefig(folder / "first_layer_weights.png")
    plots.mistakes(images, data.t_test, logits, (side, side)).savefig(folder / "mistakes.png")


def write_sample(path: Path, setup: Setup, state: jaxnet.TrainState, console: Console) -> None:
    """Samples a text from the network, beginning after a newline, and writes and prints it."""
    vocabulary, options = setup.vocabulary, setup.options
    prompt = text.encode("\n" if "\n" in vocabulary else vocabulary[0], vocabulary)[None]
    ids = jaxnet.sample(
        setup.net, state.params, state.net_state, setup.sampling_key, prompt, options.temperature,
        length=options.context, count=SAMPLED_CHARACTERS,
    )  # fmt: skip
    sampled = text.decode(np.asarray(ids)[0], vocabulary)
    path.write_text(sampled, encoding="utf-8")
    console.print(f"Text sampled at temperature {options.temperature:g}:", style="bold")
    console.print(sampled, highlight=False, markup=False, soft_wrap=True)
