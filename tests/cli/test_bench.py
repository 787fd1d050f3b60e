"""Tests of the benchmark as a user runs it: results, skipped and differing contenders, refused options."""

import json
import runpy
import sys
from itertools import product
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import exhaustive

import jaxnet
import numpy_ref

SCRIPTS = Path(__file__).parents[2] / "scripts"
SMALL = ["12-8-4@16", "--dataset", "random", "--rounds", "1", "--seconds", "0.002"]


@pytest.fixture
def contenders(monkeypatch):
    """Returns the contenders of the script, to which a test may add. For speed, only NumPy computes the bound."""
    from jaxnet.cli import bench
    from jaxnet.cli.bench import bound as bench_bound
    from jaxnet.cli.bench import predict as bench_predict

    def multipliers(products, _threads, *, backward=True):
        return {"numpy": bench_bound.multiply_numpy(bench_bound.multiplications(products, backward), 1)}

    monkeypatch.setattr(bench, "multipliers", multipliers)
    monkeypatch.setattr(bench_predict, "multipliers", multipliers)
    monkeypatch.setattr(bench, "CONTENDERS", dict(bench.CONTENDERS))
    return bench.CONTENDERS


@pytest.fixture
def run(contenders, monkeypatch, capsys):
    """Runs `python scripts/bench.py ARGUMENTS` in this process; returns exit status, stdout and stderr."""

    def bench(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench.py", *arguments])
        try:
            runpy.run_path(str(SCRIPTS / "bench.py"), run_name="__main__")
            status = 0
        except SystemExit as stopped:
            status = stopped.code or 0
        return status, *capsys.readouterr()

    return bench


@pytest.mark.slow
def test_bench_measures_every_contender_and_the_bound(run, tmp_path):
    file = tmp_path / "bench.json"
    status, out, err = run(*SMALL, "--only", "plain-scan", "numpy_ref", "--output", str(file))
    assert status == 0
    assert not err or err.startswith("bench.py: the machine is busy")
    written = json.loads(file.read_text())
    assert list(tmp_path.iterdir()) == [file]
    assert written["threads"] >= 1
    assert {"jax", "numpy", "optax"} <= set(written["versions"])
    assert written["options"]["rounds"] == 1
    (network,) = written["networks"].values()
    assert network["bound"]["by"] == "numpy"
    assert network["bound"]["times"] == network["products"]["numpy"]["times"]
    assert set(network["contenders"]) == {"plain-scan", "numpy_ref"}
    assert network["skipped"] == {}
    for name, row in network["contenders"].items():
        assert name in out
        assert network["difference"][name] < 1e-5
        assert row["min"] == row["median"] == row["times"][0]
        assert row["min_ratio"] == pytest.approx(row["min"] / network["bound"]["min"])


@pytest.mark.slow
def test_a_contender_with_other_final_weights_is_reported_and_not_timed(run, contenders, tmp_path):
    def too_fast(problem):
        train = contenders["numpy_ref"](problem)
        return lambda batches: train(batches[: len(batches) - 1])  # one step less

    contenders["planted"] = too_fast
    file = tmp_path / "bench.json"
    status, out, _ = run(*SMALL, "--only", "numpy_ref", "planted", "--output", str(file))
    (network,) = json.loads(file.read_text())["networks"].values()
    assert status == 0
    assert "differs: planted computes something else" in out
    assert set(network["contenders"]) == {"numpy_ref"}
    assert 0.05 < network["difference"]["planted"] < 0.2  # one of ten steps is missing


@pytest.mark.parametrize(
    "wrong",
    [np.full((12, 8), np.nan), *(pytest.param(np.zeros(s), marks=pytest.mark.slow) for s in [(12, 8), (8, 12)])],
)
def test_weights_that_are_nan_or_have_another_shape_differ(run, contenders, wrong):
    contenders["planted"] = lambda problem: lambda batches: wrong
    assert "differs: planted" in run(*SMALL, "--only", "planted")[1]


@pytest.mark.slow
def test_a_missing_library_is_reported_and_skipped(run, contenders, monkeypatch):
    monkeypatch.delitem(sys.modules, "jaxnet.cli.bench.with_equinox", raising=False)  # as before its first import
    monkeypatch.setitem(sys.modules, "equinox", None)
    monkeypatch.setitem(sys.modules, "sklearn.neural_network", None)
    status, out, _ = run(*SMALL, "--only", "equinox", "scikit-learn", "numpy_ref")
    assert status == 0
    assert "skipped: equinox: import of equinox halted; None in sys.modules" in out.splitlines()
    assert "skipped: scikit-learn: import of sklearn.neural_network halted; None in sys.modules" in out.splitlines()
    assert "│ numpy_ref" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["784-50"], "networks: '784-50', expected sizes and a batch size such as 784-50-10@100, or one of two-layer,"),
        (["784@10"], "networks: '784@10', expected sizes and a batch size"),
        (["784-0-10@10"], "networks: '784-0-10@10', expected sizes and a batch size"),
        (["deep", "simpel-conv@9"], "networks: 'simpel-conv@9', expected sizes and a batch size"),
        (["transformer@0"], "networks: 'transformer@0', expected sizes and a batch size"),
        (["transformer@"], "networks: 'transformer@', expected sizes and a batch size"),
        (["--predict", "--only", "equinox"], "only: 'equinox', expected some of jaxnet.predict, torch, torch-compile,"),
        (["--only", "nobody"], "only: 'nobody', expected some of jaxnet.fit, plain-scan, numpy_ref, torch,"),
        (["--rounds", "0"], "rounds: 0, expected a whole number of at least 1"),
        (["--seconds", "nan"], "seconds: nan, expected a finite number > 0"),
        (["--output", "/nowhere/bench.json"], "output: /nowhere/bench.json, expected a file in an existing folder"),
    ],
)
def test_an_invalid_option_prints_one_line_and_exits_with_2(run, arguments, message):
    status, out, err = run(*arguments)
    assert status == 2
    assert out == ""
    assert err.startswith(f"bench.py: {message}")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_a_round_measures_every_contender_once(run, contenders):
    calls = []

    def recorded(name):
        def make(problem):
            train = contenders["numpy_ref"](problem)
            return lambda batches: calls.append((name, len(batches))) or train(batches)

        return make

    contenders |= {"a": recorded("a"), "b": recorded("b")}
    run(*SMALL, "--only", "a", "b", "--rounds", "3")
    names = [name for name, _ in calls[-12:]]
    assert names == ["a", "a", "b", "b"] * 3  # a short and a long run each
    assert {length for _, length in calls[-12::2]} == {1}


