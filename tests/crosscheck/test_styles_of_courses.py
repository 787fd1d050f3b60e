"""Tests code in the styles of courses and books: it passes if right, and fails if a gradient is wrong by a factor."""

import numpy as np
import pytest
from conftest import exhaustive, mostly_slow
from styles import Styles, draw

from jaxnet.crosscheck import SubjectError, check

STYLES = Styles()
style = STYLES.add


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


PROBABILITIES = np.random.default_rng(1).dirichlet(np.ones(3), 5)
ONE_HOT = np.eye(3)[[0, 2, 1, 1, 0]]


@style
def a_loss_that_takes_predictions_again(k):
    class CrossEntropy:
        def forward(self, y_pred, y_true):
            return -np.log((y_pred * y_true).sum(axis=1))

        def backward(self, dvalues, y_true):
            self.dinputs = -k * y_true / dvalues / len(dvalues)

    return CrossEntropy(), (PROBABILITIES, ONE_HOT)


@style
def a_loss_followed_by_its_gradients(k):
    def naive_softmax(center, index, outside, dataset):
        e = np.exp(outside @ center)
        d = e / e.sum()
        loss = -np.log(d[index])
        d[index] -= 1
        return loss, outside.T @ d, k * np.outer(d, center)

    return naive_softmax, (draw(4), 2, draw(6, 4), None)


@style
def a_loss_with_a_method_for_the_mean(k):
    class SquaredError:
        def calculate(self, output, y):
            return np.mean(self.forward(output, y))

        def forward(self, y_pred, y_true):
            return ((y_pred - y_true) ** 2).mean(axis=1)

        def backward(self, dvalues, y_true):
            return 2 * k * (dvalues - y_true) / dvalues.size

    return SquaredError(), (draw(5, 3), draw(3, 5).T)


@style
def a_softmax_with_loss_that_takes_its_own_output(k):
    class SoftmaxLoss:
        def forward(self, inputs, y_true):
            e = np.exp(inputs)
            self.output = e / e.sum(axis=1, keepdims=True)
            return -np.log(self.output[np.arange(len(inputs)), y_true]).mean()

        def backward(self, dvalues, y_true):
            self.dinputs = k * (dvalues - np.eye(dvalues.shape[1])[y_true]) / len(dvalues)

    return SoftmaxLoss(), (draw(5, 3), np.array([0, 2, 1, 1, 0]))


def _list_network(k, **cost):
    def construct(self):
        self.biases, self.weights = [draw(4, 1), draw(2, 1)], [draw(4, 3), draw(2, 4)]
        for name, value in cost.items():
            if isinstance(value, type):
                setattr(self, name, value)

    def feedforward(self, a):
        for b, w in zip(self.biases, self.weights, strict=True):
            a = sigmoid(w @ a + b)
        return a

    def backprop(self, x, y):
        h = sigmoid(self.weights[0] @ x + self.biases[0])
        a = sigmoid(self.weights[1] @ h + self.biases[1])
        derivative = self.cost_derivative(a, y) if hasattr(self, "cost_derivative") else a - y
        delta = derivative * a * (1 - a)
        below = self.weights[1].T @ delta * h * (1 - h)
        return [below, delta], [k * below @ x.T, delta @ h.T]

    methods = {"__init__": construct, "feedforward": feedforward, "backprop": backprop}
    methods |= {name: value for name, value in cost.items() if not isinstance(value, type)}
    return type("Network", (), methods)(), (draw(3, 1), np.array([[0.0], [1.0]]))


@style
def a_network_of_lists_with_a_cost_derivative(k):
    return _list_network(k, cost_derivative=lambda self, a, y: a - y)


@style
def a_network_of_lists_with_the_derivative_of_a_cross_entropy(k):
    return _list_network(k, cost_derivative=lambda self, a, y: (a - y) / (a * (1 - a)))


