"""Right layers whose arrays share memory, or whose gradients are stored in unusual ways."""

import numpy as np

from jaxnet.crosscheck import check_layer, check_network
from mutants.kinds import Draw, right


class Affine:
    """y = x W + b."""

    def __init__(self, W, b):
        self.W, self.b = W, b

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW, self.db = self.x.T @ dout, dout.sum(axis=0)
        return dout @ self.W.T


def affine(draw, n=4, m=3):
    return Affine(draw(n, m), draw(m))


@right("structure/one-array-in-params-twice", "params lists an array twice; each entry has the gradient of one use")
def listed_twice(seed):
    draw = Draw(seed)

    class Twice:
        def __init__(self):
            w = draw(4, 4)
            self.params = [w, w]

        def forward(self, x):
            self.x, self.h = x, np.tanh(x @ self.params[0])
            return self.h @ self.params[1]

        def backward(self, dout):
            d = (dout @ self.params[1].T) * (1 - self.h**2)
            self.grads = [self.x.T @ d, self.h.T @ dout]
            return d @ self.params[0].T

    return check_layer(Twice(), draw(5, 4))


@right("structure/flat-parameters-with-views", "W and b are views of one flat theta; dtheta holds both gradients")
def flat_theta(seed):
    draw = Draw(seed)

    class Flat:
        def __init__(self):
            self.theta, self.dtheta = draw(15), np.zeros(15)
            self.weight, self.bias = self.theta[:12].reshape(4, 3), self.theta[12:]

        def forward(self, x):
            self.x = x
            return x @ self.weight + self.bias

        def backward(self, dout):
            self.dtheta[:12], self.dtheta[12:] = (self.x.T @ dout).ravel(), dout.sum(axis=0)
            return dout @ self.weight.T

    return check_layer(Flat(), draw(5, 4))


@right("structure/views-with-their-own-gradients", "W and b are views of theta, dW and db views of dtheta")
def views_both(seed):
    draw = Draw(seed)

    class Flat:
        def __init__(self):
            self.theta, self.dtheta = draw(15), np.zeros(15)
            self.W, self.b = self.theta[:12].reshape(4, 3), self.theta[12:]
            self.dW, self.db = self.dtheta[:12].reshape(4, 3), self.dtheta[12:]

        def forward(self, x):
            self.x = x
            return x @ self.W + self.b

        def backward(self, dout):
            self.dW[...], self.db[...] = self.x.T @ dout, dout.sum(axis=0)
            return dout @ self.W.T

    return check_layer(Flat(), draw(5, 4))


@right("structure/tied-embedding-and-output", "an embedding whose transpose is the output layer; dE is the sum of both")
def tied(seed):
    draw = Draw(seed)

    class Tied:
        def __init__(self):
            self.E = draw(6, 4)

        def forward(self, ids, x):
            self.ids, self.h = ids, np.tanh(self.E[ids] + x)
            return self.h @ self.E.T

        def backward(self, dout):
            d = (dout @ self.E) * (1 - self.h**2)
            self.dE = dout.T @ self.h
            np.add.at(self.dE, self.ids, d)
            return d

    return check_layer(Tied(), draw.labels(5, 6), draw(5, 4))


@right("structure/one-layer-under-two-names-and-in-a-list", "a layer that is used once is in a list and has two names")
def two_names(seed):
    draw = Draw(seed)

    class Net:
        def __init__(self):
            self.first, self.last = affine(draw, 4, 6), affine(draw, 6, 3)
            self.layers, self.head = [self.first, self.last], self.last
            self.params = {"W1": self.first.W, "b1": self.first.b, "W2": self.last.W, "b2": self.last.b}

        def loss(self, x, t):
            self.e = self.last.forward(self.first.forward(x)) - t
            return 0.5 * (self.e**2).mean()

        def gradient(self, x, t):
            self.loss(x, t)
            d = self.e / self.e.size
            for layer in reversed(self.layers):
                d = layer.backward(d)
            first, last = self.layers
            return {"W1": first.dW, "b1": first.db, "W2": last.dW, "b2": last.db}

    return check_network(Net(), draw(5, 4), draw(5, 3))


@right("structure/one-layer-used-twice", "the same layer is applied twice, and its gradients are summed")
def used_twice(seed):
    draw = Draw(seed)

    class Twice:
        def __init__(self):
            self.W = draw(4, 4)

        def forward(self, x):
            self.x, self.h = x, np.tanh(x @ self.W)
            return np.tanh(self.h @ self.W)

        def backward(self, dout):
            y = np.tanh(self.h @ self.W)
            d = dout * (1 - y**2)
            e = (d @ self.W.T) * (1 - self.h**2)
            self.dW = self.h.T @ d + self.x.T @ e
            return e @ self.W.T

    return check_layer(Twice(), draw(5, 4))


@right("structure/accumulates-its-gradients", "dW += ..., for callers that clear gradients", says="(?i)accumulat|add")
def accumulates(seed):
    draw = Draw(seed)

    class Adds(Affine):
        def __init__(self):
            super().__init__(draw(4, 3), draw(3))
            self.zero_grad()

        def zero_grad(self):
            self.dW, self.db = np.zeros_like(self.W), np.zeros_like(self.b)

        def backward(self, dout):
            self.dW += self.x.T @ dout
            self.db += dout.sum(axis=0)
            return dout @ self.W.T

    return check_layer(Adds(), draw(5, 4))


@right("structure/pops-its-cache", "forward pushes its cache, backward pops it, so a second backward fails")
def pops(seed):
    class Pops:
        def __init__(self):
            self.stack = []

        def forward(self, x):
            self.stack.append(np.tanh(x))
            return self.stack[-1].copy()

        def backward(self, dout):
            return dout * (1 - self.stack.pop() ** 2)

    return check_layer(Pops(), Draw(seed)(5, 4))


@right("structure/gradient-from-an-update", "momentum's first step of size 0.1; the gradient is (W - W') / 0.1")
def update(seed):
    draw = Draw(seed)

    class Update:
        def __init__(self):
            self.W, self.lr = draw(4, 3), 0.1

        def forward(self, x):
            self.x = x
            return x @ self.W

        def backward(self, dout):
            after = self.W - self.lr * (self.x.T @ dout)
            self.dW = (self.W - after) / self.lr
            return dout @ self.W.T

    return check_layer(Update(), draw(5, 4))