def test_the_bound_multiplies_the_matrices_of_a_training_step():
    from jaxnet.cli.bench import bound as bench_bound
    from jaxnet.cli.bench import products as bench_products

    products = bench_products.network_products(jaxnet.two_layer_net(12, 8, 4), np.zeros((16, 12), np.float32))
    for order in "CF":
        steps = bench_bound.multiplications(products, True, order)
        forward, of_last = [((16, 12), (12, 8)), ((16, 8), (8, 4))], [((8, 16), (16, 4)), ((16, 4), (4, 8))]
        assert [(step.a.shape, step.b.shape) for step in steps] == [*forward, *of_last, ((12, 16), (16, 8))]
        assert {step.times for step in steps} == {1}


def test_a_suggestion_for_a_misspelled_network(run):
    assert run("simpel-conv")[2].endswith("; did you mean simple-conv?\n")


def small_problem(name, *, keep=False):
    """Returns a small version of a network of the README, with samples to train on, without its Dropout."""
    from jaxnet.cli.bench import problem as bench_problem

    images = 2, 8, 8
    net, shape, classes = {
        "affine": (jaxnet.multi_layer_net(12, [9, 8], 5), (12,), 5),
        "deep": (jaxnet.multi_layer_net(12, [9, 8], 5, batch_norm=True, dropout=0.2), (12,), 5),
        "simple-conv": (jaxnet.simple_conv_net(images, 3, 3, 8, 5), images, 5),
        "deep-conv": (jaxnet.deep_conv_net(images, (3, 4), 8, 5, dropout=0.2), images, 5),
        "transformer": (jaxnet.transformer(7, 6, size=8, heads=2, blocks=2, dropout=0.1), (6,), 7),
    }[name]
    params = jax.device_get(net.init(jax.random.key(0), "he"))
    data = bench_problem.random_samples(shape, classes, 20, text=name == "transformer")
    problem = bench_problem.Problem(name, 16, net, params, net.state, data, 1)
    return problem if keep else bench_problem.without_dropout(problem)


