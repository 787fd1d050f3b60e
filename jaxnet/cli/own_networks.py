"""Checks of this project's own networks and layers: each by hand in NumPy, with the same in JAX as a reference."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

import jaxnet
import numpy_ref
from jaxnet.cli.catalogue import CATALOGUE
from jaxnet.crosscheck import Report, check_layer, check_network
from jaxnet.tree_paths import tree_from_paths
from numpy_ref import notebook

SIZES = (784, 50, 10)
IMAGES = 3  # as in the notebook's last cell


def reports(network: str, seed: int, rng: np.random.Generator) -> Iterator[Report]:
    """Yields the reports of this project's own code: of one network, or of all and of every layer.

    Args:
        network: `book`, `notebook-order`, `notebook` or `all`.
        seed: Draws the directions in which derivatives are taken.
        rng: Draws samples and weights.
    """
    x, t = rng.random((IMAGES, SIZES[0])), rng.integers(0, SIZES[2], IMAGES)
    if network in ("all", "book"):
        yield of_network("784-50-10 in the book's order", jaxnet.two_layer_net(*SIZES), x, t, rng, 0.1)
    if network in ("all", "notebook-order"):
        yield of_network("784-50-10 in the notebook's order", jaxnet.notebook_net(*SIZES), x, t, rng, 0.1)
    if network == "all":
        yield from of_networks(rng)
        yield from of_layers(rng, seed)
    if network == "notebook":
        written = notebook.TwoLayerNet(*SIZES, seed=seed)
        reference = partial(jaxnet.loss, jaxnet.notebook_net(*SIZES))
        yield check_network(
            written, x, np.eye(SIZES[2])[t], reference=reference, seed=seed, name="the notebook as written"
        )


def of_network(
    name: str,
    net: jaxnet.nn.Layer,
    x: np.ndarray,
    t: np.ndarray,
    rng: np.random.Generator,
    scale: float,
    weight_decay: float = 0,
) -> Report:
    """Checks a network in NumPy and in JAX, from one description, float32 parameters, random draw and weight decay."""
    if np.issubdtype(x.dtype, np.floating):
        x = x.astype(np.float32)
    params = drawn(net, rng, scale, np.float32)
    network = numpy_ref.Network(numpy_ref.build_layers(net.description, params), weight_decay=weight_decay)
    noise = network.draw_noise(rng, x)
    network.set_noise(noise)

    def reference(params: Any, x: Any, t: Any) -> Any:
        return jaxnet.loss(net, params, x, t, noise, weight_decay=weight_decay)

    return check_network(network, x, t, reference=reference, name=name)


def drawn(layer: jaxnet.nn.Layer, rng: np.random.Generator, scale: float = 1.0, dtype: Any = np.float64) -> Any:
    """Draws normal parameters, biases too: errors do not show in a bias of zero or a gamma of 1."""
    shapes = jax.eval_shape(lambda key: layer.init(key, 1.0), jax.random.key(0))
    return jax.tree.map(lambda leaf: (scale * rng.standard_normal(leaf.shape)).astype(dtype), shapes)


def of_networks(rng: np.random.Generator) -> Iterator[Report]:
    """Checks the book's other networks and the transformer, all of them small."""
    images, ids = rng.standard_normal((9, 1, 10, 10)), rng.integers(0, 7, (9, 6))
    deep = jaxnet.multi_layer_net(12, [9, 8], 5, batch_norm=True, dropout=0.2)
    for name, net, x in [
        ("a deep net, with BatchNorm and Dropout", deep, rng.standard_normal((9, 12))),
        ("the simple convolutional net", jaxnet.simple_conv_net((1, 10, 10), 3, 3, 8, 5), images),
        ("the deep convolutional net", jaxnet.deep_conv_net((1, 10, 10), (2,), 8, 5, 0.2), images),
        ("the transformer", jaxnet.transformer(7, 6, size=8, heads=2, blocks=1, dropout=0.1), ids),
    ]:
        t = rng.integers(0, 7, ids.shape) if x is ids else rng.integers(0, 5, len(x))
        yield of_network(name, net, x, t, rng, 0.5, weight_decay=0.1)


