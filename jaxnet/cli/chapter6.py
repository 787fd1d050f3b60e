"""Draw the figures of chapter 6 of *Deep Learning from Scratch*, from runs on handwritten digits.

The figures compare optimizers, activations under different initial weights, training with and without BatchNorm over
initial standard deviations, and overfitting with and without weight decay and Dropout. Each is a PNG in a new folder.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from matplotlib.figure import Figure

import jaxnet
from jaxnet import plots
from jaxnet.cli.common_options import HiddenSizes, OptionalPath, Seed
from jaxnet.cli.datasets import load_dataset
from jaxnet.cli.interrupt import interrupt_message, what_is_written
from jaxnet.cli.progress import track
from jaxnet.cli.train.options import CLASSES, DatasetName
from jaxnet.data import Dataset, DatasetError
from jaxnet.nn.layers import ACTIVATIONS
from jaxnet.train import run_folder
from jaxnet.train.run_lock import locked
from jaxnet.train.step import OPTIMIZERS

ERRORS = (DatasetError,)
BATCH_SIZE = 100
BOWL_RATES = {"sgd": 0.95, "momentum": 0.1, "nesterov": 0.1, "adagrad": 1.5, "rmsprop": 0.2, "adam": 0.3}
RATES = {"sgd": 0.01, "momentum": 0.01, "nesterov": 0.01, "adagrad": 0.01, "rmsprop": 0.001, "adam": 0.001}
INIT_STDS: list[float] = np.logspace(0, -4, 16).tolist()
FEW = 300  # images, which a network can memorize
MISLABELLED = 0.3  # share of them with a random label, which only memory can reproduce
REGULARIZATIONS = {  # weight decay and dropout rate
    "none": (0.0, 0.0),
    "weight decay 0.03": (0.03, 0.0),
    "Dropout 0.3": (0.0, 0.3),
    "weight decay 0.01, Dropout 0.2": (0.01, 0.2),
}


@dataclass(frozen=True)
class Options:
    """Draw the figures of chapter 6."""

    dataset: DatasetName = "digits"
    steps: int = 2_000
    """Steps of the longest runs. The number of the others is a fraction of it."""
    hidden: HiddenSizes = (100,) * 5
    seed: Seed = 0
    output: OptionalPath = None
    """New folder for the results. Defaults to runs/chapter6-TIME."""


def bowl(x: Any, y: Any) -> Any:
    """Returns the book's f(x, y) = x²/20 + y², which is 20 times as steep along y as along x."""
    return x**2 / 20 + y**2


def optimizer_path(name: str, steps: int = 30) -> np.ndarray:
    """Returns the points (steps + 1, 2) that an optimizer visits on the bowl, from the book's (-7, 2)."""
    optimizer, start = OPTIMIZERS[name].make(BOWL_RATES[name]), jnp.array([-7.0, 2.0])

    def step(carry: Any, _: None) -> tuple[Any, jax.Array]:
        point, state = carry
        updates, state = optimizer.update(jax.grad(lambda p: bowl(*p))(point), state, point)
        point = optax.apply_updates(point, updates)
        return (point, state), point

    _, points = lax.scan(step, (start, optimizer.init(start)), length=steps)
    return np.vstack([start, points])


def make_net(options: Options, data: Dataset, activation: str = "relu", **layers: Any) -> jaxnet.nn.Layer:
    """Returns an affine network for the data, with further layers as of `multi_layer_net`."""
    return jaxnet.multi_layer_net(data.x_train.shape[1], options.hidden, CLASSES, activation, **layers)


