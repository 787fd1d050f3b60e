"""Points where a wrong gradient is not noticed, because the gradient and its difference quotients are zero."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.crosscheck import check_function, check_layer, check_network
from mutants.kinds import Draw, Kind, wrong
from mutants.kinds.truth import error


def zero(name, sentence):
    """Registers a check at a point; `away` is 0 there and 1 at another point, where the error shows."""

    def register(make):
        def elsewhere(seed):
            return make(seed, 1.0)

        def true(seed):
            return error(Kind(name, sentence, right=False, run=elsewhere), seed)

        wrong(f"zero/{name}", sentence, undecided=True, true=true)(lambda seed: make(seed, 0.0))
        return make

    return register


@zero("dead-relu-layer", "All units are dead; both gradients are those of another layer.")
def _(seed, away):
    draw = Draw(seed)
    n, d, m = draw.sizes(3)

    class Dense:
        def __init__(self):
            self.W, self.b = draw(d, m), np.full(m, -50.0 * (1 - away))

        def forward(self, x):
            self.x = x
            self.mask = x @ self.W + self.b > 0
            return self.mask * (x @ self.W + self.b)

        def backward(self, dout):
            dout = dout * self.mask
            self.dW, self.db = -self.x.T @ dout, 5 * dout.sum(0)
            return 2 * dout @ self.W.T

    return check_layer(Dense(), draw(n, d))


@zero("saturated-hardtanh", "Every input is beyond the bounds, and inside them the factor is missing.")
def _(seed, away):
    draw = Draw(seed)
    x = 3 * (1 - away) * np.sign(draw(4, 5)) + draw(4, 5) * 0.1

    def forward(x):
        return np.clip(5 * x, -1, 1), x

    return check_layer((forward, lambda dout, x: dout * (np.abs(x) < 0.2)), x)


@zero("saturated-sigmoid", "exp underflows: s (1 - s) is 0, and the code has s (1 + s) (1 - s).")
def _(seed, away):
    draw = Draw(seed)

    def f(x):
        return 1 / (1 + np.exp(-x))

    def gradient(x, dout):
        s = f(x)
        return dout * s * (1 + s) * (1 - s)

    return check_function(f, 60 * (1 - away) + 5 * np.abs(draw(7)), gradient=gradient)


@zero("everything-masked", "The mask is all zeros; where it is not, the weights' gradient is off by 10.")
def _(seed, away):
    draw = Draw(seed)
    n, d, m = draw.sizes(3)

    def forward(x, w, keep):
        return (x @ w) * keep, (x, w, keep)

    def backward(dout, cache):
        x, w, keep = cache
        return (dout * keep) @ w.T, 10 * x.T @ (dout * keep), None

    return check_layer((forward, backward), draw(n, d), draw(d, m), np.full((n, m), away))


@zero("gate-initialised-to-zero", "A residual gate of 0 hides the branch, whose gradient is wrong.")
def _(seed, away):
    draw = Draw(seed)

    class Residual:
        def __init__(self):
            self.W, self.alpha = draw(4, 4), np.full(1, away)

        def forward(self, x):
            self.x, self.h = x, np.tanh(x @ self.W)
            return x + self.alpha * self.h

        def backward(self, dout):
            self.dalpha = np.array([(dout * self.h).sum()])
            d = self.alpha * dout * (1 - self.h**2)
            self.dW = 7 * self.x.T @ d
            return dout + d @ self.W.T

    return check_layer(Residual(), draw(5, 4))


@zero("gamma-zero-batchnorm", "gamma starts at 0, as in residual networks; dx lacks its mean terms.")
def _(seed, away):
    draw = Draw(seed)

    def forward(x, gamma, beta):
        std = x.std(0)
        xhat = (x - x.mean(0)) / std
        return gamma * xhat + beta, (xhat, gamma, std)

    def backward(dout, cache):
        xhat, gamma, std = cache
        return gamma * dout / std, (dout * xhat).sum(0), dout.sum(0)

    return check_layer((forward, backward), draw(8, 3), np.full(3, away), draw(3))


@zero("mse-at-its-optimum", "The prediction equals the target, and the gradient has the wrong sign.")
def _(seed, away):
    draw = Draw(seed)
    y = draw(5, 3)

    def mse(y_pred, y_true):
        return ((y_pred - y_true) ** 2).mean()

    def gradient(y_pred, y_true):
        d = 2 * (y_true - y_pred) / y_true.size
        return d, -d

    return check_function(mse, y, y + away, gradient=gradient)


@zero("network-at-its-optimum", "A linear network that fits exactly; its gradient is of the doubled loss.")
def _(seed, away):
    draw = Draw(seed)

    class Linear:
        def __init__(self):
            self.params = {"W": draw(4, 3)}

        def loss(self, x, t):
            return 0.5 * ((x @ self.params["W"] - t) ** 2).mean()

        def gradient(self, x, t):
            return {"W": 2 * x.T @ (x @ self.params["W"] - t) / t.size}

    net = Linear()
    x = draw(6, 4)
    return check_network(net, x, x @ net.params["W"] + away)


@zero("padding-rows-only", "All tokens are padding, whose embedding stays fixed; others get the wrong rows.")
def _(seed, away):
    draw = Draw(seed)
    ids = np.full((3, 4), int(away)) * 2

    def forward(table, ids):
        return table[ids] * (ids > 0)[..., None], (table.shape, ids)

    def backward(dout, cache):
        shape, ids = cache
        grad = np.zeros(shape)
        np.add.at(grad, ids - 1, dout * (ids > 0)[..., None])
        return grad

    return check_layer((forward, backward), draw(6, 3), ids)


@zero("jax-relu-squared-dead", "relu(x)**2 at negative x has gradient 0; its rule forgets the 2.")
def _(seed, away):
    f = jax.custom_vjp(lambda x: jnp.maximum(x, 0) ** 2)
    f.defvjp(lambda x: (jnp.maximum(x, 0) ** 2, x), lambda x, g: (g * jnp.maximum(x, 0),))
    return check_function(f, (2 * away - 1) * (np.abs(Draw(seed)(3, 4)) + 0.1))


@zero("two-of-three-leaves", "dx and db show something; W's gradient is zero here, and wrong, because x is 0.")
def _(seed, away):
    draw = Draw(seed)

    def forward(x, w, b):
        return np.tanh(x @ w + b), (x, w, np.tanh(x @ w + b))

    def backward(dout, cache):
        x, w, y = cache
        d = dout * (1 - y**2)
        return d @ w.T, 2 * x.T @ d, d.sum(0)

    return check_layer((forward, backward), np.full((5, 4), away), draw(4, 3), draw(3))
