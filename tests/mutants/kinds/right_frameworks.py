"""Right code in other styles: layers that return nothing, graphs of scalars, small frameworks, transformers."""

import math

import numpy as np

from jaxnet.crosscheck import check_function, check_layer, check_network
from mutants.kinds import Draw, right
from mutants.kinds.right_operations import attention, attention_backward, layer_norm, layer_norm_backward


class LayerDense:
    """Stores its output in `output`, and its gradients in dinputs, dweights and dbiases."""

    def __init__(self, weights, biases):
        self.weights, self.biases = weights, biases

    def forward(self, inputs):
        self.inputs = inputs
        self.output = inputs @ self.weights + self.biases

    def backward(self, dvalues):
        self.dweights, self.dbiases = self.inputs.T @ dvalues, dvalues.sum(axis=0, keepdims=True)
        self.dinputs = dvalues @ self.weights.T


class ActivationSoftmax:
    """Softmax with a Jacobian for each sample."""

    def forward(self, inputs):
        e = np.exp(inputs - inputs.max(axis=1, keepdims=True))
        self.output = e / e.sum(axis=1, keepdims=True)

    def backward(self, dvalues):
        self.dinputs = np.empty_like(dvalues)
        for place, (y, d) in enumerate(zip(self.output, dvalues, strict=True)):
            y = y.reshape(-1, 1)
            self.dinputs[place] = (np.diagflat(y) - y @ y.T) @ d


@right("style/dense-stores-everything-in-attributes", "forward and backward return nothing: output, dinputs, dweights")
def dense(seed):
    draw = Draw(seed)
    return check_layer(LayerDense(0.1 * draw(4, 3), np.zeros((1, 3))), draw(5, 4))


@right("style/softmax-stores-everything-in-attributes", "a softmax that returns nothing")
def softmax(seed):
    return check_layer(ActivationSoftmax(), Draw(seed)(5, 4))


class Value:
    """A scalar in a graph, with `data` and `grad`."""

    def __init__(self, data, parents=(), slopes=()):
        self.data, self.grad, self.parents, self.slopes = data, 0.0, parents, slopes

    def __add__(self, other):
        return Value(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other):
        return Value(self.data * other.data, (self, other), (other.data, self.data))

    def tanh(self):
        t = math.tanh(self.data)
        return Value(t, (self,), (1 - t * t,))

    def backward(self):
        order, known = [], set()

        def visit(node):
            if id(node) not in known:
                known.add(id(node))
                for parent in node.parents:
                    visit(parent)
                order.append(node)

        visit(self)
        self.grad = 1.0
        for node in reversed(order):
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                parent.grad += slope * node.grad


def neuron(x, w, b):
    total = b
    for xi, wi in zip(x, w, strict=True):
        total = total + xi * wi
    return (total * total).tanh() + total


def graph(x, w, b):
    nodes = [[Value(float(v)) for v in np.atleast_1d(array)] for array in (x, w, b)]
    return nodes, neuron(nodes[0], nodes[1], nodes[2][0])


@right("style/graph-of-scalars", "a scalar engine: the gradient consists of the `grad` of each Value after backward()")
def scalars(seed):
    draw = Draw(seed)

    def gradient(x, w, b):
        nodes, out = graph(x, w, b)
        out.backward()
        return tuple(np.array([v.grad for v in group]).reshape(np.shape(array))
                     for group, array in zip(nodes, (x, w, b), strict=True))  # fmt: skip

    return check_function(lambda x, w, b: graph(x, w, b)[1].data, draw(4), draw(4), np.array(0.3), gradient=gradient)


class Parameter:
    """An array and its gradient."""

    def __init__(self, value):
        self.data, self.grad = value, np.zeros_like(value)


@right("style/parameter-objects", "a layer whose parameters are objects with data and grad; backward replaces grad")
def parameters(seed):
    draw = Draw(seed)

    class Linear:
        def __init__(self):
            self.weight, self.bias = Parameter(draw(3, 4)), Parameter(draw(3))

        def forward(self, x):
            self.x = x
            return x @ self.weight.data.T + self.bias.data

        def backward(self, dout):
            self.weight.grad, self.bias.grad = dout.T @ self.x, dout.sum(axis=0)
            return dout @ self.weight.data

    return check_layer(Linear(), draw(5, 4))


