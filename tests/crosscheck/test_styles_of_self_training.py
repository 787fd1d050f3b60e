"""Tests models that train in one method and report their loss: right passes, wrong fails for the leaf that is wrong."""

import numpy as np
import pytest
from conftest import mostly_slow

from jaxnet.crosscheck import SubjectError, check

RNG = np.random.default_rng(0)
X, CLASSES = RNG.normal(size=(6, 4)), np.array([0, 1, 2, 0, 1, 2])
ONES_AND_ZEROS = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
CENTERS, CONTEXTS, OTHERS = 1, 2, np.array([3, 4, 4])


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def cross_entropy(y, p):
    return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))


class MakesItsWeights:
    """A regression whose fit makes the weights, trains them and keeps the loss of each epoch."""

    def __init__(self, factor, learning_rate=0.1, n_epochs=50):
        self.factor, self.learning_rate, self.n_epochs = factor, learning_rate, n_epochs
        self.w, self.b = None, 0
        self.losses = []

    def fit(self, X, y):
        self.w, self.b, self.losses = np.zeros(X.shape[1]), 0, []
        for epoch in range(self.n_epochs):
            p = sigmoid(X @ self.w + self.b)
            self.losses.append(cross_entropy(y, p))
            self.w -= self.learning_rate * X.T @ (p - y) / len(y)
            self.b -= self.factor * self.learning_rate * np.mean(p - y)
            if epoch % 10 == 0:
                print(self.losses[-1])
        return self


class KeepsLossesOfBoth(MakesItsWeights):
    """One with a part for validation, momentum, and a dict of histories."""

    def fit(self, X, y):
        self.w, self.b = RNG.normal(size=X.shape[1]), 0.0
        self.velocity = np.zeros_like(self.w)
        history = self.history = {"val_loss": [], "train_loss": []}
        for _ in range(self.n_epochs):
            p = sigmoid(X[:-2] @ self.w + self.b)
            self.velocity = 0.0 * self.velocity - self.learning_rate * X[:-2].T @ (p - y[:-2]) / len(p)
            self.w += self.velocity
            self.b -= self.factor * self.learning_rate * np.mean(p - y[:-2])
            history["train_loss"].append(cross_entropy(y[:-2], sigmoid(X[:-2] @ self.w + self.b)))
            history["val_loss"].append(cross_entropy(y[-2:], sigmoid(X[-2:] @ self.w + self.b)))


class OfIds:
    """Word vectors, trained for one pair and its negatives."""

    def __init__(self, factor):
        self.factor = factor
        self.w, self.b = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 3))

    def train_pair(self, center, context, negatives, lr):
        v, u, U = self.w[center], self.b[context], self.b[negatives]
        near, far = sigmoid(u @ v), sigmoid(U @ v)
        grad_v = (near - 1) * u + far @ U
        self.b[context] -= self.factor * lr * (near - 1) * v
        np.add.at(self.b, negatives, -self.factor * lr * far[:, None] * v)
        self.w[center] -= lr * grad_v
        return float(-np.log(near) - np.log(1 - far).sum())


class ReturnsStates:
    """A recurrent step that returns its loss beside its state."""

    def __init__(self, factor):
        self.factor = factor
        self.params = {"w": RNG.normal(size=(3, 3)), "b": RNG.normal(size=3)}

    def train(self, inputs, targets, h_prev, learning_rate=0.01):
        w, b = self.params["w"], self.params["b"]
        h = np.tanh(inputs[0] @ w + b + h_prev)
        dz = (h - targets[0]) * (1 - h**2)
        self.params["w"] = w - learning_rate * np.outer(inputs[0], dz)
        self.params["b"] = b - self.factor * learning_rate * dz
        return np.sum((h - targets[0]) ** 2) / 2, h


SUBJECTS = {
    "makes its weights": (MakesItsWeights, (X, ONES_AND_ZEROS)),
    "keeps losses of both": (KeepsLossesOfBoth, (X, ONES_AND_ZEROS)),
    "of ids": (OfIds, (CENTERS, CONTEXTS, OTHERS)),
    "returns states": (ReturnsStates, ([X[0, :3]], [X[1, :3]], X[2, :3])),
}


@pytest.mark.parametrize("name", mostly_slow(SUBJECTS))
def test_right_passes(name):
    kind, inputs = SUBJECTS[name]
    report = check(kind(1.0), *inputs)
    assert str(report.verdict) == "PASS", report
    assert {leaf.name for leaf in report.leaves} == {"w", "b"}


@pytest.mark.parametrize("factor", [2.0, 1.01])
@pytest.mark.parametrize("name", mostly_slow(SUBJECTS))
def test_wrong_fails_for_its_leaf(name, factor):
    kind, inputs = SUBJECTS[name]
    report = check(kind(factor), *inputs)
    assert str(report.verdict) == "FAIL", report
    assert [leaf.name for leaf in report.leaves if str(leaf.verdict) == "FAIL"] == ["b"]


@pytest.mark.slow
def test_a_weight_decay_that_the_loss_lacks_is_no_failure():
    class Decays(OfIds):
        def train_pair(self, center, context, negatives, lr):
            before = np.copy(self.w)
            loss = super().train_pair(center, context, negatives, lr)
            self.w -= 0.1 * lr * before
            return loss

    with pytest.raises(SubjectError, match="Decays"):
        check(Decays(1.0), CENTERS, CONTEXTS, OTHERS)


@pytest.mark.slow
def test_weights_that_fit_makes_are_named():
    report = check(MakesItsWeights(1.0), X, ONES_AND_ZEROS)
    notes = " ".join(report.notes)
    assert not [warning for warning in report.warnings if ".b affects" in warning]
    assert "the loss that it appends to losses" in notes
    assert "creates w, b; the check starts from random values" in notes


@pytest.mark.slow
@pytest.mark.parametrize("clip", [lambda g: np.clip(g, -0.05, 0.05), lambda g: g * 0.1 / np.linalg.norm(g)])
def test_gradients_that_are_clipped_are_no_failure(clip):
    class Clips(OfIds):
        def train_pair(self, center, context, negatives, lr):
            before = np.copy(self.w)
            loss = super().train_pair(center, context, negatives, 1.0)
            self.w = before - lr * clip(before - self.w)
            self.b = self.b - 0.0
            return loss

    with pytest.raises(SubjectError, match="Clips"):
        check(Clips(0.0), CENTERS, CONTEXTS, OTHERS)
