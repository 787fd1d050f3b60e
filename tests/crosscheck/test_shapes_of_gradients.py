"""Tests what a report says of a gradient of a wrong shape: the axis whose sum makes it right, if one does."""

import re

import numpy as np
import pytest

from jaxnet.crosscheck import Cause, check, check_layer


def draw(*shape):
    return np.random.default_rng(shape).standard_normal(shape)


def layer(forward, backward):
    """Returns a pair y = forward(x, b), whose backward returns dx = dout and backward(dout, b) for b."""
    return (lambda x, b: (forward(x, b), b)), (lambda dout, b: (dout, backward(dout, b)))


def add(x, b):
    return x + b


def add_columns(x, b):
    return x + b.sum(axis=-1)  # b (N, M, K) for x (N, M)


SUM_0 = "expected (3,): sum it over axis 0, which makes it right"
CASES = {
    "not summed": ((4, 3), (3,), add, lambda g, b: g, f"(4, 3), {SUM_0}"),
    "not summed, square": ((3, 3), (3,), add, lambda g, b: g, f"(3, 3), {SUM_0}"),
    "not summed over two axes": (
        (5, 2, 3),
        (3,),
        add,
        lambda g, b: g,
        "(5, 2, 3), expected (3,): sum it over axes 0 and 1, which",
    ),
    "summed over one of two axes": ((5, 2, 3), (3,), add, lambda g, b: g.sum(axis=0), f"(2, 3), {SUM_0}"),
    "not summed, kept": (
        (4, 3),
        (1, 3),
        add,
        lambda g, b: g,
        "(4, 3), expected (1, 3): sum it over axis 0 with keepdims=True, which",
    ),
    "not summed, a column": (
        (4, 3),
        (4, 1),
        add,
        lambda g, b: g,
        "(4, 3), expected (4, 1): sum it over axis 1 with keepdims=True, which",
    ),
    "kept": (
        (4, 3),
        (3,),
        add,
        lambda g, b: g.sum(axis=0, keepdims=True),
        "(1, 3), expected (3,): remove axis 0, which makes it right",
    ),
    "not kept": ((4, 3), (1, 3), add, lambda g, b: g.sum(axis=0), "(3,), expected (1, 3): add axis 0, which"),
    "of a number": ((4, 3), (), add, lambda g, b: g, "(4, 3), expected (): sum it over axes 0 and 1, which"),
    "transposed": (
        (4, 3),
        (3, 4),
        lambda x, b: x * b.T,
        lambda g, b: draw(4, 3) * g,
        "(4, 3), expected (3, 4): transpose it, which",
    ),
    "one sum too many": (
        (4, 3),
        (4, 3),
        add,
        lambda g, b: g.sum(axis=1),
        "(4,), expected (4, 3): it is the right gradient summed over axis 1 (",
    ),
    "one sum too many, square": (
        (3, 3),
        (3, 3),
        add,
        lambda g, b: g.sum(axis=1),
        "(3,), expected (3, 3): it is the right gradient summed over axis 1 (",
    ),
    "one sum too many, kept": (
        (4, 3),
        (4, 3),
        add,
        lambda g, b: g.sum(axis=0, keepdims=True),
        "(1, 3), expected (4, 3): it is the right gradient summed over axis 0 (",
    ),
    "one sum too many of three axes": (
        (4, 3),
        (4, 3, 2),
        add_columns,
        lambda g, b: np.repeat(g[..., None], 2, axis=2).sum(axis=1),
        "(4, 2), expected (4, 3, 2): it is the right gradient summed over axis 1 (",
    ),
}


def report_of(name, wrong=1.0):
    x_shape, b_shape, forward, backward, words = CASES[name]
    x = draw(4, 3) if name == "transposed" else draw(*x_shape)
    passes = (
        (lambda x, b: (forward(x, b), (x, b))),
        (lambda dout, cache: (dout * cache[1].T if name == "transposed" else dout, wrong * backward(dout, cache[1]))),
    )
    return check_layer(passes, x, draw(*b_shape)), words


@pytest.mark.parametrize("name", CASES)
def test_the_report_names_the_axis_whose_sum_makes_a_gradient_right(name):
    report, words = report_of(name)
    leaf = report.leaves[1]
    assert (leaf.name, leaf.verdict, leaf.cause) == ("b", "FAIL", Cause.WRONG_FORM)
    assert leaf.detail.startswith(f"the gradient for b has shape {words}"), leaf.detail
    assert float(re.search(r"relative error ([0-9.e+-]+)\)", leaf.detail)[1]) < 1e-8
    assert report.leaves[0].verdict == "PASS"


@pytest.mark.parametrize("name", CASES)
def test_no_axis_is_named_if_its_sum_is_wrong_too(name):
    report, words = report_of(name, wrong=1.1)
    leaf = report.leaves[1]
    assert (leaf.verdict, leaf.cause) == ("FAIL", Cause.WRONG_FORM)
    shapes = re.match(r"\(.*\), expected \([0-9, ]*\)", words)[0]
    assert leaf.detail.removesuffix(": it only broadcasts to the leaf") == f"the gradient for b has shape {shapes}"


def test_a_parameter_of_a_layer_and_a_layer_without_other_leaves_are_told_the_axis():
    class Bias:
        def __init__(self):
            self.b = draw(3)

        def forward(self, n):
            return np.tile(self.b, (n, 1))

        def backward(self, dout):
            self.db = dout

    report = check(Bias(), 5)
    assert report.verdict == "FAIL"
    assert [leaf.name for leaf in report.leaves] == ["b"]
    assert f"the gradient for b has shape (5, 3), {SUM_0} (relative error" in report.text(width=None)


def test_a_mean_of_the_right_gradient_is_not_called_its_sum():
    passes = layer(add, lambda dout, b: dout.mean(axis=1))
    leaf = check_layer(passes, draw(4, 3), draw(4, 3)).leaves[1]
    assert leaf.detail == "the gradient for b has shape (4,), expected (4, 3)"


class Broadcasts:
    """A layer with a bias (1, 3) and a scale that is a number, whose gradients have other shapes."""

    def __init__(self, factor=1.0, *, drops_axis_of_x=False):
        self.factor, self.drops_axis_of_x = factor, drops_axis_of_x
        self.b, self.scale = draw(1, 3), np.array(1.5)

    def forward(self, x):
        self.x = x
        return self.scale * x + self.b

    def backward(self, dout):
        self.db, self.dscale = self.factor * dout.sum(axis=0), np.array([np.sum(dout * self.x)])
        dx = self.scale * dout
        return dx[0] if self.drops_axis_of_x else dx


def test_a_gradient_of_a_parameter_that_an_update_broadcasts_is_right():
    report = check_layer(Broadcasts(), draw(4, 3))
    assert report.verdict == "PASS"
    assert "the gradient for b has shape (3,), expected (1, 3): an update broadcasts it" in report.warnings
    assert "the gradient for scale has shape (1,), expected (): an update broadcasts it" in report.warnings
    wrong = check_layer(Broadcasts(1.01), draw(4, 3))
    assert [leaf.name for leaf in wrong.leaves if leaf.verdict == "FAIL"] == ["b"]


def test_a_gradient_of_an_input_must_have_its_shape():
    report = check_layer(Broadcasts(drops_axis_of_x=True), draw(1, 3))
    assert [leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"] == ["x"]
