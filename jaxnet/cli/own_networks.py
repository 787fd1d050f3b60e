"""Checks this project's own networks and layers, written by hand in NumPy, with the same in JAX as references."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

import jaxnet
import numpy_ref
from jaxnet.cli.catalogue import CATALOGUE
from jaxnet.crosscheck import Report, check_layer, check_network
from jaxnet.nn.tree_paths import tree_from_paths
from numpy_ref import notebook

SIZES = (784, 50, 10)
SAMPLES = 3  # as in the notebook's last cell


def check_own(network: str, seed: int, rng: np.random.Generator) -> Iterator[Report]:
    """Yields the reports of one network, or of all networks and layers. The seed draws directions, `rng` the rest."""
    x, t = rng.random((SAMPLES, SIZES[0])), rng.integers(0, SIZES[2], SAMPLES)
    if network in ("all", "book"):
        yield check_net("784-50-10 in the book's order", jaxnet.two_layer_net(*SIZES), x, t, rng)
    if network in ("all", "notebook-order"):
        yield check_net("784-50-10 in the notebook's order", jaxnet.notebook_net(*SIZES), x, t, rng)
    if network == "all":
        yield from check_small_nets(rng)
        yield from check_layers(rng, seed)
    if network == "notebook":
        subject, one_hot = notebook.TwoLayerNet(*SIZES, seed=seed), np.eye(SIZES[2])[t]
        reference = partial(jaxnet.loss, jaxnet.notebook_net(*SIZES))
        yield check_network(subject, x, one_hot, reference=reference, seed=seed, name="the notebook as written")


def check_net(
    name: str, net: jaxnet.nn.Layer, x: np.ndarray, t: np.ndarray, rng: np.random.Generator, std: float = 0.1,
    weight_decay: float = 0,
) -> Report:  # fmt: skip
    """Checks the hand-written network of the same description, with the same float32 parameters and noise."""
    if np.issubdtype(x.dtype, np.floating):
        x = x.astype(np.float32)
    params = draw_params(net, rng, std, np.float32)
    network = numpy_ref.Network(numpy_ref.build_layers(net.description, params), weight_decay=weight_decay)
    return check_against_jax(name, net, network, network.draw_noise(rng, x), x, t)


def check_against_jax(
    name: str, net: jaxnet.nn.Layer, network: numpy_ref.Network, noise: Any, x: np.ndarray, t: np.ndarray
) -> Report:
    """Checks a hand-written network, with the network in JAX of the same noise and weight decay as its reference."""
    network.set_noise(noise)

    @jax.jit  # one program where JAX would compile one for each operation
    def reference(params: Any, x: Any, t: Any) -> Any:
        return jaxnet.loss(net, params, x, t, noise, weight_decay=network.weight_decay)

    return check_network(network, x, t, reference=reference, name=name)


def draw_params(layer: jaxnet.nn.Layer, rng: np.random.Generator, std: float = 1.0, dtype: Any = np.float64) -> Any:
    """Draws normal parameters, because some errors do not show at the initial values: biases of 0 and gammas of 1."""
    shapes = jax.eval_shape(lambda key: layer.init(key, 1.0), jax.random.key(0))
    return jax.tree.map(lambda leaf: (std * rng.standard_normal(leaf.shape)).astype(dtype), shapes)


def check_small_nets(rng: np.random.Generator) -> Iterator[Report]:
    """Checks the book's other networks and the transformer at small sizes."""
    images, ids = rng.standard_normal((9, 1, 10, 10)), rng.integers(0, 7, (9, 6))
    deep = jaxnet.multi_layer_net(12, [9, 8], 5, batch_norm=True, dropout=0.2)
    for name, net, x in [
        ("a deep net, with BatchNorm and Dropout", deep, rng.standard_normal((9, 12))),
        ("the simple convolutional net", jaxnet.simple_conv_net((1, 10, 10), 3, 3, 8, 5), images),
        ("the deep convolutional net", jaxnet.deep_conv_net((1, 10, 10), (2,), 8, 5, 0.2), images),
        ("the transformer", jaxnet.transformer(7, 6, size=8, heads=2, blocks=1, dropout=0.1), ids),
    ]:
        t = rng.integers(0, 7, ids.shape) if x is ids else rng.integers(0, 5, len(x))
        yield check_net(name, net, x, t, rng, 0.5, weight_decay=0.1)


