"""Compare every gradient with numerical derivatives of its own forward pass, and with autodiff where that is given.

Your own code, as FILE.py:NAME: a layer class, a pair of functions FORWARD,BACKWARD, a network, or a function or module
of JAX or PyTorch.

    jaxnet check mine.py:Affine --init 4x3 3 --inputs 5x4
    jaxnet check mine.py:affine_forward,affine_backward --inputs 5x4 4x3 3
    jaxnet check mine.py:Convolution --init 6x3x3x3 6 stride=2 pad=1 --inputs 2x3x7x7 --plot v.png
    jaxnet check mine.py:Embedding --init weights.npz --inputs 2x3<10

Without a name: the project's own networks, and every layer on its own. `--network notebook` checks the
notebook's own network, as it was written, and says why it fails.

Exit status: 0 PASS, 1 FAIL, 2 cannot be checked, 3 INCONCLUSIVE.
"""

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro

import jaxnet
import numpy_ref
from jaxnet import plots
from jaxnet.cli.ending import check_writable, one_line
from jaxnet.cli.options import File, Number, Word, check_seed
from jaxnet.crosscheck import Report, SubjectError, Verdict, check, check_layer, check_network, inspected, targets
from jaxnet.crosscheck.measure.steps import step_errors
from jaxnet.nn.tree_paths import unflatten
from numpy_ref import notebook

SIZES = (784, 50, 10)
IMAGES = 3  # as in the notebook's last cell
STATUS = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.INCONCLUSIVE: 3}
OF_TARGETS = ("init", "inputs", "reference", "constants", "dtype", "accuracy", "resolution", "max_seconds", "plot")


@dataclass(frozen=True)
class Options:
    """Cross-check gradients."""

    target: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """FILE.py:NAME, or FILE.py:FORWARD,BACKWARD; several are checked with the same values."""
    init: tuple[str, ...] = ()
    """What a class is made with. 4x3: an array of that shape. 5<10: integers below 10. 0.5, =3: numbers. stride=2,
    W=4x3: by name. FILE.npz, FILE.npy: arrays."""
    inputs: tuple[str, ...] = ()
    """What forward is called with, in the same form."""
    reference: Word = None
    """FILE.py:NAME of the same function in JAX, of (params, *inputs) where there are parameters, else of (*inputs)."""
    constants: tuple[str, ...] = ()
    """Names of arrays that move the output and need no gradient."""
    dtype: Literal["float64", "float32"] = "float64"
    """Of the arrays that the values become."""
    accuracy: Number = None
    """The relative error that the gradient may have by design, as of an iterative solver. Defaults to none."""
    resolution: Number = None
    """The relative error that must be visible, else INCONCLUSIVE. Defaults to half the digits in which the code
    computes."""
    max_seconds: Number = None
    """What is not judged after so long is INCONCLUSIVE. Defaults to no limit."""
    verbose: bool = False
    """Print also the error and tolerance of every pair of derivations, the forward passes and the seconds."""
    json: bool = False
    """Print the reports as JSON."""
    plot: File = None
    """Draw the error against the step size, for every leaf, into this PNG."""
    network: Literal["all", "book", "notebook-order", "notebook"] = "all"
    """Without a name. book: Affine, ReLU, Affine. notebook-order: one more ReLU. all: both, the other networks, and
    every layer on its own. notebook: the notebook's own code, defects and all."""
    seed: int = 0
    """Draws values, weights, images and the directions in which derivatives are taken."""


