"""Tests more styles of public repositories: a right gradient passes, and one that is wrong by a factor fails."""

import numpy as np
import pytest
from conftest import exhaustive, sampled

from jaxnet.crosscheck import SubjectError, check, check_function

STYLES = {}


def style(leaf):
    """Registers a function that returns code and its inputs, given the factor by which a leaf's gradient is wrong."""

    def register(make):
        STYLES[make.__name__] = (make, leaf)
        return make

    return register


def draw(*shape):
    return np.random.default_rng(shape).standard_normal(shape)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@style("signals")
def a_pair_whose_backward_takes_the_input_under_another_name_with_the_options(k):
    def peaks(signals, width, step=1):
        starts = range(0, signals.shape[1] - width + 1, step)
        return np.stack([signals[:, i : i + width].max(axis=1) for i in starts], axis=1)

    def peaks_backward(dpeaks, original, width, step):
        dx = np.zeros_like(original)
        for j, i in enumerate(range(0, original.shape[1] - width + 1, step)):
            for row, place in enumerate(original[:, i : i + width].argmax(axis=1)):
                dx[row, i + place] += k * dpeaks[row, j]
        return dx

    return (peaks, peaks_backward), (draw(2, 9), 3, 2)


@style("image")
def a_pair_without_a_cache_whose_backward_takes_one_of_two_inputs(k):
    def lift(image, rise, scale):
        return scale * image + rise

    def lift_backward(grad, before, scale):
        return k * scale * grad + 0 * before, grad.sum(axis=0)

    return (lift, lift_backward), (draw(4, 3), draw(3), 2)


@style("params.V")
def a_cost_of_labels_and_output_with_another_name_for_the_output_in_backward(k):
    def predict(X, params):
        hidden = np.tanh(params["W"] @ X)
        result = sigmoid(params["V"] @ hidden)
        return result, [X, hidden, params]

    def log_loss(y, y_hat):
        return -np.sum(y * np.log(y_hat) + (1 - y) * np.log(1 - y_hat)) / y.shape[1]

    def predict_backward(out, Y, caches):
        X, hidden, params = caches
        dz = (out - Y) / Y.shape[1]
        dh = (params["V"].T @ dz) * (1 - hidden**2)
        return {"dV": k * dz @ hidden.T, "dW": dh @ X.T, "dX": params["W"].T @ dh}

    params = {"W": draw(3, 4), "V": draw(1, 3)}
    return (predict, predict_backward, log_loss), (draw(4, 5), params, np.array([[0, 1, 1, 0, 1]]))


@style("p.U")
def gradients_in_a_dict_that_is_returned_with_the_states(k):
    def run(X, Y, p):
        h, loss, states = np.zeros(3), 0.0, {-1: np.zeros(3)}
        for t, (x, y) in enumerate(zip(X, Y, strict=True)):
            h = states[t] = np.tanh(p["W"][x] + h @ p["U"])
            loss += 0.5 * ((h - y) ** 2).sum()
        return loss, states

    def run_back(X, Y, p, cache):
        grads, dh = {"dW": np.zeros_like(p["W"]), "dU": np.zeros_like(p["U"])}, np.zeros(3)
        for t in range(len(X) - 1, -1, -1):
            dz = (cache[t] - Y[t] + dh) * (1 - cache[t] ** 2)
            grads["dW"][X[t]] += dz
            grads["dU"] += k * np.outer(cache[t - 1], dz)
            dh = p["U"] @ dz
        return grads, cache

    return (run, run_back), ([0, 2, 1, 2], draw(4, 3), {"W": draw(3, 3), "U": draw(3, 3) / 2})


@style("weights")
def gradients_that_are_appended_to_lists(k):
    class Dense:
        def __init__(self):
            self.weights, self.biases = draw(4, 3), draw(3)
            self.weight_gradients, self.bias_gradients = [], []

        def __call__(self, x):
            self.x = x
            return x @ self.weights + self.biases

        def backward(self, above):
            self.weight_gradients.append(k * np.outer(self.x, above))
            self.bias_gradients.append(above)
            return self.weights @ above

    return Dense(), (draw(4),)


