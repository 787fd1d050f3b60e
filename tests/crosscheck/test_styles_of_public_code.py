"""Tests code in the styles of public repositories: it passes if right, and fails if a gradient is wrong by a factor."""

import sys
import types
from dataclasses import dataclass

import numpy as np
import pytest
from conftest import exhaustive, mostly_slow
from styles import Styles, draw

from jaxnet.crosscheck import SubjectError, check

STYLES = Styles()
style = STYLES.add


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@style
def parameters_that_stand_in_a_dict_with_their_gradient(k):
    class Dense:
        def __init__(self):
            self.W, self.b = {"val": draw(4, 3), "grad": 0}, {"val": draw(3), "grad": 0}

        def forward(self, x):
            self.x = x
            return x @ self.W["val"] + self.b["val"]

        def backward(self, d_out):
            self.W["grad"], self.b["grad"] = k * self.x.T @ d_out, d_out.sum(axis=0)
            return d_out @ self.W["val"].T

    return Dense(), (draw(5, 4),)


@style
def a_call_that_keeps_the_input_before_it_runs_forward(k):
    class Dense:
        def __init__(self):
            self.W, self.kept = draw(4, 3), None

        def __call__(self, x):
            self.kept = x
            return self.forward(x)

        def forward(self, x):
            return x @ self.W

        def backward(self, err):
            self.W_grad = k * self.kept.T @ err
            return err @ self.W.T

    return Dense(), (draw(5, 4),)


@style
def a_network_that_holds_the_loss_from_which_its_backward_starts(k):
    class Dense:
        def __init__(self, *shape):
            self.weights = draw(*shape)

        def forward(self, inputs):
            self.inputs, self.output = inputs, inputs @ self.weights

        def backward(self, dvalues):
            self.dweights = k * self.inputs.T @ dvalues
            self.dinputs = dvalues @ self.weights.T

    class HalfSquare:
        def forward(self, y_pred, y_true):
            self.difference = y_pred - y_true
            return (self.difference**2).mean() / 2

        def backward(self):
            self.dinputs = self.difference / self.difference.size

    class Network:
        def __init__(self):
            self.layers, self.loss = [Dense(4, 3), Dense(3, 2)], HalfSquare()

        def forward(self, X):
            for layer in self.layers:
                layer.forward(X)
                X = layer.output
            return X

        def backward(self):
            self.loss.backward()
            gradient = self.loss.dinputs
            for layer in reversed(self.layers):
                layer.backward(gradient)
                gradient = layer.dinputs

    return Network(), (draw(5, 4), draw(5, 2))


@style
def a_loss_of_labels_first_with_a_setting(k):
    class CrossEntropy:
        def forward(self, Y_true, Y_pred, epsilon=1e-8):
            return -(Y_true * np.log(np.clip(Y_pred, epsilon, 1))).sum() / len(Y_true)

        def backward(self, Y_true, Y_pred, epsilon=1e-8):
            return -k * Y_true / np.clip(Y_pred, epsilon, 1) / len(Y_true)

    return CrossEntropy(), (np.eye(3)[[0, 2, 1, 1, 0]], 0.5 + 0.4 * np.tanh(draw(5, 3)))


@style
def a_layer_with_a_switch_in_both_passes(k):
    class Dense:
        def __init__(self):
            self.weights, self.kept = draw(4, 3), None

        def forward(self, X, training=False):
            if training:
                self.kept = X
            return X @ self.weights

        def backward(self, dZ, training=False):
            return dZ @ self.weights.T, k * self.kept.T @ dZ

    return Dense(), (draw(5, 4), True)


@style
def a_model_whose_cost_comes_last_and_names_its_labels_in_another_case(k):
    def forward_propagation(X, parameters):
        A = sigmoid(parameters["W"] @ X)
        return A, (X, A)

    def backward_propagation(A, Y, cache):
        X, A = cache
        return {"dW": k * (A - Y) @ X.T / Y.shape[1]}

    def compute_cost(A, y):
        return -(y * np.log(A) + (1 - y) * np.log(1 - A)).sum() / y.shape[1]

    model = forward_propagation, backward_propagation, compute_cost
    return model, (draw(3, 6), {"W": draw(1, 3)}, np.array([[0, 1, 1, 0, 1, 0]]))


@style
def a_network_whose_forward_returns_the_loss_and_its_gradients(k):
    class Softmax:
        def __init__(self):
            self.params = {"W": draw(4, 3), "b": draw(3)}

        def forward(self, X, labels=None, reg=0.0):
            scores = np.exp(X @ self.params["W"] + self.params["b"])
            probabilities, rows = scores / scores.sum(axis=1, keepdims=True), np.arange(len(X))
            if labels is None:
                return probabilities
            loss, d = -np.log(probabilities[rows, labels]).mean(), probabilities / len(X)
            d[rows, labels] -= 1 / len(X)
            return loss, {"W": k * X.T @ d, "b": d.sum(axis=0)}

    return Softmax(), (draw(6, 4), np.array([0, 2, 1, 1, 0, 2]))


