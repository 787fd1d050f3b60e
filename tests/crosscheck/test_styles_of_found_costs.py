"""Tests networks whose backward starts from a cost that no name tells: an attribute, a method, a function beside it."""

import numpy as np
import pytest
from conftest import exhaustive, sampled
from styles import Styles, draw

from jaxnet.crosscheck import SubjectError, check

STYLES = Styles()
style = STYLES.add


def J(scores, y):
    return ((scores - y) ** 2).sum() / 2 / len(y)


def hits(scores, y):
    return (scores.argmax(axis=1) == y.argmax(axis=1)).mean()


class _Net:
    def __init__(self, k):
        self.W1, self.b1, self.W2, self.b2 = draw(4, 6), draw(1, 6), draw(6, 3), draw(1, 3)
        self.k, self.learning_rate = k, 0.1

    def forward(self, X):
        self.X, self.h = X, np.tanh(X @ self.W1 + self.b1)
        self.a2 = self.h @ self.W2 + self.b2
        return self.a2

    def slopes(self, delta):
        dh = delta @ self.W2.T * (1 - self.h**2)
        of_second = self.h.T @ delta, delta.sum(axis=0, keepdims=True)
        return self.k * self.X.T @ dh, dh.sum(axis=0, keepdims=True), *of_second

    def store(self, delta):
        self.dW1, self.db1, self.dW2, self.db2 = self.slopes(delta)


@style
class AFunctionOfTheModule(_Net):
    def backward(self, y):
        self.store((self.a2 - y) / len(y))


@style
class TheOutputUnderAnotherName(_Net):
    def backward(self, X, y, output):
        self.store((output - y) / len(y))


@style
class AFunctionThatIsAnAttribute(_Net):
    def __init__(self, k):
        super().__init__(k)
        self.criterion = lambda a, y: ((a - y) ** 4).mean()

    def backward(self, y):
        self.store(4 * (self.a2 - y) ** 3 / y.size)


@style
class AMethodBesideAMetric(_Net):
    def objective(self, labels, scores):
        return 3 * ((scores - labels) ** 2).sum()

    def explained(self, y, scores):
        return 1 - ((y - scores) ** 2).sum() / ((y - y.mean()) ** 2).sum()

    def backward(self, y):
        self.store(6 * (self.a2 - y))


@style
class ACostWhoseOutputHasTheNameOfTheInput(_Net):
    def criterion(self, X, target):
        return 5 * ((X - target) ** 2).sum()

    def backward(self, y):
        self.store(10 * (self.a2 - y))


@style
class UpdatedParameters(_Net):
    def backward(self, X, y, output):
        slopes = zip(("W1", "b1", "W2", "b2"), self.slopes((output - y) / len(y)), strict=True)
        for name, slope in slopes:
            setattr(self, name, getattr(self, name) - self.learning_rate * slope)


@pytest.mark.parametrize("name", sampled(STYLES, 3))
def test_correct_gradients_of_a_found_cost_pass(name):
    report = check(STYLES[name](1.0), draw(5, 4), draw(5, 3))
    assert report.verdict == "PASS", str(report)
    assert [leaf.name for leaf in report.leaves] == ["W1", "b1", "W2", "b2"]


@pytest.mark.parametrize("factor", [1.01, exhaustive(2.0), exhaustive(-1.0)])
@pytest.mark.parametrize("name", sampled(STYLES, 3))
def test_a_wrong_gradient_of_a_found_cost_fails(name, factor):
    report = check(STYLES[name](factor), draw(5, 4), draw(5, 3))
    assert [leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"] == ["W1"], str(report)


def test_a_note_names_the_cost_that_was_found():
    report = check(AMethodBesideAMetric(1.0), draw(5, 4), draw(5, 3))
    assert "backward of AMethodBesideAMetric is checked as the gradient of objective" in report.notes[0]


class _WithADecayBesideOneWithout(_Net):
    def fit_term(self, scores, y):
        return ((scores - y) ** 2).sum()

    def energy(self, scores, y):
        return self.fit_term(scores, y) + 0.05 * (self.W1**2).sum()

    def backward(self, y):
        self.store(2 * (self.a2 - y))
        self.dW1 += self.k * 0.1 * self.W1


class _OfTwice(_Net):
    def backward(self, y):
        self.store(2 * (self.a2 - y) / len(y))


class _WithADecay(_Net):
    def backward(self, y):
        self.store((self.a2 - y) / len(y))
        self.dW1 += 0.1 * self.W1


class _OfTwoCosts(_Net):
    def potential_of(self, scores, y):
        return J(scores, y) + 1

    def backward(self, y):
        self.store((self.a2 - y) / len(y))


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (_OfTwice, r"_OfTwice.backward: takes y and no upstream gradient, so it is the backward of a cost"),
        (_WithADecay, r"_WithADecay.backward: takes y and no upstream gradient, so it is the backward of a cost"),
        (_OfTwoCosts, r"starts from one of .*net.potential_of.*, which agree"),
    ],
)
def test_a_cost_that_is_not_certain_is_refused_with_the_call_that_passes_it(net, words):
    with pytest.raises(SubjectError, match=words + r".* check\(\(net, (cost|J|net.potential_of)\), X, y\)"):
        check(net(1.0), draw(5, 4), draw(5, 3))


def test_the_call_that_passes_a_cost_proves_a_multiple_wrong():
    net = _OfTwice(1.0)
    assert check((net, J), draw(5, 4), draw(5, 3)).verdict == "FAIL"
    assert check((net, lambda scores, y: 2 * J(scores, y)), draw(5, 4), draw(5, 3)).verdict == "PASS"


def test_a_cost_of_which_all_gradients_are_right_is_taken_before_one_of_which_some_are():
    report = check(_WithADecayBesideOneWithout(1.0), draw(5, 4), draw(5, 3))
    assert report.verdict == "PASS"
    assert "the gradient of energy" in report.notes[0]
    with pytest.raises(SubjectError, match=r"one of .*, which agree; .* check\(\(net, net\.\w+\), X, y\)"):
        check(_WithADecayBesideOneWithout(1.01), draw(5, 4), draw(5, 3))


def test_functions_that_train_or_draw_are_not_called():
    calls = []

    class Trained(_Net):
        def fit(self, X, y):
            calls.append("fit")
            self.train_step(X, y)

        def train_step(self, X, y):
            calls.append("train_step")
            self.forward(X)
            self.backward(y)

        def draw(self, scores, y):
            calls.append("draw")
            print(scores, y)

        def backward(self, y):
            self.store((self.a2 - y) / len(y))

    assert check(Trained(1.0), draw(5, 4), draw(5, 3)).verdict == "PASS"
    assert not calls


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (1.01, "FAIL")])
def test_a_cost_of_samples_runs_forward_itself(factor, verdict):
    class OfSamples(_Net):
        def calculate_loss(self, X, y):
            return ((self.forward(X) - y) ** 2).sum()

        def backward(self, X, y):
            self.store(2 * (self.a2 - y))

    report = check(OfSamples(factor), draw(5, 4), draw(5, 3))
    assert report.verdict == verdict, str(report)
    assert "the gradient of calculate_loss" in report.notes[0]