def of_layers(rng: np.random.Generator, seed: int) -> Iterator[Report]:
    """Checks every layer by hand, with the same layer in JAX as a reference; then the losses."""
    for name, entry in CATALOGUE.items():
        x, params = entry.example(entry.shapes[-1], rng), drawn(entry.layer, rng)
        by_hand = entry.by_hand(params)
        noise = by_hand.draw_noise(rng, x)
        by_hand.set_noise(noise)
        yield check_layer(by_hand, x, reference=in_training(entry.layer, noise), seed=seed, name=name)
    y, t = rng.standard_normal((9, 6)), rng.integers(0, 6, 9)
    yield check_layer(numpy_ref.SoftmaxWithLoss(), y, t, reference=jaxnet.softmax_cross_entropy, seed=seed)
    yield check_layer(numpy_ref.MeanSquaredError(), y, t, reference=jaxnet.mean_squared_error, seed=seed)


def in_training(layer: jaxnet.nn.Layer, noise: Any) -> Callable[..., Any]:
    """Returns a reference for `check_layer`: a function of (params, x), or of x where there are no parameters."""

    def forward(*params_and_x: Any) -> Any:
        params = params_and_x[0] if len(params_and_x) > 1 else {}
        return layer.train(tree_from_paths(params), layer.state, params_and_x[-1], noise)[0]

    return forward


def why_the_notebook_fails(rng: np.random.Generator) -> Iterator[str]:
    """Yields each defect that a gradient can show, with a figure measured on the notebook's own code."""
    x, t = rng.random((IMAGES, SIZES[0])), np.eye(SIZES[2])[rng.integers(0, SIZES[2], IMAGES)]
    net = notebook.TwoLayerNet(*SIZES)
    sums = notebook.softmax(net.predict(x)).sum(axis=1)
    yield f"softmax runs over the whole batch: its rows sum to {', '.join(f'{s:.3f}' for s in sums)}, not to 1 each"

    W = net.params["Affine2"]["W"]
    before = W.copy()
    notebook.numerical_gradient_batch(lambda _: net.loss(x, t), W)
    yield f"its differences never put an element back: Affine2.W ends shifted by {np.abs(W - before).max():.1e}"

    def loss_of(rows: np.ndarray) -> float:
        return float(notebook.SoftmaxWithLoss().forward(rows, t))

    logits = net.predict(x)
    batched = notebook.numerical_gradient_batch_v2(loss_of, logits)
    single = numpy_ref.numerical_gradient(loss_of, logits)
    off = np.abs(batched - single).max() / np.abs(single).max()
    yield f"numerical_gradient_batch_v2 shifts a column of all rows at once: off by {off:.0%} of the largest gradient"

    relu, dout = notebook.ReLU(), np.ones((1, 4))
    relu.forward(np.array([[-1.0, 2.0, -3.0, 4.0]]))
    relu.backward(dout)
    yield f"ReLU.backward writes into the array that it is given: ones became {dout[0].tolist()}"

    loss = notebook.SoftmaxWithLoss()
    loss.forward(x[:, :10], t)
    ratio = np.abs(loss.backward(2.0)).max() / np.abs(loss.backward(1.0)).max()
    yield f"SoftmaxWithLoss.backward ignores dout: twice the loss has {ratio:g} times the gradient"

    with np.errstate(divide="ignore"):
        lost = notebook.cross_entropy_error_one_hot(notebook.softmax(np.array([[800.0, 0.0]])), np.array([[0.0, 1.0]]))
    yield f"the loss takes log of a probability that has become 0: it is {lost}, where the logits give 800"

    share = np.mean(net.predict(x) == 0)
    yield f"a ReLU follows the last Affine: {share:.0%} of the logits are cut off here, and get no gradient"
