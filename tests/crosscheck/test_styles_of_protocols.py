"""Tests layers and networks with a protocol of their own: updates, orders of gradients, inputs that are bound."""

import numpy as np
import pytest
from conftest import exhaustive, mostly_slow
from styles import Styles, draw

from jaxnet.crosscheck import SubjectError, check, check_function

STYLES = Styles()
style = STYLES.add


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class Descent:
    """Gradient descent whose momentum is not plain unless it is 0."""

    def __init__(self, learning_rate=0.1, momentum=0.9):
        self.learning_rate, self.momentum = learning_rate, momentum

    def change(self, velocity, gradient):
        before = np.zeros_like(gradient) if velocity is None else velocity
        velocity = self.momentum * before + (1 - self.momentum) * gradient
        return self.learning_rate * velocity, velocity


class Dense:
    factor = 1.0

    def __init__(self):
        self._weights, self._bias, self.histories = draw(4, 3), draw(1, 3), [None, None]

    def forward(self, X):
        self.X = X
        return X @ self._weights + self._bias

    def backprop(self, dA, optimizer):
        dX = dA @ self._weights.T
        dw, self.histories[0] = optimizer.change(self.histories[0], self.factor * self.X.T @ dA)
        db, self.histories[1] = optimizer.change(self.histories[1], dA.sum(axis=0, keepdims=True))
        self._weights -= dw
        self._bias -= db
        return dX


@style
def a_backprop_that_takes_an_optimizer(k):
    layer = Dense()
    layer.factor = k
    return layer, (draw(5, 4),)


class _Linear:
    def __init__(self, k):
        self.W, self.b, self.k = draw(4, 3), draw(3), k

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b


@style
def a_backward_that_updates_at_its_own_rate(k):
    class Linear(_Linear):
        learning_rate = 0.01

        def __init__(self, k):
            super().__init__(k)
            self.lr, self.vW = 0.01, np.zeros((4, 3))

        def backward(self, dout):
            dx = dout @ self.W.T
            self.vW = 0.9 * self.vW + self.lr * self.k * self.x.T @ dout
            self.W -= self.vW
            self.b = self.b - self.lr * dout.sum(axis=0)
            return dx

    return Linear(k), (draw(5, 4),)


@style
def a_backward_that_takes_inputs_and_what_forward_returned(k):
    class Pairs:
        def __init__(self):
            self.centers, self.contexts, self.lr = draw(6, 3), draw(5, 3), 0.05

        def forward(self, center, context):
            u, v = self.centers[center], self.contexts[context]
            score = (u * v).sum(axis=1)
            return np.logaddexp(0, -score).mean(), u, v, score

        def backward(self, center, context, u, v, score):
            slope = -1 / (1 + np.exp(score))[:, None] / len(score)
            np.add.at(self.centers, center, -self.lr * k * slope * v)
            np.add.at(self.contexts, context, -self.lr * slope * u)

    return Pairs(), (np.array([0, 2, 5]), np.array([1, 1, 3]))


@style
def a_recurrence_that_takes_outputs_states_inputs_and_upstream_gradients(k):
    class Recurrence:
        def __init__(self):
            self.u, self.v, self.bias = draw(4, 3), draw(3, 3) / 2, draw(3)

        def forward(self, inputs):
            h, hiddens = np.zeros((inputs.shape[1], 3)), []
            for x in inputs:
                h = np.tanh(x @ self.u + h @ self.v + self.bias)
                hiddens.append(h)
            return 2 * h, np.array(hiddens)

        def backward(self, preds, hiddens, inputs, out_grads):
            return self.through_time(hiddens, inputs, out_grads)

        def through_time(self, hiddens, inputs, out_grads):
            u_grad, v_grad, bias_grad = np.zeros((4, 3)), np.zeros((3, 3)), np.zeros(3)
            input_grad, dh = np.zeros_like(inputs), 2 * out_grads
            for t in range(len(inputs) - 1, -1, -1):
                dz = dh * (1 - hiddens[t] ** 2)
                v_grad += (hiddens[t - 1] if t else 0 * hiddens[0]).T @ dz
                u_grad += k * inputs[t].T @ dz
                bias_grad += dz.sum(axis=0)
                input_grad[t], dh = dz @ self.u.T, dz @ self.v.T
            return v_grad, u_grad, bias_grad, input_grad

    return Recurrence(), (draw(3, 2, 4),)


@style
def gradients_in_another_order_by_their_names(k):
    class Multiply:
        def forward(self, x, y):
            self.x, self.y = x, y
            return x * y

        def backward(self, dz):
            dx, dy = k * dz * self.y, dz * self.x
            return dy, dx

    return Multiply(), (draw(4, 3), draw(4, 3) + 1)


@style
def gradients_of_a_pair_in_another_order_by_their_names(k):
    def forward(x, scale):
        return x * scale, (x, scale)

    def backward(dout, cache):
        x, scale = cache
        grad_x, grad_scale = k * dout * scale, dout * x
        return grad_scale, grad_x

    return (forward, backward), (draw(4, 3), draw(4, 3) + 1)


@style
def gradients_in_another_order_by_their_shapes(k):
    class Product:
        def forward(self, a, b):
            self.a, self.b = a, b
            return a @ b

        def backward(self, dout):
            return self.a.T @ dout, k * dout @ self.b.T

    return Product(), (draw(5, 4), draw(4, 3))


class _MatMul:
    def __init__(self, x, W):
        self.x, self.W = x, W

    def forward(self):
        return self.x @ self.W


def _matmul(k, order):
    class MatMul(_MatMul):
        def backward(self, dout):
            dx, dW = k * dout @ self.W.T, self.x.T @ dout
            if order == "stored":
                self.dx, self.dW = dx, dW
                return None
            return dW, dx

    return MatMul


