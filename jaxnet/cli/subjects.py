"""What is trained, as the options say: data, a network, an optimizer, and the cross-check before them all."""

import math
import sys
from types import SimpleNamespace
from typing import Any

import jax
import optax
from rich.console import Console

import jaxnet
import numpy_ref
from jaxnet.cli.ending import program
from jaxnet.cli.options import HEADS
from jaxnet.crosscheck import Verdict, check_network
from jaxnet.data import DATASETS, Dataset, text
from jaxnet.nn.layers import Params
from jaxnet.train.step import OPTIMIZERS, MakeOptimizer

CLASSES = 10
CHECKED = 3  # samples, as in the notebook's last cell; the statistics of a BatchNorm need more
CHECKED_LENGTH = 8  # characters of each


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


def build(options: SimpleNamespace, data: Dataset, vocabulary: str) -> tuple[str, jaxnet.nn.Layer]:
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
    net: jaxnet.nn.Layer,
    params: Params,
    data: Dataset,
    options: SimpleNamespace,
    key: Any,
    console: Console,
) -> None:
    """Compares analytic gradients, autodiff and numerical derivatives, leaf by leaf, on a few samples.

    Raises:
        SystemExit: If they disagree.
    """
    samples = 3 * CHECKED if getattr(options, "batch_norm", False) else CHECKED
    if options.network == "deep-conv":
        samples = 1  # every forward pass runs six convolutions in NumPy
    x, t = data.x_train[:samples], data.t_train[:samples]
    if options.network == "transformer":
        x, t = x[:, :CHECKED_LENGTH], t[:, :CHECKED_LENGTH]
    console.print(
        f"Cross-check on {samples} training {'text' if t.ndim > 1 else 'image'}{'s'[: samples - 1]}", style="bold"
    )
    noise = jax.device_get(jax.jit(lambda x: jaxnet.step_noise(net, key, 0, x))(x))
    network = numpy_ref.Network(numpy_ref.build_layers(net.description, params), weight_decay=options.weight_decay)
    network.set_noise(noise)

    def reference(params: Params, x: Any, t: Any) -> Any:
        return jaxnet.loss(net, params, x, t, noise, weight_decay=options.weight_decay)

    report = check_network(network, x, t, reference=reference, name=name)
    console.print(str(report), highlight=False, soft_wrap=True, markup=False)
    if report.verdict is Verdict.FAIL:
        sys.exit(f"{program()}: the gradients disagree where the table says so; not training")
