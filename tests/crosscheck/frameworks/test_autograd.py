"""Tests functions and primitives of HIPS autograd: right rules pass, wrong ones fail in the mode that is wrong."""

import functools

import numpy as np
import pytest

autograd = pytest.importorskip("autograd", reason="autograd is not installed")
import autograd.numpy as anp  # noqa: E402
from autograd.extend import defjvp, defvjp, primitive  # noqa: E402
from autograd.tracer import getval  # noqa: E402

from jaxnet.crosscheck import SubjectError, check, check_function, inspected  # noqa: E402

RNG = np.random.default_rng(3)
X, W, B = RNG.normal(size=(4, 3)), RNG.normal(size=(3, 2)), RNG.normal(size=2)


def product(by_x, by_w, pushed=None):
    """Makes x @ w with these rules."""

    @primitive
    def dot(x, w):
        return np.dot(x, w)

    defvjp(dot, lambda ans, x, w: lambda g: by_x(g, x, w), lambda ans, x, w: lambda g: by_w(g, x, w))
    if pushed:
        defjvp(dot, lambda g, ans, x, w: pushed * np.dot(g, w), lambda g, ans, x, w: np.dot(x, g))
    return dot


def by_x(g, x, w):
    return np.dot(g, w.T)


def by_w(g, x, w):
    return np.dot(x.T, g)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_right_rules_pass(dtype):
    report = check(product(by_x, by_w, 1.0), X.astype(dtype), W.astype(dtype))
    assert report.verdict.value == "PASS", str(report)
    assert [leaf.name for leaf in report.leaves] == ["x", "w"]
    assert report.leaves[0].derived_by == "autograd"


@pytest.mark.parametrize(
    ("leaf", "x_rule", "w_rule"),
    [
        ("x", lambda g, x, w: 2 * by_x(g, x, w), by_w),
        ("x", lambda g, x, w: -by_x(g, x, w), by_w),
        ("w", by_x, lambda g, x, w: by_w(g, x, w) - 0.01 * x.T @ g),
        ("w", by_x, lambda g, x, w: np.dot(g.T, x).reshape(w.shape)),
        ("w", by_x, lambda g, x, w: np.outer(x[0], g[0])),
    ],
)
def test_wrong_rule_fails_for_its_leaf_alone(leaf, x_rule, w_rule):
    report = check(product(x_rule, w_rule), X, W)
    assert {each.name for each in report.leaves if each.verdict.value == "FAIL"} == {leaf}
    assert report.verdict.value == "FAIL"


def test_wrong_forward_mode_alone_fails():
    report = check(product(by_x, by_w, 3.0), X, W)
    assert report.verdict.value == "FAIL"
    assert [leaf.verdict.value for leaf in report.leaves] == ["PASS", "PASS"]
    assert "forward mode is wrong" in report.text(width=None)


def test_structures_numbers_keywords_and_several_outputs():
    def network(params, x, scale, *, power=1):
        hidden = anp.tanh(anp.dot(x, params["W"]) + params["b"])
        return {"y": hidden**power, "loss": scale * anp.sum(hidden)}

    report = check(functools.partial(network, power=3), {"W": W, "b": B}, X, 0.7)
    assert report.verdict.value == "PASS", str(report)
    assert [leaf.name for leaf in report.leaves] == ["params.W", "params.b", "x", "scale"]


def test_function_that_calls_a_wrong_primitive_by_name_is_taken_by_autograd():
    wrong = product(by_x, lambda g, x, w: 2 * by_w(g, x, w))
    report = check_function(lambda x, w: wrong(x, w) ** 2, X, W)
    assert [leaf.verdict.value for leaf in report.leaves] == ["PASS", "FAIL"]


def test_messages_say_why_there_is_no_derivative():
    @primitive
    def square(x):
        return x**2

    with pytest.raises(SubjectError, match=r"VJP of square.*write a rule"):
        check(square, X)
    with pytest.raises(SubjectError, match="ArrayBox"):
        check(lambda x: anp.array([float(x[0, 0])]), X)
    with pytest.raises(SubjectError, match=r"mode: .*autograd"):
        check_function(anp.sin, X, mode="forward")


def test_exception_of_a_rule_is_a_fault():
    report = check(product(by_x, lambda g, x, w: 1 / 0), X, W)
    assert report.verdict.value == "FAIL"
    assert "ZeroDivisionError" in report.text(width=None)


