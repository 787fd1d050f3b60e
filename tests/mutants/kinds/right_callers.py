"""Right backward passes of scalars, and some that use `dout` in unusual ways."""

import numpy as np

from jaxnet.crosscheck import check_function, check_layer, check_network
from mutants.kinds import Draw, right


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


class SquaredError:
    """(y - t)^2 / 2 N."""

    def forward(self, y, t):
        self.e = y - t
        return 0.5 * (self.e**2).sum() / len(y)

    def backward(self, dout=1):
        return dout * self.e / len(self.e)


@right("scalar/dout-defaults-to-1", "a loss whose backward(dout=1) is called with or without it")
def default_one(seed):
    draw = Draw(seed)
    return check_layer(SquaredError(), draw(5, 3), draw(5, 3), constants=("t",))


@right("scalar/dout-scaled-in-place", "dout /= N on a Python number, which the caller does not see")
def scaled_in_place(seed):
    class Mean:
        def forward(self, x):
            self.x = x
            return float(np.cos(x).mean())

        def backward(self, dout=1.0):
            dout /= self.x.size
            dout *= -1
            return dout * np.sin(self.x)

    return check_layer(Mean(), Draw(seed)(4, 5))


@right("scalar/backward-takes-nothing", "a loss whose backward() takes no argument")
def takes_nothing(seed):
    draw = Draw(seed)

    class Loss:
        def forward(self, x, t):
            self.y, self.t = softmax(x), t
            return -np.log(self.y[np.arange(len(t)), t]).mean()

        def backward(self):
            return (self.y - np.eye(self.y.shape[1])[self.t]) / len(self.t)

    return check_layer(Loss(), draw(6, 4), draw.labels(6, 4))


@right("scalar/output-of-shape-1", "an energy returned as an array of shape (1,), dout likewise")
def shape_one(seed):
    def backward(dout, x):
        return dout[0] * 4 * x**3

    return check_layer((lambda x: (np.array([(x**4).sum()]), x), backward), Draw(seed)(4, 3))


@right("scalar/output-of-shape-1-by-1", "an energy returned as [[e]] because its product keeps both axes")
def shape_one_one(seed):
    draw = Draw(seed)

    def backward(dout, cache):
        x, a = cache
        return dout * (a + a.T) @ x, dout * x @ x.T

    return check_layer((lambda x, a: (x.T @ a @ x, (x, a)), backward), draw(4, 1), draw(4, 4))


@right("scalar/dout-used-as-a-number", "float(dout), as in `if dout == 1`")
def as_number(seed):
    class Loss:
        def forward(self, x):
            self.x = x
            return np.logaddexp(0, x).sum()

        def backward(self, dout=1):
            g = 1 / (1 + np.exp(-self.x))
            return g if dout == 1 else float(dout) * g

    return check_layer(Loss(), Draw(seed)(4, 3))


@right("dout/copied-before-it-is-masked", "dx = dout.copy(); dx[mask] = 0")
def copied(seed):
    class Relu:
        def forward(self, x):
            self.off = x <= 0
            y = x.copy()
            y[self.off] = 0
            return y

        def backward(self, dout):
            dx = dout.copy()
            dx[self.off] = 0
            return dx

    return check_layer(Relu(), Draw(seed).off_zero(5, 4))


@right("dout/returned-unchanged", "the backward of a bias returns dout itself", never="missing")
def passed_on(seed):
    draw = Draw(seed)

    class Bias:
        def __init__(self):
            self.b = draw(4)

        def forward(self, x):
            return x + self.b

        def backward(self, dout):
            self.db = dout.sum(axis=0)
            return dout

    return check_layer(Bias(), draw(5, 4))


@right("dout/a-view-is-returned", "reshape and transpose return a view of dout")
def a_view(seed):
    def backward(dout, shape):
        return dout.T.reshape(shape)

    return check_layer((lambda x: (x.reshape(len(x), -1).T, x.shape), backward), Draw(seed)(4, 2, 3))


