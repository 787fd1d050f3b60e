"""Tests models of two methods or functions: a value and the gradients of arrays, or two passes without a cost."""

import numpy as np
import pytest
from conftest import mostly_slow
from styles import Styles, draw

from jaxnet.crosscheck import check
from jaxnet.crosscheck.inspect.errors import CostError

STYLES = Styles()
style = STYLES.add
X, ONE_HOT, CLASSES = draw(6, 4), np.eye(3)[[0, 1, 2, 2, 0, 1]], np.array([0, 1, 2, 2, 0, 1])


def softmax(z, axis=-1):
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@style
def loss_and_grad_of_a_linear_classifier(k):
    class Classifier:
        def __init__(self):
            self.W, self.b = draw(4, 3), draw(3)

        def probabilities(self, X):
            return softmax(X @ self.W + self.b)

        def loss(self, X, y):
            return -np.log(self.probabilities(X)[np.arange(len(y)), y]).mean()

        def grad(self, X, y):
            error = self.probabilities(X)
            error[np.arange(len(y)), y] -= 1
            return k * X.T @ error / len(y), error.mean(axis=0)

    return Classifier(), (X, CLASSES), "W"


@style
def cost_function_and_its_prime(k):
    class Network:
        def __init__(self):
            self.W1, self.W2 = draw(4, 5), draw(5, 3)

        def forward(self, X):
            self.a2 = sigmoid(X @ self.W1)
            return sigmoid(self.a2 @ self.W2)

        def costFunction(self, X, y):
            return 0.5 * ((y - self.forward(X)) ** 2).sum()

        def costFunctionPrime(self, X, y):
            out = self.forward(X)
            delta3 = (out - y) * out * (1 - out)
            delta2 = delta3 @ self.W2.T * self.a2 * (1 - self.a2)
            return k * X.T @ delta2, self.a2.T @ delta3

    return Network(), (X, ONE_HOT), "W1"


@style
def losses_of_lists_beside_the_gradients_of_one_sequence(k):
    class Recurrent:
        def __init__(self):
            self.U, self.V, self.W = draw(5, 7), draw(7, 5), draw(5, 5)

        def steps(self, x):
            s, o = np.zeros((len(x) + 1, 5)), np.zeros((len(x), 7))
            for i, word in enumerate(x):
                s[i] = np.tanh(self.U[:, word] + self.W @ s[i - 1])
                o[i] = softmax(self.V @ s[i])
            return o, s

        def total_loss(self, x, y):
            return -sum(np.log(self.steps(a)[0][np.arange(len(b)), b]).sum() for a, b in zip(x, y, strict=True))

        def mean_loss(self, x, y):
            return self.total_loss(x, y) / sum(map(len, y))

        def bptt(self, x, y):
            (o, s), dU, dV, dW = self.steps(x), np.zeros((5, 7)), np.zeros((7, 5)), np.zeros((5, 5))
            o[np.arange(len(y)), y] -= 1
            passed = np.zeros(5)
            for i in reversed(range(len(x))):
                dV += k * np.outer(o[i], s[i])
                passed = (self.V.T @ o[i] + passed) * (1 - s[i] ** 2)
                dU[:, x[i]] += passed
                dW += np.outer(passed, s[i - 1])
                passed = self.W.T @ passed
            return [dU, dV, dW]

    return Recurrent(), (np.array([0, 3, 2, 6]), np.array([3, 2, 6, 1])), "V"


@style
def private_passes_and_a_private_loss(k):
    class Classifier:
        def __init__(self):
            self.W1, self.b1, self.W2, self.b2 = draw(4, 5), draw(5), draw(5, 3), draw(3)

        def _forward(self, X):
            self.hidden = np.maximum(0, X @ self.W1 + self.b1)
            self.out = softmax(self.hidden @ self.W2 + self.b2)
            return self.out

        def _loss(self, y, out):
            return -(y * np.log(out)).sum(axis=1).mean()

        def _backward(self, X, y):
            error = (self.out - y) / len(X)
            self.dW2, self.db2 = self.hidden.T @ error, error.sum(axis=0)
            error = error @ self.W2.T * (self.hidden > 0)
            self.dW1, self.db1 = k * X.T @ error, error.sum(axis=0)

        def predict(self, X):
            return self._forward(X).argmax(axis=1)

    return Classifier(), (X, ONE_HOT), "W1"


