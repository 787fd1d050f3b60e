"""Tests networks that train in one method, or whose cost stands nowhere: right passes, wrong fails for its leaf."""

import numpy as np
import pytest
from conftest import mostly_slow

from jaxnet.crosscheck import SubjectError, check

RNG = np.random.default_rng(0)
X, CLASSES = RNG.normal(size=(6, 4)), np.array([0, 1, 2, 0, 1, 2])
ONE_HOT = np.eye(3)[CLASSES]


class Classifier:
    """Two layers and a softmax, of which subclasses compute the gradients under many names."""

    def __init__(self, factor):
        self.W1, self.b1 = RNG.normal(size=(4, 5)), RNG.normal(size=(1, 5))
        self.W2, self.b2 = RNG.normal(size=(5, 3)), RNG.normal(size=(1, 3))
        self.factor = factor

    def forward(self, X):
        self.h = np.tanh(X @ self.W1 + self.b1)
        scores = self.h @ self.W2 + self.b2
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        self.p = e / e.sum(axis=1, keepdims=True)
        return self.p

    def cross_entropy(self, y):
        return -np.sum(y * np.log(self.p)) / len(y)

    def derivatives(self, X, y, count=None):
        dscores = (self.p - y) / (count or len(X))
        dz = dscores @ self.W2.T * (1 - self.h**2)
        dW2 = self.factor * self.h.T @ dscores
        return X.T @ dz, dz.sum(axis=0, keepdims=True), dW2, dscores.sum(axis=0, keepdims=True)

    def descend(self, X, y, rate):
        for name, gradient in zip(("W1", "b1", "W2", "b2"), self.derivatives(X, y), strict=True):
            setattr(self, name, getattr(self, name) - rate * gradient)


NETWORKS = {}


def network(kind):
    NETWORKS[kind.__name__] = kind
    return kind


@network
class CostOfLabelsAlone(Classifier):
    def compute_loss(self, y):
        return self.cross_entropy(y)

    def backward(self, X, y):
        self.dW1, self.db1, self.dW2, self.db2 = self.derivatives(X, y)


@network
class NoCost(Classifier):
    def backward(self, X, y):
        self.dW1, self.db1, self.dW2, self.db2 = self.derivatives(X, y)


@network
class NoCostAndASum(Classifier):
    def backward(self, X, y):
        self.dW1, self.db1, self.dW2, self.db2 = self.derivatives(X, y, count=1)


@network
class NoCostAndAnUpdate(Classifier):
    def backward(self, X, y, learning_rate=0.1):
        self.descend(X, y, learning_rate)


@network
class Fit(Classifier):
    def fit(self, X, y, epochs=10, lr=0.1):
        for _ in range(epochs):
            self.forward(X)
            self.descend(X, y, lr)


@network
class FitThatPrints(Classifier):
    def fit(self, X, y, n_epochs, batch_size=2, verbose=True):
        losses = []
        for epoch in range(n_epochs):
            for i in range(0, len(X), batch_size):
                self.forward(X[i : i + batch_size])
                losses.append(self.cross_entropy(y[i : i + batch_size]))
                self.descend(X[i : i + batch_size], y[i : i + batch_size], self.lr)
            print("epoch", epoch, "loss", losses[-1])
        return losses

    def __init__(self, factor):
        super().__init__(factor)
        self.lr = 0.5


@network
class FitWithTheNumberOfItsEpochs(Classifier):
    def __init__(self, factor):
        super().__init__(factor)
        self.n_iters, self.lr = 1000, 0.01

    def fit(self, X, y):
        for _ in range(self.n_iters):
            self.forward(X)
            self.descend(X, y, self.lr)


@network
class StepThatReturnsItsLoss(Classifier):
    def train_step(self, X, y, learning_rate):
        self.forward(X)
        loss = self.cross_entropy(y)
        self.descend(X, y, learning_rate)
        return loss


@network
class LossAndGradients(Classifier):
    def loss_and_grad(self, X, y):
        self.forward(X)
        names = "dW1", "db1", "dW2", "db2"
        return self.cross_entropy(y), dict(zip(names, self.derivatives(X, y), strict=True))


@network
class GradientsInOrder(Classifier):
    def loss(self, X, y):
        self.forward(X)
        return self.cross_entropy(y)

    def gradients(self, X, y):
        self.forward(X)
        return self.derivatives(X, y)


@network
class LossForward(Classifier):
    def forward(self, X, y):
        self.X, self.y = X, y
        super().forward(X)
        return self.cross_entropy(y)

    def backward(self):
        self.dW1, self.db1, self.dW2, self.db2 = self.derivatives(self.X, self.y)


