"""Automatic differentiation engines and word vectors in the style of courses, each with a slip."""

import numpy as np

from jaxnet.crosscheck import check_function, check_network
from mutants.kinds import Draw, wrong
from mutants.kinds.wrong_courses import sigmoid


class Value:
    """A number in micrograd's style; `slip` names what is wrong with its engine."""

    def __init__(self, data, parents=(), slopes=()):
        self.data, self.parents, self.slopes, self.grad = data, parents, slopes, 0.0

    def __add__(self, other):
        return Value(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other):
        return Value(self.data * other.data, (self, other), (other.data, self.data))

    def tanh(self):
        t = np.tanh(self.data)
        return Value(t, (self,), (1 - t * t,))

    def backward(self, slip):
        order, visited = [], set()

        def visit(node):
            if id(node) not in visited:
                visited.add(id(node))
                for parent in node.parents:
                    visit(parent)
                order.append(node)

        visit(self)
        self.grad = 1.0
        for node in reversed(order):
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                step = slope * node.grad
                parent.grad = step if slip == "overwrites" else parent.grad + step


def neuron(values):
    """Returns a loss of six numbers, the first of which is used three times."""
    a, b, c, d, e, f = values
    hidden = (a * b + c).tanh()
    return (hidden * d + a * e + hidden * hidden * f) * a


@wrong("course/micrograd-overwrites", "An engine assigns gradients instead of adding them up.")
def _(seed):
    def gradient(x):
        values = [Value(v) for v in x]
        neuron(values).backward("overwrites")
        return np.array([v.grad for v in values])

    return check_function(lambda x: float(neuron([Value(v) for v in x]).data), Draw(seed)(6), gradient=gradient)


class SkipGram:
    """CS224n's negative sampling: v for the centre, U for the context."""

    def __init__(self, draw, words=7, d=4):
        self.params = {"V": draw(words, d), "U": draw(words, d)}

    def loss(self, x, t):
        v, U = self.params["V"][x[:, 0]], self.params["U"]
        negative = np.einsum("nd,nkd->nk", v, U[x[:, 1:]])
        return -np.log(sigmoid((v * U[t]).sum(1))).sum() - np.log(sigmoid(-negative)).sum()

    def gradient(self, x, t):
        V, U = self.params["V"], self.params["U"]
        centre, negatives = x[:, 0], x[:, 1:]
        v = V[centre]
        top = sigmoid((v * U[t]).sum(1))[:, None] - 1
        low = sigmoid(np.einsum("nd,nkd->nk", v, U[negatives]))[..., None]
        dV, dU = np.zeros_like(V), np.zeros_like(U)
        np.add.at(dV, centre, top * U[t] + (low * U[negatives]).sum(1))
        np.add.at(dU, t, top * v)
        dU[negatives] += low * v[:, None]  # repeated negatives count once
        return {"V": dV, "U": dU}


@wrong("course/word2vec-repeated-negatives", "Fancy indexing with += counts a word that occurs twice only once.")
def _(seed):
    draw = Draw(seed)
    x = draw.rng.integers(0, 7, (6, 4))
    x[0, 1:] = x[0, 1]
    return check_network(SkipGram(draw), x, draw.labels(6, 7))
