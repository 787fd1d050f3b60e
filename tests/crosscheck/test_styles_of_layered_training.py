"""Tests networks of layers that train in one method: right passes, wrong fails for its leaf.

The module has a cost, which the networks without one of their own are checked by.
"""

import numpy as np
import pytest
from conftest import mostly_slow

from jaxnet.crosscheck import SubjectError, check

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4))


class Dense:
    def __init__(self, factor, *shape):
        self.W, self.b, self.factor = RNG.normal(size=shape), np.zeros((1, shape[1])), factor

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout, rate=None):
        dx = dout @ self.W.T
        self.dW, self.db = self.factor * self.x.T @ dout, dout.sum(axis=0, keepdims=True)
        if rate is not None:
            self.W -= rate * self.dW
            self.b -= rate * self.db
        return dx


class Tanh:
    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, dout, rate=None):
        return dout * (1 - self.y**2)


def mean_square(y_true, y_pred):
    return np.mean((y_true - y_pred) ** 2)


def mean_square_prime(y_true, y_pred):
    return 2 * (y_pred - y_true) / y_true.size


class Layers:
    """A list of layers, which subclasses train."""

    def __init__(self, factor):
        self.layers = [Dense(factor, 4, 5), Tanh(), Dense(1, 5, 3)]

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def back(self, dout, *rate):
        for layer in reversed(self.layers):
            dout = layer.backward(dout, *rate)


LAYERED = {}


def layered(kind):
    LAYERED[kind.__name__] = kind
    return kind


@layered
class TrainsAll(Layers):
    def train(self, X, y, epochs=5, learning_rate=0.1):
        for _ in range(epochs):
            self.back(mean_square_prime(y, self.forward(X)), learning_rate)


@layered
class TrainsSampleBySample(Layers):
    def __init__(self, factor):
        super().__init__(factor)
        self.loss, self.loss_prime = mean_square, mean_square_prime

    def fit(self, x_train, y_train, epochs, learning_rate):
        for _ in range(epochs):
            for x, y in zip(x_train[:, None], y_train[:, None], strict=True):
                self.back(self.loss_prime(y, self.forward(x)), learning_rate)


@layered
class ReturnsItsLoss(Layers):
    def forward_backward(self, X, y):
        output = self.forward(X)
        self.back(mean_square_prime(y, output))
        return mean_square(y, output)


@layered
class GradientsOfLayers(Layers):
    def loss(self, X, t):
        return mean_square(t, self.forward(X))

    def gradient(self, X, t):
        self.back(mean_square_prime(t, self.forward(X)))
        first, _, last = self.layers
        return {"W1": first.dW, "b1": first.db, "W2": last.dW, "b2": last.db}


@layered
class LossThenBackward(Layers):
    def compute_loss(self, X, y):
        self.output, self.y = self.forward(X), y
        return mean_square(y, self.output)

    def backward(self):
        self.back(mean_square_prime(self.y, self.output))


@pytest.mark.parametrize("name", mostly_slow(LAYERED, 3))
@pytest.mark.parametrize("factor", [1, 1.02])
def test_a_network_of_layers_that_trains_itself_is_checked(name, factor):
    report = check(LAYERED[name](factor), X, RNG.normal(size=(6, 3)))
    wrong = [leaf.name for leaf in report.leaves if leaf.verdict != "PASS"]
    assert len(report.leaves) == 4
    assert [name.replace("layers[0].W", "layers_0_W") for name in wrong] == ([] if factor == 1 else ["layers_0_W"])


class HalfItsCost(Layers):
    def train(self, X, y, learning_rate):
        self.back(mean_square_prime(y, self.forward(X)) / 2, learning_rate)


def test_a_usual_cost_does_not_take_the_place_of_one_of_the_module():
    """Half of the mean square is a usual cost too, but it is not the one that the module has."""
    with pytest.raises(SubjectError):
        check(HalfItsCost(1), X, RNG.normal(size=(6, 3)))