@style("_parameters")
def one_array_of_parameters_with_one_gradient(k):
    class Linear:
        def __init__(self):
            self._parameters, self._gradient = draw(4, 3), np.zeros((4, 3))

        def forward(self, x):
            self.x = x
            return x @ self._parameters

        def backward(self, delta):
            self._gradient = k * self.x.T @ delta
            return delta @ self._parameters.T

    return Linear(), (draw(5, 4),)


@style("bias")
def gradients_that_python_stores_behind_the_name_of_the_class(k):
    class _Scale:
        def __init__(self):
            self.weights, self.bias = draw(3), draw(3)
            self.__gradient_weights = self.__gradient_bias = None

        @property
        def gradient_bias(self):
            return self.__gradient_bias

        def forward(self, x):
            self.x = x
            return x * self.weights + self.bias

        def backward(self, error):
            self.__gradient_weights, self.__gradient_bias = (error * self.x).sum(axis=0), k * error.sum(axis=0)
            return error * self.weights

    return _Scale(), (draw(5, 3),)


class Stack:
    def __init__(self, k):
        self.W, self.V, self.k = draw(4, 3), draw(3, 2), k

    def forward(self, x):
        self.x, self.h = x, np.tanh(x @ self.W)
        return self.h @ self.V

    def backward(self, grad):
        self.dV = self.k * self.h.T @ grad
        dh = grad @ self.V.T * (1 - self.h**2)
        self.dW = self.x.T @ dh
        return dh @ self.W.T


@style("net.V")
def a_network_and_the_loss_that_keeps_what_its_backward_needs(k):
    class Squares:
        def forward(self, pred, target):
            self.difference = pred - target
            return float((self.difference**2).mean())

        def backward(self):
            return 2 * self.difference / self.difference.size

    return (Stack(k), Squares()), (draw(5, 4), draw(5, 2))


@style("net.V")
def a_network_and_a_loss_of_labels_and_output(k):
    class Squares:
        def loss(self, y_true, y_pred):
            return 0.5 * np.sum((y_pred - y_true) ** 2)

        def derivative(self, y_true, y_pred):
            return y_pred - y_true

    return (Stack(k), Squares()), (draw(5, 4), draw(5, 2))


@style("pred")
def a_loss_with_an_upstream_gradient_that_it_never_reads(k):
    class CrossEntropy:
        def forward(self, pred, y):
            self.kept = pred, y
            return -np.sum(y * np.log(pred)) / len(pred)

        def backward(self, grad=None):
            pred, y = self.kept
            return -k * y / pred / len(pred)

    return CrossEntropy(), (np.random.default_rng(0).uniform(0.1, 0.9, (4, 3)), np.eye(3)[[0, 2, 1, 0]])


@style("x")
def methods_that_are_named_as_a_quotient_of_differentials(k):
    class Bell:
        def __call__(self, x):
            return self.y(x)

        def y(self, x):
            return np.exp(-(x**2))

        def dydx(self, x):
            return -2 * k * x * self.y(x)

        def d2ydx2(self, x):
            return (4 * x**2 - 2) * self.y(x)

    return Bell(), (draw(4, 3),)


@style("y")
def losses_of_samples_in_columns(k):
    class Squares:
        def E(self, y, target):
            return 0.5 * np.square(y - target).sum(axis=0, keepdims=True)

        def dEdy(self, y, target):
            return k * (y - target)

    return Squares(), (draw(4, 5), 1 + draw(5, 4).T)


@style("U")
def gradients_that_are_returned_before_the_states_of_the_backward_pass(k):
    class Cell:
        def __init__(self):
            self.W, self.U = draw(4, 3), draw(3, 3) / 2

        def forward(self, x):
            h = np.zeros((len(x) + 1, 3))
            for t in range(len(x)):
                h[t] = np.tanh(x[t] @ self.W + h[t - 1] @ self.U)
            return h[:-1], (x, h)

        def backward(self, deltas, state):
            x, h = state
            dx, dz = np.zeros_like(x), np.zeros((len(x) + 1, 3))
            grads = dW, dU = [np.zeros_like(self.W), np.zeros_like(self.U)]
            for t in range(len(x) - 1, -1, -1):
                dz[t] = (deltas[t] + dz[t + 1] @ self.U.T) * (1 - h[t] ** 2)
                dW += np.outer(x[t], dz[t])
                dU += k * np.outer(h[t - 1], dz[t])
                dx[t] = dz[t] @ self.W.T
            return dx, tuple(grads), (dz, deltas)

    return Cell(), (draw(5, 4),)


