"""Cross-check a network's gradients, then train it, and leave a folder with what came of it.

Without options: 64-50-10 on the handwritten digits that scikit-learn embeds. `--dataset mnist` is the notebook's run,
`--network` another network: a deep one, a convolutional one, a transformer that learns to write a text.
"""

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from options import Options, settled
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import jaxnet
import numpy_ref
from jaxnet import plots, runs, text
from jaxnet.crosscheck import check_network
from jaxnet.datasets import DATASETS, Dataset, DatasetError
from jaxnet.layers import Params
from jaxnet.loop import OnEvaluation
from jaxnet.training import OPTIMIZERS, MakeOptimizer

CLASSES = 10
HEADS = 4  # of the transformer's attention
CHECKED = 3  # samples, as in the notebook's last cell; the statistics of a BatchNorm need more
CHECKED_LENGTH = 8  # characters of each
LINES = 10  # of progress, where it cannot be shown live
WRITTEN = 400  # characters that the transformer writes at the end


def main(options: SimpleNamespace, console: Console) -> None:
    """Everything in order: data, network, cross-check, training, folder.

    Raises:
        ValueError: An option is out of range.
        DatasetError: The data cannot be had.
        SystemExit: The gradients disagree, or training diverged.
    """
    subject = options.network if options.network == "transformer" else options.dataset
    output = options.output or Path("runs", f"{subject}-{datetime.now():%Y%m%d-%H%M%S}")

    with runs.new_folder(output) as folder:
        data, vocabulary = prepare(options)
        key = jax.random.key(options.seed)
        key_params, key_batches = jax.random.split(key)
        key_steps, key_text = jax.random.split(jax.random.fold_in(key, 1))
        name, net = build(options, data, vocabulary)
        params = net.init(key_params, options.scale)
        batches = jaxnet.draw_batches(key_batches, len(data.x_train), options.batch_size, options.steps)

        cross_check(name, net, params, data, options, key_steps, console)
        samples = "images" if not vocabulary else "windows of text"
        console.print(
            f"Training on {len(data.x_train):,} {samples}: {options.steps:,} steps of {options.batch_size}",
            style="bold",
        )
        started = time.perf_counter()
        try:
            with progress(console, options.steps) as on_evaluation:
                state, history = jaxnet.fit(
                    net,
                    params,
                    data,
                    batches,
                    optimizer=optimizer(options),
                    learning_rate=options.learning_rate,
                    clip_norm=options.clip_norm,
                    eval_every=options.eval_every,
                    on_evaluation=on_evaluation,
                    key=key_steps,
                    decay=options.decay,
                )
            diverged = None
        except jaxnet.DivergedError as error:
            state, history, diverged = None, error.history, str(error)
        seconds = time.perf_counter() - started

        done = len(history.loss)
        summary = {
            "dataset": subject,
            "network": name,
            "steps": done,
            "seed": options.seed,
            "train_accuracy": float(history.train_accuracy[-1]),
            "test_accuracy": float(history.test_accuracy[-1]),
            "final_loss": float(history.loss[-1]) if done else None,
            "seconds": round(seconds, 3),
            "steps_per_second": round(done / seconds, 1),
            "diverged": diverged,
            "options": {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()},
        }
        runs.write_history(folder / "history.csv", history)
        plots.learning_curves(history).savefig(folder / "learning_curves.png")
        console.print(
            f"train accuracy {summary['train_accuracy']:.2%}, test accuracy {summary['test_accuracy']:.2%}, "
            f"{seconds:.1f} s with compilation",
            style="bold",
        )
        if state is not None:
            runs.write_parameters(
                folder / "parameters.npz", state, **({"vocabulary": vocabulary} if vocabulary else {})
            )
            logits = jaxnet.predict(net, state.params, state.net_state, data.x_test)
            if vocabulary:
                summary["test_loss"] = float(jaxnet.softmax_cross_entropy(logits, jnp.asarray(data.t_test)))
                show_text(net, state, vocabulary, summary["test_loss"], key_text, options, folder, console)
            else:
                draw_images(state.params, data, np.asarray(logits), folder)
        runs.write_summary(folder / "summary.json", summary)

    names = ", ".join(sorted(path.name for path in output.iterdir()))
    console.print(f"{output}: {names}", highlight=False, soft_wrap=True)
    if diverged:
        sys.exit(f"train.py: {diverged}")


