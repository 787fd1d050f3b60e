"""Hold three derivations of every gradient against each other: by hand, by autodiff, by differences.

Without options: the project's networks, in both orders, and every layer on its own. `--network notebook` checks the
notebook's own network, as it was written, and says why it fails.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
import tyro

import jaxnet
import numpy_ref
from jaxnet.crosscheck import Report, check_layer, check_network
from numpy_ref import notebook

SIZES = (784, 50, 10)
IMAGES = 3  # as in the notebook's last cell


@dataclass(frozen=True)
class Options:
    """Cross-check gradients. The exit status is 1 where two derivations disagree."""

    network: Literal["all", "book", "notebook-order", "notebook"] = "all"
    """book: Affine, ReLU, Affine. notebook-order: one more ReLU. all: both, and every layer on its own.
    notebook: the notebook's own code, defects and all."""
    seed: int = 0
    """Of weights, images and the directions probed."""


def reports(options: Options, rng: np.random.Generator) -> Iterator[Report]:
    """What the options ask for, one after the other."""
    x, t = rng.random((IMAGES, SIZES[0])), rng.integers(0, SIZES[2], IMAGES)
    if options.network in ("all", "book"):
        yield of_network("784-50-10 in the book's order", jaxnet.two_layer_net(*SIZES), x, t, options.seed)
    if options.network in ("all", "notebook-order"):
        yield of_network("784-50-10 in the notebook's order", jaxnet.notebook_net(*SIZES), x, t, options.seed)
    if options.network == "all":
        yield from of_layers(rng, options.seed)
    if options.network == "notebook":
        written = notebook.TwoLayerNet(*SIZES, seed=options.seed)
        reference = partial(jaxnet.loss, jaxnet.notebook_net(*SIZES))
        yield check_network(
            written, x, np.eye(SIZES[2])[t], reference=reference, seed=options.seed, name="the notebook as written"
        )


def of_network(name: str, net: jaxnet.Layer, x: np.ndarray, t: np.ndarray, seed: int) -> Report:
    """A network in both worlds, from one description and one set of float32 parameters."""
    hand = numpy_ref.Network(numpy_ref.build_layers(net.description, net.init(jax.random.key(seed), 0.1)))
    return check_network(hand, x.astype(np.float32), t, reference=partial(jaxnet.loss, net), seed=seed, name=name)


def of_layers(rng: np.random.Generator, seed: int) -> Iterator[Report]:
    """Every hand-written layer on its own, against the same layer of jaxnet."""
    x = rng.standard_normal((IMAGES, 7))
    W, b = rng.standard_normal((7, 5)), rng.standard_normal(5)
    yield check_layer(numpy_ref.Affine(W, b), x, reference=in_training(jaxnet.affine(7, 5)), seed=seed)
    for layer, same in [
        (numpy_ref.ReLU(), jaxnet.relu()),
        (numpy_ref.Sigmoid(), jaxnet.sigmoid()),
        (numpy_ref.Tanh(), jaxnet.tanh()),
    ]:
        yield check_layer(layer, x, reference=in_training(same), seed=seed)
    t = rng.integers(0, 7, IMAGES)
    yield check_layer(numpy_ref.SoftmaxWithLoss(), x, t, reference=jaxnet.softmax_cross_entropy, seed=seed)


def in_training(layer: jaxnet.Layer) -> Callable[..., Any]:
    """What `check_layer` takes for a reference: a function of (params, x), or of x alone."""

    def forward(*params_and_x: Any) -> Any:
        params = params_and_x[0] if len(params_and_x) > 1 else {}
        return layer.train(params, layer.state, params_and_x[-1], {})[0]

    return forward


def why_the_notebook_fails(rng: np.random.Generator) -> Iterator[str]:
    """Each defect that a gradient can show, by what its own code does here and now."""
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
    whole, one = notebook.numerical_gradient_batch_v2(loss_of, logits), numpy_ref.numerical_gradient(loss_of, logits)
    off = np.abs(whole - one).max() / np.abs(one).max()
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


def main(options: Options) -> int:
    """Check and print; returns the exit status."""
    rng = np.random.default_rng(options.seed)
    verdicts = []
    for report in reports(options, rng):
        print(report, end="\n\n", flush=True)
        verdicts.append(report.verdict)
    if options.network == "notebook":
        print("Why:")
        for reason in why_the_notebook_fails(rng):
            print(f"  - {reason}")
    return int(any(verdict != "PASS" for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
