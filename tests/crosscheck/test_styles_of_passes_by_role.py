"""Tests networks whose passes take further values, and functions with global parameters: right passes, wrong fails."""

import types

import numpy as np
import pytest
from conftest import mostly_slow

from jaxnet.crosscheck import SubjectError, check

RNG = np.random.default_rng(0)
X, ONES_AND_ZEROS = RNG.normal(size=(6, 4)), np.array([[0.0], [1.0], [1.0], [0.0], [1.0], [0.0]])
CLASSES, ONE_HOT = np.array([0, 1, 2, 2, 0, 1]), np.eye(3)[[0, 1, 2, 2, 0, 1]]
ONE_SAMPLE = RNG.normal(size=(4, 1)), np.array([[0.0], [1.0]])


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


class HoldsItsData:
    """A network that is made with its data, and whose passes take nothing and update at a rate of 1."""

    def __init__(self, factor):
        self.factor = factor
        self.input, self.y = X, ONES_AND_ZEROS
        self.weights1, self.weights2 = RNG.normal(size=(4, 5)), RNG.normal(size=(5, 1))
        self.output = np.zeros(self.y.shape)

    def feedforward(self):
        self.hidden = sigmoid(self.input @ self.weights1)
        self.output = sigmoid(self.hidden @ self.weights2)

    def backprop(self):
        delta = 2 * (self.y - self.output) * self.output * (1 - self.output)
        d_weights2 = self.hidden.T @ delta
        d_weights1 = self.input.T @ (delta @ self.weights2.T * self.hidden * (1 - self.hidden))
        self.weights1 += self.factor * d_weights1
        self.weights2 += d_weights2


class KeepsOnlyInTraining:
    """A network whose forward keeps what backward needs in training alone."""

    def __init__(self, factor):
        self.factor = factor
        self.weights1, self.weights2 = RNG.normal(size=(4, 5)), RNG.normal(size=(5, 3))

    def forward(self, x, training=False):
        hidden = np.tanh(x @ self.weights1)
        if training:
            self.x, self.hidden, self.p = x, hidden, softmax(hidden @ self.weights2)
        return softmax(hidden @ self.weights2)

    def backward(self, y_onehot, learning_rate=0.01):
        delta = (self.p - y_onehot) / len(y_onehot)
        back = delta @ self.weights2.T * (1 - self.hidden**2)
        self.weights2 -= learning_rate * self.hidden.T @ delta
        self.weights1 -= self.factor * learning_rate * self.x.T @ back


class TakesADifference:
    """A network whose backward takes the difference from the labels and a list of activations, and an update later."""

    def __init__(self, factor):
        self.factor = factor
        self.weights1, self.weights2 = RNG.normal(size=(4, 5)), RNG.normal(size=(5, 3))

    def forward_pass(self, data):
        hidden = np.tanh(data @ self.weights1)
        return softmax(hidden @ self.weights2), [data, hidden]

    def backPropagation(self, loss, values):
        data, hidden = values
        first = self.factor * data.T @ (loss @ self.weights2.T * (1 - hidden**2))
        return first, hidden.T @ loss

    def update_network(self, first, second, learning_rate):
        self.weights1 -= learning_rate * first
        self.weights2 -= learning_rate * second


class HasAnError(TakesADifference):
    """A network with labels minus outputs as its error, a private forward pass, and an output in an attribute."""

    learningRate = 0.5

    def _predict(self, data):
        self.data, self.hidden = data, np.tanh(data @ self.weights1)
        self.out = sigmoid(self.hidden @ self.weights2)

    forward_pass = property()

    def backPropagation(self, error):
        delta = error * self.out * (1 - self.out)
        first = self.data.T @ (delta @ self.weights2.T * (1 - self.hidden**2))
        self.weights2 += self.learningRate * self.hidden.T @ delta
        self.weights1 += self.factor * self.learningRate * first


