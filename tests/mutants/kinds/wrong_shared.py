"""Weights that are used twice or are views of other memory, with one wrong use or part."""

import numpy as np

from jaxnet.crosscheck import check_function, check_layer, check_network
from mutants.kinds import Draw, wrong
from mutants.kinds.truth import Measuring


class Tied:
    """An autoencoder with one weight, tanh(x W) W^T, in which a subclass forgets one of its uses."""

    def __init__(self, draw, d=5, h=3):
        self.params = {"W": draw(d, h) / 2}

    def loss(self, x, t):
        self.x, self.h = x, np.tanh(x @ self.params["W"])
        self.e = self.h @ self.params["W"].T - t
        return 0.5 * (self.e**2).sum() / len(x)

    def uses(self):
        """Returns the gradients by both uses."""
        e = self.e / len(self.e)
        return self.x.T @ (e @ self.params["W"] * (1 - self.h**2)), e.T @ self.h


for _name, _use in (("encoder", 0), ("decoder", 1)):

    def _make(use):
        class OneUse(Tied):
            def gradient(self, x, t):
                self.loss(x, t)
                return {"W": self.uses()[use]}

        return OneUse

    _kind = _make(_use)

    def _run(seed, kind=_kind):
        draw = Draw(seed)
        return check_network(kind(draw), draw(6, 5), draw(6, 5))

    wrong(f"shared/tied-weight-{_name}-alone", f"Of the two uses of a tied weight, only the {_name}'s counts.")(_run)


@wrong("shared/views-of-one-vector", "W and b are views of one vector; b's part of the gradient is doubled.")
def _(seed):
    draw = Draw(seed)

    class Flat:
        def __init__(self):
            self.theta = draw(15)
            self.params = {"W": self.theta[:12].reshape(4, 3), "b": self.theta[12:]}

        def loss(self, x, t):
            self.y = np.tanh(x @ self.params["W"] + self.params["b"])
            return 0.5 * ((self.y - t) ** 2).mean()

        def gradient(self, x, t):
            self.loss(x, t)
            d = (self.y - t) * (1 - self.y**2) / t.size
            grad = np.concatenate([(x.T @ d).ravel(), 2 * d.sum(0)])
            return {"W": grad[:12].reshape(4, 3), "b": grad[12:]}

    return check_network(Flat(), draw(5, 4), draw(5, 3))


@wrong(
    "shared/output-embedding-forgotten", "An embedding is also the output layer, and this second use gets no gradient."
)
def _(seed):
    draw = Draw(seed)
    ids = draw.labels(6, 5)

    def forward(table, w, ids):
        h = np.tanh(table[ids] @ w)
        return h @ table.T, (table, w, ids, h)

    def backward(dout, cache):
        table, w, ids, h = cache
        dz = dout @ table * (1 - h**2)
        dtable = np.zeros_like(table)
        np.add.at(dtable, ids, dz @ w.T)  # + dout.T @ h
        return dtable, table[ids].T @ dz

    return check_layer((forward, backward), draw(5, 3), draw(3, 3), ids)


@wrong("shared/siamese-branches", "One weight in two branches: the gradient of the second replaces that of the first.")
def _(seed):
    draw = Draw(seed)

    class Siamese:
        def __init__(self):
            self.W = draw(4, 3)

        def forward(self, a, b):
            self.a, self.b = a, b
            self.p, self.q = np.tanh(a @ self.W), np.tanh(b @ self.W)
            return self.p * self.q

        def backward(self, dout):
            dp, dq = dout * self.q * (1 - self.p**2), dout * self.p * (1 - self.q**2)
            self.dW = self.a.T @ dp
            self.dW = self.b.T @ dq
            return dp @ self.W.T, dq @ self.W.T

    return check_layer(Siamese(), draw(5, 4), draw(5, 4))


def _listed(seed):
    """Returns a layer that lists one array twice, and stores the whole gradient at both places."""
    draw = Draw(seed)

    class Listed:
        def __init__(self):
            W = draw(3, 3)
            self.params, self.grads = [W, W], [np.zeros_like(W), np.zeros_like(W)]

        def forward(self, x):
            self.x, self.h = x, np.tanh(x @ self.params[0])
            return self.h @ self.params[1]

        def backward(self, dout):
            dz = dout @ self.params[1].T * (1 - self.h**2)
            self.grads[0][...] = self.x.T @ dz
            self.grads[1][...] = 2 * self.h.T @ dout  # the factor does not belong here
            return dz @ self.params[0].T

    return Listed(), draw(5, 3)


def _listed_error(seed):
    """Returns the error of the sum of both gradients, with W as an argument of a function."""
    layer, x = _listed(seed)

    def both(W, dout):
        h = np.tanh(x @ W)
        return x.T @ (dout @ W.T * (1 - h**2)) + 2 * h.T @ dout

    return Measuring(seed, 1e-3).check_function(lambda W: np.tanh(x @ W) @ W, layer.params[0], gradient=both)


@wrong(
    "shared/listed-twice-one-doubled",
    "One array is listed twice, and the second use's gradient is doubled.",
    true=_listed_error,
)
def _(seed):
    return check_layer(*_listed(seed))


@wrong("shared/symmetric-use", "w w^T is formed, and the gradient is that of one factor.")
def _(seed):
    def gradient(w, dout):
        return dout @ w

    return check_function(lambda w: w @ w.T, Draw(seed)(4, 3), gradient=gradient)


@wrong(
    "shared/same-array-as-two-arguments",
    "The query is also passed as the key; the gradient of the key is that of the query.",
)
def _(seed):
    draw = Draw(seed)
    x = draw(4, 4)

    def gradient(q, k, dout):
        return dout @ k, dout @ q  # dout.T @ q

    return check_function(lambda q, k: q @ k.T, x, x, gradient=gradient)