def check_layers(rng: np.random.Generator, seed: int) -> Iterator[Report]:
    """Checks every hand-written layer of the catalogue, and the losses."""
    for name, entry in CATALOGUE.items():
        x, params = entry.example(entry.shapes[-1], rng), draw_params(entry.layer, rng)
        layer = entry.by_hand(params)
        noise = layer.draw_noise(rng, x)
        layer.set_noise(noise)
        yield check_layer(layer, x, reference=training_pass(entry.layer, noise), seed=seed, name=name)
    y, t = rng.standard_normal((9, 6)), rng.integers(0, 6, 9)
    yield check_layer(numpy_ref.SoftmaxWithLoss(), y, t, reference=jaxnet.softmax_cross_entropy, seed=seed)
    yield check_layer(numpy_ref.MeanSquaredError(), y, t, reference=jaxnet.mean_squared_error, seed=seed)


def training_pass(layer: jaxnet.nn.Layer, noise: Any) -> Callable[..., Any]:
    """Returns the forward pass of training as a reference: a function of (params, x), or of x without parameters."""

    @jax.jit
    def forward(*params_and_x: Any) -> Any:
        params = params_and_x[0] if len(params_and_x) > 1 else {}
        return layer.train(tree_from_paths(params), layer.state, params_and_x[-1], noise)[0]

    return forward


def explain_notebook(rng: np.random.Generator) -> Iterator[str]:
    """Yields each defect of the notebook that affects its gradients, measured on its own code."""
    x, t = rng.random((SAMPLES, SIZES[0])), np.eye(SIZES[2])[rng.integers(0, SIZES[2], SAMPLES)]
    net = notebook.TwoLayerNet(*SIZES)
    sums = notebook.softmax(net.predict(x)).sum(axis=1)
    yield f"softmax runs over the whole batch: its rows sum to {', '.join(f'{s:.3f}' for s in sums)}, not to 1 each"

    W = net.params["Affine2"]["W"]
    before = W.copy()
    notebook.numerical_gradient_batch(lambda _: net.loss(x, t), W)
    shift = np.abs(W - before).max()
    yield f"numerical_gradient_batch does not restore the elements that it changes: Affine2.W is off by {shift:.1e}"

    def loss_of(rows: np.ndarray) -> float:
        return float(notebook.SoftmaxWithLoss().forward(rows, t))

    logits = net.predict(x)
    batched = notebook.numerical_gradient_batch_v2(loss_of, logits)
    correct = numpy_ref.numerical_gradient(loss_of, logits)
    error = np.abs(batched - correct).max() / np.abs(correct).max()
    yield f"numerical_gradient_batch_v2 shifts a column in all rows at once: off by {error:.0%} of the largest gradient"

    relu, dout = notebook.ReLU(), np.ones((1, 4))
    relu.forward(np.array([[-1.0, 2.0, -3.0, 4.0]]))
    relu.backward(dout)
    yield f"ReLU.backward overwrites its argument: ones became {dout[0].tolist()}"

    loss = notebook.SoftmaxWithLoss()
    loss.forward(x[:, :10], t)
    ratio = np.abs(loss.backward(2.0)).max() / np.abs(loss.backward(1.0)).max()
    yield f"SoftmaxWithLoss.backward ignores dout: twice the loss has {ratio:g} times the gradient"

    with np.errstate(divide="ignore"):
        wrong = notebook.cross_entropy_error_one_hot(notebook.softmax(np.array([[800.0, 0.0]])), np.array([[0.0, 1.0]]))
    yield f"the loss is the log of a probability that underflows to 0: it is {wrong}, and 800 if computed from logits"

    share = np.mean(net.predict(x) == 0)
    yield f"a ReLU follows the last Affine: {share:.0%} of the logits are 0 and get no gradient"