@style
def a_network_of_lists_with_a_cost_class(k):
    class Quadratic:
        @staticmethod
        def fn(a, y):
            return 0.5 * ((a - y) ** 2).sum()

    return _list_network(k, cost=Quadratic)


PARAMETERS = {"W1": draw(4, 3), "b1": draw(4, 1), "W2": draw(1, 4), "b2": draw(1, 1)}
LABELS = np.array([[0.0, 1, 1, 0, 1, 0]])


def _forward(X, parameters):
    W1, b1, W2, b2 = parameters.values()
    A1 = np.tanh(W1 @ X + b1)
    A2 = sigmoid(W2 @ A1 + b2)
    return A2, {"A1": A1, "A2": A2}


def _cost(A2, Y, parameters):
    return -(Y * np.log(A2) + (1 - Y) * np.log(1 - A2)).mean()


@style
def a_model_of_three_functions(k):
    def backward(parameters, cache, X, Y):
        dZ2 = (cache["A2"] - Y) / Y.size
        dZ1 = parameters["W2"].T @ dZ2 * (1 - cache["A1"] ** 2)
        grads = {"dW1": k * dZ1 @ X.T, "db1": dZ1.sum(axis=1, keepdims=True)}
        return grads | {"dZ2": dZ2, "dW2": dZ2 @ cache["A1"].T, "db2": dZ2.sum(axis=1, keepdims=True)}

    return (_forward, _cost, backward), (draw(3, 6), PARAMETERS, LABELS)


@style
def a_cost_with_a_cache_and_its_backward(k):
    def forward(X, Y, parameters):
        A2, cache = _forward(X, parameters)
        return _cost(A2, Y, parameters), (cache, parameters)

    def backward(X, Y, cache):
        values, parameters = cache
        dZ2 = (values["A2"] - Y) / Y.size
        dZ1 = parameters["W2"].T @ dZ2 * (1 - values["A1"] ** 2)
        return {"dW2": k * dZ2 @ values["A1"].T, "db2": dZ2.sum(axis=1, keepdims=True), "dW1": dZ1 @ X.T,
                "db1": dZ1.sum(axis=1, keepdims=True)}  # fmt: skip

    return (forward, backward), (draw(3, 6), LABELS, PARAMETERS)


@style
def a_cell_with_an_output_that_gets_no_upstream_gradient(k):
    def cell_forward(xt, a_prev, parameters):
        a_next = np.tanh(parameters["Wax"] @ xt + parameters["Waa"] @ a_prev)
        return a_next, sigmoid(parameters["Wya"] @ a_next), (a_next, a_prev, xt, parameters)

    def cell_backward(da_next, cache):
        a_next, a_prev, xt, parameters = cache
        dz = da_next * (1 - a_next**2)
        return {"dxt": parameters["Wax"].T @ dz, "da_prev": parameters["Waa"].T @ dz, "dWax": k * dz @ xt.T,
                "dWaa": dz @ a_prev.T}  # fmt: skip

    parameters = {"Wax": draw(4, 3), "Waa": draw(4, 4), "Wya": draw(2, 4)}
    return (cell_forward, cell_backward), (draw(3, 5), draw(4, 5), parameters)


@style
def a_pair_with_statistics_after_the_cache(k):
    def forward(x, gamma, cache):
        mean = x.mean(axis=0)
        return gamma * (x - mean), (x, mean, gamma), 0.9 * cache + 0.1 * mean

    def backward(dout, cache):
        x, mean, gamma = cache
        dx = gamma * dout
        return dx - dx.mean(axis=0), k * (dout * (x - mean)).sum(axis=0), None

    return (forward, backward), (draw(5, 4), draw(4), np.zeros(4))


class _Dense:
    def __init__(self, k):
        self.k, self.weights, self.biases = k, draw(4, 3), draw(1, 3)

    def forward(self, x):
        self.x = x
        return x @ self.weights + self.biases


