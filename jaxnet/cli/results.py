"""What a run leaves to look at: pictures of images, or a text of its own."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from rich.console import Console

import jaxnet
from jaxnet import plots
from jaxnet.data import Dataset, text
from jaxnet.nn.layers import Params

WRITTEN = 400  # characters that the transformer writes at the end


def draw_images(params: Params, data: Dataset, logits: np.ndarray, folder: Path) -> None:
    """What the first layer looks for, and what the network gets wrong."""
    images = data.x_test.reshape(len(data.x_test), -1)
    side = math.isqrt(images.shape[1])
    if "Convolution1" in params:
        kernels = np.asarray(params["Convolution1"]["W"])  # (F, 1, K, K)
        W, pixels = kernels.reshape(len(kernels), -1).T, kernels.shape[-1]
    else:
        W, pixels = np.asarray(params["Affine1"]["W"]), side
    plots.first_layer_weights(W, (pixels, pixels)).savefig(folder / "first_layer_weights.png")
    plots.mistakes(images, data.t_test, logits, (side, side)).savefig(folder / "mistakes.png")


def show_text(
    net: jaxnet.nn.Layer,
    state: jaxnet.TrainState,
    vocabulary: str,
    loss: float,
    key: Any,
    options: SimpleNamespace,
    folder: Path,
    console: Console,
) -> None:
    """The loss on the text that was held out, and what the network writes itself, from a line's end on."""
    console.print(f"held-out text: {loss:.3f} nats, {loss / math.log(2):.2f} bits per character", style="bold")
    first = "\n" if "\n" in vocabulary else vocabulary[0]
    prompt = text.encode(first, vocabulary)[None]
    ids = jaxnet.sample(
        net, state.params, state.net_state, key, prompt, options.temperature, length=options.context, count=WRITTEN
    )
    written = text.decode(np.asarray(ids)[0], vocabulary)
    (folder / "sample.txt").write_text(written, encoding="utf-8")
    console.print(f"Written at temperature {options.temperature:g}", style="bold")
    console.print(written, highlight=False, markup=False, soft_wrap=True)
