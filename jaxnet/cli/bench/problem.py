"""What a benchmark trains: a network by name or by sizes, its initial parameters, and samples."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import jaxnet
from jaxnet.cli.bench.products import Product, layer_inputs, network_products
from jaxnet.cli.datasets import load_dataset
from jaxnet.cli.train.options import CLASSES, DEFAULTS, Options, resolve
from jaxnet.cli.train.setup import build_network
from jaxnet.crosscheck.inspect.errors import did_you_mean
from jaxnet.data import Dataset
from jaxnet.nn.layers import Params, Tree
from jaxnet.train.execution import available_cores

LEARNING_RATE = 0.1
PIXELS = 28  # along each side of an image of MNIST
SYMBOLS = 65  # of a text
MAX_WORK = 2 * 10**9  # multiplications: the two evaluations of `fit` must not take longer than its steps
MAX_ROWS = 60_000  # as MNIST has
REGULARIZED: dict[str, Any] = {
    "batch_norm": True,
    "dropout": 0.2,
}  # of the network "deep", which has neither by default


class Problem(NamedTuple):
    """A network, what it starts from, and float32 samples or integer ids."""

    name: str
    batch_size: int
    net: jaxnet.nn.Layer
    params: Params
    state: Tree
    data: Dataset
    threads: int

    @property
    def has_images(self) -> bool:
        """Whether the samples are images (N, C, H, W)."""
        return self.data.x_train.ndim == 4

    @property
    def has_text(self) -> bool:
        """Whether the samples are rows of ids."""
        return bool(np.issubdtype(self.data.x_train.dtype, np.integer))

    @property
    def first_weights(self) -> np.ndarray:
        """The first array of the first layer that has any: Affine.W, Convolution.W or Embedding.E."""
        return np.asarray(first_weights(self.net, self.params))

    def batch_shape(self, samples: int) -> Any:
        """Returns the shape and dtype of a batch of this many samples."""
        x = self.data.x_train
        return jax.ShapeDtypeStruct((samples, *x.shape[1:]), x.dtype)  # type: ignore[no-untyped-call]

    def products(self, samples: int) -> list[Product]:
        """Returns the matrix products of a forward pass of this many samples."""
        return network_products(self.net, self.batch_shape(samples))


Described = tuple[jaxnet.nn.Layer, tuple[int, ...], int]  # network, shape of a sample, classes


class Skip(Exception):
    """Raised when a contender cannot run on this machine, or not this network, with the reason."""


def mean_cross_entropy(logits: Any, t: Any) -> Any:
    """Returns the loss of all contenders that optax or JAX differentiates."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, t).mean()


def first_weights(net: jaxnet.nn.Layer, params: Params) -> Any:
    """Returns the first array of the first layer that has any, of parameters or of anything with their tree."""
    name = next(name for name in net.layers if name in params)
    return next(iter(params[name].values()))


def parse_network(text: str) -> tuple[str | tuple[int, ...], int]:
    """Returns the name of a network or the sizes of its layers, and the batch size.

    Raises:
        ValueError: If the text has another form, or there is no such network.

    Examples:
        >>> parse_network("784-50-10@100"), parse_network("simple-conv@32"), parse_network("transformer")
        (((784, 50, 10), 100), ('simple-conv', 32), ('transformer', 32))
    """
    if re.fullmatch(r"[1-9]\d*(-[1-9]\d*)+@[1-9]\d*", text, flags=re.ASCII):
        layers, batch_size = text.split("@")
        return tuple(map(int, layers.split("-"))), int(batch_size)
    name, at, batch = text.partition("@")
    if name in DEFAULTS and (re.fullmatch(r"[1-9]\d*", batch, flags=re.ASCII) or not at):
        return name, int(batch or DEFAULTS[name]["batch_size"])
    near = did_you_mean(name, DEFAULTS)
    raise ValueError(
        f"networks: {text!r}, expected sizes and a batch size such as 784-50-10@100, or one of {', '.join(DEFAULTS)}, "
        f"with or without @ and a batch size{near and f'; {near}'}"
    )


