"""Right layers in other styles of public code: lists of caches, lookahead weights, buffers that converge."""

import numpy as np

from jaxnet.crosscheck import check_function, check_layer
from mutants.kinds import Draw, right


@right("public/lists-of-caches", "forward appends its input to a list, over which backward sums")
def lists(seed):
    draw = Draw(seed)

    class Dense:
        def __init__(self):
            self.X, self.parameters = [], {"W": draw(4, 3), "b": draw(1, 3)}
            self.flush()

        def flush(self):
            self.X, self.gradients = [], {name: np.zeros_like(array) for name, array in self.parameters.items()}

        def forward(self, X, retain_derived=True):
            if retain_derived:
                self.X.append(X)
            return X @ self.parameters["W"] + self.parameters["b"]

        def backward(self, dLdy, retain_grads=True):
            X = self.X[-1]
            if retain_grads:
                self.gradients["W"] += X.T @ dLdy
                self.gradients["b"] += dLdy.sum(axis=0, keepdims=True)
            return dLdy @ self.parameters["W"].T

    return check_layer(Dense(), draw(5, 4))


@right("public/velocities-of-an-optimizer", "a layer with its own momentum, which a lookahead adds to its weights")
def lookahead(seed):
    draw = Draw(seed)

    class Dense:
        def __init__(self):
            self.w, self.b = draw(4, 3), draw(3)
            self.w_vel, self.b_vel, self.momentum = 0.1 * draw(4, 3), np.zeros(3), 0.9

        def forward(self, x):
            self.x = x
            return x @ (self.w + self.momentum * self.w_vel) + self.b

        def backward(self, dout):
            self.dw, self.db = self.x.T @ dout, dout.sum(axis=0)
            return dout @ (self.w + self.momentum * self.w_vel).T

    return check_layer(Dense(), draw(5, 4), constants=("w_vel",))


@right("public/second-moments-of-parameters", "a layer with arrays of Adam's moments, which forward does not use")
def moments(seed):
    draw = Draw(seed)

    class Dense:
        def __init__(self):
            self.W = draw(4, 3)
            self.mW, self.vW, self.dW = np.zeros((4, 3)), np.zeros((4, 3)), np.zeros((4, 3))

        def forward(self, x):
            self.x = x
            return np.tanh(x @ self.W)

        def backward(self, dout):
            d = dout * (1 - np.tanh(self.x @ self.W) ** 2)
            self.dW = self.x.T @ d
            self.mW = 0.9 * self.mW + 0.1 * self.dW
            self.vW = 0.999 * self.vW + 0.001 * self.dW**2
            return d @ self.W.T

    return check_layer(Dense(), draw(5, 4))


@right("public/spectral-norm-by-power-iteration", "a weight divided by its spectral norm, whose vector u has converged")
def spectral(seed):
    draw = Draw(seed)

    class Spectral:
        def __init__(self):
            left, right_side = np.linalg.qr(draw(4, 3))[0], np.linalg.qr(draw(3, 3))[0]
            self.W, self.u = left * [3.0, 1.5, 0.5] @ right_side, np.ones(4) / 2

        def forward(self, x):
            for _ in range(60):
                self.v = self.W.T @ self.u
                self.v = self.v / np.linalg.norm(self.v)
                self.u = self.W @ self.v
                self.u = self.u / np.linalg.norm(self.u)
            self.x, self.s = x, self.u @ self.W @ self.v
            return x @ self.W / self.s

        def backward(self, dout):
            d = self.x.T @ dout
            self.dW = d / self.s - (d * self.W).sum() / self.s**2 * np.outer(self.u, self.v)
            return dout @ self.W.T / self.s

    return check_layer(Spectral(), draw(5, 4), constants=("u",))


@right("public/weight-norm", "weights g v / |v|, computed in every forward, with gradients for g and v")
def weight_norm(seed):
    draw = Draw(seed)

    class Normed:
        def __init__(self):
            self.v, self.g = draw(4, 3), draw(3)

        def forward(self, x):
            self.x, self.n = x, np.linalg.norm(self.v, axis=0)
            self.w = self.g * self.v / self.n
            return x @ self.w

        def backward(self, dout):
            d = self.x.T @ dout
            self.dg = (d * self.v).sum(axis=0) / self.n
            self.dv = self.g / self.n * (d - self.dg / self.n * self.v)
            return dout @ self.w.T

    return check_layer(Normed(), draw(5, 4))


class Tensor:
    """A float32 array, and the operation that it comes from."""

    def __init__(self, data, parents=(), pull=None):
        self.data, self.parents, self.pull = np.array(data, dtype=np.float32), parents, pull
        self.grad = np.zeros_like(self.data)

    def __matmul__(self, other):
        return Tensor(self.data @ other.data, (self, other), lambda g: (g @ other.data.T, self.data.T @ g))

    def relu(self):
        return Tensor(np.maximum(self.data, 0), (self,), lambda g: (g * (self.data > 0),))

    def sigmoid(self):
        y = 1 / (1 + np.exp(-self.data))
        return Tensor(y, (self,), lambda g: (g * y * (1 - y),))

    def backward(self, g):
        self.grad += g
        if self.pull is not None:
            for parent, part in zip(self.parents, self.pull(np.float32(g)), strict=True):
                parent.backward(part)


@right("public/tensors-that-are-float32", "a small autograd of float32 tensors, called with float64 arrays", step=3e-2)
def tensors(seed):
    draw = Draw(seed)

    def run(*arrays):
        x, w, v = map(Tensor, arrays)
        return (x, w, v), ((x @ w).relu() @ v).sigmoid()

    def gradient(x, w, v, dout):
        leaves, y = run(x, w, v)
        y.backward(dout)
        return tuple(leaf.grad for leaf in leaves)

    return check_function(lambda x, w, v: run(x, w, v)[1].data, draw(5, 4), draw(4, 6), draw(6, 3), gradient=gradient)


@right("public/clipped-probabilities", "binary cross-entropy of probabilities that are clipped at 1e-7 and far from it")
def clipped(seed):
    draw = Draw(seed)

    class Loss:
        def forward(self, y_pred, y_true):
            self.p, self.t = np.clip(y_pred, 1e-7, 1 - 1e-7), y_true
            return -(y_true * np.log(self.p) + (1 - y_true) * np.log(1 - self.p)).mean()

        def backward(self, dout=1):
            return -dout * (self.t / self.p - (1 - self.t) / (1 - self.p)) / self.p.size

    return check_layer(Loss(), draw.rng.uniform(0.05, 0.95, (6, 1)), draw.rng.integers(0, 2, (6, 1)).astype(float))


@right("public/flat-rows-as-batches-of-1", "a layer for one sample of shape (n, 1), with an outer product")
def one_column(seed):
    draw = Draw(seed)

    class Dense:
        def __init__(self):
            self.weights, self.bias = draw(3, 4), draw(3, 1)

        def forward(self, inputs):
            self.input = inputs
            return self.weights @ inputs + self.bias

        def backward(self, output_gradient):
            self.weights_grad, self.bias_grad = output_gradient @ self.input.T, output_gradient
            return self.weights.T @ output_gradient

    return check_layer(Dense(), draw(4, 1))