@style
def a_constructor_that_takes_the_inputs(k):
    return _matmul(k, "other"), (draw(5, 4), draw(4, 3))


@style
def a_constructor_that_takes_the_inputs_and_stored_gradients(k):
    return _matmul(k, "stored"), (draw(5, 4), draw(4, 3))


@style
def a_layer_made_of_its_inputs(k):
    return _matmul(k, "other")(draw(5, 4), draw(4, 3)), ()


@style
def gradients_in_a_dict_by_short_names(k):
    class Linear:
        def __init__(self):
            self.weights, self.bias, self.gradients = draw(4, 3), draw(3), {}

        def forward(self, x):
            self.x = x
            return x @ self.weights + self.bias

        def backward(self, dLdY):
            self.gradients["dLdW"] = k * self.x.T @ dLdY
            self.gradients["dLdb"] = dLdY.sum(axis=0)
            return dLdY @ self.weights.T

    return Linear(), (draw(5, 4),)


@style
def gradients_beside_parameters_by_short_names(k):
    class Scale:
        def __init__(self):
            self.kernel, self.biases = draw(3), draw(3)

        def forward(self, x):
            self.x = x
            return x * self.kernel + self.biases

        def backward(self, dout):
            self.dW, self.db = (k * dout * self.x).sum(axis=0), dout.sum(axis=0)
            return dout * self.kernel

    return Scale(), (draw(5, 3),)


@style
def a_loss_whose_backward_stores_one_gradient(k):
    class Squares:
        def forward(self, y_pred, y_true):
            self.difference = y_pred - y_true
            return (self.difference**2).mean()

        def backward(self):
            self.dinputs = 2 * k * self.difference / self.difference.size

    return Squares(), (draw(5, 1), draw(5, 1) + 1)


@style
def a_loss_whose_base_class_passes_arguments_on(k):
    class Loss:
        def backward(self, *args, **kwargs):
            gradient = self.slope(*args, **kwargs)
            return gradient / len(gradient)

    class Squares(Loss):
        def forward(self, x, y):
            return ((x - y) ** 2).sum(axis=1)

        def slope(self, x, y):
            return 2 * k * (x - y)

    return Squares(), (draw(5, 3), draw(5, 3) + 1)


class Tensor:
    """A tensor that gives its values by numpy() alone."""

    def __init__(self, array, *, parents=(), dtype="float32"):
        self._array, self.parents, self.grad = [np.array(array, dtype)], parents, None

    def numpy(self):
        return self._array[0]

    def backward(self, above=None):
        self.grad = Tensor(np.ones_like(self.numpy()) if above is None else above, dtype="float64")
        for parent, slope in self.parents:
            parent.backward(self.grad.numpy() * slope)


@style
def an_engine_of_tensors_without_data(k):
    def f(a):
        x = a.numpy()
        return Tensor((x**3).sum(), parents=((a, 3 * k * x**2),), dtype="float64")

    return f, (Tensor(draw(3), dtype="float64"),)


@style
def a_dict_of_gradients_before_those_of_the_inputs(k):
    def forward(x, h, params):
        y = np.tanh(x @ params["W"] + h @ params["U"])
        return y, (x, h, params, y)

    def backward(dy, cache):
        x, h, params, y = cache
        dz = dy * (1 - y**2)
        grads = {"W": k * x.T @ dz, "U": h.T @ dz}
        return grads, dz @ params["U"].T, dz @ params["W"].T

    return (forward, backward), (draw(5, 3), draw(5, 4), {"W": draw(3, 4), "U": draw(4, 4)})


@style
def a_gradient_of_three_arguments_from_the_last_to_the_first(k):
    def cost(W, b, v):
        return (np.tanh(W @ v + b) ** 2).sum()

    def derivatives(W, b, v):
        y = np.tanh(W @ v + b)
        dz = 2 * y * (1 - y**2)
        return W.T @ dz, k * dz, np.outer(dz, v)

    return (cost, derivatives), (draw(3, 4), draw(3), draw(4))


class Cell:
    """A recurrent cell whose methods pass a cache, and whose backward returns the gradients of its arrays too."""

    def __init__(self, factor):
        self.factor, self.U, self.W = factor, draw(3, 4), draw(4, 4)

    def step_forward(self, x, h_prev):
        h = np.tanh(x @ self.U + h_prev @ self.W)
        return h, (x, h_prev, h)

    def step_backward(self, above, cache):
        x, h_prev, h = cache
        da = above * (1 - h**2)
        dx, dh_prev, dU, dW = da @ self.U.T, da @ self.W.T, self.factor * x.T @ da, h_prev.T @ da
        return dh_prev, dx, dU, dW


@style
def two_methods_of_an_object_that_pass_a_cache(k):
    cell = Cell(k)
    return (cell.step_forward, cell.step_backward), (draw(5, 3), draw(5, 4))


@style
def a_cost_of_values_that_forward_returns_by_name(k):
    def forward_propagation(W1, b1, W2, X):
        A1 = np.tanh(W1 @ X + b1)
        A2 = sigmoid(W2 @ A1)
        return A1, A2

    def cost(A2, Y):
        return -(Y * np.log(A2) + (1 - Y) * np.log(1 - A2)).mean()

    def backward_propagation(W2, A1, A2, X, Y):
        dZ2 = (A2 - Y) / Y.size
        dZ1 = W2.T @ dZ2 * (1 - A1**2)
        dW1, db1, dW2 = k * dZ1 @ X.T, dZ1.sum(axis=1, keepdims=True), dZ2 @ A1.T
        return dW1, db1, dW2

    labels = np.array([[0.0, 1, 1, 0, 1, 0]])
    return (forward_propagation, cost, backward_propagation), (draw(4, 3), draw(4, 1), draw(1, 4), draw(3, 6), labels)