@right("style/backward-with-a-learning-rate", "backward(d, lr=0) also updates the weights, by default with lr = 0")
def learning_rate(seed):
    draw = Draw(seed)

    class Dense:
        def __init__(self):
            self.W, self.b = draw(4, 3), draw(1, 3)

        def forward(self, x):
            self.x = x
            return x @ self.W + self.b

        def backward(self, dout, lr=0.0):
            dx = dout @ self.W.T
            self.dW, self.db = self.x.T @ dout, dout.sum(axis=0, keepdims=True)
            self.W = self.W - lr * self.dW
            self.b = self.b - lr * self.db
            return dx

    return check_layer(Dense(), draw(5, 4))


@right("style/column-vectors", "features by samples, b a column, as in a course on deep learning")
def columns(seed):
    draw = Draw(seed)

    class Net:
        def __init__(self):
            self.params = {"W1": draw(5, 3), "b1": np.zeros((5, 1)), "W2": draw(1, 5), "b2": np.zeros((1, 1))}

        def forward(self, X):
            p = self.params
            A1 = np.tanh(p["W1"] @ X + p["b1"])
            return A1, 1 / (1 + np.exp(-(p["W2"] @ A1 + p["b2"])))

        def loss(self, X, Y):
            _, A2 = self.forward(X)
            return float(-(Y * np.log(A2) + (1 - Y) * np.log(1 - A2)).sum() / X.shape[1])

        def gradient(self, X, Y):
            A1, A2 = self.forward(X)
            dZ2 = (A2 - Y) / X.shape[1]
            dZ1 = self.params["W2"].T @ dZ2 * (1 - A1**2)
            return {"dW1": dZ1 @ X.T, "db1": dZ1.sum(axis=1, keepdims=True),
                    "dW2": dZ2 @ A1.T, "db2": dZ2.sum(axis=1, keepdims=True)}  # fmt: skip

    return check_network(Net(), draw(3, 8), draw.rng.integers(0, 2, (1, 8)).astype(float))


def split_heads(x, heads):
    n, t, d = x.shape
    return x.reshape(n, t, heads, d // heads).transpose(0, 2, 1, 3)


def join_heads(x):
    n, heads, t, d = x.shape
    return x.transpose(0, 2, 1, 3).reshape(n, t, heads * d)


class Block:
    """x + attention(norm(x)), then + mlp(norm(.)); the biases of the norms are 0."""

    def __init__(self, draw, d=4, hidden=6):
        self.g1, self.b1, self.g2, self.b2 = draw(d), np.zeros(d), draw(d), np.zeros(d)
        self.Wqkv, self.Wo, self.Wi, self.Wf = draw(d, 3 * d) / 2, draw(d, d) / 2, draw(d, hidden), draw(hidden, d)

    def forward(self, x):
        n1, self.c1 = layer_norm(x, self.g1, self.b1)
        self.n1 = n1
        q, k, v = (split_heads(a, 2) for a in np.split(n1 @ self.Wqkv, 3, axis=-1))
        a, self.ca = attention(q, k, v)
        self.a = join_heads(a)
        y = x + self.a @ self.Wo
        self.n2, self.c2 = layer_norm(y, self.g2, self.b2)
        self.h = np.tanh(self.n2 @ self.Wi)
        return y + self.h @ self.Wf

    def backward(self, dout):
        self.dWf = np.einsum("nth,ntd->hd", self.h, dout)
        d = dout @ self.Wf.T * (1 - self.h**2)
        self.dWi = np.einsum("ntd,nth->dh", self.n2, d)
        d, self.dg2, self.db2 = normed(d @ self.Wi.T, self.c2)
        dy = dout + d
        self.dWo = np.einsum("nti,ntj->ij", self.a, dy)
        parts = attention_backward(split_heads(dy @ self.Wo.T, 2), self.ca)
        d = np.concatenate([join_heads(part) for part in parts], axis=-1)
        self.dWqkv = np.einsum("ntd,nth->dh", self.n1, d)
        d, self.dg1, self.db1 = normed(d @ self.Wqkv.T, self.c1)
        return dy + d


def normed(dout, cache):
    dx, dg, db = layer_norm_backward(dout, cache)
    return dx, dg.sum(axis=0), db.sum(axis=0)


@right("style/transformer-block", "attention and an MLP, each after a LayerNorm and with a residual connection")
def block(seed):
    draw = Draw(seed)
    return check_layer(Block(draw), draw(2, 3, 4))