def of_targets(options: Options) -> Iterator[Report]:
    """Yields a report for every name that was given."""
    reference = targets.load(options.reference) if options.reference else None
    for target in options.target:
        rng = np.random.default_rng(options.seed)
        thing = targets.load(target)
        made = [targets.values(specs, rng) for specs in (options.init, options.inputs)]
        (places, named), (inputs, more) = (
            (
                [targets.in_dtype(v, options.dtype) for v in p],
                {k: targets.in_dtype(v, options.dtype) for k, v in n.items()},
            )
            for p, n in made
        )
        if isinstance(thing, type):
            try:
                thing = thing(*places, **named)
            except Exception as error:
                raise targets.TargetError(
                    f"{target}: making one raised {type(error).__name__}: {error}; say with --init what it is made with"
                ) from error
        inputs = in_place(target, thing, inputs, more)
        name = target.rpartition(":")[2]
        yield check(
            thing,
            *inputs,
            reference=reference,
            constants=options.constants,
            accuracy=options.accuracy,
            resolution=options.resolution,
            max_seconds=options.max_seconds,
            seed=options.seed,
            name=name,
        )
        if options.plot:
            figure = plots.step_sizes(name, step_errors(inspected(thing, *inputs, seed=options.seed), options.seed))
            plots.save(figure, options.plot)


def in_place(target: str, thing: Any, inputs: list[Any], named: dict[str, Any]) -> list[Any]:
    """Returns the inputs in the order in which forward takes them; named ones go where forward has that name.

    Raises:
        TargetError: If forward has no such name, or one is given twice.
    """
    if not named:
        return inputs
    held = next((getattr(thing, method) for method in ("forward", "loss") if hasattr(thing, method)), thing)
    call = thing[0] if isinstance(thing, tuple) else held
    try:
        bound = inspect.signature(call).bind(*inputs, **named)
    except TypeError as error:
        takes = ", ".join(inspect.signature(call).parameters)
        raise targets.TargetError(f"{target}: inputs: {error}; it takes {takes}") from error
    bound.apply_defaults()
    return [*bound.args, *bound.kwargs.values()]


def reports(options: Options, rng: np.random.Generator) -> Iterator[Report]:
    """Yields the reports of this project's own code that the options ask for."""
    x, t = rng.random((IMAGES, SIZES[0])), rng.integers(0, SIZES[2], IMAGES)
    if options.network in ("all", "book"):
        yield of_network("784-50-10 in the book's order", jaxnet.two_layer_net(*SIZES), x, t, rng, 0.1)
    if options.network in ("all", "notebook-order"):
        yield of_network("784-50-10 in the notebook's order", jaxnet.notebook_net(*SIZES), x, t, rng, 0.1)
    if options.network == "all":
        yield from of_networks(rng)
        yield from of_layers(rng, options.seed)
    if options.network == "notebook":
        written = notebook.TwoLayerNet(*SIZES, seed=options.seed)
        reference = partial(jaxnet.loss, jaxnet.notebook_net(*SIZES))
        yield check_network(
            written, x, np.eye(SIZES[2])[t], reference=reference, seed=options.seed, name="the notebook as written"
        )


def of_network(
    name: str, net: jaxnet.Layer, x: np.ndarray, t: np.ndarray, rng: np.random.Generator, scale: float, decay: float = 0
) -> Report:
    """Checks a network in NumPy and in JAX, from one description, float32 parameters, random draw and decay."""
    if np.issubdtype(x.dtype, np.floating):
        x = x.astype(np.float32)
    params = drawn(net, rng, scale, np.float32)
    network = numpy_ref.Network(numpy_ref.build_layers(net.description, params), decay=decay)
    draws = network.draw(rng, x)
    network.give(draws)

    def reference(params: Any, x: Any, t: Any) -> Any:
        return jaxnet.loss(net, params, x, t, draws, decay=decay)

    return check_network(network, x, t, reference=reference, name=name)


def drawn(layer: jaxnet.Layer, rng: np.random.Generator, scale: float = 1.0, dtype: Any = np.float64) -> Any:
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
        yield of_network(name, net, x, t, rng, 0.5, decay=0.1)