class TrainsWithLists:
    """A network of one sample in plain lists, whose `train` has both passes."""

    def __init__(self, factor):
        self.factor, self.learning_rate = factor, 0.1
        self.weights1, self.weights2 = RNG.normal(size=(5, 4)), RNG.normal(size=(2, 5))

    def predict(self, input_list):
        return sigmoid(self.weights2 @ sigmoid(self.weights1 @ np.array(input_list))).tolist()

    def train(self, input_list, target_list):
        x = np.array(input_list)
        hidden = sigmoid(self.weights1 @ x)
        y = sigmoid(self.weights2 @ hidden)
        delta = (np.array(target_list) - y) * y * (1 - y)
        back = self.weights2.T @ delta * hidden * (1 - hidden)
        self.weights2 += self.learning_rate * delta @ hidden.T
        self.weights1 += self.factor * self.learning_rate * back @ x.T


class HoldsAnArrayOfObjects(KeepsOnlyInTraining):
    """A network with its weights in an array of objects, which samples of another name pass."""

    def __init__(self, factor):
        super().__init__(factor)
        self.layers = np.empty(2, object)
        self.layers[:] = [self.weights1, self.weights2]
        del self.weights1, self.weights2

    def forward(self, input_layer):
        return softmax(np.tanh(input_layer @ self.layers[0]) @ self.layers[1])

    def backward(self, x, y, learning_rate):
        hidden = np.tanh(x @ self.layers[0])
        delta = softmax(hidden @ self.layers[1]) - y
        back = delta @ self.layers[1].T * (1 - hidden**2)
        self.layers[1] = self.layers[1] - learning_rate * hidden.T @ delta
        self.layers[0] = self.layers[0] - self.factor * learning_rate * x.T @ back


