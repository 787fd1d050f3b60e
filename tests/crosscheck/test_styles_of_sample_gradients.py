"""Tests backward passes that return or store a gradient for each sample, which an optimizer is to add up."""

import numpy as np
import pytest
from conftest import exhaustive, sampled
from styles import Styles, draw

from jaxnet.crosscheck import check

STYLES = Styles()
style = STYLES.add


class _Affine:
    def __init__(self, k):
        self.W, self.b, self.k = draw(4, 3), draw(3), k

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def products(self, dout):
        return self.k * np.einsum("ni,nj->nij", self.x, dout)


@style
def stored_stacks(k):
    class Dense(_Affine):
        def backward(self, dout):
            self.dW, self.db = self.products(dout), dout.copy()
            return dout @ self.W.T

    return Dense(k), (draw(5, 4),)


@style
def stored_lists(k):
    class Dense(_Affine):
        def backward(self, dout):
            self.grad_W, self.grad_b = list(self.products(dout)), [row.copy() for row in dout]
            return dout @ self.W.T

    return Dense(k), (draw(5, 4),)


@style
def stacks_behind_the_gradient_of_the_input(k):
    class Dense(_Affine):
        def backward(self, dout):
            return dout @ self.W.T, self.products(dout), dout.copy()

    return Dense(k), (draw(5, 4),)


@style
def a_pair_of_functions(k):
    def forward(x, W, b):
        return x @ W + b, (x, W)

    def backward(dout, cache):
        x, W = cache
        return dout @ W.T, k * np.einsum("ni,nj->nij", x, dout), dout.copy()

    return (forward, backward), (draw(5, 4), draw(4, 3), draw(3))


@pytest.mark.parametrize("name", sampled(STYLES, 3))
def test_correct_gradients_of_samples_pass(name):
    thing, inputs = STYLES[name](1.0)
    report = check(thing, *inputs)
    assert report.verdict == "PASS", str(report)
    assert {leaf.name for leaf in report.leaves} == {"x", "W", "b"}
    assert any("of W and b for each sample, of which the sum over 5 samples is checked" in n for n in report.notes)


@pytest.mark.parametrize("factor", [1.01, exhaustive(2.0), exhaustive(5.0), exhaustive(0.2)])
@pytest.mark.parametrize("name", sampled(STYLES, 3))
def test_a_wrong_gradient_of_samples_fails(name, factor):
    thing, inputs = STYLES[name](factor)
    report = check(thing, *inputs)
    assert [leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"] == ["W"], str(report)


@pytest.mark.parametrize("count", [2, 5])
def test_gradients_of_samples_whose_mean_is_right_are_inconclusive(count):
    class Dense(_Affine):
        def backward(self, dout):
            self.dW, self.db = count * self.products(dout), count * dout
            return dout @ self.W.T

    report = check(Dense(1.0), draw(count, 4))
    assert report.verdict == "INCONCLUSIVE"
    assert f"the mean over {count} samples is right, and the sum is {count} times as large" in str(report)


def test_a_forgotten_sum_over_the_samples_is_not_taken_for_gradients_of_samples():
    class Beside(_Affine):
        def backward(self, dout):
            self.dW, self.db = self.x.T @ dout, dout.copy()
            return dout @ self.W.T

    class Scale:
        def __init__(self):
            self.gamma = draw(4)

        def forward(self, x):
            self.x = x
            return x * self.gamma

        def backward(self, dout):
            self.dgamma = self.x * dout
            return dout * self.gamma

    assert "the gradient for b has shape (5, 3), expected (3,)" in str(check(Beside(1.0), draw(5, 4)))
    assert "the gradient for gamma has shape (5, 4), expected (4,)" in str(check(Scale(), draw(5, 4)))


def test_a_product_of_stacks_of_matrices_may_be_a_forgotten_sum():
    class Dense(_Affine):
        def forward(self, x):
            self.x = x
            return x @ self.W

        def backward(self, dout):
            self.dW = self.k * self.x.transpose(0, 2, 1) @ dout
            return dout @ self.W.T

    report = check(Dense(1.0), draw(5, 2, 4))
    assert report.verdict == "INCONCLUSIVE"
    assert "if the sum over the samples is forgotten: sum them in backward, as `dW.sum(axis=0)`" in str(report)
    assert check(Dense(1.01), draw(5, 2, 4)).verdict == "FAIL"