def of_layers(rng: np.random.Generator, seed: int) -> Iterator[Report]:
    """Checks every layer of numpy_ref on its own, with the same layer of jaxnet as a reference; then the losses."""
    rows, images = rng.standard_normal((9, 6)), rng.standard_normal((2, 3, 6, 6))
    sequences, ids = rng.standard_normal((2, 4, 6)), rng.integers(0, 5, (2, 7))  # 14 ids of 5: some come again
    layers: dict[str, tuple[jaxnet.Layer, np.ndarray]] = {
        "Affine": (jaxnet.affine(6, 5), rows),
        "ReLU": (jaxnet.relu(), rows),
        "Sigmoid": (jaxnet.sigmoid(), rows),
        "Tanh": (jaxnet.tanh(), rows),
        "GELU": (jaxnet.gelu(), rows),
        "Flatten": (jaxnet.flatten(), images),
        "Dropout": (jaxnet.dropout(0.4), rows),
        "BatchNorm of vectors": (jaxnet.batch_norm(6), rows),
        "BatchNorm of images": (jaxnet.batch_norm(3), images),
        "LayerNorm": (jaxnet.layer_norm(6), sequences),
        "Convolution": (jaxnet.convolution(3, 4, 3, stride=2, padding=1), images),
        "MaxPool": (jaxnet.max_pool(3, stride=2), images),
        "AveragePool": (jaxnet.average_pool(3, stride=2, padding=1), images),
        "Embedding": (jaxnet.embedding(5, 6), ids),
        "Position": (jaxnet.position(5, 6), sequences),
        "Attention": (jaxnet.attention(6, heads=2), sequences),
        "Residual": (jaxnet.residual({"LayerNorm": jaxnet.layer_norm(6), "Affine": jaxnet.affine(6, 6)}), sequences),
    }
    for name, (layer, x) in layers.items():
        params = {name: drawn(layer, rng)}
        in_numpy = numpy_ref.build_layers(("Sequential", ((name, layer.description),)), params)[name]
        draws = in_numpy.draw(rng, x)
        in_numpy.give(draws)
        yield check_layer(in_numpy, x, reference=in_training(layer, draws), seed=seed, name=name)
    t = rng.integers(0, 6, len(rows))
    yield check_layer(numpy_ref.SoftmaxWithLoss(), rows, t, reference=jaxnet.softmax_cross_entropy, seed=seed)
    yield check_layer(numpy_ref.MeanSquaredError(), rows, t, reference=jaxnet.mean_squared_error, seed=seed)


def in_training(layer: jaxnet.Layer, draws: Any) -> Callable[..., Any]:
    """Returns a reference for `check_layer`: a function of (params, x), or of x where there are no parameters."""

    def forward(*params_and_x: Any) -> Any:
        params = params_and_x[0] if len(params_and_x) > 1 else {}
        return layer.train(unflatten(params), layer.state, params_and_x[-1], draws)[0]

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


def main(options: Options) -> int:
    """Checks and prints; returns the exit status.

    Raises:
        ValueError: If an option is out of range, or does not belong to what is checked.
    """
    check_seed(options.seed)
    check_writable("plot", options.plot)
    for name in ("network",) if options.target else OF_TARGETS:
        if getattr(options, name) != getattr(Options(), name):
            owner = "the project's own networks" if options.target else "FILE.py:NAME"
            raise ValueError(f"{name}: an option of {owner}; leave it out here")
    rng = np.random.default_rng(options.seed)
    done = []
    for report in of_targets(options) if options.target else reports(options, rng):
        done.append(report)
        if not options.json:
            print(report.details() if options.verbose else report, end="\n\n", flush=True)
    if options.json:
        print(json.dumps([report.to_dict() for report in done], indent=1))
    elif options.network == "notebook" and not options.target:
        print("Why:")
        for reason in why_the_notebook_fails(rng):
            print(f"  - {reason}")
    verdicts = {report.verdict for report in done}
    return next((STATUS[verdict] for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE) if verdict in verdicts), 0)


def run() -> None:
    """Runs the command with the arguments of this process, and ends it where they cannot be followed."""
    with one_line(SubjectError):
        sys.exit(main(tyro.cli(Options, description=__doc__)))