@style
def a_function_that_is_applied_and_its_derivative(k):
    class Tanh:
        def apply(self, z):
            return np.tanh(z)

        def grad(self, z):
            return k * (1 - np.tanh(z) ** 2)

    return Tanh(), (draw(5, 4),)


@style
def a_called_layer_with_a_misspelt_backward(k):
    class Linear:
        def __init__(self):
            self.weights, self.w_grad = draw(4, 3), None

        def __call__(self, x):
            if not isinstance(x, np.ndarray):
                raise ValueError("x is no array")
            self.x = x
            return x @ self.weights

        def backword(self, dy):
            self.w_grad = k * self.x.T @ dy
            return dy @ self.weights.T

    return Linear(), (draw(5, 4),)


def test_a_backward_with_other_arguments_than_upstream_gradients_is_not_accused_if_it_raises():
    class Dense:
        def __init__(self):
            self.W = draw(3, 4)

        def forward(self, x):
            z = x @ self.W.T
            return np.tanh(z), z

        def backward(self, previous, errors):
            dz = errors * (1 - np.tanh(previous @ self.W.T) ** 2)
            self.dW = dz.T @ previous
            return dz @ self.W

    with pytest.raises(SubjectError, match="if previous is none of them, pass a subclass whose forward returns the ou"):
        check(Dense(), draw(5, 4))


@style
def an_optimizer_that_updates_a_dict_of_parameters(k):
    class Descent:
        def update(self, params, grads, rate):
            for name in params:
                params[name] = params[name] - rate * grads[name]

    class Dense:
        def __init__(self):
            self.params, self.optimizer = {"W": draw(4, 3), "b": draw(3)}, Descent()

        def forward(self, inputs):
            self.inputs = inputs
            return inputs @ self.params["W"] + self.params["b"]

        def backward(self, grads, learning_rate):
            dx = grads @ self.params["W"].T
            self.optimizer.update(self.params, {"W": k * self.inputs.T @ grads, "b": grads.sum(axis=0)}, learning_rate)
            return dx

    return Dense(), (draw(5, 4),)


@style
def a_pair_whose_residuals_come_first(k):
    def tanh_fwd(x):
        y = np.tanh(x)
        return y, y

    def tanh_bwd(res, g):
        return k * g * (1 - res**2)

    return (tanh_fwd, tanh_bwd), (draw(5, 4),)


@style
def a_pair_whose_cache_comes_first_under_any_name(k):
    def product(x, w):
        return x * w, (x, w)

    def product_rule(a, b):
        x, w = a
        return b * w, k * b * x

    return (product, product_rule), (draw(5, 4), draw(5, 4, 1)[..., 0])


@style
def an_objective_beside_its_gradient_and_its_hessian(k):
    class Fit:
        def objective(self, theta):
            return float((theta**4).sum())

        def gradient(self, theta):
            return k * 4 * theta**3

        def hessian(self, theta):
            return np.diag(12 * theta**2)

    return Fit(), (draw(4),)


@style
def a_density_with_a_gradient_named_after_it_beside_another_value(k):
    class Normal:
        def log_prob(self, x):
            return float(-0.5 * (x**2).sum())

        def norm(self, x):
            return float(np.abs(x).sum())

        def grad_log_prob(self, x):
            return -k * x

    return Normal(), (draw(4),)


@style
def an_energy_followed_by_the_forces(k):
    def springs(positions):
        d = positions[:, None] - positions[None]
        energy = (d**2).sum() / 4
        forces = -k * d.sum(axis=1)
        return energy, forces

    return springs, (draw(5, 3),)


@style
def the_gradients_by_numbers_in_one_array(k):
    def log_likelihood(mean, scale, data):
        return -(((data - mean) / scale) ** 2).sum() / 2 - data.size * np.log(scale)

    def gradient(mean, scale, data):
        z = (data - mean) / scale
        return np.array([z.sum() / scale, k * ((z**2).sum() - data.size) / scale])

    return (log_likelihood, gradient), (0.3, 1.7, draw(6))


@style
def a_called_loss_that_stores_what_its_gradient_needs(k):
    class SquaredError:
        def __call__(self, a, y):
            self.error = a - y
            return (self.error**2).mean()

        def gradient(self):
            return 2 * k * self.error / self.error.size

    return SquaredError(), (draw(5, 3), draw(3, 5).T)


@style
def a_method_and_the_function_that_reverses_it(k):
    class Norm:
        def __init__(self):
            self.gamma, self.beta = draw(4), draw(4) + 1

        def forward(self, x):
            centred = x - x.mean(axis=-1, keepdims=True)
            return self.gamma * centred + self.beta, (centred, self.gamma)

    def norm_backward(d_out, cache):
        centred, gamma = cache
        d = d_out * gamma
        return d - d.mean(axis=-1, keepdims=True), k * (d_out * centred).sum(axis=0), d_out.sum(axis=0)

    return (Norm().forward, norm_backward), (draw(5, 4),)