@style
def a_backprop_that_updates_at_a_learn_rate(k):
    class Dense(_Dense):
        def backprop(self, d_L_d_out, learn_rate=0.01):
            dx = d_L_d_out @ self.weights.T
            self.weights -= learn_rate * self.k * self.x.T @ d_L_d_out
            self.biases -= learn_rate * d_L_d_out.sum(axis=0)
            return dx

    return Dense(k), (draw(5, 4),)


@style
def a_bias_gradient_without_its_axis_of_one(k):
    class Dense(_Dense):
        def backward(self, dout):
            return dout @ self.weights.T, [self.x.T @ dout, self.k * dout.sum(axis=0)]

    return Dense(k), (draw(5, 4),)


@style
def a_layer_without_parameters_that_returns_an_empty_list(k):
    class Tanh:
        def forward(self, x):
            self.y = np.tanh(x)
            return self.y

        def backward(self, dout):
            return k * dout * (1 - self.y**2), []

    return Tanh(), (draw(5, 4),)


@style
def gradients_beside_a_dict_of_parameters(k):
    class Linear:
        def __init__(self):
            self.params = {"W": draw(3, 4), "b": draw(3, 1)}

        def forward(self, A_prev):
            self.A_prev = A_prev
            self.Z = self.params["W"] @ A_prev + self.params["b"]

        def backward(self, upstream_grad):
            self.dW, self.db = k * upstream_grad @ self.A_prev.T, upstream_grad.sum(axis=1, keepdims=True)
            self.dA_prev = self.params["W"].T @ upstream_grad

    return Linear(), (draw(4, 5),)


@style
def an_engine_whose_gradients_are_its_own_objects(k):
    class Array:
        def __init__(self, data, parents=()):
            self.data, self.grad, self.parents = data, None, parents

        def backward(self):
            x, w = self.parents
            x.grad, w.grad = Array(w.data), Array(k * x.data)

    return (lambda x, w: Array(np.array((x.data * w.data).sum()), (x, w))), (Array(draw(5)), Array(draw(5) + 1))


@style
def a_force_documented_as_the_derivative(k):
    def double_well(x, depth=2.0):
        return depth * (x**2 - 1) ** 2

    def double_well_force(x, depth=2.0):
        """dV/dx of the double well."""
        return k * 4 * depth * x * (x**2 - 1)

    return (double_well, double_well_force), (draw(6),)


@style
def a_force_behind_a_lambda(k):
    class Chain:
        def action(self, x, stiffness):
            return stiffness * (np.roll(x, -1) - x) @ (np.roll(x, -1) - x) / 2

        def drift_force(self, x, stiffness):
            return k * stiffness * (np.roll(x, -1) + np.roll(x, 1) - 2 * x)

    chain = Chain()
    return (lambda x: chain.action(x, 3.0), lambda x: chain.drift_force(x, 3.0)), (draw(6),)


@style
def an_upstream_gradient_and_the_input(k):
    def sigmoid_backward(dA, Z):
        s = sigmoid(Z)
        return k * dA * s * (1 - s)

    return (sigmoid, sigmoid_backward), (draw(5, 3),)


@style
def an_upstream_gradient_and_the_output(k):
    def softmax(z):
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def softmax_backward(grad, p):
        return k * p * (grad - (p * grad).sum(axis=1, keepdims=True))

    return (softmax, softmax_backward), (draw(5, 3),)


@style
def losses_of_samples_and_the_gradient_of_their_sum(k):
    class CrossEntropy:
        def compute(self, X, Y):
            return np.log(np.exp(X).sum(axis=1)) - (X * Y).sum(axis=1)

        def deriv(self, X, Y):
            return k * np.exp(X) / np.exp(X).sum(axis=1, keepdims=True) - Y

    return CrossEntropy(), (draw(5, 3), ONE_HOT)


@style
def losses_of_samples_and_the_gradient_of_their_mean(k):
    class Squared:
        def compute(self, X, Y):
            return ((X - Y) ** 2).sum(axis=1)

        def deriv(self, X, Y):
            return k * 2 * (X - Y) / len(X)

    return Squared(), (draw(5, 3), ONE_HOT)