@style
def a_backward_that_takes_the_inputs_under_other_names(k):
    def affine(A, W, b):
        return W @ A + b

    def affine_backward(dCdZ, A_prev, weights, bias):
        return weights.T @ dCdZ, k * dCdZ @ A_prev.T, dCdZ.sum(axis=1, keepdims=True)

    return (affine, affine_backward), (draw(4, 6), draw(3, 4), draw(3, 1))


@style
def a_penalty_with_a_method_of_its_own_name(k):
    class Ridge:
        def __init__(self):
            self.strength = 0.3

        def penalty_term(self, w):
            return float(self.strength * (w**2).sum() / 2)

        def gradient(self, w):
            return k * self.strength * w

    return Ridge(), (draw(6),)


@style
def forces_before_the_energy_and_the_virial(k):
    def spring_force(positions, stiffness):
        d = positions[:, None] - positions[None]
        F = -k * stiffness * d.sum(axis=1)
        energy = float(stiffness * (d**2).sum() / 4)
        virial = float(np.abs(F).sum())
        return F, energy, virial

    return spring_force, (draw(4, 3), 0.7)


class Number:
    """An object of an engine that holds its array as `value`, and whose backward starts from a plain 1."""

    def __init__(self, value):
        self.value, self.grad, self.step = value, 0.0, lambda: None

    def squared(self, factor):
        out = Number(self.value**2)

        def step():
            self.grad += 2 * factor * self.value * out.grad

        out.step = step
        return out

    def backward(self):
        self.grad = 1.0
        self.step()


@style
def an_engine_of_arrays_that_starts_from_a_plain_one(k):
    return (lambda a: a.squared(k)), (Number(draw(4)),)


class Traced:
    """An object of an engine that keeps the gradients of its inputs alone, and whose `backward` takes a flag."""

    def __init__(self, data, parents=()):
        self.data, self.grad, self.parents = data, None, parents

    def __mul__(self, other):
        return Traced(self.data * other.data, [(self, lambda g: g * other.data), (other, lambda g: g * self.data)])

    def sum(self, axis):
        return Traced(self.data.sum(axis), [(self, lambda g: g * np.ones_like(self.data))])

    def backward(self, retain_grad=False):
        gradient = np.ones_like(self.data) if self.grad is None else self.grad
        for parent, chain in self.parents:
            passed = chain(gradient)
            parent.grad = passed if parent.grad is None else parent.grad + passed
            parent.backward(retain_grad)
        if self.parents and not retain_grad:
            self.grad = None


@style
def a_function_that_makes_objects_of_an_engine_from_arrays(k):
    def cube(x):
        x = x if isinstance(x, Traced) else Traced(x)
        return Traced(x.data**3, [(x, lambda g: 3 * k * g * x.data**2)])

    return cube, (draw(4, 3),)


W, V, c, slope = draw(4, 3), draw(2, 4), draw(2), {"factor": 1.0}


def sequence_loss(inputs, h):
    """Returns the loss of a network whose weights are globals of the module, their gradients, and a state."""
    y = np.tanh(inputs @ W.T + h)
    z = y @ V.T + c
    loss = (z**2).sum() / 2
    dV, dc = z.T @ y, z.sum(axis=0)
    dW = slope["factor"] * (z @ V * (1 - y**2)).T @ inputs
    return loss, dW, dV, dc, y[-1]


@style
def weights_in_globals_of_the_module(k):
    slope["factor"] = k
    return sequence_loss, (draw(5, 3), np.zeros(4))


class Head:
    """An object with a method that returns a loss, the gradient of its input, and those of two of its arrays."""

    def __init__(self, factor):
        self.factor, self.V, self.c = factor, draw(4, 2), draw(2)

    def output_loss(self, h):
        z = h @ self.V + self.c
        dh, dV, dc = z @ self.V.T, self.factor * h.T @ z, z.sum(axis=0)
        return (z**2).sum() / 2, dh, dV, dc


@style
def a_method_that_returns_a_loss_and_the_gradients_of_attributes(k):
    return Head(k).output_loss, (draw(5, 4),)


@style
def an_energy_and_forces_of_tensors(k):
    torch = pytest.importorskip("torch")

    class Springs:
        def energy(self, x):
            return ((x[:, None] - x[None]) ** 2).sum() / 4

        def forces(self, x):
            return -k * (x[:, None] - x[None]).sum(dim=1)

    return Springs(), (torch.tensor(draw(4, 2)),)


class Labelled:
    """A network whose backward starts from labels, and which knows no cost."""

    def __init__(self, factor):
        self.factor, self.W, self.V = factor, draw(3, 4), draw(4, 1)

    def forward_pass(self, X):
        self.X, A1 = X, np.tanh(X @ self.W)
        A2 = sigmoid(A1 @ self.V)
        return A1, A2

    def backward_pass(self, y, A1, A2):
        dz = (A2 - y) / len(y)
        self.dV = A1.T @ dz
        self.dW = self.factor * self.X.T @ (dz @ self.V.T * (1 - A1**2))


def cross_entropy(y_true, p):
    return -np.mean(y_true * np.log(p) + (1 - y_true) * np.log(1 - p))


CLASSES = np.array([[0.0], [1], [1], [0], [1], [0]])


@style
def a_network_and_a_cost_outside(k):
    return (Labelled(k), cross_entropy), (draw(6, 3), CLASSES)


@style
def a_network_that_holds_the_object_of_its_cost(k):
    class CrossEntropy:
        def compute(self, y_true, p):
            return cross_entropy(y_true, p)

    class Descending(Labelled):
        def __init__(self):
            super().__init__(k)
            self.loss_fn, self.rate = CrossEntropy(), 0.1

        def backward_pass(self, y, A1, A2):
            super().backward_pass(y, A1, A2)
            self.V -= self.rate * self.dV
            self.W -= self.rate * self.dW
            del self.dV, self.dW

    return Descending(), (draw(6, 3), CLASSES)