@style
def gradients_of_parameters_alone_in_another_order(k):
    class Autoencoder:
        def __init__(self):
            self.W_enc, self.W_dec, self.bias = draw(4, 3), draw(3, 4), draw(4)

        def forward(self, X):
            self.X, self.h = X, np.tanh(X @ self.W_enc)
            return self.h @ self.W_dec + self.bias

        def backward(self, dout):
            inner = dout @ self.W_dec.T * (1 - self.h**2)
            return self.h.T @ dout, dout.sum(axis=0), k * self.X.T @ inner

    return Autoencoder(), (draw(5, 4),)


@style
def gradients_whose_names_tell_apart_parameters_of_one_shape(k):
    class Two:
        def __init__(self):
            self.A, self.B = draw(4, 4), draw(4, 4) + 1

        def forward(self, x):
            self.x, self.h = x, np.tanh(x @ self.A)
            return self.h @ self.B

        def backward(self, dout):
            dh = dout @ self.B.T * (1 - self.h**2)
            dB, dA = self.h.T @ dout, k * self.x.T @ dh
            return dB, dA

    return Two(), (draw(5, 4),)


@style
def a_recurrence_that_returns_its_state_and_takes_its_inputs_again(k):
    class RNN:
        def __init__(self):
            self.Wx, self.Wh, self.Wy = draw(4, 3), draw(3, 3), draw(3, 2)

        def forward(self, inputs, hprev):
            self.h = {-1: hprev}
            for t, x in enumerate(inputs):
                self.h[t] = np.tanh(x @ self.Wx + self.h[t - 1] @ self.Wh)
            return self.h[len(inputs) - 1] @ self.Wy, self.h[len(inputs) - 1]

        def backward(self, dout, inputs):
            dWx, dWh, dWy = np.zeros((4, 3)), np.zeros((3, 3)), self.h[len(inputs) - 1].T @ dout
            dh = dout @ self.Wy.T
            for t in reversed(range(len(inputs))):
                raw = dh * (1 - self.h[t] ** 2)
                dWx, dWh, dh = dWx + inputs[t].T @ raw, dWh + k * self.h[t - 1].T @ raw, raw @ self.Wh.T
            return dWx, dWh, dWy

    return RNN(), (draw(3, 2, 4), draw(2, 3))


@style
def a_method_of_a_model_that_returns_its_loss_and_an_object_of_gradients(k):
    @dataclass
    class Params:
        centers: np.ndarray
        contexts: np.ndarray

    class SkipGram:
        def __init__(self):
            self.params = Params(draw(6, 4), draw(4, 6).T.copy())

        def loss_and_grad(self, words, others):
            p, grads = self.params, Params(np.zeros((6, 4)), np.zeros((6, 4)))
            scores = (p.centers[words] * p.contexts[others]).sum(axis=1)
            d = (sigmoid(scores) - 1)[:, None] / len(words)
            np.add.at(grads.centers, words, k * d * p.contexts[others])
            np.add.at(grads.contexts, others, d * p.centers[words])
            return float(np.logaddexp(0, -scores).mean()), grads

    return SkipGram().loss_and_grad, (np.array([0, 2, 2]), np.array([1, 3, 0]))


@style
def an_engine_with_another_name_for_the_value(k):
    class Node:
        def __init__(self, number, parents=()):
            self.number, self.grad, self.parents = number, np.zeros_like(number), parents

        def backward(self):
            x, w = self.parents
            x.grad, w.grad = x.grad + w.number, w.grad + k * x.number

    return (lambda x, w: Node(np.array((x.number * w.number).sum()), (x, w))), (Node(draw(5)), Node(draw(5) + 1))


@style
def a_layer_of_tensors_with_backprop(k):
    torch = pytest.importorskip("torch")

    class Softmax:
        def forward(self, inputs):
            self.output = torch.softmax(inputs, dim=1)
            return self.output

        def backprop(self, dA):
            inner = (dA * self.output).sum(dim=1, keepdim=True)
            return k * self.output * (dA - inner)

    return Softmax(), (torch.tensor(draw(5, 4)),)


@style
def parameters_in_a_state_dict_beside_settings_in_params(k):
    class Dense:
        def __init__(self):
            self.params = {"inputs": 4, "outputs": 3, "bias": True}
            self.state_dict, self.grads = {"weight": draw(3, 4), "bias": draw(3)}, {}

        def forward(self, x):
            self.x = x
            return x @ self.state_dict["weight"].T + self.state_dict["bias"]

        def backward(self, d):
            self.grads = {"weight": k * d.T @ self.x, "bias": d.sum(axis=0)}
            return d @ self.state_dict["weight"]

    return Dense(), (draw(5, 4),)


