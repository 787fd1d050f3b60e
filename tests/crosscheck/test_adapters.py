"""Tests the adapters: code in each style is accepted as it is written, passes if right and fails if wrong."""

import numpy as np
import pytest
from conftest import exhaustive, mostly_slow
from styles import Styles, draw

from jaxnet.crosscheck import SubjectError, check, check_layer, check_network

STYLES = Styles()
style = STYLES.add


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


LABELS = np.array([0, 1, 2, 1, 0, 2])


@style
def a_network_that_returns_loss_and_gradients(k):
    class Net:
        def __init__(self):
            self.params = {"W1": draw(4, 5), "b1": draw(5), "W2": draw(5, 3)}

        def loss(self, X, y=None):
            W1, b1, W2 = self.params.values()
            h = np.tanh(X @ W1 + b1)
            p = softmax(h @ W2)
            if y is None:
                return h @ W2
            d = (p - np.eye(3)[y]) / len(X)
            dz = d @ W2.T * (1 - h**2)
            return -np.log(p[np.arange(len(X)), y]).mean(), {"W1": k * X.T @ dz, "b1": dz.sum(axis=0), "W2": h.T @ d}

    return Net(), (draw(6, 4), LABELS)


@style
def a_loss_function_that_returns_its_gradient(k):
    def softmax_loss(x, y):
        p = softmax(x)
        return -np.log(p[np.arange(len(x)), y]).mean(), k * (p - np.eye(4)[y]) / len(x)

    return softmax_loss, (draw(6, 4), LABELS)


@style
def a_loss_function_of_weights_first(k):
    def svm(W, X, y, reg):
        scores = X @ W
        margins = np.maximum(0, scores - scores[np.arange(len(X)), y][:, None] + 1)
        margins[np.arange(len(X)), y] = 0
        above = (margins > 0).astype(float)
        above[np.arange(len(X)), y] = -above.sum(axis=1)
        return margins.sum() / len(X) + reg * (W**2).sum(), k * (X.T @ above / len(X) + 2 * reg * W)

    return svm, (draw(4, 3), draw(6, 4), LABELS, 0.1)


@style
def gradients_in_a_dict_before_the_cost(k):
    Y = np.array([[0.0, 1, 1, 0, 1, 0]])

    def propagate(w, b):
        X = np.cos(np.arange(24.0)).reshape(4, 6)
        A = 1 / (1 + np.exp(-(w.T @ X + b)))
        cost = -(Y * np.log(A) + (1 - Y) * np.log(1 - A)).mean()
        return {"dw": k * X @ (A - Y).T / 6, "db": (A - Y).mean()}, cost

    return propagate, (draw(4, 1), 0.3)


@style
def a_pair_whose_backward_takes_a_word_of_forward(k):
    def activation_forward(A, W, b, activation):
        Z = W @ A + b
        return (np.tanh(Z) if activation == "tanh" else np.maximum(Z, 0)), ((A, W), Z)

    def activation_backward(dA, cache, activation):
        (A, W), Z = cache
        dZ = dA * (1 - np.tanh(Z) ** 2 if activation == "tanh" else Z > 0)
        return W.T @ dZ, k * dZ @ A.T, dZ.sum(axis=1, keepdims=True)

    return (activation_forward, activation_backward), (draw(4, 5), draw(3, 4), draw(3, 1), "tanh")


@style
def a_pair_without_a_cache(k):
    return (lambda x, W: x @ W, lambda dout, x, W: (dout @ W.T, k * x.T @ dout)), (draw(5, 4), draw(4, 3))


@style
def a_pair_with_an_option_that_is_not_passed(k):
    def forward(x, W, mask=None):
        return x @ W if mask is None else (x * mask) @ W

    def backward(dout, x, W, mask=None):
        return dout @ W.T, k * x.T @ dout

    return (forward, backward), (draw(5, 4), draw(4, 3))


@style
def a_backward_that_updates(k):
    class Dense:
        def __init__(self):
            self.weights, self.bias = draw(3, 4), draw(3, 1)

        def forward(self, x):
            self.x = x
            return self.weights @ x + self.bias

        def backward(self, output_gradient, learning_rate):
            dx = self.weights.T @ output_gradient
            self.weights -= learning_rate * k * (output_gradient @ self.x.T)
            self.bias -= learning_rate * output_gradient.sum(axis=1, keepdims=True)
            return dx

    return Dense(), (draw(4, 5),)


def _dense(forward, backward, returned=None, gradient=None, k=1.0):
    """Returns a layer whose methods and gradients have these names, or whose backward returns these gradients."""

    def run_forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def run_backward(self, dout):
        dx, dW, db = dout @ self.W.T, k * self.x.T @ dout, dout.sum(axis=0)
        if returned is not None:
            return returned(dx, dW, db)
        setattr(self, gradient.format("W"), dW)
        setattr(self, gradient.format("b"), db)
        return dx

    def construct(self):
        self.W, self.b = draw(4, 3), draw(3)

    return type("Dense", (), {"__init__": construct, forward: run_forward, backward: run_backward})()