class Ledger:
    """A context of a framework of its own."""

    def save_for_backward(self, *values):
        self._values = values

    def get_saved(self):
        return self._values


@style
def functions_with_a_context_of_their_module(k):
    class Product:
        @staticmethod
        def forward(ctx, a, b):
            ctx.save_for_backward(a, b)
            return a @ b

        @staticmethod
        def backward(ctx, grad_output):
            a, b = ctx.get_saved()
            return grad_output @ b.T, k * a.T @ grad_output

    return Product, (draw(3, 4), draw(4, 2))


@style
def a_forward_that_keeps_values_only_if_told(k):
    class Network:
        def __init__(self):
            self.W = draw(3, 4)

        def forward(self, x, keep=False):
            if keep:
                self.kept = x
            return np.sin(x @ self.W)

        def backward(self, dout):
            dz = dout * np.cos(self.kept @ self.W)
            self.dW = k * self.kept.T @ dz
            return dz @ self.W.T

    return Network(), (draw(5, 3),)


@style
def steps_of_a_cell_with_a_cache_and_a_dict_of_gradients(k):
    class Cell:
        def __init__(self):
            self.W_i, self.U_i = draw(3, 4), draw(4, 4)

        def forward_step(self, x, h, c):
            z = np.tanh(x @ self.W_i + h @ self.U_i)
            c_next = c * z
            return np.sin(c_next), c_next, {"x": x, "h": h, "c": c, "z": z}

        def backward_step(self, dh_next, dc_next, cache):
            dc = dc_next + dh_next * np.cos(cache["c"] * cache["z"])
            dz = dc * cache["c"] * (1 - cache["z"] ** 2)
            gradients = {"dW_i": k * cache["x"].T @ dz, "dU_i": cache["h"].T @ dz}
            return dz @ self.W_i.T, dz @ self.U_i.T, dc * cache["z"], gradients

    return Cell(), (draw(2, 3), draw(2, 4), draw(2, 4))


@style
def a_gradient_that_takes_some_arguments_in_another_order(k):
    def hamiltonian(phi, phi_0, length, l0, lam):
        return 0.5 * np.sum((phi - phi_0) ** 2) + lam * (length - np.sum(l0 * np.cos(phi)))

    def hamiltonian_gradient(phi, phi_0, lam, l0):
        return k * (phi - phi_0 + lam * l0 * np.sin(phi))

    return (hamiltonian, hamiltonian_gradient), (draw(5), draw(5) ** 2, 3.0, 1.1, 0.7)


@style
def a_network_whose_backward_returns_nothing(k):
    class Dense:
        def __init__(self, shape, factor):
            self.W, self.factor = draw(*shape), factor

        def forward(self, x):
            self.x = x
            return np.sin(x @ self.W)

        def backward(self, delta):
            dz = delta * np.cos(self.x @ self.W)
            self.dW = self.factor * self.x.T @ dz
            return dz @ self.W.T

    class Network:
        def __init__(self):
            self.layers = [Dense((3, 4), k), Dense((4, 2), 1.0)]

        def forward(self, X):
            for layer in self.layers:
                X = layer.forward(X)
            return X

        def backward(self, delta):
            for layer in reversed(self.layers):
                delta = layer.backward(delta)

    return Network(), (draw(5, 3),)


@style
def a_network_that_returns_a_list_like_that_of_its_parameters(k):
    class Network:
        def __init__(self):
            self.W, self.b = draw(3, 4), draw(4)
            self.params = [self.W, self.b]

        def forward(self, x):
            self.x = x
            return np.sin(x @ self.W + self.b)

        def backward(self, dout):
            dz = dout * np.cos(self.x @ self.W + self.b)
            return [k * self.x.T @ dz, dz.sum(axis=0)]

    return Network(), (draw(5, 3),)


class Node:
    """A matrix of an engine, whose product with another one is differentiable."""

    def __init__(self, data, parents=(), back=None):
        self.data, self.grad, self.parents, self.back = data, np.zeros_like(data), parents, back

    def __matmul__(self, other):
        return Node(self.data @ other.data, (self, other), lambda g: (g @ other.data.T, self.data.T @ g))

    def scaled_gradient(self, factor):
        return Node(self.data, (self,), lambda g: (factor * g,))

    def backward(self, grad):
        self.grad = self.grad + grad
        for parent, part in zip(self.parents, self.back(grad) if self.back else (), strict=True):
            parent.backward(part)


@style
def a_module_of_an_engine_that_holds_weights(k):
    class Linear:
        def __init__(self):
            self.layers = {"weight": Node(draw(3, 4))}

        def __call__(self, x):
            return x @ self.layers["weight"].scaled_gradient(k)

    return Linear(), (Node(draw(5, 3)),)


class Squashed:
    """A layer of a network that updates all of them at a rate."""

    def __init__(self, weight):
        self.weight = weight

    def forward(self, x):
        self.x = x
        return sigmoid(x @ self.weight)

    def backward(self, delta):
        self.delta = delta
        return delta @ self.weight.T

    def update(self, eta, factor):
        self.weight -= eta * factor * self.x.T @ self.delta


@style
def a_network_with_its_cost_that_updates_its_layers_at_a_rate(k):
    class Network:
        def __init__(self):
            self.layers = [Squashed(draw(3, 4)), Squashed(draw(4, 1))]

        def feedforward(self, x):
            for layer in self.layers:
                x = layer.forward(x)
            return x

        def cost(self, y_hat, y):
            return -np.sum(y * np.log(y_hat) + (1 - y) * np.log(1 - y_hat))

        def backpropagation(self, y_hat, y, eta):
            hidden = self.layers[1].x
            delta = self.layers[1].backward(y_hat - y) * hidden * (1 - hidden)
            self.layers[0].backward(delta)
            self.layers[0].update(eta, k)
            self.layers[1].update(eta, 1.0)

    return Network(), (draw(6, 3), CLASSES)