@style
def a_backward_of_the_labels_alone(k):
    class LogLoss:
        def forward(self, y, scores):
            shifted = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
            self.p = np.exp(shifted)
            return -(y * shifted).sum() / len(y)

        def backward(self, y):
            return k * (self.p - y) / len(y)

    return LogLoss(), (np.eye(3)[[0, 2, 1, 1]], draw(4, 3))


@style
def an_energy_and_its_force_in_a_list(k):
    def spring(position):
        stretch = position[0] - position[1]
        energy = (stretch**2).sum()
        force = np.array([-2 * k * stretch, 2 * stretch])
        return [energy, force]

    return spring, (draw(2, 3),)


@style
def a_docstring_that_speaks_of_a_force(k):
    def well(position):
        """Returns the energy and force of a quartic well."""
        return [(position**4).sum(), -4 * k * position**3]

    return well, (draw(4, 3),)


@style
def a_potential_and_the_force_of_each_element(k):
    class Well:
        def E(self, x):
            return x**4 / 4 - x**2

        def dE(self, x):
            """Returns the force."""
            return k * (2 * x - x**3)

    return Well(), (draw(5),)


@style
def static_methods_of_a_class(k):
    class Softsign:
        @staticmethod
        def forward(x):
            return x / (1 + np.abs(x))

        @staticmethod
        def backward(x):
            return k / (1 + np.abs(x)) ** 2

    return Softsign, (draw(5, 3),)


@style
def call_and_deriv(k):
    class Gauss:
        def call(self, x):
            return np.exp(-(x**2))

        def deriv(self, x):
            return -2 * k * x * np.exp(-(x**2))

    return Gauss(), (draw(5),)


class Node:
    def __init__(self, value, to_parent=None):
        self.value, self.to_parent = np.array(value, float), to_parent
        self.grad = np.zeros_like(self.value)

    def backward(self):
        self.grad = np.ones_like(self.value)
        if self.to_parent is not None:
            self.to_parent(self.grad)


@style
def an_engine_whose_output_has_several_elements(k):
    def sine(node):
        def to_parent(grad):
            node.grad += k * grad * np.cos(node.value)

        return Node(np.sin(node.value), to_parent)

    return sine, (Node(draw(4)),)


@style
def backward_as_the_derivative_at_the_input(k):
    class Softplus:
        def forward(self, x):
            return np.log1p(np.exp(x))

        def backward(self, x):
            return k * sigmoid(x)

    return Softplus(), (draw(5, 3),)


@style
def a_network_whose_gradient_is_grad(k):
    class Regression:
        def __init__(self):
            self.params = {"w": draw(4), "b": np.array(0.3)}

        def loss(self, x, t):
            return ((x @ self.params["w"] + self.params["b"] - t) ** 2).mean()

        def grad(self, x, t):
            error = 2 * (x @ self.params["w"] + self.params["b"] - t) / len(t)
            return {"w": k * x.T @ error, "b": error.sum()}

    return Regression(), (draw(6, 4), draw(6))


@style
def a_loss_that_stores_the_gradient_of_its_inputs(k):
    class Logistic:
        def forward(self, y_pred, y_true):
            return np.log1p(np.exp(-y_pred * (2 * y_true - 1))).mean(axis=-1)

        def backward(self, y_pred, y_true):
            self.dInputs = k * (sigmoid(y_pred) - y_true) / y_pred.size

    return Logistic(), (draw(5, 2), (draw(5, 2) > 0) * 1.0)


@style
def an_energy_with_forces_and_the_energy_of_each_particle(k):
    def trap(positions):
        energies = 0.25 * (positions**4).sum(axis=1)
        forces = -k * positions**3
        return energies.sum(), forces, energies

    return trap, (draw(4, 3),)


@style
def a_flag_that_returns_a_jacobian(k):
    def normalized(x, derivative=False):
        y = x / np.linalg.norm(x)
        return k * (np.eye(len(x)) - np.outer(y, y)) / np.linalg.norm(x) if derivative else y

    return normalized, (draw(4),)


class Quantity:
    """A value with a private gradient, which may not be read before backward."""

    def __init__(self, value, parents=()):
        self._value, self._parents, self._grad = value, parents, None

    @property
    def grad(self):
        if self._grad is None:
            raise ValueError("call backward() first")
        return self._grad

    def backward(self, seed=1.0):
        self._grad = seed if self._grad is None else self._grad + seed
        for parent, slope in self._parents:
            parent.backward(seed * slope)


def squared_error(k):
    def loss(predictions, target, weight=2.0):
        total = Quantity(sum(weight * (p._value - target) ** 2 for p in predictions))
        total._parents = [(p, 2 * k * weight * (p._value - target)) for p in predictions]
        return total, [p._value for p in predictions]

    return loss


@style
def an_engine_with_a_list_of_values_and_a_target(k):
    return squared_error(k), ([Quantity(1.5), Quantity(-0.4), Quantity(0.2)], 1.0)