def train(
    net: jaxnet.nn.Layer, data: Dataset, seed: int, steps: int, init_std: float | str = "he", **settings: Any
) -> jaxnet.History:
    """Returns the history of a run, to its end or until it diverges; further settings are those of `fit`."""
    key_params, key_batches, key_steps = jax.random.split(jax.random.key(seed), 3)
    batches = jaxnet.RandomBatches(key_batches, len(data.x_train), BATCH_SIZE, max(1, steps))
    params, eval_every = net.init(key_params, init_std), max(1, steps // 40)
    try:
        return jaxnet.fit(net, params, data, batches, eval_every=eval_every, key=key_steps, **settings).history
    except jaxnet.DivergedError as error:
        return error.history


def draw_optimizer_paths(_options: Options, _data: Dataset) -> Figure:
    """Draws the path of each optimizer on the bowl."""
    return plots.optimizer_paths(bowl, {name: optimizer_path(name) for name in BOWL_RATES})


def draw_optimizers(options: Options, data: Dataset) -> Figure:
    """Draws the loss with each optimizer at its usual learning rate."""
    net = make_net(options, data)
    histories = {
        f"{name} {rate:g}": train(net, data, options.seed, options.steps // 2, optimizer=name, learning_rate=rate)
        for name, rate in RATES.items()
    }
    return plots.losses(f"{len(options.hidden)} hidden layers on {options.dataset}: optimizers and rates", histories)


def draw_activations(name: str, options: Options, data: Dataset) -> Figure:
    """Draws the outputs of each layer for 1,000 images, before any training."""
    images = jnp.asarray(data.x_train[:1000])
    x = (images - images.mean()) / images.std()
    net = make_net(options, data, name)
    rows: dict[str, list[np.ndarray]] = {}
    init_stds: dict[str, float | str] = {"σ = 1": 1.0, "σ = 0.01": 0.01, "Xavier": "xavier", "He": "he"}
    for label, init_std in init_stds.items():
        params, y = net.init(jax.random.key(options.seed), init_std), x
        rows[label] = []
        for i in range(1, len(options.hidden) + 1):
            y = ACTIVATIONS[name]().infer({}, {}, y @ params[f"Affine{i}"]["W"] + params[f"Affine{i}"]["b"])
            rows[label].append(np.asarray(y))
    return plots.activations(f"Activations of {name} by layer and initial weights, before training", rows)


def draw_batch_norm(options: Options, data: Dataset) -> Figure:
    """Draws accuracies over initial standard deviations, with and without BatchNorm."""
    nets = {name: make_net(options, data, batch_norm=name != "without") for name in ("without", "with BatchNorm")}
    histories = {
        init_std: {
            name: train(net, data, options.seed, options.steps // 5, init_std, learning_rate=0.05)
            for name, net in nets.items()
        }
        for init_std in INIT_STDS
    }
    return plots.accuracies_by_init_std(histories)


def mislabelled(data: Dataset, seed: int) -> Dataset:
    """Returns a few of the training images, some of them with a random label, and all test images."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(data.x_train))[:FEW]
    labels = np.where(rng.random(FEW) < MISLABELLED, rng.integers(0, CLASSES, FEW), np.asarray(data.t_train)[rows])
    return data._replace(x_train=data.x_train[rows], t_train=labels.astype(data.t_train.dtype))


def draw_overfitting(options: Options, data: Dataset) -> Figure:
    """Draws accuracies on training and test images where the network memorizes random labels."""
    few = mislabelled(data, options.seed)
    histories = {
        name: train(
            make_net(options, data, dropout=dropout), few, options.seed, options.steps,
            weight_decay=weight_decay, learning_rate=0.05,
        )
        for name, (weight_decay, dropout) in REGULARIZATIONS.items()
    }  # fmt: skip
    return plots.overfitting(f"{FEW} images of {options.dataset}, {MISLABELLED:.0%} with random labels", histories)


FIGURES: dict[str, Callable[[Options, Dataset], Figure]] = {
    "optimizer_paths": draw_optimizer_paths,
    "optimizers": draw_optimizers,
    **{f"activations_{name}": partial(draw_activations, name) for name in ("sigmoid", "tanh", "relu")},
    "batch_norm": draw_batch_norm,
    "overfitting": draw_overfitting,
}


def main(options: Options) -> None:
    """Draws all figures and prints their names."""
    with (
        run_folder.named_or_reserved(options.output, "chapter6") as path,
        locked("output", path),
        interrupt_message(partial(what_is_written, str(path))),
        run_folder.new_folder(path) as folder,
    ):
        data = load_dataset(options.dataset)
        for name, draw in track(FIGURES.items(), "drawing", lambda figure: figure[0]):
            draw(options, data).savefig(folder / f"{name}.png")
    print(f"{path}: {', '.join(sorted(file.name for file in path.iterdir()))}")