def make_problem(text: str, dataset: str) -> Problem:
    """Returns the network that a text such as 784-50-10@100 or simple-conv names, its parameters, and samples.

    Raises:
        ValueError: If the text has another form, or its sizes do not fit the data set.
    """
    network, batch_size = parse_network(text)
    if isinstance(network, tuple):
        net = jaxnet.multi_layer_net(network[0], network[1:-1], network[-1])
        described: Described = net, (network[0],), network[-1]
    else:
        described = named_network(network)
    net, input_shape, classes = described
    # He's larger weights would amplify rounding errors to a tenth of the change of deep-conv's weights in ten steps.
    params = jax.device_get(net.init(jax.random.key(0), "xavier"))
    data = random_samples(input_shape, classes, 1, text=network == "transformer")
    problem = Problem(text, batch_size, net, params, net.state, data, available_cores())
    work = sum(product.multiplications(backward=False) for product in problem.products(1))
    rows = max(1, min(MAX_ROWS, MAX_WORK // work))
    if dataset == "random" or problem.has_text:
        return problem._replace(data=random_samples(input_shape, classes, rows, text=problem.has_text))
    x, t, *_ = load_dataset("mnist")
    if np.prod(input_shape) != x.shape[1] or classes <= t.max():
        raise ValueError(f"networks: {text}, expected 784 inputs and at least 10 classes; or use --dataset random")
    x = x.reshape(-1, *input_shape)
    return problem._replace(data=Dataset(x[:rows], t[:rows], x[:1], t[:1]))


def named_network(name: str) -> Described:
    """Returns a network as `jaxnet train --network NAME` builds it, its input shape and number of classes."""
    options = resolve(Options(network=name, **(REGULARIZED if name == "deep" else {})))
    shape: tuple[int, ...] = (1, PIXELS, PIXELS) if name.endswith("conv") else (PIXELS**2,)
    shape, classes = ((options.context,), SYMBOLS) if name == "transformer" else (shape, CLASSES)
    data = random_samples(shape, classes, 1, text=name == "transformer")
    return build_network(options, data, "?" * SYMBOLS)[1], shape, classes


def random_samples(shape: tuple[int, ...], classes: int, count: int, *, text: bool) -> Dataset:
    """Draws pixels (count, *shape) in [0, 1] with a class each, or texts with the next symbol at each position."""
    rng = np.random.default_rng(0)
    t = rng.integers(0, classes, (count, *shape) if text else count).astype(np.int32)
    if text:
        ids = rng.integers(0, classes, (count, *shape)).astype(np.int32)
        return Dataset(ids, t, ids[:1], t[:1])
    x = rng.integers(0, 256, (count, *shape), np.uint8) / np.float32(255)
    return Dataset(x, t, x[:1], t[:1])


def draw_rows(problem: Problem, steps: int) -> np.ndarray:
    """Draws row numbers (S, B). A larger number of steps begins with the same rows."""
    rng = np.random.default_rng(1)
    return rng.integers(0, len(problem.data.x_train), (steps, problem.batch_size), dtype=np.int32)


def relative_difference(weights: np.ndarray, reference: np.ndarray, initial: np.ndarray) -> float:
    """Returns the norm of weights - reference over that of reference - initial; infinite if it is nan."""
    if weights.shape != reference.shape:
        return math.inf
    difference = float(np.linalg.norm(weights - reference) / np.linalg.norm(reference - initial))
    return difference if math.isfinite(difference) else math.inf


def without_dropout(problem: Problem) -> Problem:
    """Returns the problem with Dropout layers of rate 0, so that every library trains the same network."""
    return problem._replace(net=jaxnet.nn.from_description(_keep_all(problem.net.description)))


def _keep_all(description: tuple[Any, ...]) -> tuple[Any, ...]:
    kind, *sizes = description
    if kind in ("Sequential", "Residual"):
        return kind, tuple((name, _keep_all(inner)) for name, inner in sizes[0])
    return ("Dropout", 0.0) if kind == "Dropout" else description


def channels_last(problem: Problem) -> Problem:
    """Returns the problem for a library that takes images (N, H, W, C).

    Its Flatten makes rows of another order, so that the Affine after it has its rows of weights in that order too.
    """
    if not problem.has_images:
        return problem
    data = problem.data._replace(x_train=np.ascontiguousarray(problem.data.x_train.transpose(0, 2, 3, 1)))
    shapes = [
        shape for _, shape in layer_inputs(problem.net, problem.batch_shape(1))
    ]  # the network has no composed layer
    params, names = dict(problem.params), list(problem.net.layers)
    for name, before, shape in zip(names[1:], names, shapes, strict=False):
        if problem.net.layers[before].description == ("Flatten",):
            order = np.arange(np.prod(shape)).reshape(shape[1:]).transpose(1, 2, 0).ravel()
            params[name] = params[name] | {"W": params[name]["W"][order]}
    return problem._replace(params=params, data=data)


def counterparts(library: str, table: Mapping[str, Callable[..., Any]], pairs: Any, params: Params) -> list[Any]:
    """Returns a library's layers for those of a description.

    Args:
        library: Its name, for the reason to skip it.
        table: By kind, a function from a layer's parameters and sizes to the library's layer with these weights. That
            of a "Residual" takes a list of layers.
        pairs: (name, description) of each layer.
        params: Their parameters, by name.

    Raises:
        Skip: If the table lacks a kind.
    """
    layers = []
    for name, (kind, *sizes) in pairs:
        if kind not in table:
            raise Skip(f"{library} has no layer like {kind}")
        own = params.get(name, {})
        arguments = [counterparts(library, table, sizes[0], own)] if kind == "Residual" else [own, *sizes]
        layers.append(table[kind](*arguments))
    return layers