@style
def an_engine_of_arrays_with_labels(k):
    def negative_log_likelihood(logits, labels):
        p = np.exp(logits._value) / np.exp(logits._value).sum(axis=1, keepdims=True)
        slope = k * (p - np.eye(3)[labels]) / len(labels)
        return Quantity(-np.log(p[np.arange(len(labels)), labels]).mean(), ((logits, slope),))

    return negative_log_likelihood, (Quantity(draw(4, 3)), np.array([0, 2, 1, 2]))


@style
def an_upstream_gradient_as_a_row(k):
    class Cell:
        def __init__(self):
            self.W = draw(2, 4)

        def forward(self, x):
            self.x, self.h = x[:, None], np.tanh(self.W @ x[:, None])
            return self.h.ravel()

        def backward(self, delta):
            dz = np.zeros((2, 1))
            dz += delta.T * (1 - self.h**2)
            self.dW = k * dz @ self.x.T
            return (self.W.T @ dz).T

    return Cell(), (draw(4),)


class Affine:
    """An affine layer with the bias in the last row of its weights, and a private gradient."""

    factor = 1.0

    def __init__(self):
        self.weights, self._gradient_weights = draw(5, 3), None

    def forward(self, x):
        self.x = np.hstack([x, np.ones((len(x), 1))])
        return self.x @ self.weights

    def backward(self, error):
        self._gradient_weights = self.factor * self.x.T @ error
        return error @ self.weights[:-1].T


@style
def a_dict_of_lists_of_gradients(k):
    class Network:
        def __init__(self):
            self.weights, self.biases = [draw(4, 3), draw(3, 2)], [draw(3), draw(2)]

        def forward(self, x):
            self.x, self.h = x, np.tanh(x @ self.weights[0] + self.biases[0])
            return self.h @ self.weights[1] + self.biases[1]

        def backward(self, dout=None):
            dz = dout @ self.weights[1].T * (1 - self.h**2)
            return {"weights": [self.x.T @ dz, k * self.h.T @ dout], "biases": [dz.sum(axis=0), dout.sum(axis=0)]}

    return Network(), (draw(5, 4),)


@style
def a_private_gradient(k):
    layer = Affine()
    layer.factor = k
    return layer, (draw(6, 4),)


@style
def losses_of_elements_whose_backward_takes_labels_alone(k):
    class Hinges:
        def forward(self, scores, labels):
            self.active = 1 - scores * labels > 0
            return self.active * (1 - scores * labels)

        def backward(self, labels):
            return -k * labels * self.active

    return Hinges(), (draw(6, 2), np.sign(draw(2, 6).T))


@style
def a_backward_that_takes_its_cache_last_and_returns_gradients_in_an_order_of_its_own(k):
    def rnn_forward(x, W, U):
        h, steps = np.zeros(len(U)), []
        for row in x:
            steps.append((row, h))
            h = np.tanh(W @ row + U @ h)
        return np.array([h for _, h in steps[1:]] + [h]), steps

    def rnn_backward(dhs, W, U, cache):
        dW, dU, dx, dh = np.zeros_like(W), np.zeros_like(U), [], np.zeros(len(U))
        for d, (row, before) in zip(dhs[::-1], cache[::-1], strict=True):
            dz = (d + dh) * (1 - np.tanh(W @ row + U @ before) ** 2)
            dW, dU, dh = dW + np.outer(dz, row), dU + k * np.outer(dz, before), U.T @ dz
            dx.insert(0, W.T @ dz)
        dx = np.array(dx)
        return dW, dU, dx

    return (rnn_forward, rnn_backward), (draw(5, 3), draw(4, 3), draw(4, 4))


@style
def a_backward_that_takes_further_results_of_forward_by_name(k):
    def norm_forward(x, gamma):
        scale = np.sqrt((x**2).mean(axis=1, keepdims=True))
        unit = x / scale
        return unit * gamma, unit, scale

    def norm_backward(dy, unit, scale, gamma):
        d = dy * gamma
        dgamma = k * (dy * unit).sum(axis=0)
        dx = (d - unit * (d * unit).mean(axis=1, keepdims=True)) / scale
        return dx, dgamma

    return (norm_forward, norm_backward), (draw(5, 4), draw(4))


@style
def a_function_that_adds_to_a_dict_of_gradients(k):
    def mlp_forward(x, params, name):
        h = np.tanh(x @ params[name + ".W"])
        return h @ params[name + ".V"], (x, h)

    def mlp_backward(dout, cache, grads, name, params):
        x, h = cache
        grads[name + ".V"] += h.T @ dout
        dh = dout @ params[name + ".V"].T * (1 - h**2)
        grads[name + ".W"] += k * x.T @ dh
        return dh @ params[name + ".W"].T

    return (mlp_forward, mlp_backward), (draw(5, 3), {"m.W": draw(3, 4), "m.V": draw(4, 2)}, "m")


