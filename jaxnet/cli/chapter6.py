"""The pictures of chapter 6 of *Deep Learning from Scratch*, from runs on handwritten digits.

Optimizers compared; activations under different initial values; training with and without BatchNorm over initial
standard deviations; overfitting with and without weight decay and Dropout. One PNG each, in a new folder.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jax import lax
from matplotlib.figure import Figure

import jaxnet
from jaxnet import plots
from jaxnet.cli.ending import one_line
from jaxnet.cli.option_types import check_seed
from jaxnet.cli.options import check_hidden
from jaxnet.cli.progress import counted
from jaxnet.data import DATASETS, Dataset, DatasetError
from jaxnet.nn.layers import ACTIVATIONS
from jaxnet.train import run_folder
from jaxnet.train.step import OPTIMIZERS
from jaxnet.validation import check_counts

CLASSES = 10
RATES = {"sgd": 0.95, "momentum": 0.1, "nesterov": 0.1, "adagrad": 1.5, "rmsprop": 0.2, "adam": 0.3}  # on the bowl
COMPARED = {"sgd": 0.01, "momentum": 0.01, "nesterov": 0.01, "adagrad": 0.01, "rmsprop": 0.001, "adam": 0.001}
INIT_STDS = np.logspace(0, -4, 16)
FEW = 100  # images that a network can learn by heart


@dataclass(frozen=True)
class Options:
    """Draw the pictures of chapter 6."""

    dataset: Literal["digits", "mnist"] = "digits"
    """digits: 8 by 8 pixels, embedded. mnist: 28 by 28, fetched once (or taken from $JAXNET_DATA/mnist)."""
    steps: int = 2_000
    """Of the longest runs; the others take less in proportion."""
    hidden: tuple[int, ...] = (100,) * 5
    """Units of the hidden layers, as the book's."""
    seed: int = 0
    """The same seed gives the same pictures."""
    output: Path = Path("runs", "chapter6")
    """A new folder."""


