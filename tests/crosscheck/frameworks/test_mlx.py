"""Tests functions of MLX and its `custom_function`: right rules pass, wrong ones fail in the mode that is wrong."""

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="MLX is not installed")

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


def test_messages_say_why_there_is_no_derivative():
    with pytest.raises(SubjectError, match="Not implemented for SVD"):
        check(lambda x: mx.linalg.svd(x)[1], mx.array(X))
    with pytest.raises(SubjectError, match="expected tensors of MLX"):
        check(lambda x: np.array(x), mx.array(X))