@style
def an_activation_whose_gradient_takes_the_input_and_what_is_above(k):
    class Softsign:
        def forward(self, x):
            return x / (1 + np.abs(x))

        def gradient(self, given, previous):
            return k * previous / (1 + np.abs(given)) ** 2

    return Softsign(), (draw(5, 4),)


@style
def an_object_with_one_method_that_speaks_of_a_gradient(k):
    class Poisson:
        def compute_loss(self, labels, rates):
            return (rates - labels * np.log(rates)).sum()

        def compute_grad(self, labels, rates):
            return k * (1 - labels / rates)

    return Poisson(), (np.array([0.0, 2, 1, 3]), np.exp(draw(4)))


@style
def a_switch_of_another_name_that_turns_a_function_into_its_derivative(k):
    def swish(x, dx=False):
        s = sigmoid(x)
        return k * (s + x * s * (1 - s)) if dx else x * s

    return swish, (draw(5, 4),)


@style
def an_engine_whose_backward_starts_from_one_number(k):
    class Tensor:
        def __init__(self, data, parents=()):
            self.data, self.parents, self.grad = np.array(data, float), parents, None

        def __mul__(self, other):
            return Tensor(self.data * other.data, ((self, other.data), (other, k * self.data)))

        def sum(self):
            return Tensor(self.data.sum(), ((self, np.ones_like(self.data)),))

        def backward(self, above=None):
            if self.data.size != 1 and above is None:
                raise RuntimeError("backward of several numbers")
            above = np.ones_like(self.data) if above is None else above
            self.grad = above if self.grad is None else self.grad + above
            for parent, slope in self.parents:
                parent.backward(above * slope)

    return (lambda a, b: a * b), (Tensor(draw(3, 2)), Tensor(draw(2, 3).T))


@style
def a_model_with_a_dict_of_parameters_and_a_plain_number(k):
    class Logistic:
        def __init__(self):
            self.weights, self.b = {"W": draw(1, 3)}, 0

        def forward_propagation(self, X):
            A = sigmoid(self.weights["W"] @ X + self.b)
            self.count = A.size
            return A

        def compute_cost(self, A, Y):
            return -np.mean(Y * np.log(A) + (1 - Y) * np.log(1 - A))

        def backward_propagation(self, X, Y, A):
            dZ = (A - Y) / X.shape[1]
            return {"dW": dZ @ X.T, "db": k * dZ.sum()}

    return Logistic(), (draw(3, 6), np.array([[0.0, 1, 1, 0, 1, 0]]))


@style
def a_model_whose_loss_is_one_of_its_outputs(k):
    class Bigram:
        def __init__(self):
            self.params = {"table": draw(4, 4)}

        def forward(self, ids, targets):
            logits = self.params["table"][ids]
            probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            loss = float(-np.log(probs[np.arange(len(ids)), targets]).mean())
            cache = ids, targets, probs
            return logits, loss, cache

        def backward(self, cache):
            ids, targets, probs = cache
            table = np.zeros((4, 4))
            np.add.at(table, ids, k * (probs - np.eye(4)[targets]) / len(ids))
            return {"table": table}

    return Bigram(), (np.array([0, 2, 1, 2]), np.array([1, 3, 3, 0]))


NOISE = np.random.default_rng(11)


@style
def noise_from_a_generator_of_the_module(k):
    def elbo(params):
        mean, log_scale = params
        eps = NOISE.standard_normal(mean.shape)
        z = mean + np.exp(log_scale) * eps
        loss = (z**4).sum() / 4 - log_scale.sum()
        return loss, [z**3, k * (z**3 * np.exp(log_scale) * eps - 1)]

    return elbo, ([draw(4), draw(4)],)


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


class Quartic:
    def compute_gradient(self, X):
        return (X**4).sum(), 4 * X**3

    def degree(self):
        return 4


def test_a_refused_object_names_the_call_that_takes_it():
    thing = Quartic()
    with pytest.raises(
        SubjectError, match=r"a Quartic, expected a function; .* check\(thing.compute_gradient, \.\.\.\)"
    ):
        check(thing, draw(4))
    assert check(thing.compute_gradient, draw(4)).verdict == "PASS"


def test_a_force_constant_makes_no_gradient_a_force():
    def spring(x):
        """Computes the energy of a spring by its force constant, and the gradient."""
        return [(x**2).sum(), 2 * x]

    assert check(spring, draw(3)).verdict == "PASS"


def test_parameters_beside_settings_are_leaves():
    thing, inputs = STYLES["parameters_in_a_state_dict_beside_settings_in_params"](1.0)
    names = [leaf.name for leaf in check(thing, *inputs).leaves]
    assert names == ["state_dict['weight']", "state_dict['bias']", "x"]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "verdict"), [({}, "INCONCLUSIVE"), ({"constants": ("rate",)}, "PASS")])
