"""Tests functions of MLX and its `custom_function`: right rules pass, wrong ones fail in the mode that is wrong."""

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="MLX is not installed")
import mlx.nn as nn  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

from jaxnet.crosscheck import SubjectError, check, inspected  # noqa: E402

RNG = np.random.default_rng(4)
X, W = RNG.normal(size=(4, 3)), RNG.normal(size=(3, 2))


def product(by_x=1.0, by_w=1.0, pushed=None):
    """Makes x @ w with rules that are wrong by these factors."""

    @mx.custom_function
    def dot(x, w):
        return x @ w

    @dot.vjp
    def pull(primals, g, _):
        x, w = primals
        return by_x * (g @ w.T), by_w * (x.T @ g)

    if pushed is not None:

        @dot.jvp
        def push(primals, tangents):
            (x, w), (dx, dw) = primals, tangents
            moves = [pushed * (dx @ w) if dx is not None else None, x @ dw if dw is not None else None]
            return sum(move for move in moves if move is not None)

    return dot


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_right_rules_pass(dtype):
    report = check(product(), *(mx.array(a, dtype=getattr(mx, dtype)) for a in (X, W)))
    assert report.verdict.value == "PASS", str(report)
    assert report.leaves[0].derived_by == "MLX"
    assert not report.warnings  # of arrays in another memory layout
    subject = inspected(lambda x: x * x, mx.array(X, dtype=getattr(mx, dtype)))
    x = X.astype(dtype)
    np.testing.assert_array_equal(subject.forward({"x": x}), x * x)
    np.testing.assert_array_equal(subject.backward({"x": x}, x)["x"], 2 * x * x)


@pytest.mark.parametrize("factor", [2.0, -1.0, 1.01])
def test_wrong_rule_fails_for_its_leaf_alone(factor):
    dot = product(by_w=factor)
    report = check(lambda p: mx.tanh(dot(p["x"], p["w"])), {"x": mx.array(X), "w": mx.array(W)})
    assert [leaf.verdict.value for leaf in report.leaves] == ["PASS", "FAIL"]


def test_wrong_forward_mode_alone_fails():
    assert check(product(pushed=1.0), X, W).verdict.value == "PASS"
    report = check(product(pushed=3.0), X, W)
    assert [leaf.verdict.value for leaf in report.leaves] == ["PASS", "PASS"]
    assert "forward mode is wrong" in report.text(width=None)


def test_several_outputs_ids_and_half_precision():
    assert check(lambda x, i: (mx.exp(x)[i], mx.sum(x)), X, mx.array([0, 1, 1])).verdict.value == "PASS"
    half = check(lambda x: x * x, mx.array(X).astype(mx.bfloat16))
    assert half.verdict.value == "PASS", str(half)


@pytest.mark.parametrize(("constant", "verdict"), [(False, "PASS"), (True, "FAIL")])
def test_second_derivative(constant, verdict):
    @mx.custom_function
    def sine(x):
        return mx.sin(x)

    @sine.vjp
    def pull(x, g, _):
        return g * (mx.stop_gradient(mx.cos(x)) if constant else mx.cos(x))

    report = check(sine, mx.array(X), order=2)
    assert [leaf.verdict.value for leaf in report.leaves] == ["PASS"]
    assert [leaf.verdict.value for leaf in report.derivatives[0].leaves] == [verdict, "PASS"], str(report)


class Network(nn.Module):
    """Layers, the first of which multiplies by a rule that may be wrong by a factor, and a frozen one."""

    def __init__(self, by_w=1.0):
        super().__init__()
        self.first = nn.Linear(3, 2, bias=False)
        self.layers = [nn.Linear(2, 4), nn.Linear(4, 2)]
        self.last = nn.Linear(2, 2).freeze()
        self.set_dtype(mx.float64)
        self.dot = product(by_w=by_w)

    def __call__(self, x):
        x = mx.tanh(self.dot(x, self.first.weight.T))
        for layer in self.layers:
            x = layer(x)
        return self.last(mx.tanh(x))


PARAMETERS = ["first.weight", "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]


@pytest.fixture(autouse=True)
def _seeded():
    mx.random.seed(0)


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: lambda x: m(x)], ids=["module", "closure"])
def test_parameters_of_modules_are_leaves_and_stay_as_they_were(wrap):
    network = Network()
    before = {name: np.array(value) for name, value in tree_flatten(network.parameters())}
    report = check(wrap(network), mx.array(X, dtype=mx.float64))
    assert report.verdict.value == "PASS", str(report)
    assert [leaf.name for leaf in report.leaves] == ["x", *PARAMETERS]
    after = dict(tree_flatten(network.parameters()))
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_wrong_rule_within_a_module_fails_for_its_parameter_alone():
    report = check(Network(by_w=1.01), mx.array(X, dtype=mx.float64))
    assert [leaf.name for leaf in report.leaves if leaf.verdict.value == "FAIL"] == ["first.weight"], str(report)


def test_gradients_of_parameters_are_those_of_value_and_grad():
    network, x = Network(), mx.array(X, dtype=mx.float64)
    _, gradients = nn.value_and_grad(network, lambda x: network(x).sum())(x)
    subject = inspected(network, x)
    own = subject.backward(subject.leaves, np.ones((4, 2)))
    for name, gradient in tree_flatten(gradients):
        np.testing.assert_allclose(own[name], np.array(gradient), rtol=1e-12, atol=1e-14)


def test_statistics_that_a_module_updates_stay_as_they_were():
    norm = nn.BatchNorm(3)
    norm.set_dtype(mx.float64)
    report = check(norm, mx.array(X, dtype=mx.float64))
    assert report.verdict.value == "PASS", str(report)
    assert [leaf.name for leaf in report.leaves] == ["x", "weight", "bias"]
    assert not np.array(norm.running_mean).any()


def test_second_derivative_of_a_module():
    report = check(Network(), mx.array(X, dtype=mx.float64), order=2)
    assert report.verdict.value == "PASS", str(report)
    assert [leaf.name for leaf in report.derivatives[0].leaves] == ["x", *PARAMETERS, "dout"]


def test_messages_say_why_there_is_no_derivative():
    with pytest.raises(SubjectError, match="Not implemented for SVD"):
        check(lambda x: mx.linalg.svd(x)[1], mx.array(X))
    with pytest.raises(SubjectError, match="expected tensors of MLX"):
        check(lambda x: np.array(x), mx.array(X))
