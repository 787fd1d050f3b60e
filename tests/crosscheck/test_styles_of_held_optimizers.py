"""Tests layers that hold their optimizers, and give them gradients within backward."""

import copy

import numpy as np
import pytest

from jaxnet.crosscheck import check


def draw(*shape):
    return np.random.default_rng(shape).standard_normal(shape)


class Momentum:
    """Returns the new array."""

    def __init__(self):
        self.velocity = 0.0

    def update(self, w, grad):
        self.velocity = 0.9 * self.velocity + 0.1 * grad
        return w - 0.01 * self.velocity


class InPlace:
    """Changes the array itself."""

    def update(self, w, grad):
        w -= 0.01 * grad
        return w


class Affine:
    def __init__(self, factor, optimizer):
        self.factor, self.W, self.w0 = factor, draw(4, 3), draw(1, 3)
        self.W_opt, self.w0_opt = copy.copy(optimizer), copy.copy(optimizer)

    def forward(self, X):
        self.X = X
        return X @ self.W + self.w0

    def backward(self, accum_grad):
        W = self.W
        self.W = self.W_opt.update(self.W, self.factor * self.X.T @ accum_grad)
        self.w0 = self.w0_opt.update(self.w0, accum_grad.sum(axis=0, keepdims=True))
        return accum_grad @ W.T


class OfPasses:
    """A layer with other names for its passes."""

    def __init__(self, factor, optimizer):
        self.factor, self.W, self.W_opt = factor, draw(4, 3), optimizer

    def forward_pass(self, X, training=True):
        self.X = X
        return X @ self.W

    def backward_pass(self, accum_grad):
        W = self.W
        self.W = self.W_opt.update(self.W, self.factor * self.X.T @ accum_grad)
        return accum_grad @ W.T


class Network:
    """Two layers that hold their optimizers."""

    def __init__(self, factor, optimizer):
        self.first, self.second = Affine(factor, optimizer), Affine(1.0, optimizer)
        self.second.W, self.second.w0 = draw(3, 2), draw(1, 2)

    def forward(self, X):
        return self.second.forward(self.first.forward(X))

    def backward(self, dout):
        return self.first.backward(self.second.backward(dout))


@pytest.mark.parametrize(("kind", "leaf"), [(Affine, "W"), (OfPasses, "W"), (Network, "first.W")])
def test_gradients_that_held_optimizers_are_given_are_checked(kind, leaf):
    report = check(kind(1.0, Momentum()), draw(5, 4))
    assert report.verdict == "PASS", str(report)
    assert any("W_opt.update" in note and "not what an optimizer makes of them" in note for note in report.notes)
    failed = [leaf.name for leaf in check(kind(1.01, Momentum()), draw(5, 4)).leaves if leaf.verdict == "FAIL"]
    assert failed == [leaf]


def test_a_gradient_of_the_input_by_updated_weights_does_not_pass():
    report = check(Affine(1.0, InPlace()), draw(5, 4))
    assert report.verdict == "FAIL", str(report)
    assert "X" in [leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"]


def test_the_optimizers_themselves_are_not_changed():
    layer = Affine(1.0, Momentum())
    check(layer, draw(5, 4))
    assert layer.W_opt.velocity == 0.0