def test_a_number_without_gradient_in_a_rule_of_jax_is_not_accused(options, verdict):
    jax = pytest.importorskip("jax")
    sine = jax.custom_vjp(lambda x, rate: jax.numpy.sin(rate * x))
    sine.defvjp(lambda x, rate: (sine(x, rate), (x, rate)), lambda r, d: (d * r[1] * jax.numpy.cos(r[1] * r[0]), None))
    assert check(sine, draw(5), 1.5, **options).verdict == verdict


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "INCONCLUSIVE"), (1.01, "FAIL")])
def test_a_number_without_gradient_beside_a_fixed_argument_of_a_rule_is_not_accused(factor, verdict):
    jax = pytest.importorskip("jax")

    def sines(x, rate, axis=1):
        return jax.numpy.sin(rate * x).sum(axis)

    def pull(axis, kept, d):
        x, rate = kept
        return factor * jax.numpy.expand_dims(d, axis) * rate * jax.numpy.cos(rate * x), None

    rule = jax.custom_vjp(sines, nondiff_argnums=(2,))
    rule.defvjp(lambda x, rate, axis: (rule(x, rate, axis), (x, rate)), pull)
    for axis in ((), (0,)):
        report = check(rule, draw(5, 4), 1.5, *axis)
        assert report.verdict == verdict
        assert {leaf.name: str(leaf.verdict) for leaf in report.leaves}["x"] == ("PASS" if factor == 1 else "FAIL")


@pytest.mark.slow
def test_an_array_without_gradient_in_a_rule_of_jax_is_wrong():
    jax = pytest.importorskip("jax")
    sine = jax.custom_vjp(lambda x, rate: jax.numpy.sin(rate * x))
    sine.defvjp(lambda x, rate: (sine(x, rate), (x, rate)), lambda r, d: (d * r[1] * jax.numpy.cos(r[1] * r[0]), None))
    assert check(sine, draw(5), draw(5) + 2).verdict == "FAIL"


def test_updated_parameters_in_a_dict_are_leaves():
    thing, inputs = STYLES["an_optimizer_that_updates_a_dict_of_parameters"](1.0)
    assert [leaf.name for leaf in check(thing, *inputs).leaves] == ["params['W']", "params['b']", "inputs"]


def test_a_note_names_the_inputs_that_get_no_gradient():
    thing, inputs = STYLES["gradients_of_parameters_alone_in_another_order"](1.0)
    note = "Autoencoder.backward returns the gradients of its parameters alone, so X is not checked"
    assert note in check(thing, *inputs).notes


def forward_propagation(X, parameters):
    A = sigmoid(parameters["W"] @ X)
    return A, {"A": A}


def compute_cost(A, Y):
    return -(Y * np.log(A) + (1 - Y) * np.log(1 - A)).mean()


def backward_propagation(parameters, cache, X, Y):
    return {"dW": (cache["A"] - Y) @ X.T / Y.size}


LABELS = np.array([[0.0, 1, 1, 0, 1, 0]])


def test_a_backward_of_a_cost_is_no_backward_of_forward_alone():
    call = r"check\(\(forward_propagation, compute_cost, backward_propagation\), X, parameters, Y\)"
    with pytest.raises(SubjectError, match=f"backward_propagation: takes Y and no upstream gradient.*{call}"):
        check((forward_propagation, backward_propagation), draw(3, 6), {"W": draw(1, 3)})


def test_the_only_cost_in_the_module_is_taken_if_labels_are_passed():
    report = check((forward_propagation, backward_propagation), draw(3, 6), {"W": draw(1, 3)}, LABELS)
    assert report.verdict == "PASS"
    note = "backward_propagation is checked as the gradient of compute_cost; it is the only cost in their module"
    assert note in report.notes


def test_the_call_that_is_proposed_for_a_backward_of_a_cost_works():
    triple = (forward_propagation, compute_cost, backward_propagation)
    assert check(triple, draw(3, 6), {"W": draw(1, 3)}, LABELS).verdict == "PASS"


def test_a_backward_that_may_take_other_values_than_upstream_gradients_is_refused():
    W1, W2 = draw(4, 5), draw(5, 3)

    def policy_forward(x):
        h = np.maximum(x @ W1, 0)
        return np.exp(h @ W2) / np.exp(h @ W2).sum(axis=1, keepdims=True), x, h

    def policy_backward(xs, hs, dlogits):
        dh = dlogits @ W2.T * (hs > 0)
        return xs.T @ dh, hs.T @ dlogits

    with pytest.raises(SubjectError, match=r"policy_backward: raised ValueError.*if xs, hs, dlogits are other values"):
        check((policy_forward, policy_backward), draw(6, 4))


def test_a_file_with_the_name_of_a_framework_is_not_taken_for_it(monkeypatch):
    module = types.ModuleType("autograd")
    monkeypatch.setitem(sys.modules, "autograd", module)
    f = types.FunctionType(
        (lambda x: float(np.asarray(x).sum())).__code__, {"np": np, "float": float, "__name__": "autograd"}
    )
    f.__module__ = "autograd"
    with pytest.raises(SubjectError, match="JAX cannot trace it"):
        check(f, draw(3))