@style
def a_loss_that_remembers_under_a_longer_name(k):
    class Softmax:
        def squared_loss(self, prediction, label):
            self.difference = prediction - label
            return (self.difference**2).sum()

        def predict(self, prediction):
            return prediction

        def gradient(self):
            return 2 * k * self.difference

    return Softmax(), (draw(5, 3), ONE_HOT)


@style
def a_loss_with_a_backward_and_no_forward(k):
    class LogLoss:
        def loss(self, pred, labels):
            return -(labels * np.log(pred) + (1 - labels) * np.log(1 - pred))

        def backward(self, pred, labels):
            return -k * (labels / pred - (1 - labels) / (1 - pred))

    return LogLoss(), (PROBABILITIES, ONE_HOT)


@style
def an_argument_that_backward_never_reads(k):
    class Cube:
        def forward(self, x, training=True):
            self.x = x
            return x**3

        def backward(self, grad, _):
            return 3 * k * grad * self.x**2

    return Cube(), (draw(5, 3),)


class Recurrent:
    """A network whose methods pass values on by name."""

    def __init__(self, factor=1.0):
        self.Wx, self.Wh, self.Wy, self.b = draw(2, 3), draw(2, 2) / 2, draw(3, 2), draw(2)
        self.factor = factor

    def forward(self, tokens, h):
        hs, ps = {-1: h}, {}
        for t, token in enumerate(tokens):
            hs[t] = np.tanh(self.Wx[:, token] + self.Wh @ hs[t - 1] + self.b)
            ps[t] = np.exp(self.Wy @ hs[t]) / np.exp(self.Wy @ hs[t]).sum()
        return hs, ps

    def loss(self, ps, targets):
        return -sum(np.log(ps[t][target]) for t, target in enumerate(targets))

    def backward(self, tokens, hs, ps, targets):
        dWx, dWh, dWy, db = (np.zeros_like(a) for a in (self.Wx, self.Wh, self.Wy, self.b))
        dh = np.zeros(2)
        for t in reversed(range(len(tokens))):
            dy = ps[t] - np.eye(3)[targets[t]]
            dWy += np.outer(dy, hs[t])
            da = (self.Wy.T @ dy + dh) * (1 - hs[t] ** 2)
            dWx[:, tokens[t]] += da
            dWh += self.factor * np.outer(da, hs[t - 1])
            db += da
            dh = self.Wh.T @ da
        return dWx, dWh, dWy, db


@style
def values_that_are_passed_on_by_name(k):
    return Recurrent(k), ([0, 2], draw(2), [2, 1])


class Node:
    """A tensor of an engine whose backward takes the gradient of the output, and that asks for one if told to."""

    def __init__(self, data, requires_grad=False, parents=()):
        self.data, self.requires_grad, self.parents = data, requires_grad, parents
        self.grad = np.zeros_like(data) if requires_grad else None

    def times(self, other, k):
        out = Node(self.data * other.data, self.requires_grad or other.requires_grad, (self, other))
        out.factor = k
        return out

    def backward(self, grad=None):
        self.grad = self.grad + grad
        x, w = self.parents
        if x.requires_grad:
            x.grad = x.grad + self.grad * w.data
        if w.requires_grad:
            w.grad = w.grad + self.factor * self.grad * x.data


@style
def an_engine_whose_backward_takes_the_gradient_of_the_output(k):
    return (lambda x, w: x.times(w, k)), (Node(draw(5), requires_grad=True), Node(draw(5) + 1, requires_grad=True))


@style
def objects_of_an_engine_that_ask_for_no_gradient(k):
    return (lambda x, w: x.times(w, k)), (Node(draw(5)), Node(draw(5) + 1))


