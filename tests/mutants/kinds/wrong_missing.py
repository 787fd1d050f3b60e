"""Arrays that affect the output and have no gradient, or a wrong one, and that are hard to notice."""

import numpy as np

from jaxnet.crosscheck import check_function, check_layer
from mutants.kinds import Draw, wrong
from mutants.kinds.truth import Measuring


def lazily(name, sentence):
    """Registers a layer that creates its parameters in its first forward; its error is measured after one."""

    def register(make):
        def true(seed):
            layer, x = make(seed)
            layer.forward(x)
            return Measuring(seed, 1e-3).check_layer(layer, x)

        wrong(f"missing/{name}", sentence, true=true)(lambda seed: check_layer(*make(seed)))
        return make

    return register


@lazily("lazy-weight-in-a-dict", "Parameters are made by the first forward, in a dict; dW lacks a factor 1/n.")
def _(seed):
    draw = Draw(seed)

    class Dense:
        def __init__(self, units):
            self.units, self.params, self.grads = units, {}, {}

        def forward(self, x):
            if not self.params:
                rng = np.random.RandomState(1)
                self.params["W"] = rng.randn(x.shape[1], self.units) * 0.5
                self.params["b"] = np.full(self.units, 0.1)
            self.x = x
            return (x @ self.params["W"] + self.params["b"]) / len(x)

        def backward(self, dout):
            self.grads["W"] = self.x.T @ dout
            self.grads["b"] = dout.sum(0) / len(dout)
            return dout @ self.params["W"].T / len(dout)

    n, d = draw.sizes(2)
    return Dense(3), draw(n, d)


@lazily("lazy-bias-only", "The bias is made by the first forward and its gradient is twice too large.")
def _(seed):
    draw = Draw(seed)

    class Bias:
        def forward(self, x):
            if not hasattr(self, "b"):
                self.b = np.linspace(-1, 1, x.shape[-1])
            return x + self.b

        def backward(self, dout):
            self.db = 2 * dout.sum(0)
            return dout

    return Bias(), draw(*draw.sizes(2))


@lazily("lazy-build-method", "Keras style: build() runs in the first call; dW uses |dout|.")
def _(seed):
    draw = Draw(seed)

    class Layer:
        built = False

        def build(self, shape):
            self.W = np.random.RandomState(3).normal(size=(shape[-1], 3))
            self.built = True

        def forward(self, x):
            if not self.built:
                self.build(x.shape)
            self.x = x
            return x @ self.W

        def backward(self, dout):
            self.dW = self.x.T @ np.abs(dout)
            return dout @ self.W.T

    return Layer(), draw(5, 4)


@wrong(
    "missing/pair-forgets-the-gate",
    "backward returns the gradients of the first two of four float inputs.",
    undecided=True,
    says=r"\b(wz|bz)\b",
)
def _(seed):
    draw = Draw(seed)

    def forward(x, wh, wz, bz):
        h, z = np.tanh(x @ wh), 1 / (1 + np.exp(-x @ wz - bz))
        return h * z, (x, wh, wz, h, z)

    def backward(dout, cache):
        x, wh, wz, h, z = cache
        dh, dz = dout * z * (1 - h**2), dout * h * z * (1 - z)
        return dh @ wh.T + dz @ wz.T, x.T @ dh

    n, d, m = draw.sizes(3)
    return check_layer((forward, backward), draw(n, d), draw(d, m), draw(d, m), draw(m))


@wrong(
    "missing/tree-lacks-a-key", "The gradient's dict lacks one of the parameters' keys.", undecided=True, says=r"gamma"
)
def _(seed):
    draw = Draw(seed)
    params = {"gamma": draw(4), "beta": draw(4)}

    def f(params, x):
        return params["gamma"] * np.tanh(x) + params["beta"]

    def gradient(params, x, dout):
        return {"beta": dout.sum(0)}, dout * params["gamma"] * (1 - np.tanh(x) ** 2)

    return check_function(f, params, draw(6, 4), gradient=gradient)


@wrong(
    "missing/none-in-a-tuple",
    "The gradient of the second argument, which affects the output, is None.",
    undecided=True,
    says="temperature",
)
def _(seed):
    draw = Draw(seed)

    def f(logits, temperature):
        e = np.exp(logits / temperature)
        return e / e.sum(-1, keepdims=True)

    def gradient(logits, temperature, dout):
        p = f(logits, temperature)
        return p * (dout - (dout * p).sum(-1, keepdims=True)) / temperature, None

    return check_function(f, draw(3, 5), np.array(1.5), gradient=gradient)