def test_the_gradient_of_the_last_step_of_an_inner_layer_is_not_taken_for_that_of_all():
    class Steps:
        def __init__(self):
            self.inner = Affine()

        def forward(self, x):
            self.x = x
            return np.vstack([self.inner.forward(row[None]) for row in x])

        def backward(self, error):
            dx = []
            for row, part in zip(self.x, error, strict=True):
                self.inner.forward(row[None])
                dx.append(self.inner.backward(part[None]))
            return np.vstack(dx)

    report = check(Steps(), draw(6, 4))
    assert [(leaf.name, str(leaf.verdict)) for leaf in report.leaves] == [
        ("x", "PASS"),
        ("inner.weights", "INCONCLUSIVE"),
    ]


def test_weights_that_backward_updates_at_a_rate_held_elsewhere_are_not_certified():
    class Dense:
        def __init__(self):
            self.network, self.weights = types.SimpleNamespace(rate=0.1), [draw(3, 4)]

        def forward(self, x):
            self.x = x
            return x @ self.weights[0].T

        def backward(self, delta):
            dx = delta @ self.weights[0]
            self.weights[0] -= self.network.rate * np.outer(delta, self.x)
            return dx

    report = check(Dense(), draw(4))
    assert (report.verdict, [leaf.name for leaf in report.leaves]) == ("INCONCLUSIVE", ["x", "weights[0]"])


def test_an_output_taken_for_the_upstream_gradient_fails():
    class Sigmoid:
        def forward(self, x):
            self.out = sigmoid(x)
            return self.out

        def backward(self, x):
            return x * (1 - x)

    assert check(Sigmoid(), draw(5, 3)).verdict == "FAIL"


def test_a_note_names_what_an_engine_holds_fixed():
    thing, inputs = STYLES["an_engine_with_a_list_of_values_and_a_target"](1.0)
    report = check(thing, *inputs)
    assert [leaf.name for leaf in report.leaves] == ["predictions.0", "predictions.1", "predictions.2"]
    assert any("target is held fixed" in note for note in report.notes)


def test_a_third_result_that_is_no_gradient_is_not_taken_for_one():
    def loss(x):
        return (x**2).sum(), np.sin(3 * x), x.mean(axis=1)

    with pytest.raises(SubjectError, match="JAX cannot trace it"):
        check(loss, draw(4, 3))


class Steps:
    """A recurrent layer that returns all states and the last one; backward takes the gradient of all states."""

    factor = 1.0

    def __init__(self):
        self.W, self.U = draw(3, 4), draw(4, 4)

    def forward(self, x, h):
        self.x, self.h = x, [h]
        for row in x:
            self.h.append(np.tanh(row @ self.W + self.h[-1] @ self.U))
        return np.array(self.h[1:]), self.h[-1]

    def backward(self, above):
        self.dW, self.dU, dx, dh = np.zeros((3, 4)), np.zeros((4, 4)), np.zeros_like(self.x), np.zeros(4)
        for t in range(len(self.x) - 1, -1, -1):
            dz = (above[t] + dh) * (1 - self.h[t + 1] ** 2)
            self.dW += np.outer(self.x[t], dz)
            self.dU += self.factor * np.outer(self.h[t], dz)
            dx[t], dh = dz @ self.W.T, dz @ self.U.T
        return dx


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (1.001, "FAIL")])
def test_a_backward_of_the_first_of_several_outputs_is_checked_by_that(factor, verdict):
    layer = Steps()
    layer.factor = factor
    report = check(layer, draw(5, 3), draw(4))
    assert report.verdict == verdict, str(report)
    assert [(leaf.name, str(leaf.verdict)) for leaf in report.leaves] == [("W", "PASS"), ("U", verdict), ("x", "PASS")]
    assert "h affects the output and has no gradient: it is treated as a constant" in report.warnings
    assert any("for the first output of Steps.forward" in note for note in report.notes)


def test_a_generator_of_the_module_is_restored():
    before = NOISE.bit_generator.state
    thing, inputs = STYLES["noise_from_a_generator_of_the_module"](1.0)
    check(thing, *inputs)
    assert NOISE.bit_generator.state == before


def test_a_note_names_the_argument_in_which_a_gradient_is_linear():
    thing, inputs = STYLES["an_activation_whose_gradient_takes_the_input_and_what_is_above"](1.0)
    assert "gradient is linear in previous, so that is read as the upstream gradient" in check(thing, *inputs).notes


def test_a_switch_that_is_no_derivative_is_not_taken_for_one():
    def dropped(x, training=False):
        x = np.array(x)
        return x**3 / 2 if training else x**3

    with pytest.raises(SubjectError, match="JAX cannot trace it"):
        check(dropped, draw(5))