def pictures(options: Options, data: Dataset) -> dict[str, Callable[[], Figure]]:
    """By file name, what draws it."""
    seed, steps, dataset, hidden = options.seed, options.steps, options.dataset, options.hidden
    return {
        "optimizer_paths": lambda: plots.optimizer_paths(bowl, {name: path(name) for name in RATES}),
        "optimizers": lambda: optimizers(data, hidden, steps // 2, seed, dataset),
        **{
            f"activations_{name}": partial(activations, data, hidden, name, seed)
            for name in ("sigmoid", "tanh", "relu")
        },
        "batch_norm": lambda: batch_norm(data, hidden, steps // 5, seed),
        "overfitting": lambda: overfitting(data, hidden, steps, seed, dataset),
    }


def bowl(x: Any, y: Any) -> Any:
    """The book's f(x, y) = x²/20 + y²: twenty times as steep one way as the other."""
    return x**2 / 20 + y**2


def path(name: str, steps: int = 30) -> np.ndarray:
    """The points that an optimizer visits on the bowl, from the book's (-7, 2): (steps + 1, 2)."""
    optimizer, start = OPTIMIZERS[name].make(RATES[name]), jnp.array([-7.0, 2.0])

    def step(now: Any, _: None) -> tuple[Any, jax.Array]:
        point, state = now
        updates, state = optimizer.update(jax.grad(lambda p: bowl(*p))(point), state, point)
        point = optax.apply_updates(point, updates)
        return (point, state), point

    _, points = lax.scan(step, (start, optimizer.init(start)), length=steps)
    return np.vstack([start, points])


def trained(
    net: jaxnet.nn.Layer, data: Dataset, init_std: float | str, steps: int, seed: int, **options: Any
) -> jaxnet.History:
    """One run, to its end or to where it diverges."""
    key_params, key_batches, key_steps = jax.random.split(jax.random.key(seed), 3)
    batches = jaxnet.draw_batches(key_batches, len(data.x_train), 100, max(1, steps))
    every = max(1, steps // 40)
    try:
        return jaxnet.fit(
            net, net.init(key_params, init_std), data, batches, eval_every=every, key=key_steps, **options
        )[1]
    except jaxnet.DivergedError as error:
        return error.history


def optimizers(data: Dataset, hidden: Sequence[int], steps: int, seed: int, dataset: str) -> Figure:
    """The loss under each optimizer, at the rate that it is usually run at."""
    net = jaxnet.multi_layer_net(data.x_train.shape[1], hidden, CLASSES)
    curves = {
        f"{name} {rate:g}": trained(net, data, "he", steps, seed, optimizer=name, learning_rate=rate)
        for name, rate in COMPARED.items()
    }
    return plots.losses(f"{len(hidden)} hidden layers on {dataset}: optimizers and rates", curves)


def activations(data: Dataset, hidden: Sequence[int], name: str, seed: int) -> Figure:
    """What 1,000 images become layer by layer, before any training."""
    images = jnp.asarray(data.x_train[:1000])
    x = (images - images.mean()) / images.std()
    net = jaxnet.multi_layer_net(x.shape[1], hidden, CLASSES, name)
    rows: dict[str, list[np.ndarray]] = {}
    init_stds: dict[str, float | str] = {"σ = 1": 1.0, "σ = 0.01": 0.01, "Xavier": "xavier", "He": "he"}
    for said, init_std in init_stds.items():
        params, y = net.init(jax.random.key(seed), init_std), x
        rows[said] = []
        for i in range(1, len(hidden) + 1):
            y = ACTIVATIONS[name]().infer({}, {}, y @ params[f"Affine{i}"]["W"] + params[f"Affine{i}"]["b"])
            rows[said].append(np.asarray(y))
    return plots.activations(f"Activations of {name} by layer and initial weights, before training", rows)


def batch_norm(data: Dataset, hidden: Sequence[int], steps: int, seed: int) -> Figure:
    """Accuracies over initial standard deviations, with and without BatchNorm."""
    nets = {
        name: jaxnet.multi_layer_net(data.x_train.shape[1], hidden, CLASSES, batch_norm=name == "with BatchNorm")
        for name in ("without", "with BatchNorm")
    }
    runs: dict[float, dict[str, jaxnet.History]] = {}
    for init_std in INIT_STDS:
        runs[float(init_std)] = {}
        for name, net in nets.items():
            history = trained(net, data, float(init_std), steps, seed, learning_rate=0.05)
            runs[float(init_std)][name] = history
    return plots.accuracies_by_init_std(runs)


def overfitting(data: Dataset, hidden: Sequence[int], steps: int, seed: int, dataset: str) -> Figure:
    """A few images learned by heart, and what helps."""
    few = data._replace(x_train=data.x_train[:FEW], t_train=data.t_train[:FEW])
    ways: dict[str, tuple[float, float]] = {  # weight decay and the share dropped
        "nothing against it": (0.0, 0.0),
        "weight decay 0.03": (0.03, 0.0),
        "Dropout 0.2": (0.0, 0.2),
        "weight decay 0.003, Dropout 0.2": (0.003, 0.2),
    }
    histories = {}
    for name, (weight_decay, dropout) in ways.items():
        net = jaxnet.multi_layer_net(data.x_train.shape[1], hidden, CLASSES, dropout=dropout)
        histories[name] = trained(net, few, "he", steps, seed, weight_decay=weight_decay, learning_rate=0.05)
    return plots.overfitting(f"{len(hidden)} hidden layers on {FEW} images of {dataset}", histories)


def drawn(options: Options) -> Iterator[str]:
    """The pictures, one after the other, into the folder: the name of each when it is there.

    Raises:
        ValueError: An option is out of range.
        DatasetError: The data cannot be had.
    """
    check_counts(steps=options.steps)
    check_seed(options.seed)
    check_hidden(options.hidden)
    with run_folder.new_folder(options.output) as folder:
        for name, draw in pictures(options, DATASETS[options.dataset]()).items():
            draw().savefig(folder / f"{name}.png")
            yield name


def main(options: Options) -> None:
    """Draw, with progress on a terminal, then say where."""
    for _ in counted(drawn(options), "drawing", total=7):
        pass
    print(f"{options.output}: {', '.join(sorted(path.name for path in options.output.iterdir()))}")


def run() -> None:
    """Runs the command with the arguments of this process, and ends it where they cannot be followed."""
    with one_line(DatasetError):
        main(tyro.cli(Options, description=__doc__))