@style
def a_network_with_private_dicts_and_a_cost_of_its_own(k):
    class Network:
        def __init__(self):
            self._parameters, self._grads, self._cache = {"W1": draw(4, 3), "W2": draw(1, 4)}, {}, {}

        def forward(self, X):
            self._cache = {"A0": X, "A1": np.tanh(self._parameters["W1"] @ X)}
            return sigmoid(self._parameters["W2"] @ self._cache["A1"])

        def loss(self, AL, Y):
            return cross_entropy(Y, AL)

        def backward(self, Y):
            delta = (sigmoid(self._parameters["W2"] @ self._cache["A1"]) - Y) / Y.size
            self._grads["dW2"] = delta @ self._cache["A1"].T
            below = self._parameters["W2"].T @ delta * (1 - self._cache["A1"] ** 2)
            self._grads["dW1"] = k * below @ self._cache["A0"].T

    return Network(), (draw(3, 6), CLASSES.T)


@style
def a_network_that_returns_lists_of_gradients_and_its_cost_with_an_accuracy(k):
    class Network:
        def __init__(self):
            self.weights = [draw(3, 4), draw(4, 1)]

        def forward(self, inputs):
            activations = [inputs, np.tanh(inputs @ self.weights[0])]
            predictions = sigmoid(activations[-1] @ self.weights[1])
            return activations, predictions

        def compute_loss(self, predictions, labels):
            penalty = sum(np.sum(w**2) for w in self.weights) / 2
            return cross_entropy(labels, predictions) + penalty, np.mean((predictions > 0.5) == labels)

        def backpropagation(self, activations, predictions, labels):
            delta = (predictions - labels) / len(labels)
            below = delta @ self.weights[1].T * (1 - activations[1] ** 2)
            return [[k * (activations[0].T @ below + self.weights[0]), activations[1].T @ delta + self.weights[1]]]

    return Network(), (draw(6, 3), CLASSES)


@style
def a_network_with_a_cache_that_returns_gradients_by_the_names_of_parameters(k):
    class Network:
        def __init__(self):
            self.params = {"W1": draw(3, 4), "W2": draw(4, 1)}

        def forward(self, X):
            A1 = np.tanh(X @ self.params["W1"])
            cache = (X, A1)
            y_pred = sigmoid(A1 @ self.params["W2"])
            return y_pred, cache

        def backward(self, y_pred, y_true, cache, penalty=0.0):
            X, A1 = cache
            delta = (y_pred - y_true) / len(y_true)
            below = delta @ self.params["W2"].T * (1 - A1**2)
            return {"W2": A1.T @ delta, "W1": k * X.T @ below + penalty * self.params["W1"]}

    return (Network(), lambda p, t: cross_entropy(t, p)), (draw(6, 3), CLASSES)


@style
def a_network_whose_gradients_are_computed_after_its_backward(k):
    class Network:
        def __init__(self):
            self.W, self.delta_W, self.e = {1: draw(4, 3), 2: draw(1, 4)}, {}, {}

        def forward(self, sample):
            self.a = np.tanh(self.W[1] @ sample)
            self.out = sigmoid(self.W[2] @ self.a)
            return self.out

        def backward(self, target):
            self.e[2] = self.out - target
            self.e[1] = (1 - self.a**2) * (self.W[2].T @ self.e[2])

        def gradient(self, sample):
            self.delta_W = {1: k * np.outer(self.e[1], sample), 2: np.outer(self.e[2], self.a)}

    def cost(target_onehot, out):
        return cross_entropy(target_onehot, out)

    return (Network(), cost), (draw(3), np.array([1.0]))


@style
def a_backward_that_takes_a_rate_and_a_batch_size(k):
    class Rows:
        def __init__(self):
            self.matrix = draw(3, 4)

        def forward(self, x):
            self.x = x
            return self.matrix @ x

        def backward(self, delta, eta, batch_size):
            dx = self.matrix.T @ delta
            self.matrix -= eta * k * (delta @ self.x.T) / batch_size
            return dx

    return Rows(), (draw(4, 1),)


@style
def a_cost_and_its_derivative_by_the_input_of_the_last_sigmoid(k):
    class Entropy:
        @staticmethod
        def fn(a, y):
            return -np.sum(y * np.log(a) + (1 - y) * np.log(1 - a))

        @staticmethod
        def delta(z, a, y):
            return k * (a - y)

    return Entropy, (sigmoid(draw(4, 2)), np.eye(4)[:, :2])


@style
def a_cost_and_its_derivative_times_a_factor_of_the_layer(k):
    def cost(y, a):
        return ((a - y) ** 3).sum()

    return (cost, lambda y, a, z: 3 * k * z * (a - y) ** 2), (draw(5, 3), draw(5, 3) + 1)


@style
def a_network_that_returns_a_dict_of_activations(k):
    class Activations:
        def __init__(self):
            self.W, self.V = draw(3, 4), draw(4, 3)

        def forward(self, X):
            hidden = np.tanh(X @ self.W)
            return {"H": hidden, "P": sigmoid(hidden @ self.V)}

        def cost(self, P, y):
            return ((P - y) ** 2).sum()

        def backward(self, cache, X, y):
            hidden, p = cache["H"], cache["P"]
            delta = 2 * (p - y) * p * (1 - p)
            return {"dW": k * X.T @ (delta @ self.V.T * (1 - hidden**2)), "dV": hidden.T @ delta}

    return Activations(), (draw(6, 3), CLASSES)