NETWORKS = "affine", "deep", "simple-conv", "deep-conv", "transformer"
LIBRARIES = "torch", "torch-fused", "torch-channels-last", "equinox", "flax-nnx", "keras", "scikit-learn"
OF_KERAS = "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
WITH_COMPILER = [pytest.mark.exhaustive, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # minutes of C++
COMPILED = [pytest.param(name, "torch-compile", marks=WITH_COMPILER) for name in NETWORKS]


ALL = list(product(NETWORKS, ("plain-scan", "numpy_ref", *LIBRARIES)))
EACH_LIBRARY_ONCE = [pytest.param(*pair, marks=[pytest.mark.exhaustive] * (i % 4 > 0)) for i, pair in enumerate(ALL)]


@pytest.mark.slow
@pytest.mark.filterwarnings(OF_KERAS)
@pytest.mark.parametrize(("name", "library"), [*EACH_LIBRARY_ONCE, *COMPILED])
def test_a_contender_makes_the_weights_of_fit(name, library):
    from jaxnet.cli.bench import contenders as bench_contenders
    from jaxnet.cli.bench import problem as bench_problem

    problem = small_problem(name)
    batches = bench_problem.draw_rows(problem, 10)
    try:
        weights = bench_contenders.CONTENDERS[library](problem)(batches)
    except (ModuleNotFoundError, bench_problem.Skip) as error:
        pytest.skip(str(error))
    reference = bench_contenders.CONTENDERS["jaxnet.fit"](problem)(batches)
    assert bench_problem.relative_difference(weights, reference, problem.first_weights) < 1e-4


@pytest.mark.slow
@pytest.mark.filterwarnings(OF_KERAS)
@pytest.mark.parametrize("library", ["jaxnet.fit", "plain-scan", "numpy_ref", "torch", "equinox", "flax-nnx", "keras"])
@pytest.mark.parametrize("name", ["deep", exhaustive("transformer")])
def test_a_contender_is_timed_with_dropout(name, library):
    from jaxnet.cli.bench import contenders as bench_contenders
    from jaxnet.cli.bench import problem as bench_problem

    problem, batches = small_problem(name, keep=True), np.arange(16)[None]
    try:
        weights = bench_contenders.CONTENDERS[library](problem)(batches)
        without = bench_contenders.CONTENDERS[library](small_problem(name))(batches)
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    assert bench_problem.relative_difference(weights, without, problem.first_weights) > 1e-2  # other gradients


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "library", ["torch", "torch-channels-last", pytest.param("torch-compile", marks=WITH_COMPILER)]
)
def test_a_predictor_returns_the_logits_of_predict(name, library):
    pytest.importorskip("torch")
    from jaxnet.cli.bench import contenders as bench_contenders
    from jaxnet.cli.bench import problem as bench_problem

    problem = small_problem(name, keep=True)  # which inference leaves out
    try:
        logits = bench_contenders.PREDICTORS[library](problem)(problem.data.x_train, 8)  # the last batch has 4
    except bench_problem.Skip as error:
        pytest.skip(str(error))
    expected = jaxnet.predict(problem.net, problem.params, problem.state, problem.data.x_train)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_predictions_are_measured_beside_the_bound_of_their_products(run, monkeypatch, tmp_path):
    from jaxnet.cli.bench import predict as bench_predict

    calls = []

    def by_hand(problem):
        network = numpy_ref.Network(numpy_ref.build_layers(problem.net.description, problem.params))
        return lambda x, size: calls.append((len(x), size)) or network.predict(x)

    predictors = {"jaxnet.predict": bench_predict.PREDICTORS["jaxnet.predict"], "by-hand": by_hand}
    predictors["planted"] = lambda problem: lambda x, size: by_hand(problem)(x, size) + 1
    monkeypatch.setattr(bench_predict, "PREDICTORS", predictors)
    file = tmp_path / "bench.json"
    status, out, _ = run(*SMALL, "--predict", "--output", str(file))
    (network,) = json.loads(file.read_text())["networks"].values()
    assert status == 0
    assert "12-8-4@16: microseconds for predicting 10,000 images" in out
    assert "differs: planted computes something else: its logits are" in out
    assert "GFLOP/s" in out
    assert {(10_000, 100), (10_000, 1000)} < set(calls)
    assert [name.partition(",")[0] for name in network["contenders"]] == ["jaxnet.predict", "by-hand"]
    assert network["bound"]["gigaflops"] == pytest.approx(2e-9 * 10_000 * (12 * 8 + 8 * 4))
    assert set(network["products"]) == {"numpy, batches of 100", "numpy, batches of 1000"}