@pytest.mark.parametrize("name", mostly_slow(STYLES, 4))
def test_a_correct_gradient_in_this_style_passes(name):
    thing, inputs = STYLES[name](1.0)
    report = check(thing, *inputs)
    assert report.verdict == "PASS", str(report)


@pytest.mark.parametrize("factor", [1.001, exhaustive(1.5), exhaustive(-2.0)])
@pytest.mark.parametrize("name", mostly_slow(STYLES, 4))
def test_a_wrong_gradient_in_this_style_fails(name, factor):
    thing, inputs = STYLES[name](factor)
    report = check(thing, *inputs)
    assert report.verdict == "FAIL", str(report)


def test_the_output_without_an_upstream_gradient_is_named():
    thing, inputs = STYLES["a_cell_with_an_output_that_gets_no_upstream_gradient"](1.0)
    note = "cell_backward takes upstream gradients for 1 of 2 outputs of cell_forward, so the others are not checked"
    assert note in check(thing, *inputs).notes


def test_a_loss_that_raises_is_refused_with_its_error():
    class Net:
        def __init__(self):
            self.params = {"W": draw(3)}

        def loss(self, x, t):
            raise ValueError("no batch")

    with pytest.raises(SubjectError, match=r"Net\.loss: raised ValueError: no batch"):
        check(Net(), draw(2, 3), np.array([0, 1]))


def test_an_object_that_asks_for_no_gradient_is_held_fixed_beside_one_that_does():
    report = check(lambda x, w: x.times(w, 1.5), Node(draw(5), requires_grad=True), Node(draw(5) + 1))
    assert report.verdict == "PASS", str(report)
    assert [leaf.name for leaf in report.leaves] == ["x"]
    assert "w is held fixed" in report.notes[-1]


def test_a_force_with_a_documented_minus_is_minus_the_gradient():
    def spring_force(x):
        """Returns F = -dV/dx."""
        return 2 * x  # without the minus

    assert check(((lambda x: (x**2).sum()), spring_force), draw(4)).verdict == "FAIL"


def test_a_backward_that_leaves_out_its_upstream_gradient_fails():
    def tanh_backward(dA, Z):
        return 1 - np.tanh(Z) ** 2

    assert check((np.tanh, tanh_backward), draw(5, 3)).verdict == "FAIL"


def test_a_backward_without_any_forward_is_refused():
    class Half:
        def backward(self, dout, rest):
            return dout + rest

    with pytest.raises(SubjectError, match="Half"):
        check(Half(), draw(3))


def test_a_weight_without_a_gradient_among_values_passed_on_by_name_is_not_certified():
    class Partial(Recurrent):
        def backward(self, tokens, hs, ps, targets):
            dWx, dWh, dWy, _ = super().backward(tokens, hs, ps, targets)
            return dWx, dWh, dWy

    report = check(Partial(), [0, 2], draw(2), [2, 1])
    assert report.verdict == "INCONCLUSIVE"
    assert "params.b" in str(report)


def test_the_call_that_is_proposed_names_parameters_and_no_other_dict():
    class Tagger:
        def __init__(self):
            self.states, self.W_f, self.last = {-1: np.zeros(3)}, draw(3, 3), np.zeros(3)

        def forward(self, xs):
            return [self.W_f @ x for x in xs]

        def backward(self, labels):
            self.W_f -= 0.1 * labels[0]

    with pytest.raises(SubjectError, match=r"\{n: vars\(net\)\[n\] for n in \['W_f'\]\}"):
        check(Tagger(), [draw(3)], [draw(3)])


def test_a_right_pair_that_raises_beside_its_input_does_not_fail():
    """The function takes positive numbers alone, and its input is as small as the step of a difference quotient."""

    def root(z):
        if (z < 0).any():
            raise ValueError("negative")
        return np.sqrt(z)

    def root_backward(dA, Z):
        return dA / (2 * np.sqrt(Z))

    report = check((root, root_backward), np.array([1e-9, 1.0, 2.0]))
    assert report.verdict.name != "FAIL", str(report)