def test_network_that_updates_before_it_is_done():
    class UpdatesTooEarly(TrainsWithLists):
        def train(self, input_list, target_list):
            x = np.array(input_list)
            hidden = sigmoid(self.weights1 @ x)
            y = sigmoid(self.weights2 @ hidden)
            delta = (np.array(target_list) - y) * y * (1 - y)
            self.weights2 += self.learning_rate * delta @ hidden.T
            self.weights1 += self.learning_rate * (self.weights2.T @ delta * hidden * (1 - hidden)) @ x.T

    report = check(UpdatesTooEarly(1.0), *ONE_SAMPLE)
    assert [leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"] == ["weights1"]
    assert "the update of weights1 is not proportional to the learning rate" in str(report)


def test_network_with_no_gradient_of_a_cost_is_refused():
    class Guesses(KeepsOnlyInTraining):
        def backward(self, y_true, learning_rate=0.01):
            self.weights1 -= learning_rate * np.sign(self.weights1)

    with pytest.raises(SubjectError, match="pass the cost with it"):
        check(Guesses(1.0), X, ONE_HOT)


WITH_GLOBALS = """
import numpy as np

FACTOR = 1.0
rng = np.random.default_rng(0)
W1, b1 = rng.normal(size=(4, 5)), rng.normal(size=5)
W2, b2 = rng.normal(size=(5, 1)), rng.normal(size=1)

def forward(X):
    Z1 = X @ W1 + b1
    A1 = np.tanh(Z1)
    Z2 = A1 @ W2 + b2
    A2 = 1 / (1 + np.exp(-Z2))
    return Z1, A1, Z2, A2

def compute_loss(y_true, y_pred):
    return -np.mean(y_true * np.log(y_pred) + (1 - y_true) * np.log(1 - y_pred))

def backward(X, y_true, Z1, A1, Z2, A2):
    dZ2 = (A2 - y_true) / len(X)
    dZ1 = dZ2 @ W2.T * (1 - A1**2)
    dW1, db1 = FACTOR * X.T @ dZ1, dZ1.sum(axis=0)
    dW2, db2 = A1.T @ dZ2, dZ2.sum(axis=0)
    return dW1, db1, dW2, db2

def backward_with_update(X, y_true, lr):
    global W1, b1, W2, b2
    Z1, A1, Z2, A2 = forward(X)
    dW1, db1, dW2, db2 = backward(X, y_true, Z1, A1, Z2, A2)
    W1 = W1 - lr * dW1
    b1 = b1 - lr * db1
    W2 -= lr * dW2
    b2 -= lr * db2
"""


@pytest.mark.parametrize("names", [("forward", "compute_loss", "backward"), ("forward", "backward")])
def test_functions_with_global_parameters(names, tmp_path):
    path = tmp_path / "with_globals.py"
    path.write_text(WITH_GLOBALS)  # the names that it returns are read in its source
    module = types.ModuleType("with_globals")
    exec(compile(WITH_GLOBALS, str(path), "exec"), vars(module))
    functions = tuple(getattr(module, name) for name in names)
    assert check(functions, X, ONES_AND_ZEROS).verdict == "PASS"
    module.FACTOR = 1.01
    report = check(functions, X, ONES_AND_ZEROS)
    assert [leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"] == ["W1"]


def test_autoencoder_whose_backward_takes_nothing():
    class Autoencoder(KeepsOnlyInTraining):
        def __init__(self, factor):
            super().__init__(factor)
            self.weights2, self.lr = RNG.normal(size=(5, 4)), 0.1

        def forward(self, x):
            self.x, self.hidden = x, np.tanh(x @ self.weights1)
            self.out = self.hidden @ self.weights2
            return self.out

        def backward(self):
            delta = self.out - self.x
            first = self.x.T @ (delta @ self.weights2.T * (1 - self.hidden**2))
            self.weights2 -= self.lr * self.hidden.T @ delta
            self.weights1 -= self.factor * self.lr * first

    assert check(Autoencoder(1.0), X).verdict == "PASS"
    report = check(Autoencoder(1.01), X)
    assert [leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"] == ["weights1"]


class TakesTheRateFirst:
    """A network that takes a learning rate before the upstream gradient, with layers that update later."""

    def __init__(self, factor):
        self.layers = [ReturnsPairs(factor, (4, 5)), ReturnsPairs(1.0, (5, 3))]

    def forward(self, x):
        return self.layers[1].forward(self.layers[0].forward(x))

    def backward(self, learning_rate, loss_grads):
        for layer in reversed(self.layers):
            loss_grads, [(W, slope)] = layer.backward(loss_grads)
            W -= learning_rate * slope


class ReturnsPairs:
    """A layer whose backward returns the gradients of its parameters with these."""

    def __init__(self, factor, shape=(4, 3)):
        self.factor, self.W = factor, RNG.normal(size=shape)

    def forward(self, x):
        self.x = x
        return np.tanh(x @ self.W)

    def backward(self, dout):
        delta = dout * (1 - np.tanh(self.x @ self.W) ** 2)
        return delta @ self.W.T, [(self.W, self.factor * self.x.T @ delta)]


@pytest.mark.parametrize("kind", [TakesTheRateFirst, ReturnsPairs])
def test_code_that_takes_the_rate_first_or_returns_pairs(kind):
    assert check(kind(1.0), X).verdict == "PASS"
    report = check(kind(1.01), X)
    assert [leaf.name.rpartition(".")[2] for leaf in report.leaves if leaf.verdict == "FAIL"] == ["W"]


class IsSimple:
    """A network as in a much copied article: `think`, and `train` with a number of iterations and no rate."""

    def __init__(self, factor):
        self.factor, self.weights1, self.weights2 = factor, RNG.normal(size=(4, 5)), RNG.normal(size=(5, 1))

    def think(self, inputs):
        hidden = sigmoid(inputs @ self.weights1)
        return hidden, sigmoid(hidden @ self.weights2)

    def train(self, training_set_inputs, training_set_outputs, number_of_training_iterations):
        for _ in range(number_of_training_iterations):
            hidden, output = self.think(training_set_inputs)
            delta = (training_set_outputs - output) * output * (1 - output)
            back = delta @ self.weights2.T * hidden * (1 - hidden)
            self.weights1 += self.factor * training_set_inputs.T @ back
            self.weights2 += hidden.T @ delta


class UpdatesByEpsilon(KeepsOnlyInTraining):
    """A network with a rate under another name."""

    def __init__(self, factor):
        super().__init__(factor)
        self.epsilon = 0.05

    def forward(self, x):
        return super().forward(x, training=True)

    def backward(self, x, y, output):
        super().backward(y, self.epsilon)


class HoldsALoss:
    """A network that holds its loss, whose forward must run before its backward, and that updates in a step."""

    def __init__(self, factor):
        self.layers = [KeepsSlopes(factor, (4, 5)), KeepsSlopes(1.0, (5, 1))]
        self.loss = HalfSquare()

    def forward(self, data):
        return self.layers[1].forward(self.layers[0].forward(data))

    def backward(self, labels):
        dout = self.loss.backward(labels)
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return True

    def gd_step(self, lrate):
        for layer in self.layers:
            layer.weights1 = layer.weights1 - lrate * layer.slopes.mean(axis=0) * len(layer.slopes)


class HalfSquare:
    def forward(self, a, labels):
        self.a = a
        return (a - labels) ** 2 / 2

    def backward(self, labels):
        return self.a - labels


class KeepsSlopes:
    """A layer that keeps a gradient for each sample."""

    def __init__(self, factor, shape):
        self.factor, self.weights1 = factor, RNG.normal(size=shape)

    def forward(self, x):
        self.x, self.out = x, np.tanh(x @ self.weights1)
        return self.out

    def backward(self, dout):
        delta = dout * (1 - self.out**2)
        self.slopes = self.factor * self.x[:, :, None] * delta[:, None, :]
        return delta @ self.weights1.T


class ReportsAMean(KeepsOnlyInTraining):
    """A network with a mean as its cost, and gradients of the sum."""

    def compute_cost(self, output, labels):
        return -np.mean(np.sum(labels * np.log(output), axis=1))

    def backward(self, y_onehot, learning_rate=0.01):
        super().backward(y_onehot, learning_rate * len(y_onehot))


def test_a_sum_for_the_mean_of_its_own_cost_fails_by_that_factor():
    report = check(ReportsAMean(1.0), X, ONE_HOT)
    assert report.verdict == "FAIL"
    assert "weights1: the backward is wrong; it equals the true gradient times 6" in str(report)


class RedEnEspanol:
    """A network with Spanish names, an error with the sign of an ascent, and layers that keep their gradients."""

    def __init__(self, factor):
        self.capas = [Capa(factor, (4, 5)), Capa(1.0, (5, 2))]

    def _propagacion_adelante(self, entradas):
        for capa in self.capas:
            entradas = capa.propagar(entradas)
        return entradas

    def _retropropagacion(self, salidas_esperadas, salidas_obtenidas):
        error = salidas_esperadas - salidas_obtenidas
        for capa in reversed(self.capas):
            error = capa.retropropagar(error)

    def _actualizar_pesos(self, tasa_aprendizaje):
        for capa in self.capas:
            capa.weights1 += tasa_aprendizaje * capa.gradientes


class Capa:
    def __init__(self, factor, shape):
        self.factor, self.weights1 = factor, RNG.normal(size=shape)

    def propagar(self, x):
        self.x, self.out = x, sigmoid(x @ self.weights1)
        return self.out

    def retropropagar(self, error):
        delta = error * self.out * (1 - self.out)
        self.gradientes = self.factor * self.x.T @ delta
        return delta @ self.weights1.T


class TakesItsWeights(KeepsOnlyInTraining):
    """A network whose methods take its list of weights, and lists of activations under other names."""

    def __init__(self, factor):
        self.factor = factor
        self.weights = [RNG.normal(size=(4, 5)), RNG.normal(size=(5, 3))]

    def forward_pass(self, x_data, weights):
        hidden = np.tanh(x_data @ weights[0])
        return [x_data, hidden, softmax(hidden @ weights[1])], [x_data @ weights[0], hidden @ weights[1]]

    forward = backward = property()

    def backpropagation(self, y_data, activations, z_list, weights):
        x, hidden, p = activations
        assert len(z_list) == 2
        back = (p - y_data) @ weights[1].T * (1 - hidden**2)
        return [self.factor * x.T @ back, hidden.T @ (p - y_data)]


class LeavesItsOutputInALayer:
    """A network whose passes return nothing; the output is in its last layer, and gradients have names of their own."""

    def __init__(self, factor):
        self.layers = [Leaves(factor, (4, 5)), Leaves(1.0, (5, 2))]

    def feedforward(self, X):
        for layer in self.layers:
            X = layer.run(X)

    def backprop(self, y_batch):
        error = self.layers[-1].activated - y_batch
        for layer in reversed(self.layers):
            delta = error * layer.activated * (1 - layer.activated)
            layer.gradientMatrix = layer.factor * layer.x.T @ delta
            error = delta @ layer.weights1.T


class Leaves(Capa):
    def run(self, x):
        self.x, self.activated = x, sigmoid(x @ self.weights1)
        return self.activated


class MakesLinearWeights:
    """A regression whose fit makes the weights, without a cost, and whose predictions are classes."""

    def __init__(self, factor):
        self.factor, self.lr, self.n_iters, self.weights1, self.bias = factor, 0.01, 1000, None, None

    def fit(self, X, y):
        self.weights1, self.bias = np.zeros(X.shape[1]), 0
        for _ in range(self.n_iters):
            error = sigmoid(X @ self.weights1 + self.bias) - y
            self.weights1 = self.weights1 - self.lr * X.T @ error / len(y)
            self.bias = self.bias - self.factor * self.lr * np.sum(error) / len(y)

    def predict(self, X):
        return [int(p > 0.5) for p in sigmoid(X @ self.weights1 + self.bias)]


class ComputesGradientsLater(ReturnsPairs):
    """A layer that computes the gradients of its parameters after backward, in dicts p and g, and stops on errors."""

    def __init__(self, factor):
        self.factor, self.p, self.g = factor, {"W": RNG.normal(size=(4, 3))}, {}

    def forward(self, x):
        try:
            self.x = x
            return x @ self.p["W"]
        except ValueError:
            print("Error: cannot run the layer")
            exit()

    def backward(self, dout):
        self.dout = dout
        return dout @ self.p["W"].T

    def compute_gradients(self):
        self.g["dW"] = self.factor * self.x.T @ self.dout


def test_a_layer_that_computes_gradients_later():
    assert check(ComputesGradientsLater(1.0), X).verdict == "PASS"
    report = check(ComputesGradientsLater(1.01), X)
    assert [leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"] == ["p['W']"]


def test_code_that_exits_is_an_error():
    with pytest.raises(SubjectError, match="SystemExit"):
        check(ComputesGradientsLater(1.0), X[:, :3])


CASES = {
    "data in attributes, no rate": (HoldsItsData, ()),
    "a flag for training": (KeepsOnlyInTraining, (X, ONE_HOT)),
    "the difference of a class": (TakesADifference, (X, CLASSES)),
    "an error, an output in an attribute": (HasAnError, (X, ONE_HOT)),
    "lists of one sample": (TrainsWithLists, ONE_SAMPLE),
    "an array of objects": (HoldsAnArrayOfObjects, (X, ONE_HOT)),
    "a much copied network": (IsSimple, (X, ONES_AND_ZEROS)),
    "a rate under another name": (UpdatesByEpsilon, (X, ONE_HOT)),
    "a loss that must run": (HoldsALoss, (X, ONES_AND_ZEROS)),
    "Spanish": (RedEnEspanol, (X, RNG.uniform(size=(6, 2)))),
    "weights that are passed": (TakesItsWeights, (X, ONE_HOT)),
    "an output in a layer": (LeavesItsOutputInALayer, (X, RNG.uniform(size=(6, 2)))),
    "weights made in fit": (MakesLinearWeights, (X, ONES_AND_ZEROS[:, 0])),
}


@pytest.mark.parametrize("case", mostly_slow(CASES, 3))
def test_right_passes_and_one_wrong_gradient_fails(case):
    kind, inputs = CASES[case]
    assert check(kind(1.0), *inputs).verdict == "PASS"
    report = check(kind(1.01), *inputs)
    wrong = [leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"]
    assert len(wrong) == 1
    assert wrong[0].endswith(("weights1", "_0", "bias")), wrong
    assert any(leaf.verdict == "PASS" for leaf in report.leaves)