@pytest.mark.slow
def test_the_products_of_a_network_are_as_many_as_by_hand():
    from jaxnet.cli.bench import products as bench_products

    N, T, D, V = 32, 64, 64, 65
    block = 4 * D * D + 2 * T * D + 2 * D * 4 * D  # per symbol: q, k, v and output; scores and values; the MLP
    convolutions = [784 * 9 * 16, 784 * 144 * 16, 196 * 144 * 32, 256 * 288 * 32, 64 * 288 * 64, 64 * 576 * 64]
    cases = [
        (jaxnet.two_layer_net(784, 50, 10), (100, 784), 100 * (2 * 784 * 50 + 3 * 50 * 10), 100 * 39_700),
        (
            jaxnet.simple_conv_net(), (100, 1, 28, 28),
            100 * (2 * 24 * 24 * 25 * 30 + 3 * (12 * 12 * 30 * 100 + 100 * 10)),
            100 * (24 * 24 * 25 * 30 + 12 * 12 * 30 * 100 + 100 * 10),
        ),
        (
            jaxnet.deep_conv_net(), (20, 1, 28, 28),
            20 * (3 * (sum(convolutions) + 4 * 4 * 64 * 50 + 50 * 10) - convolutions[0]),
            20 * (sum(convolutions) + 4 * 4 * 64 * 50 + 50 * 10),
        ),
        (jaxnet.transformer(V, T, D), (N, T), 3 * N * T * (2 * block + D * V), N * T * (2 * block + D * V)),
    ]  # fmt: skip
    for net, shape, step, forward in cases:
        x = np.zeros(shape, np.int32 if len(shape) == 2 and shape[1] == T else np.float32)
        products = bench_products.network_products(net, x)
        assert sum(product.multiplications(backward=True) for product in products) == step
        assert sum(product.multiplications(backward=False) for product in products) == forward
        assert bench_products.gigaflops(products, backward=True) == pytest.approx(2e-9 * step)


def test_the_products_of_attention_are_by_head():
    from jaxnet.cli.bench import products as bench_products

    products = bench_products.network_products(
        jaxnet.transformer(7, 6, size=8, heads=2, blocks=1), np.zeros((3, 6), int)
    )
    assert [product[:4] for product in products[:4]] == [(1, 18, 8, 24), (6, 6, 4, 6), (6, 6, 6, 4), (1, 18, 8, 8)]


def test_a_convolution_is_multiplied_by_blocks_that_fit_a_cache():
    from jaxnet.cli.bench import bound as bench_bound
    from jaxnet.cli.bench import products as bench_products

    net = jaxnet.nn.sequential({"Convolution1": jaxnet.nn.convolution(32, 64, 3, padding=1)})
    products = bench_products.network_products(net, np.zeros((100, 32, 8, 8), np.float32))
    forward, by_weights = bench_bound.multiplications(products, True)
    assert forward.times * len(forward.a) == by_weights.times * len(by_weights.b) == 100 * 8 * 8
    assert forward.a.nbytes + forward.b.nbytes + 4 * len(forward.a) * 64 <= 2**20
    assert forward.times < 20  # blocks are no smaller than the cache asks for