def test_gradient_is_that_of_autograd():
    subject = inspected(lambda x, w: anp.exp(anp.dot(x, w)), X, W)
    dout = RNG.normal(size=(4, 2))
    gradients = subject.backward(subject.leaves, dout)
    np.testing.assert_allclose(gradients["w"], X.T @ (dout * np.exp(X @ W)), rtol=1e-12)


def test_written_gradient_is_checked_as_before():
    assert check_function(anp.sin, X, gradient=lambda x, dout: dout * anp.cos(x)).verdict.value == "PASS"
    assert check_function(anp.sin, X, gradient=lambda x, dout: dout * anp.sin(x)).verdict.value == "FAIL"


def test_arrays_that_the_code_captures_are_named():
    scale = np.array([1.0, 2.0, 3.0])
    report = check(lambda x: anp.sin(x) * scale, X)
    assert report.verdict.value == "PASS"
    assert "scale affects the output and has no gradient" in report.text(width=None)
    assert scale[0] == 1.0


def sine(rule):
    """Makes sin(x) with this gradient, which is right or wrong as a function of x too."""

    @primitive
    def sin(x):
        return np.sin(x)

    defvjp(sin, rule)
    return sin


@pytest.mark.slow
def test_right_second_derivative_passes():
    report = check(sine(lambda ans, x: lambda g: g * anp.cos(x)), X, order=2)
    assert report.verdict.value == "PASS", str(report)
    assert [leaf.name for leaf in report.derivatives[0].leaves] == ["x", "dout"]
    several = check(lambda p, x: (anp.tanh(anp.dot(x, p["W"])), anp.sum(x**3)), {"W": W}, X, order=2)
    assert several.verdict.value == "PASS", str(several)
    assert [leaf.name for leaf in several.derivatives[0].leaves] == ["p.W", "x", "dout[0]", "dout[1]"]


@pytest.mark.parametrize(
    "rule",
    [
        lambda ans, x: lambda g: g * np.cos(getval(x)),  # a constant where it is differentiated again
        lambda ans, x: lambda g: g * (anp.cos(x) + 0.5 * (getval(ans) - anp.sin(x))),
    ],
    ids=["constant", "half"],
)
def test_second_derivative_that_is_wrong_where_the_gradient_is_right_fails(rule):
    report = check(sine(rule), X, order=2)
    assert [leaf.verdict.value for leaf in report.leaves] == ["PASS"]
    verdicts = [(leaf.name, leaf.verdict.value) for leaf in report.derivatives[0].leaves]
    assert verdicts == [("x", "FAIL"), ("dout", "PASS")], str(report)


@pytest.mark.slow
def test_third_derivative_is_checked_too():
    @primitive
    def cosine(x):
        return np.cos(x)

    defvjp(cosine, lambda ans, x: lambda g: -g * anp.sin(getval(x)))
    report = check(sine(lambda ans, x: lambda g: g * cosine(x)), X, order=3)
    second = report.derivatives[0]
    assert [leaf.verdict.value for leaf in second.leaves] == ["PASS", "PASS"]
    assert second.derivatives[0].verdict.value == "FAIL"
    assert check(sine(lambda ans, x: lambda g: g * anp.cos(x)), X, order=3).verdict.value == "PASS"


def test_second_derivative_that_cannot_be_had_is_refused():
    @primitive
    def cosine(x):
        return np.cos(x)

    subject = sine(lambda ans, x: lambda g: g * cosine(x))
    assert check(subject, X).verdict.value == "PASS"
    with pytest.raises(SubjectError, match=r"order: autograd cannot differentiate .*VJP of cosine.*write its rules in"):
        check(subject, X, order=2)


@pytest.mark.slow
def test_reference_gets_the_arguments():
    import jax.numpy as jnp

    report = check(lambda x, w: anp.tanh(anp.dot(x, w)), X, W, reference=lambda x, w: jnp.tanh(x @ w))
    assert report.verdict.value == "PASS"
    assert "autograd - autodiff" in str(report.leaves[0].gaps)


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (1.01, "FAIL")])
def test_a_primitive_of_several_outputs_is_checked_by_all_of_them(factor, verdict):
    @primitive
    def polar(x, y):
        return np.hypot(x, y), np.arctan2(y, x)

    def by_x(ans, x, y):
        return lambda g: g[0] * x / ans[0] - factor * g[1] * y / ans[0] ** 2

    defvjp(polar, by_x, lambda ans, x, y: lambda g: g[0] * y / ans[0] + g[1] * x / ans[0] ** 2)
    report = check(polar, X + 3, X[::-1] + 3)
    assert {leaf.name: leaf.verdict.value for leaf in report.leaves} == {"x": verdict, "y": "PASS"}