def prepare(options: SimpleNamespace) -> tuple[Dataset, str]:
    """What the network is trained on, in the shape it takes, and the vocabulary if that is text."""
    if options.network == "transformer":
        words = text.read_text(options.text)
        vocabulary = text.vocabulary_of(words)
        return text.windows(words, vocabulary, options.context), vocabulary
    data = DATASETS[options.dataset]()
    if options.network.endswith("conv"):
        side = math.isqrt(data.x_train.shape[1])
        x_train, x_test = (x.reshape(-1, 1, side, side) for x in (data.x_train, data.x_test))
        data = data._replace(x_train=x_train, x_test=x_test)
    return data, ""


def build(options: SimpleNamespace, data: Dataset, vocabulary: str) -> tuple[str, jaxnet.Layer]:
    """The network that the options name, and what to call it."""
    shape: Any = data.x_train.shape[1:]
    match options.network:
        case "simple-conv":
            return options.network, jaxnet.simple_conv_net(shape, output_size=CLASSES)
        case "deep-conv":
            return options.network, jaxnet.deep_conv_net(shape, output_size=CLASSES, dropout=options.dropout)
        case "transformer":
            sizes = len(vocabulary), options.context, options.width, HEADS, options.blocks
            return options.network, jaxnet.transformer(*sizes, dropout=options.dropout)
    name = "-".join(map(str, (*shape, *options.hidden, CLASSES)))
    return name, jaxnet.multi_layer_net(
        shape[0],
        options.hidden,
        CLASSES,
        options.activation,
        batch_norm=options.batch_norm,
        dropout=options.dropout,
    )


def optimizer(options: SimpleNamespace) -> MakeOptimizer:
    """As named, and with its learning rate falling if it is to."""
    make = OPTIMIZERS[options.optimizer].make
    if options.schedule == "constant":
        return make
    return lambda learning_rate: make(optax.cosine_decay_schedule(learning_rate, options.steps))


def cross_check(
    name: str,
    net: jaxnet.Layer,
    params: Params,
    data: Dataset,
    options: SimpleNamespace,
    key: Any,
    console: Console,
) -> None:
    """Hand, autodiff and differences, leaf by leaf, on a few samples.

    Raises:
        SystemExit: They disagree.
    """
    samples = 3 * CHECKED if getattr(options, "batch_norm", False) else CHECKED
    if options.network == "deep-conv":
        samples = 1  # of which the six convolutions by hand, a thousand times over, take long enough
    x, t = data.x_train[:samples], data.t_train[:samples]
    if options.network == "transformer":
        x, t = x[:, :CHECKED_LENGTH], t[:, :CHECKED_LENGTH]
    console.print(
        f"Cross-check on {samples} training {'text' if t.ndim > 1 else 'image'}{'s'[: samples - 1]}", style="bold"
    )
    draws = jax.device_get(jax.jit(lambda x: jaxnet.step_draws(net, key, 0, x))(x))
    hand = numpy_ref.Network(numpy_ref.build_layers(net.description, params), decay=options.decay)
    hand.give(draws)

    def reference(params: Params, x: Any, t: Any) -> Any:
        return jaxnet.loss(net, params, x, t, draws, decay=options.decay)

    report = check_network(hand, x, t, reference=reference, name=name)
    console.print(str(report), highlight=False, soft_wrap=True, markup=False)
    if report.verdict == "FAIL":
        sys.exit("train.py: the gradients disagree where the table says so; not training")


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
    net: jaxnet.Layer,
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


if __name__ == "__main__":
    try:
        main(settled(tyro.cli(Options)), Console())
    except (ValueError, DatasetError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("train.py: interrupted; the run is not kept", file=sys.stderr, flush=True)
        os._exit(130)  # at once: the compiled loop still runs, and would call back into an interpreter that is leaving