@network
class DecayThatIsOptional(Classifier):
    def backward(self, y, lr=0.1, wd=0.01):
        for name, gradient in zip(("W1", "b1", "W2", "b2"), self.derivatives(X, y), strict=True):
            setattr(self, name, (1 - lr * wd) * getattr(self, name) - lr * gradient)


@network
class CurrentGradients(Classifier):
    def backward(self, X, y):
        self.dW1_curr, self.db1_curr, self.dW2_curr, self.db2_curr = self.derivatives(X, y)


@pytest.mark.parametrize("name", mostly_slow(NETWORKS, 4))
@pytest.mark.parametrize("factor", [1, 1.02])
def test_a_network_that_trains_itself_is_checked(name, factor, capsys):
    report = check(NETWORKS[name](factor), X, ONE_HOT)
    verdicts = {leaf.name: leaf.verdict for leaf in report.leaves}
    assert verdicts == {"W1": "PASS", "b1": "PASS", "W2": "PASS" if factor == 1 else "FAIL", "b2": "PASS"}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("name", "formula"), [("NoCost", "-sum(t log y) / 6"), ("NoCostAndASum", "-sum(t log y)")])
def test_the_cost_that_is_supposed_is_named(name, formula):
    (note,) = check(NETWORKS[name](1), X, ONE_HOT).notes
    assert f"is checked as the gradient of {formula} by its parameters" in note
    assert "no cost was found, so a standard cost is used that matches the gradients of W1, b1, W2, b2" in note


class TwiceItsCost(Classifier):
    def surprise(self, output, labels):
        return -np.sum(labels * np.log(output))

    def accuracy(self, output, labels):
        return np.mean(output.argmax(axis=1) == labels.argmax(axis=1))

    def backward(self, X, y):
        self.dW1, self.db1, self.dW2, self.db2 = self.derivatives(X, y)


def test_a_usual_cost_does_not_take_the_place_of_one_that_stands_in_the_code():
    with pytest.raises(SubjectError, match="pass the cost with it"):
        check(TwiceItsCost(1), X, ONE_HOT)


def test_a_metric_without_slope_is_no_cost():
    kind = type("Counts", (NoCost,), {"accuracy": TwiceItsCost.accuracy})
    assert check(kind(1), X, ONE_HOT).verdict == "PASS"


class Regression:
    """A linear model, whose gradient is that of half the mean squared error."""

    def __init__(self, wrong=lambda dw: dw):
        self.w, self.b, self.wrong = RNG.normal(size=(4, 1)), np.zeros(1), wrong

    def predict(self, X):
        return X @ self.w + self.b

    def fit(self, X, y, lr=0.01, n_iters=100):
        for _ in range(n_iters):
            error = self.predict(X) - y
            self.w = self.w - lr * self.wrong(X.T @ error / len(X))
            self.b = self.b - lr * error.mean(axis=0)


def test_a_squared_error_is_found():
    report = check(Regression(), X, RNG.normal(size=(6, 1)))
    assert (report.verdict, [leaf.name for leaf in report.leaves]) == ("PASS", ["w", "b"])
    assert "sum((y - t)**2) / 2 / 6" in report.notes[0]


@pytest.mark.parametrize(
    "wrong", [lambda dw: dw + 0.1, lambda dw: 1.5 * dw, lambda dw: dw[::-1]], ids=["shifted", "scaled", "reversed"]
)
def test_a_single_bias_does_not_tell_the_cost(wrong):
    """Otherwise a wrong gradient of one number may fit one of many costs by chance."""
    with pytest.raises(SubjectError):
        check(Regression(wrong), X, RNG.normal(size=(6, 1)))


def test_a_weight_decay_without_a_cost_is_refused():
    class Decayed(Classifier):
        def backward(self, X, y):
            self.dW1, self.db1, self.dW2, self.db2 = self.derivatives(X, y)
            self.dW1 = self.dW1 + 0.1 * self.W1

    with pytest.raises(SubjectError, match="pass the cost with it"):
        check(Decayed(1), X, ONE_HOT)


def test_a_method_that_writes_files_is_not_run(tmp_path):
    class Saves(Classifier):
        def fit(self, X, y, path=tmp_path / "loss.txt"):
            path.open("w").write("x")
            self.descend(X, y, 0.1)

    with pytest.raises(SubjectError):
        check(Saves(1), X, ONE_HOT)
    assert list(tmp_path.iterdir()) == []


def test_a_decay_that_is_optional_is_passed_as_0_and_named():
    (note,) = check(NETWORKS["DecayThatIsOptional"](1), X, ONE_HOT).notes
    assert note.endswith("a standard cost is used that matches the gradients of W1, b1, W2, b2; wd is passed as 0")