METHODS = [
    ("forward_pass", "backward_pass"), ("forward_propagation", "backward_propagation"), ("forward", "backprop"),
    ("fprop", "bprop"), ("__call__", "backward"), ("feedforward", "backpropagate"),
]  # fmt: skip
for forward, backward in METHODS:
    STYLES[f"methods {forward}, {backward}"] = lambda k, names=(forward, backward): (
        _dense(*names, gradient="d{}", k=k),
        (draw(5, 4),),
    )
for form in ("dLd{}", "dL_d{}", "{}_diff", "delta_{}", "grad_{}", "_d{}"):
    STYLES[f"gradients {form}"] = lambda k, form=form: (
        _dense("forward", "backward", gradient=form, k=k),
        (draw(5, 4),),
    )
STYLES["returned (dx, [dW, db])"] = lambda k: (
    _dense("forward", "backward", lambda dx, dW, db: (dx, [dW, db]), k=k), (draw(5, 4),)
)  # fmt: skip
STYLES["returned (dx, dW, db)"] = lambda k: (
    _dense("forward", "backward", lambda *gradients: gradients, k=k), (draw(5, 4),)
)  # fmt: skip


@style
def a_context_of_arrays(k):
    class Multiply:
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return x * w

        @staticmethod
        def backward(ctx, dout):
            x, w = ctx.saved_tensors
            return dout * w, k * dout * x

    return Multiply, (draw(5, 4), draw(4, 5).T)


@style
def inputs_in_one_tuple(k):
    class Add:
        def forward(self, inputs):
            a, b = inputs
            return a + 2 * b

        def backward(self, dout):
            return dout, k * 2 * dout

    return Add(), ((draw(3, 4), draw(4, 3).T),)


@style
def a_loss_and_its_derivative(k):
    class SquaredError:
        def loss(self, y, t):
            return np.mean((y - t) ** 2)

        def loss_prime(self, y, t):
            return k * 2 * (y - t) / y.size

    return SquaredError(), (draw(5, 4), draw(4, 5).T)


@style
def a_derivative_of_the_input(k):
    return (np.tanh, lambda x: k * (1 - np.tanh(x) ** 2)), (draw(5, 4),)


@style
def a_derivative_of_the_output(k):
    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    return (sigmoid, lambda y: k * y * (1 - y)), (draw(5, 4),)


@style
def a_flag_for_the_derivative(k):
    def sigmoid(x, deriv=False):
        return k * x * (1 - x) if deriv else 1 / (1 + np.exp(-x))

    return sigmoid, (draw(5, 4),)


@style
def a_flag_behind_a_decorator(k):
    def logged(f):
        def wrap(*args, **kwargs):
            return f(*args, **kwargs)

        return wrap

    @logged
    def sigmoid(x, prime=False):
        y = 1 / (1 + np.exp(-x))
        return k * y * (1 - y) if prime else y

    return sigmoid, (draw(5, 4),)


@style
def a_flag_of_a_function_that_jax_could_differentiate(k):
    def squared_error(y_true, y_pred, prime=False):
        return k * 2 * (y_pred - y_true) if prime else ((y_pred - y_true) ** 2).sum()

    return squared_error, (draw(5, 4), draw(4, 5).T)


@style
def an_object_that_jax_could_differentiate(k):
    class Cubic:
        def __call__(self, x):
            return x**3

        def gradient(self, x):
            return k * 3 * x**2

    return Cubic(), (draw(5, 4),)


@style
def an_elementwise_loss_of_labels_and_predictions(k):
    class SquaredError:
        def loss(self, y, y_pred):
            return 0.5 * (y - y_pred) ** 2

        def gradient(self, y, y_pred):
            return -k * (y - y_pred)

    return SquaredError(), (draw(5, 4), draw(4, 5).T)


@style
def a_layer_that_gathers_passes_until_it_is_flushed(k):
    class Dense:
        def __init__(self):
            self.W, self.X, self.dW = None, [], None

        def flush_gradients(self):
            self.X, self.dW = [], np.zeros_like(self.W) if self.W is not None else None

        def forward(self, X):
            if self.W is None:
                self.W = draw(X.shape[1], 3)
            self.X.append(X)
            return X @ self.W

        def backward(self, dout):
            self.dW = k * self.X[0].T @ dout
            return dout @ self.W.T

    return Dense(), (draw(5, 4),)


@style
def a_piecewise_derivative_of_the_output(k):
    """Returns a function that is linear on most elements, where its derivative is one of the input as well."""

    def elu(x):
        return np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)

    return (elu, lambda y: k * np.where(y > 0, 1, y + 1)), (np.where(draw(5, 4) > 1, -1, 1) * abs(draw(5, 4)),)


@style
def a_derivative_of_the_output_that_overwrites_the_input(k):
    def elu(x):
        x[x < 0] = np.exp(x[x < 0]) - 1
        return x

    return (elu, lambda y: k * np.where(y > 0, 1, y + 1)), (draw(5, 4),)


