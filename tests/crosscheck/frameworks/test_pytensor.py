"""Tests PyTensor's Ops and functions of symbolic variables."""

import numpy as np
import pytest

pytensor = pytest.importorskip("pytensor", reason="PyTensor is not installed")
import pytensor.tensor as pt  # noqa: E402
from pytensor.graph.basic import Apply  # noqa: E402
from pytensor.graph.op import Op  # noqa: E402

from jaxnet.crosscheck import SubjectError, check  # noqa: E402

RNG = np.random.default_rng(5)
X, W = RNG.normal(size=(4, 3)), RNG.normal(size=(3, 2))


@pytest.fixture(autouse=True)
def quick_to_compile():
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        yield


class Dot(Op):
    """Computes x @ w with rules that are wrong by these factors."""

    def __init__(self, by_x=1.0, by_w=1.0):
        self.by_x, self.by_w = by_x, by_w

    def make_node(self, x, w):
        x, w = pt.as_tensor_variable(x), pt.as_tensor_variable(w)
        return Apply(self, [x, w], [pt.matrix(dtype=x.dtype)])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = inputs[0] @ inputs[1]

    def grad(self, inputs, above):
        (x, w), (g,) = inputs, above
        return [(self.by_x * (g @ w.T)).astype(x.dtype), (self.by_w * (x.T @ g)).astype(w.dtype)]


class WithForwardMode(Dot):
    def __init__(self, pushed):
        super().__init__()
        self.pushed = pushed

    def R_op(self, inputs, tangents):
        return [self.pushed * (tangents[0] @ inputs[1]) + inputs[0] @ tangents[1]]


class Undefined(Dot):
    grad = Op.grad


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_right_op_passes(dtype):
    report = check(Dot(), X.astype(dtype), W.astype(dtype))
    assert report.verdict.value == "PASS", str(report)
    assert [leaf.name for leaf in report.leaves] == ["x", "w"]
    assert report.leaves[0].derived_by == "PyTensor"


@pytest.mark.parametrize("factor", [2.0, -1.0, 1.001])
def test_wrong_op_fails_for_its_leaf_alone(factor):
    report = check(lambda p: pt.tanh(Dot(by_w=factor)(p["x"], p["w"])), {"x": X, "w": W})
    assert [leaf.verdict.value for leaf in report.leaves] == ["PASS", "FAIL"]


def test_wrong_forward_mode_alone_fails():
    assert check(WithForwardMode(1.0), X, W).verdict.value == "PASS"
    report = check(WithForwardMode(3.0), X, W)
    assert [leaf.verdict.value for leaf in report.leaves] == ["PASS", "PASS"]
    assert "forward mode is wrong" in report.text(width=None)


def test_functions_of_symbolic_variables():
    report = check(lambda x, w, i: [pt.tanh(x @ w)[i], pt.sum(x)], X, W, np.array([0, 1, 1]))
    assert report.verdict.value == "PASS", str(report)
    assert check(lambda x, b: pt.exp(x + b), X, np.ones((1, 3)) * 0.3).verdict.value == "PASS"


class Sine(Op):
    """sin(x), whose gradient is right, and is a constant where it is differentiated again, or not."""

    __props__ = ("constant",)

    def __init__(self, constant):
        self.constant = constant

    def make_node(self, x):
        x = pt.as_tensor_variable(x)
        return Apply(self, [x], [x.type()])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = np.sin(inputs[0])

    def grad(self, inputs, above):
        cosine = pt.cos(inputs[0])
        return [above[0] * (pytensor.gradient.disconnected_grad(cosine) if self.constant else cosine)]


@pytest.mark.parametrize(("constant", "verdict"), [(False, "PASS"), (True, "FAIL")])
def test_second_derivative(constant, verdict):
    report = check(Sine(constant), X, order=2)
    assert [leaf.verdict.value for leaf in report.leaves] == ["PASS"]
    assert [leaf.verdict.value for leaf in report.derivatives[0].leaves] == [verdict, "PASS"], str(report)


def test_messages_say_why_there_is_no_derivative():
    with pytest.raises(SubjectError, match=r"not implemented for Undefined.*write a rule"):
        check(Undefined(), X, W)
    x = pt.dmatrix("x")
    with pytest.raises(SubjectError, match="compiled function of PyTensor"):
        check(pytensor.function([x], pt.sin(x)), X)
