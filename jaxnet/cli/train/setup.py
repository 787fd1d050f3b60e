"""Builds data, network and arguments of `fit` from the options of `jaxnet train`, and cross-checks the gradients."""

import json
import math
import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray
from rich.console import Console

import jaxnet
import numpy_ref
from jaxnet.cli.datasets import load_dataset
from jaxnet.cli.errors import program
from jaxnet.cli.own_networks import check_against_jax
from jaxnet.cli.train.options import CLASSES, HEADS, LAUNCH
from jaxnet.common.progress_line import progress_line
from jaxnet.crosscheck import Verdict
from jaxnet.crosscheck.explain.printed_report import WIDTH
from jaxnet.data import Dataset, text
from jaxnet.data.validation_split import split_validation
from jaxnet.nn.layers import Params
from jaxnet.train import sharding
from jaxnet.train.step import OPTIMIZERS, SCHEDULES, MakeOptimizer

CHECKED_SAMPLES = 3  # as in the notebook's last cell
CHECKED_LENGTH = 8  # characters of each


@dataclass(frozen=True)
class Setup:
    """The data, the network and the arguments of a training run."""

    options: SimpleNamespace
    recorded_options: dict[str, Any]  # as JSON represents them
    data: Dataset  # validation data in the place of the test data if a share of the training data is held out
    test: tuple[Any, Any]  # samples and labels
    vocabulary: str  # empty for images
    name: str
    net: jaxnet.nn.Layer
    params: Params
    batches: jaxnet.RandomBatches
    optimization: dict[str, Any]  # arguments of `fit` that also determine the initial state
    mesh: Mesh | None  # None for a single device
    sampling_key: PRNGKeyArray  # for the text that a transformer writes

    @property
    def held_out(self) -> str:
        """The name of the data that is evaluated during training."""
        return "validation" if self.options.validation else "test"


def set_up(options: SimpleNamespace) -> Setup:
    """Loads the data, builds the network, and draws initial parameters and batches."""
    data, vocabulary = load_data(options)
    test = data.x_test, data.t_test
    if options.validation:
        data = split_validation(data, options.validation, options.seed, ordered=bool(vocabulary))
    key = jax.random.key(options.seed)
    key_params, key_batches = jax.random.split(key)
    key_steps, key_sampling = jax.random.split(jax.random.fold_in(key, 1))
    name, net = build_network(options, data, vocabulary)
    batches = jaxnet.RandomBatches(key_batches, len(data.x_train), options.batch_size, options.steps)
    optimization = {
        "optimizer": make_optimizer(options),
        "learning_rate": options.learning_rate,
        "clip_norm": options.clip_norm,
        "key": key_steps,
    }
    params = net.init(key_params, options.init_std)
    several = options.devices is not None or options.processes > 1 or options.model_devices > 1
    mesh = sharding.mesh(options.devices, model_devices=options.model_devices) if several else None
    recorded = {option: value for option, value in vars(options).items() if option not in LAUNCH}
    recorded = json.loads(json.dumps(recorded, default=str))
    return Setup(
        options, recorded, data, test, vocabulary, name, net, params, batches, optimization, mesh, key_sampling
    )


def load_data(options: SimpleNamespace) -> tuple[Dataset, str]:
    """Returns the data in the shape that the network takes, and the vocabulary if they are text."""
    if options.network == "transformer":
        characters = text.read_text(options.text)
        vocabulary = text.vocabulary_of(characters)
        return text.windows(characters, vocabulary, options.context), vocabulary
    data = load_dataset(options.dataset)
    if options.network.endswith("conv"):
        side = math.isqrt(data.x_train.shape[1])
        x_train, x_test = (x.reshape(-1, 1, side, side) for x in (data.x_train, data.x_test))
        data = data._replace(x_train=x_train, x_test=x_test)
    return data, ""


def build_network(options: SimpleNamespace, data: Dataset, vocabulary: str) -> tuple[str, jaxnet.nn.Layer]:
    """Returns the name of the network, such as 64-50-10, and the network."""
    shape: Any = data.x_train.shape[1:]
    match options.network:
        case "simple-conv":
            return options.network, jaxnet.simple_conv_net(shape, output_size=CLASSES)
        case "deep-conv":
            return options.network, jaxnet.deep_conv_net(shape, output_size=CLASSES, dropout=options.dropout)
        case "transformer":
            sizes = len(vocabulary), options.context, options.width, HEADS, options.blocks
            return options.network, jaxnet.transformer(*sizes, dropout=options.dropout)
    regularization = {"batch_norm": options.batch_norm, "dropout": options.dropout}
    net = jaxnet.multi_layer_net(shape[0], options.hidden, CLASSES, options.activation, **regularization)
    return "-".join(map(str, (*shape, *options.hidden, CLASSES))), net


def make_optimizer(options: SimpleNamespace) -> MakeOptimizer:
    """Returns a function from the learning rate to the optimizer, with the schedule of the options."""
    make, schedule = OPTIMIZERS[options.optimizer].make, SCHEDULES[options.schedule]
    return lambda learning_rate: make(schedule(learning_rate, options.steps))


def cross_check(setup: Setup, console: Console) -> None:
    """Compares analytic gradients, autodiff and numerical derivatives, leaf by leaf, on a few samples.

    Raises:
        SystemExit: If they disagree.
    """
    net, data, options = setup.net, setup.data, setup.options
    samples = 3 * CHECKED_SAMPLES if getattr(options, "batch_norm", False) else CHECKED_SAMPLES
    if options.network == "deep-conv":
        samples = 1  # every forward pass runs six convolutions in NumPy
    x, t = data.x_train[:samples], data.t_train[:samples]
    if setup.vocabulary:
        x, t = x[:, :CHECKED_LENGTH], t[:, :CHECKED_LENGTH]
    kind = "text" if setup.vocabulary else "image"
    console.print(f"Cross-check on {samples} training {kind}{'s'[: samples - 1]}", style="bold")
    with progress_line(f"checking {setup.name}"):
        noise = jax.device_get(jax.jit(lambda x: jaxnet.step_noise(net, setup.optimization["key"], 0, x))(x))
        layers = numpy_ref.build_layers(net.description, setup.params)
        network = numpy_ref.Network(layers, weight_decay=options.weight_decay)
        report = check_against_jax(setup.name, net, network, noise, x, t)
    console.print(report.text(width=WIDTH), highlight=False, soft_wrap=True, markup=False)
    if report.verdict is Verdict.FAIL:
        sys.exit(f"{program()}: the gradients disagree as the table shows; the network is not trained")