class Divided:
    def __init__(self, k):
        self.k, self.W, self.dW = k, draw(4, 3), np.zeros((4, 3))

    def forward(self, X):
        return np.tanh(X @ self.W)

    def _slope(self, inpt, delta):
        return delta * (1 - np.tanh(inpt @ self.W) ** 2)

    def backward_update_gradient(self, inpt, delta):
        self.dW = self.k * inpt.T @ self._slope(inpt, delta)

    def backward_delta(self, inpt, delta):
        return self._slope(inpt, delta) @ self.W.T


@style
def two_methods_that_take_the_input_again(k):
    return Divided(k), (draw(5, 4),)


@style
def a_backward_that_takes_the_input_under_another_name(k):
    class Affine:
        def __init__(self):
            self.W = draw(3, 4)

        def forward(self, x):
            return np.einsum("ij,bj->bi", self.W, x)

        def backward(self, g, h):
            dW, dx = np.einsum("bi,bj->ij", g, h), g @ self.W
            return k * dW, dx

    return Affine(), (draw(5, 4),)


@style
def a_backward_pass_that_is_named_after_gradients(k):
    class Weights:
        def __init__(self):
            self.params, self.grads = draw(4, 3), np.zeros((4, 3))

    class Scores:
        def __init__(self):
            self.W = Weights()

        def forward(self, inpt):
            self.inpt = inpt
            return inpt @ self.W.params

        def compute_gradients(self, upper):
            self.W.grads = k * self.inpt.T @ upper
            return upper @ self.W.params.T

    return Scores(), (draw(5, 4),)


@style
def gradients_of_inputs_beside_them_in_objects(k):
    class Slot:
        def __init__(self, value):
            self.value, self.dvalue = value, None

    class Slots:
        def __init__(self):
            self.slots = {"weights": Slot(draw(4, 3))}

        def forward(self, x=None):
            self.slots["x"] = Slot(x)
            return x @ self.slots["weights"].value

        def backward(self, doutput):
            weights, x = self.slots["weights"], self.slots["x"]
            weights.dvalue = k * x.value.T @ doutput
            x.dvalue = doutput @ weights.value.T

    return Slots(), (draw(5, 4),)


@style
def an_energy_and_forces_among_other_numbers(k):
    def pairs(pos, scale=2.0):
        energy, distance, force = 0.0, 0.0, np.zeros_like(pos)
        for i in range(len(pos)):
            for j in range(i):
                apart = pos[i] - pos[j]
                distance = float(np.sqrt(apart @ apart))
                energy += scale * (distance - 1) ** 2
                pull = -2 * k * scale * (distance - 1) * apart / distance
                force[i] += pull
                force[j] -= pull
        return distance, energy, force

    return pairs, (draw(4, 3),)


@style
def an_object_that_holds_a_function_and_its_derivative(k):
    class Cost:
        def __init__(self, func, dfunc):
            self.func, self.dfunc = func, dfunc

    return Cost(lambda y, t: (y - t) ** 4, lambda y, t: 4 * k * (y - t) ** 3), (0.3, 1.0)


@style
def lists_of_gradients_by_a_batch_size_and_outputs_that_are_called_as_the_input(k):
    class Layers:
        def __init__(self):
            self.weights, self.biases = [draw(3, 4), draw(4, 3)], [draw(1, 4), draw(1, 3)]

        def forward(self, x):
            activations = [x]
            for w, b in zip(self.weights, self.biases, strict=True):
                x = np.tanh(x @ w + b)
                activations.append(x)
            return x, activations

        def backpass(self, x, y, batch_size):
            _, (x, h, p) = self.forward(x)
            last = 2 * (p - y) * (1 - p**2) / batch_size
            first = last @ self.weights[1].T * (1 - h**2)
            return [k * x.T @ first, h.T @ last], [first.sum(axis=0), k * last.sum(axis=0)]

    def cost(output, y):
        return ((output - y) ** 2).sum() / len(y)

    return (Layers(), cost), (draw(6, 3), CLASSES)


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


@pytest.mark.parametrize(
    ("name", "leaves"),
    [
        ("a_backprop_that_takes_an_optimizer", {"_weights", "_bias", "X"}),
        ("a_backward_that_updates_at_its_own_rate", {"W", "b", "x"}),
        ("a_backward_that_takes_inputs_and_what_forward_returned", {"centers", "contexts"}),
        (
            "a_recurrence_that_takes_outputs_states_inputs_and_upstream_gradients",
            {"u", "v", "bias", "inputs"},
        ),
        ("a_layer_made_of_its_inputs", {"x", "W"}),
        ("gradients_in_a_dict_by_short_names", {"weights", "bias", "x"}),
    ],
)
def test_every_gradient_of_a_protocol_is_checked(name, leaves):
    thing, inputs = STYLES[name](1.0)
    assert {leaf.name for leaf in check(thing, *inputs).leaves} == leaves


@pytest.mark.slow
def test_a_note_says_how_the_order_and_the_optimizer_were_read():
    thing, inputs = STYLES["gradients_in_another_order_by_their_names"](1.0)
    assert "returns gradients of y, x in this order, by the names" in " ".join(check(thing, *inputs).notes)
    assert "by Descent(learning_rate=1, momentum=0)" in " ".join(check(Dense(), draw(5, 4)).notes)


def test_exchanged_gradients_without_names_fail():
    class Multiply:
        def forward(self, x, y):
            self.x, self.y = x, y
            return x * y

        def backward(self, dz):
            return dz * self.x, dz * self.y

    assert check(Multiply(), draw(4, 3), draw(4, 3) + 1).verdict == "FAIL"