@pytest.mark.slow
def test_every_way_to_compute_the_bound_has_the_shapes_of_the_network():
    from jaxnet.cli.bench import bound as bench_bound

    problem = small_problem("deep-conv")
    products = problem.products(4)
    steps = bench_bound.multiplications(products, True)
    for step in steps:
        if step.convolution and step.result != "dW":
            (n, channels, height, _), filters, size, _, padding = step.convolution
            side = height + 2 * padding - size + 1
            expected = (n, height, height, channels) if step.result == "dx" else (n, side, side, filters)
            arrays, (left, right, function, _) = bench_bound._xla_convolution(step)
            assert function(arrays[left], arrays[right]).shape == expected
    ways = bench_bound.multipliers(products, 1)
    assert {"numpy, 1 thread", "xla", "xla, transposed", "xla, convolutions"} <= set(ways)
    for run in ways.values():
        run(2)
    for run in bench_bound.multipliers(small_problem("transformer").products(4), 1, backward=False).values():
        run(2)


BOOK = '''"""The layers of the book by their names and arguments, around those of `numpy_ref`."""

import numpy_ref
from numpy_ref import Convolution, ReLU as Relu


class Affine(numpy_ref.Affine):
    def forward(self, x):
        self.shape = x.shape
        return super().forward(x.reshape(len(x), -1))

    def backward(self, dout):
        return super().backward(dout).reshape(self.shape) * SCALE


class Pooling(numpy_ref.MaxPool):
    def __init__(self, height, width, stride, padding):
        super().__init__(height, stride, padding)


class SoftmaxWithLoss(numpy_ref.SoftmaxWithLoss):
    pass
'''


@pytest.fixture
def book(tmp_path):
    """Returns a function that writes a folder like the book's, whose Affine multiplies dx by a number."""

    def write(scale):
        (tmp_path / "common").mkdir()
        (tmp_path / "common/layers.py").write_text(BOOK.replace("SCALE", str(scale)))
        return tmp_path

    yield write
    for name in ("common", "common.layers"):
        sys.modules.pop(name, None)


def compare_small_convolutions_by_hand(folder):
    from rich.console import Console

    from jaxnet.cli.bench import hand as bench_hand

    problem = small_problem("simple-conv")
    return bench_hand.compare_by_hand(problem, {"book": folder}, 2, 0.002, Console(quiet=True))


def test_layers_of_the_book_make_the_weights_of_numpy_ref(book):
    results = compare_small_convolutions_by_hand(book(1.0))
    assert results["skipped"] == {}
    assert results["difference"]["book"] < 1e-12
    assert set(results["contenders"]) == {"numpy_ref, float64", "numpy_ref, float32", "book"}
    assert results["contenders"]["numpy_ref, float64"]["ratios"] == [1.0, 1.0]


@pytest.mark.slow
def test_layers_of_the_book_with_other_gradients_are_not_timed(book):
    results = compare_small_convolutions_by_hand(book(1.001))
    assert "book" not in results["contenders"]
    assert results["skipped"]["book"].startswith("its weights are ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--book", "."], "book: given without --hand"),
        (["--hand", "--book", "/nowhere"], "book: /nowhere, expected a folder with common/layers.py"),
        (["--hand", "--numpy-ml", "/nowhere"], "numpy-ml: /nowhere, expected a folder with numpy_ml/neural_nets/"),
        (["--hand", "--predict"], "hand: given beside --predict, expected one of them"),
        (["--hand", "--only", "numpy_ref"], "only: given beside --hand"),
    ],
)
def test_an_option_that_does_not_fit_hand_written_networks_is_refused(run, arguments, message):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"bench.py: {message}")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_the_results_of_hand_written_networks_are_written_with_their_folder(run, book, tmp_path):
    file, folder = tmp_path / "bench.json", book(1.0)
    status, out, _ = run(*SMALL, "--hand", "--book", str(folder), "--output", str(file))
    written = json.loads(file.read_text())
    assert status == 0
    assert "12-8-4@16, written by hand: microseconds per step" in out
    assert written["options"]["book"] == str(folder)
    assert "book" in written["by_hand"]["12-8-4@16"]["contenders"]
