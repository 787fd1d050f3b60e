"""Tests networks whose passes return lists of activations, a loss beside gradients, or nothing."""

import numpy as np
import pytest

from jaxnet.crosscheck import SubjectError, check


def draw(*shape):
    return np.random.default_rng(shape).standard_normal(shape)


def softmax(z):
    p = np.exp(z)
    return p / p.sum(axis=1, keepdims=True)


LABELS = np.eye(3)[[0, 1, 2, 2, 0]]


class OfActivations:
    """A network whose forward returns the activations of all layers, which its backward takes."""

    def __init__(self, factor):
        self.factor, self.weights, self.biases = factor, [draw(4, 6), draw(6, 3)], [draw(1, 6), draw(1, 3)]
        self.loss_function = lambda y_true, y_pred: -np.mean(np.sum(y_true * np.log(y_pred), axis=1))

    def forward(self, X):
        activations = [X]
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = activations[-1] @ w + b
            activations.append(softmax(z) if i else np.tanh(z))
        return activations

    def backward(self, X, y, activations):
        dz = (activations[-1] - y) / len(X)
        hidden = (dz @ self.weights[1].T) * (1 - activations[1] ** 2)
        dW = [self.factor * X.T @ hidden, activations[1].T @ dz]
        db = [hidden.sum(axis=0, keepdims=True), dz.sum(axis=0, keepdims=True)]
        return dW, db


class WithPasses:
    """A network whose `loss(X, y)` runs its forward and its backward, and returns the loss with the gradients."""

    def __init__(self, factor):
        self.factor, self.params = factor, {"W1": draw(4, 3), "b1": draw(3)}

    def forward(self, X):
        return X @ self.params["W1"] + self.params["b1"], X

    def backward(self, d_out, cache):
        return {"W1": self.factor * cache.T @ d_out, "b1": d_out.sum(axis=0)}

    def loss(self, X, y, with_grads=True):
        scores, cache = self.forward(X)
        loss = ((scores - y) ** 2).mean()
        return (loss, self.backward(2 * (scores - y) / scores.size, cache)) if with_grads else (loss, None)


@pytest.mark.parametrize(("kind", "leaf"), [(OfActivations, "weights_0"), (WithPasses, "W1")])
def test_a_network_is_checked_through_its_own_passes(kind, leaf):
    report = check(kind(1.0), draw(5, 4), LABELS)
    assert report.verdict == "PASS", str(report)
    failed = [leaf.name for leaf in check(kind(1.01), draw(5, 4), LABELS).leaves if leaf.verdict == "FAIL"]
    assert failed == [leaf]


class HalfSquare:
    def forward(self, output, y):
        self.difference = output - y
        return (self.difference**2).sum() / 2

    def backward(self):
        return self.difference


class Affine:
    def __init__(self):
        self.W = draw(4, 3)

    def forward(self, x):
        self.x = x
        return x @ self.W

    def backward(self, dout):
        self.dW = self.x.T @ dout
        return dout @ self.W.T


class Returning:
    """A network that stores a gradient in the layer that it holds, or under a name of its own, and returns nothing."""

    def __init__(self, factor, *, in_layer):
        self.factor, self.in_layer, self.layer = factor, in_layer, Affine()

    def forward(self, x):
        return self.layer.forward(x)

    def backward(self, dout):
        if self.in_layer:
            self.layer.backward(self.factor * dout)
        else:
            self.step = self.layer.x.T @ dout


def test_a_backward_that_returns_nothing_is_of_the_parameters_alone():
    network = Returning(1.0, in_layer=True), HalfSquare()
    report = check(network, draw(5, 4), LABELS)
    assert report.verdict == "PASS", str(report)
    assert any("returns nothing for the input" in note for note in report.notes)
    report = check((Returning(1.01, in_layer=True), HalfSquare()), draw(5, 4), LABELS)
    assert [(leaf.name, str(leaf.verdict)) for leaf in report.leaves] == [("net.layer.W", "FAIL")]


def test_gradients_that_are_not_found_are_no_failure():
    with pytest.raises(SubjectError, match="no input and no parameter of floats has a gradient"):
        check((Returning(1.0, in_layer=False), HalfSquare()), draw(5, 4), LABELS)


class SoftmaxAndLoss:
    def __init__(self, factor):
        self.factor = factor

    def forward_and_backward(self, x, y):
        p = softmax(x)
        return -np.sum(y * np.log(p)) / len(x), self.factor * (p - y) / len(x)


def test_an_only_method_that_returns_a_loss_and_its_gradient_is_checked():
    report = check(SoftmaxAndLoss(1.0), draw(5, 3), LABELS)
    assert report.verdict == "PASS", str(report)
    assert any("SoftmaxAndLoss.forward_and_backward is its only method" in note for note in report.notes)
    report = check(SoftmaxAndLoss(1.01), draw(5, 3), LABELS)
    assert [(leaf.name, str(leaf.verdict)) for leaf in report.leaves] == [("x", "FAIL")]