class TwoLayers:
    def __init__(self, k):
        self.k = k
        self.weights, self.biases = [draw(4, 5), draw(5, 3)], [draw(1, 5), draw(1, 3)]

    def gradients(self, X, hidden, out, y):
        error = (out - y) / len(X)
        inner = error @ self.weights[1].T * (1 - hidden**2)
        return [self.k * X.T @ inner, hidden.T @ error], [g.sum(axis=0, keepdims=True) for g in (inner, error)]


@style
def a_list_of_activations_under_another_name(k):
    class Network(TwoLayers):
        def __init__(self, k):
            super().__init__(k)
            self.criterion = lambda y_true, y_pred: -(y_true * np.log(y_pred)).sum() / len(y_true)

        def forward(self, X):
            a = [X, np.tanh(X @ self.weights[0] + self.biases[0])]
            a.append(softmax(a[1] @ self.weights[1] + self.biases[1]))
            return a

        def backward(self, X, y, activations):
            return self.gradients(X, activations[1], activations[2], y)

    return Network(k), (X, ONE_HOT), "weights_0"


@style
def a_backward_that_returns_the_loss_beside_the_gradients(k):
    class Network:
        def __init__(self):
            self.params = {"W1": draw(4, 5), "W2": draw(5, 3)}

        def forward(self, X):
            hidden = np.tanh(X @ self.params["W1"])
            scores = hidden @ self.params["W2"]
            return scores, (X, hidden)

        def backward(self, logits, labels, cache):
            X, hidden = cache
            error, rows = softmax(logits), np.arange(len(X))
            loss = -np.log(error[rows, labels]).mean()
            error[rows, labels] -= 1
            error /= len(X)
            inner = error @ self.params["W2"].T * (1 - hidden**2)
            return loss, {"W1": k * X.T @ inner, "W2": hidden.T @ error}

    return Network(), (X, CLASSES), "W1"


@style
def functions_of_weights_with_samples_in_columns(k):
    def forward_prop(W1, b1, W2, b2, X):
        Z1 = W1 @ X + b1
        A1 = np.maximum(Z1, 0)
        Z2 = W2 @ A1 + b2
        A2 = softmax(Z2, axis=0)
        return Z1, A1, Z2, A2

    def backward_prop(Z1, A1, Z2, A2, W1, W2, X, Y):
        m = Y.size
        dZ2 = A2 - np.eye(3)[Y].T
        dZ1 = W2.T @ dZ2 * (Z1 > 0)
        dW1, db1 = k * dZ1 @ X.T / m, dZ1.sum(axis=1, keepdims=True) / m
        dW2, db2 = dZ2 @ A1.T / m, dZ2.sum(axis=1, keepdims=True) / m
        return dW1, db1, dW2, db2

    return (forward_prop, backward_prop), (draw(5, 4), draw(5, 1), draw(3, 5), draw(3, 1), X.T, CLASSES), "W1"


@style
def functions_of_a_dict_of_weights_and_one_of_activations(k):
    def forward(x, params):
        cache = {"a1": sigmoid(x @ params["W1"] + params["b1"])}
        cache["a2"] = softmax(cache["a1"] @ params["W2"])
        return cache

    def backward(x, y, params, cache):
        error = cache["a2"] - y
        inner = error @ params["W2"].T * cache["a1"] * (1 - cache["a1"])
        return {"W2": cache["a1"].T @ error, "W1": k * x.T @ inner, "b1": inner.sum(axis=0)}

    return (forward, backward), (X, {"W1": draw(4, 5), "b1": draw(5), "W2": draw(5, 3)}, ONE_HOT), "W1"


class LogisticRegression:
    """A model whose bias is a plain number, as are its gradient and the change by an update."""

    def __init__(self, k):
        self.weights, self.bias, self.k = draw(4), 0, k

    def predict_proba(self, X):
        return sigmoid(X @ self.weights + self.bias)

    def compute_loss(self, y_true, y_pred):
        return -np.mean(y_true * np.log(y_pred) + (1 - y_true) * np.log(1 - y_pred))


BINARY = np.array([0.0, 1, 1, 0, 1, 0])


@style
def gradients_that_take_the_prediction_with_a_bias_that_is_a_number(k):
    class Model(LogisticRegression):
        def compute_gradients(self, X, y_true, y_pred):
            return X.T @ (y_pred - y_true) / len(X), self.k * np.mean(y_pred - y_true)

    return Model(k), (X, BINARY), "bias"