@style
def forces_of_an_energy(k):
    def energy(x):
        return 0.25 * ((x[1:] - x[:-1]) ** 4).sum()

    def forces(x):
        pull = (x[1:] - x[:-1]) ** 3
        return k * (np.append(pull, 0) - np.append(0, pull))

    return (energy, forces), (draw(6),)


@style
def an_object_with_its_force(k):
    class Spring:
        def energy(self, x):
            return float((x**4).sum())

        def force(self, x):
            return -4 * k * x**3

    return Spring(), (draw(6),)


@style
def an_object_with_fn_and_grad(k):
    class Softplus:
        def fn(self, z):
            return np.log1p(np.exp(z))

        def grad(self, z):
            return k / (1 + np.exp(-z))

    return Softplus(), (draw(5, 4),)


@style
def a_scalar_engine(k):
    class Value:
        def __init__(self, data, parents=()):
            self.data, self.grad, self.parents, self.spread = data, 0.0, parents, lambda: None

        def __mul__(self, other):
            out = Value(self.data * other.data, (self, other))

            def spread():
                self.grad += k * other.data * out.grad
                other.grad += self.data * out.grad

            out.spread = spread
            return out

        def backward(self):
            self.grad = 1.0
            pending = [self]
            while pending:
                value = pending.pop()
                value.spread()
                pending += value.parents

    return (lambda a, b: a * b), (Value(2.0), Value(3.0))


@style
def an_engine_whose_gradients_are_its_objects(k):
    class Tensor:
        def __init__(self, data, requires_grad=False, depends_on=()):
            self.data, self.requires_grad, self.depends_on = np.asarray(data), requires_grad, depends_on
            self.grad = Tensor(np.zeros_like(self.data)) if requires_grad else None

        def backward(self, grad=None):
            grad = Tensor(np.ones_like(self.data)) if grad is None else grad
            self.grad.data = self.grad.data + grad.data
            for tensor, grad_fn in self.depends_on:
                tensor.backward(Tensor(grad_fn(grad.data)))

    def tensor_sum_of_squares(t):
        return Tensor((t.data**2).sum(), t.requires_grad, ((t, lambda grad: k * grad * 2 * t.data),))

    return tensor_sum_of_squares, (Tensor(draw(5, 4), requires_grad=True),)


@style
def scipys_function_and_jacobian(k):
    return (lambda x: (x**3).sum(), lambda x: k * 3 * x**2), (draw(5),)


@pytest.mark.parametrize("name", mostly_slow(STYLES, 4))
def test_a_correct_gradient_in_this_style_passes(name):
    thing, inputs = STYLES[name](1.0)
    report = check(thing, *inputs, constants=("X",) if "weights_first" in name else ())
    assert report.verdict == "PASS", str(report)


@pytest.mark.parametrize("factor", [1.001, exhaustive(1.5), exhaustive(-2.0)])
@pytest.mark.parametrize("name", mostly_slow(STYLES, 4))
def test_a_wrong_gradient_in_this_style_fails(name, factor):
    thing, inputs = STYLES[name](factor)
    report = check(thing, *inputs, constants=("X",) if "weights_first" in name else ())
    assert report.verdict == "FAIL", str(report)


def test_check_network_and_check_layer_accept_styles_too():
    net, inputs = STYLES["a_network_that_returns_loss_and_gradients"](1.0)
    assert check_network(net, *inputs).verdict == "PASS"
    layer, inputs = STYLES["methods forward_pass, backward_pass"](1.0)
    assert check_layer(layer, *inputs).verdict == "PASS"


def test_a_layer_that_nothing_resets_is_stale():
    """Uses a layer that keeps its first input, and whose reset does not help."""

    class Square:
        def __init__(self):
            self.x = None

        def reset(self):
            pass

        def forward(self, x):
            self.x = x if self.x is None else self.x
            return x**2

        def backward(self, dout):
            return 2 * self.x * dout

    assert check(Square(), draw(5, 4)).verdict == "FAIL"


def test_an_adapted_object_is_not_changed():
    layer, inputs = STYLES["a_backward_that_updates"](1.0)
    kind, before = type(layer), {name: np.copy(value) for name, value in vars(layer).items()}
    check(layer, *inputs)
    assert type(layer) is kind
    np.testing.assert_equal(vars(layer), before)


@pytest.mark.slow
def test_a_prediction_returned_with_the_value_is_not_read_as_a_gradient():
    """Uses a function that JAX can differentiate, with a second result of the input's shape that is no gradient."""
    import jax.numpy as jnp

    report = check(lambda x: ((x**2).sum(), jnp.cos(x)), draw(5))
    assert report.verdict != "FAIL"


def test_an_unknown_style_raises_the_first_error():
    class Odd:
        def squash(self, x):
            return x

    with pytest.raises(SubjectError, match="expected a function"):
        check(Odd(), draw(3))
