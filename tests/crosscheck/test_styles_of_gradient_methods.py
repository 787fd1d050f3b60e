"""Tests layers whose backward pass is called `gradient`: they pass if right, and fail if a gradient is 1 % off."""

import numpy as np
import pytest

from jaxnet.crosscheck import check


def draw(*shape):
    return np.random.default_rng(shape).standard_normal(shape)


class LogSoftmax:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return self.forward(x)

    def forward(self, x):
        self.out = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
        return self.out

    def gradient(self, prev_grad):
        return self.factor * (prev_grad - np.exp(self.out) * prev_grad.sum(axis=1, keepdims=True))


class OnlyCalled:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        self.out = np.tanh(x)
        return self.out

    def grad(self, grad_output):
        return self.factor * grad_output * (1 - self.out**2)


class AbsoluteError:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x, y):
        return self.forward(x, y)

    def forward(self, x, y):
        self.difference = x - y
        return np.abs(self.difference).mean()

    def gradient(self, prev_grad=None):
        return self.factor * np.sign(self.difference) / self.difference.size


class Affine:
    def __init__(self, factor):
        self.factor, self.W, self.b = factor, draw(4, 3), draw(3)

    def forward(self, x):
        return x @ self.W + self.b, x

    def gradient(self, dout, cache):
        self.gradient_W, self.gradient_b = self.factor * cache.T @ dout, dout.sum(axis=0)
        return self.gradient_W, self.gradient_b, dout @ self.W.T

    def backward(self, alpha=0.1, weight_decay=0.0):
        self.W -= alpha * (self.gradient_W + weight_decay * self.W)
        self.b -= alpha * self.gradient_b


CASES = {
    "a layer": (LogSoftmax, (draw(5, 4),), "x"),
    "a layer that is called": (OnlyCalled, (draw(5, 4),), "x"),
    "a loss": (AbsoluteError, (draw(5, 4), draw(5, 4) + 1), "x"),
    "a layer with an update": (Affine, (draw(5, 4),), "W"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_gradient_of_what_is_above_is_a_backward_pass(name):
    kind, inputs, leaf = CASES[name]
    report = check(kind(1.0), *inputs)
    assert report.verdict == "PASS", str(report)
    failed = [leaf.name for leaf in check(kind(1.01), *inputs).leaves if leaf.verdict == "FAIL"]
    assert failed == [leaf]


def test_a_backward_that_is_an_update_is_named():
    note = "backward is an update of the parameters, so gradient is checked as the backward pass"
    assert note in check(Affine(1.0), draw(5, 4)).notes


def test_a_gradient_at_the_input_is_still_a_derivative():
    class Tanh:
        def forward(self, x):
            return np.tanh(x)

        def gradient(self, x):
            return 1 - np.tanh(x) ** 2

    assert check(Tanh(), draw(5, 4)).verdict == "PASS"