def test_the_subclass_that_is_proposed_for_an_optimizer_of_no_known_class_works(monkeypatch):
    monkeypatch.delitem(globals(), "Descent")
    sgd = type("SGD", (), {"__init__": lambda self, lr: setattr(self, "lr", lr)})
    sgd.change = lambda self, history, gradient: (self.lr * gradient, history)
    with pytest.raises(SubjectError, match=r"Dense.backprop: takes optimizer.*pass a subclass") as raised:
        check(Dense(), draw(5, 4))
    code = str(raised.value).partition("class Checked")[2]
    names = {"Dense": Dense, "SGD": sgd}
    exec("class Checked" + code, names)
    assert check(names["Checked"](), draw(5, 4)).verdict == "PASS"


model = {"W1": draw(4, 5), "W2": draw(5, 3)}


def policy_forward(x):
    h = np.maximum(x @ model["W1"], 0)
    p = np.exp(h @ model["W2"])
    return p / p.sum(axis=1, keepdims=True), x, h


def policy_backward(xs, hs, dlogits):
    dh = dlogits @ model["W2"].T * (hs > 0)
    return {"W1": xs.T @ dh, "W2": hs.T @ dlogits}


class Policy:
    def __init__(self):
        self.parameters = {"W": draw(4, 1)}

    def forward(self, x, training=False):
        a = 1 / (1 + np.exp(-x @ self.parameters["W"]))
        return (a, {"a": a}) if training else a

    def backward(self, x, y, cache):
        dz = (cache["a"] - y) / len(y)
        return {"dW": x.T @ dz, "dz": dz}


def _run(error, **names):
    """Runs the call that a message proposes."""
    return eval(str(error).rpartition("then ")[2], {"check_function": check_function, **names})


def test_the_call_that_is_proposed_for_parameters_in_a_global_works():
    x = draw(6, 4)

    def loss():
        return np.log(policy_forward(x)[0][:, 0]).sum()

    def gradients():
        p, xs, hs = policy_forward(x)
        return policy_backward(xs, hs, np.eye(3)[[0]] - p)

    with pytest.raises(
        SubjectError,
        match=r"policy_backward\(xs, hs, dlogits\) and returns the gradients, a dict by the names in model",
    ) as raised:
        check((policy_forward, policy_backward), x)
    report = _run(raised.value, model=model, loss=loss, gradients=gradients)
    assert (report.verdict, [leaf.name for leaf in report.leaves]) == ("PASS", ["p.W1", "p.W2"])


def test_the_call_that_is_proposed_for_a_backward_of_the_cost_of_an_object_works():
    net, x, y = Policy(), draw(6, 4), np.array([[0.0], [1], [1], [0], [1], [0]])

    def loss():
        a = net.forward(x)
        return -(y * np.log(a) + (1 - y) * np.log(1 - a)).mean()

    def gradients():
        return net.backward(x, y, net.forward(x, training=True)[1])

    with pytest.raises(SubjectError, match=r"Policy.backward: takes y and no upstream gradient") as raised:
        check(net, x, y)
    report = _run(raised.value, net=net, loss=loss, gradients=gradients)
    assert (report.verdict, [leaf.name for leaf in report.leaves]) == ("PASS", ["p.W"])


def test_the_call_that_is_proposed_for_a_cost_outside_has_the_names_of_the_methods():
    weights = np.arange(1.0, 7)[:, None]  # so that no usual cost fits

    class Net:
        def __init__(self):
            self.params = {"W": np.array([[0.3], [-0.2]])}

        def forward_pass(self, X):
            self.X, self.A = X, 1 / (1 + np.exp(-X @ self.params["W"]))
            return self.A

        def backward_pass(self, y):
            self.grads = {"W": self.X.T @ (weights * (self.A - y))}

    net, X, y = Net(), draw(6, 2), np.array([[0.0], [1], [1], [0], [1], [0]])

    def cost(A, y):
        return -(weights * (y * np.log(A) + (1 - y) * np.log(1 - A))).sum()

    def loss():
        A = net.forward_pass(X)
        return cost(A, y)

    def gradients():
        net.forward_pass(X)
        net.backward_pass(y)
        return net.grads

    with pytest.raises(
        SubjectError, match=r"loss\(\), which runs net.forward_pass .* runs net.backward_pass\(y\)"
    ) as raised:
        check(net, X, y)
    report = _run(raised.value, net=net, loss=loss, gradients=gradients)
    assert (report.verdict, [leaf.name for leaf in report.leaves]) == ("PASS", ["p.W"])
    assert "check((net, cost), X, y)" in str(raised.value)
    report = check((net, cost), X, y)
    assert (report.verdict, [leaf.name for leaf in report.leaves]) == ("PASS", ["W"])


def test_notes_name_the_order_and_the_arrays_that_were_read():
    thing, inputs = STYLES["a_dict_of_gradients_before_those_of_the_inputs"](1.0)
    assert (
        "backward returns gradients in the order params, h, x, inferred from their shapes"
        in check(thing, *inputs).notes
    )
    thing, inputs = STYLES["weights_in_globals_of_the_module"](1.0)
    report = check(thing, *inputs)
    note = "sequence_loss is checked as a function of W, V, c: it reads them and returns their gradients"
    assert f"{note}; it returns no gradients of its arguments, so these are held fixed: inputs, h" in report.notes
    assert [leaf.name for leaf in report.leaves] == ["params.W", "params.V", "params.c"]


def test_gradients_of_the_same_shapes_have_the_order_of_the_arguments():
    def exchanged(W, U):
        return (np.cos(U), np.cos(W))

    report = check((lambda W, U: np.sin(W).sum() + np.sin(U).sum(), exchanged), draw(3, 3), draw(3, 3) + 1)
    assert report.verdict == "FAIL"