@right("dout/broadcast-result", "the gradient of a sum over rows is a read-only broadcast with stride 0")
def broadcast(seed):
    return check_layer(
        (lambda x: (x.sum(axis=0), x.shape), lambda dout, shape: np.broadcast_to(dout, shape)), Draw(seed)(5, 4)
    )


@right("dout/one-for-each-output", "an LSTM-like pair with two outputs and two upstream gradients")
def two_outputs(seed):
    draw = Draw(seed)

    def forward(x, c):
        g = np.tanh(x + c)
        return g * c, g + c, (g, c)

    def backward(dh, dc, cache):
        g, c = cache
        dg = (dh * c + dc) * (1 - g * g)
        return dg, dg + dh * g + dc

    return check_layer((forward, backward), draw(4, 3), draw(4, 3))


@right("dout/cache-comes-first", "backward(cache, dout), in that order")
def cache_first(seed):
    def backward(cache, dout):
        return dout * cache

    return check_layer((lambda x: (np.sinh(x), np.cosh(x)), backward), Draw(seed)(4, 3))


@right("arguments/gradient-of-the-prediction", "grad(y, t) of a binary cross-entropy, with respect to y alone")
def by_prediction(seed):
    draw = Draw(seed)
    t = draw.rng.integers(0, 2, (6, 2)).astype(float)

    def loss(y, t):
        return -(t * np.log(y) + (1 - t) * np.log(1 - y)).mean()

    return check_function(
        loss, draw.rng.uniform(0.1, 0.9, (6, 2)), t, gradient=lambda y, t: (y - t) / (y * (1 - y)) / y.size
    )


def second_error(seed):
    """Returns the error of the gradient of the second argument, found by a complex step."""
    t, y = Draw(seed)(6, 2), Draw(seed + 1)(6, 2)
    derivatives = [np.imag(((t - y - 1e-30j * np.eye(12)[i].reshape(6, 2)) ** 2).mean()) * 1e30 for i in range(12)]
    return float(np.abs(2 * (y - t).ravel() / 12 - derivatives).max())


@right("arguments/gradient-of-the-second", "mse_prime(y_true, y_pred) is that of y_pred", true=second_error)
def by_second(seed):
    return check_function(
        lambda y_true, y_pred: ((y_true - y_pred) ** 2).mean(),
        Draw(seed)(6, 2),
        Draw(seed + 1)(6, 2),
        gradient=lambda y_true, y_pred: 2 * (y_pred - y_true) / y_true.size,
    )


@right("arguments/optional-parameters-of-the-gradient", "gradient(w, x, y, reg=0.1) as f(w, x, y, reg=0.1)")
def optional(seed):
    draw = Draw(seed)
    x, y = draw(8, 4), draw(8)

    def loss(w, reg=0.1):
        return ((x @ w - y) ** 2).mean() + reg * (w @ w)

    def gradient(w, reg=0.1):
        return 2 * x.T @ (x @ w - y) / 8 + 2 * reg * w

    return check_function(loss, draw(4), gradient=gradient)


@right("arguments/dout-is-called-grad-output", "gradient(x, w, grad_output), of an array")
def grad_output(seed):
    draw = Draw(seed)

    def gradient(x, w, grad_output):
        d = grad_output * (1 - np.tanh(x @ w) ** 2)
        return d @ w.T, x.T @ d

    return check_function(lambda x, w: np.tanh(x @ w), draw(5, 4), draw(4, 3), gradient=gradient)


@right("arguments/network-of-one-sample", "a network given one sample and one label")
def one_sample(seed):
    draw = Draw(seed)

    class Net:
        def __init__(self):
            self.params = {"W": draw(4, 3)}

        def loss(self, x, t):
            return -np.log(softmax(x @ self.params["W"])[np.arange(len(t)), t]).mean()

        def gradient(self, x, t):
            return {"W": x.T @ (softmax(x @ self.params["W"]) - np.eye(3)[t]) / len(t)}

    return check_network(Net(), draw(1, 4), draw.labels(1, 3))