@style
def an_update_of_a_bias_that_is_a_number(k):
    class Model(LogisticRegression):
        def step(self, X, y, lr=0.1):
            error = self.predict_proba(X) - y
            self.weights -= lr * X.T @ error / len(X)
            self.bias -= lr * self.k * error.mean()

    return Model(k), (X, BINARY), "bias"


@style
def an_autoencoder_that_starts_from_its_own_samples(k):
    class Autoencoder:
        def __init__(self):
            self.W, self.V = draw(4, 2), draw(2, 4)

        def forward(self, X):
            self.code = np.tanh(X @ self.W)
            self.output = self.code @ self.V
            return self.output

        def loss(self, X, output):
            return np.mean((X - output) ** 2)

        def backward(self, X):
            error = 2 * (self.output - X) / X.size
            self.dV = self.code.T @ error
            self.dW = k * X.T @ (error @ self.V.T * (1 - self.code**2))

    return Autoencoder(), (X,), "W"


@pytest.mark.parametrize("name", mostly_slow(STYLES, 3))
def test_a_correct_gradient_in_this_style_passes(name):
    thing, inputs, _ = STYLES[name](1.0)
    report = check(thing, *inputs)
    assert report.verdict == "PASS", str(report)


@pytest.mark.parametrize("name", mostly_slow(STYLES, 3))
def test_a_wrong_gradient_in_this_style_fails_at_its_leaf(name):
    thing, inputs, wrong = STYLES[name](1.01)
    report = check(thing, *inputs)
    assert [leaf.name for leaf in report.leaves if leaf.verdict != "PASS"] == [wrong], str(report)


def model_and_gradient(k):
    def predict(X, w, b):
        return X @ w + b

    def gradients(X, y, y_pred):
        return k * 2 / len(y) * X.T @ (y_pred - y), 2 / len(y) * np.sum(y_pred - y)

    return predict, gradients


def test_the_usual_cost_of_a_linear_model_is_named_and_its_bias_is_checked():
    report = check(model_and_gradient(1), X, draw(4), 0.3, draw(6))
    assert {leaf.name: leaf.verdict.value for leaf in report.leaves} == {"w": "PASS", "b": "PASS"}
    assert "sum((y - t)**2) / 6" in report.text(width=None)


def test_two_functions_whose_gradients_fit_no_cost_are_refused_with_the_call_that_takes_one():
    with pytest.raises(CostError, match=r"pass the cost, too: check\(\(predict, cost, gradients\), X, w, b, y\)"):
        check(model_and_gradient(1.01), X, draw(4), 0.3, draw(6))


def jacobians_of_softmax(z, p):
    """Returns the Jacobian of each sample, diag(p) - p pᵀ, of columns (N, n, 1)."""
    column = p.reshape(len(p), -1, 1)
    return column * np.eye(column.shape[1]) - column @ column.transpose(0, 2, 1)


def softmax_of_columns(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_a_derivative_that_is_a_jacobian_for_each_sample():
    z = np.random.default_rng(0).normal(size=(5, 4, 1))
    report = check((softmax_of_columns, jacobians_of_softmax), z)
    assert report.verdict == "PASS"
    assert "returns a Jacobian for each sample" in report.text(width=None)

    def wrong(z, p):
        return jacobians_of_softmax(z, p) * 1.01

    assert check((softmax_of_columns, wrong), z).verdict == "FAIL"
    assert check((softmax_of_columns, jacobians_of_softmax), z).verdict == "PASS"
    assert check((np.tanh, lambda z: 1 - np.tanh(z) ** 2), z).verdict == "PASS"


def test_a_network_whose_output_has_the_name_of_the_labels():
    """Forward returns `self.y`, and backward takes labels y."""

    class Net:
        def __init__(self, factor):
            self.factor, self.W, self.b = factor, draw(4, 3), draw(3)

        def forward(self, X):
            self.X, self.y = X, np.tanh(X @ self.W + self.b)
            return self.y

        def loss(self, y):
            return ((self.y - y) ** 2).sum() / 2

        def backward(self, y):
            delta = (self.y - y) * (1 - self.y**2)
            self.dW, self.db = self.factor * self.X.T @ delta, delta.sum(axis=0)

    report = check(Net(1.0), X, ONE_HOT)
    assert report.verdict == "PASS"
    assert "the gradient of loss by its parameters" in report.text(width=None)
    report = check(Net(1.01), X, ONE_HOT)
    assert [leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"] == ["W"]