def test_a_method_of_a_cell_without_a_gradient_for_an_input_is_inconclusive():
    cell = Cell(1.0)

    def step_backward(self, above, cache):
        dh_prev, _, dU, dW = Cell.step_backward(self, above, cache)
        return dh_prev, dU, dW

    cell.__class__ = type("Cell", (Cell,), {"step_backward": step_backward})
    report = check((cell.step_forward, cell.step_backward), draw(5, 3), draw(5, 4))
    assert {leaf.name: str(leaf.verdict) for leaf in report.leaves} == {
        "U": "PASS", "W": "PASS", "h_prev": "PASS", "x": "INCONCLUSIVE"
    }  # fmt: skip


def test_a_note_names_the_cost_of_a_network():
    thing, inputs = STYLES["a_network_and_a_cost_outside"](1.0)
    report = check(thing, *inputs)
    assert [leaf.name for leaf in report.leaves] == ["W", "V"]
    note = "backward_pass of Labelled is checked as the gradient of cross_entropy by its parameters, so X is held fixed"
    assert note in report.notes


def test_a_parameter_without_gradient_is_not_certified():
    class Forgetful(Labelled):
        def backward_pass(self, y, A1, A2):
            super().backward_pass(y, A1, A2)
            del self.dV

    report = check((Forgetful(1.0), cross_entropy), draw(6, 3), CLASSES)
    assert report.verdict == "INCONCLUSIVE", str(report)


def test_a_network_that_takes_an_upstream_gradient_is_not_given_labels():
    class Upstream(Labelled):
        def forward_pass(self, X):
            return super().forward_pass(X)[1]

        def backward_pass(self, delta):
            self.dV = delta

    with pytest.raises(SubjectError):
        check((Upstream(1.0), cross_entropy), draw(6, 3), CLASSES)


def test_a_derivative_that_fits_the_second_argument_but_for_a_factor_is_named_so():
    def loss(real, predicted):
        return np.mean((real - predicted) ** 2)

    report = check((loss, lambda real, predicted: 2 * (predicted - real)), draw(5, 1), draw(5, 1) + 1)
    (leaf,) = report.leaves
    assert (leaf.name, str(leaf.verdict)) == ("predicted", "FAIL"), str(report)
    assert "true gradient times 5" in leaf.diagnosis


def test_a_called_object_with_a_backward_of_its_own_is_not_derived_by_jax():
    class Loss:
        def __call__(self, target, predict):
            return (target - predict) ** 2

        def backprop(self, target, predict):
            return predict - target

    assert check(Loss(), draw(5, 3), draw(5, 3) + 1).verdict == "FAIL"


def test_a_force_without_a_minus_has_the_wrong_sign():
    class Spring:
        def bond_energy(self, r, k):
            return 0.5 * k * (r - 0.3) ** 2

        def bond_force(self, r, k):
            return k * (r - 0.3)

    (leaf,) = (leaf for leaf in check(Spring(), draw(5), 2.0).leaves if leaf.name == "r")
    assert "sign is wrong" in leaf.diagnosis


def test_an_exception_in_an_engine_is_reported_as_such():
    class Value:
        def __init__(self, data):
            self.data, self.grad = data, 0.0

        def exp(self):
            return Value(undefined.exp(self.data))  # noqa: F821

        def backward(self):
            self.grad = 1.0

    with pytest.raises(SubjectError, match="raised NameError: name 'undefined' is not defined"):
        check(lambda a: a.exp(), Value(0.5))


# -- a loss that closes over a network or arrays, and returns their gradients in a dict


class Decaying:
    def __init__(self, factor):
        self.params, self.factor = {"W": draw(4, 3), "b": draw(3)}, factor

    def loss(self, X, y, reg):
        W, b = self.params["W"], self.params["b"]
        error = X @ W + b - y
        grads = {"W": X.T @ error + self.factor * reg * W, "b": error.sum(axis=0)}
        return 0.5 * (error**2).sum() + reg * (W**2).sum(), grads


def closing_over_a_network(factor):
    net = Decaying(factor)
    return lambda X, y: net.loss(X, y, 0.5)


def closing_over_arrays(factor):
    W, b = draw(4, 3), draw(3)

    def loss(X, y):
        error = X @ W + b - y
        return {"dW": factor / 2 * X.T @ error, "db": error.sum(axis=0)}, 0.5 * (error**2).sum()

    return loss


def closing_over_layers(factor):
    net = {"first": {"W": draw(4, 3)}, "second": {"W": draw(3, 3)}}

    def loss(X, y):
        h = X @ net["first"]["W"]
        error = h @ net["second"]["W"] - y
        grads = {"first": {"W": X.T @ (error @ net["second"]["W"].T)}, "second": {"dW": factor / 2 * h.T @ error}}
        return 0.5 * (error**2).sum(), grads

    return loss


@pytest.mark.parametrize("made", [closing_over_a_network, closing_over_arrays, closing_over_layers])
def test_a_loss_is_checked_by_the_arrays_that_it_closes_over(made):
    X, y = draw(5, 4), draw(5, 3)
    assert check(made(2.0), X, y).verdict == "PASS"
    report = check(made(1.0), X, y)
    assert [leaf.name.rpartition(".")[2] for leaf in report.leaves if leaf.verdict == "FAIL"] == ["W"]
    assert len(report.leaves) == 2


def test_a_key_that_names_no_array_is_noted():
    W = draw(4, 3)

    def loss(X, y):
        error = X @ W - y
        return 0.5 * (error**2).sum(), {"W": X.T @ error, "scale": error.sum(axis=0)}

    report = check(loss, draw(5, 4), draw(5, 3))
    assert [leaf.name for leaf in report.leaves] == ["params.W"]
    assert "no array that it reads has their name or shape: scale" in report.notes[0]


def test_a_captured_array_without_a_gradient_is_named():
    W, b = draw(4, 3), draw(3)

    def loss(X, y):
        error = X @ W + b - y
        return 0.5 * (error**2).sum(), {"W": X.T @ error}

    assert "b" in str(check(loss, draw(5, 4), draw(5, 3)).warnings)