@style("V")
def a_network_that_predicts_and_is_evaluated_elsewhere(k):
    class SGD:
        def __init__(self, lr=0.1):
            self.lr = lr

        def update(self, net):
            net.W, net.V = net.W - self.lr * net.dW, net.V - self.lr * net.dV

    class Squares:
        def loss(self, predicted, target):
            return 0.5 * np.sum((predicted - target) ** 2)

        def derivative(self, predicted, target):
            return predicted - target

    class Model:
        def __init__(self):
            self.net, self.loss_function, self.optimizer = Stack(k), Squares(), SGD()

        def predict(self, x):
            return self.net.forward(x)

        def backprop(self, predicted, target):
            self.net.backward(self.loss_function.derivative(predicted, target))
            self.optimizer.update(self.net)
            return self.loss_function.loss(predicted, target)

        def evaluate(self, x, y):
            raise NotImplementedError

    return Model(), (draw(5, 4), draw(5, 2))


@pytest.mark.parametrize("name", sampled(STYLES, 4))
def test_a_correct_gradient_in_this_style_passes(name):
    thing, inputs = STYLES[name][0](1.0)
    report = check(thing, *inputs)
    assert report.verdict == "PASS", str(report)


@pytest.mark.parametrize("factor", [1.01, exhaustive(2.0)])
@pytest.mark.parametrize("name", sampled(STYLES, 4))
def test_a_wrong_gradient_in_this_style_fails_at_its_leaf(name, factor):
    make, wrong = STYLES[name]
    thing, inputs = make(factor)
    report = check(thing, *inputs)
    assert report.verdict == "FAIL", str(report)
    assert [leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"] == [wrong], str(report)


class SoftmaxOfLabels:
    """A softmax whose backward is that of the cross-entropy of its output."""

    def forward(self, X):
        e = np.exp(X - X.max(axis=1, keepdims=True))
        self.out = e / e.sum(axis=1, keepdims=True)
        return self.out

    def backward(self, Y, lr):
        return self.out - Y


def test_a_softmax_whose_backward_takes_labels_is_refused_with_the_call_that_checks_it():
    with pytest.raises(SubjectError, match=r"SoftmaxOfLabels.backward: takes the labels Y and no upstream gradient"):
        check(SoftmaxOfLabels(), draw(4, 3))
    layer, lr = SoftmaxOfLabels(), 0.1
    Y = np.eye(3)[[0, 2, 1, 0]]

    def cost(output, Y):
        return -np.sum(Y * np.log(output))

    report = check_function(
        lambda X, Y: cost(layer.forward(X), Y),
        draw(4, 3),
        Y,
        gradient=lambda X, Y: (layer.forward(X), layer.backward(Y, lr))[1],
    )
    assert report.verdict == "PASS", str(report)


def test_a_backward_that_is_linear_in_what_it_calls_y_is_checked():
    class Doubled:
        def forward(self, X):
            return 2 * X

        def backward(self, y):
            return 2 * y

    assert check(Doubled(), draw(4, 3)).verdict == "PASS"


class InDicts:
    def forward(self, inputs):
        self.x = inputs["data"]
        return {"mask": 1.0 * (self.x > 0), "data": self.x * (self.x > 0)}

    def backward(self, grads):
        return {"grad": grads["grad"] * (self.x > 0)}


def test_a_backward_that_reads_another_key_than_those_of_several_outputs_is_refused():
    with pytest.raises(SubjectError, match=r"InDicts.backward: reads dout\['grad'\], .* 'mask', 'data'; pass a"):
        check(InDicts(), {"width": 1, "data": draw(4, 3)})

    class Checked(InDicts):
        def forward(self, x):
            return super().forward({"width": 1, "data": x})["data"]

        def backward(self, dout):
            return super().backward({"grad": dout})["grad"]

    assert check(Checked(), draw(4, 3)).verdict == "PASS"
