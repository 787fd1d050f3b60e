"""Right layers with members other than arrays, or with arrays that are not plain attributes."""

import dataclasses
import logging
import tempfile
import threading
import types
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxnet.crosscheck import check_layer
from mutants.kinds import Draw, right
from mutants.kinds.right_structure import Affine, affine

HOLDINGS = {
    "a-module": lambda: np.linalg,
    "a-lock": threading.Lock,
    "a-condition": threading.Condition,
    "a-thread-pool": lambda: ThreadPoolExecutor(1),
    "an-open-file": lambda: tempfile.TemporaryFile("w+"),  # noqa: SIM115, a layer keeps it open
    "a-logger-with-a-handler": lambda: logging.getLogger("kinds.right"),
    "a-lambda": lambda: lambda x: x,
    "a-generator": lambda: (i for i in range(3)),
    "a-class": lambda: Affine,
    "a-namespace-with-a-lock": lambda: types.SimpleNamespace(lock=threading.RLock()),
    "a-memory-view": lambda: memoryview(bytearray(8)),
}
for label, make in HOLDINGS.items():

    @right(f"holds/{label}", f"a layer with {label.replace('-', ' ')} in addition to its arrays")
    def holds(seed, make=make):
        draw = Draw(seed)
        layer = affine(draw)
        layer.holding = make()
        return check_layer(layer, draw(5, 4))


@right("structure/slots", "a layer with only __slots__")
def slots(seed):
    draw = Draw(seed)

    class Slots:
        __slots__ = ("W", "dW", "x")

        def __init__(self):
            self.W = draw(4, 3)

        def forward(self, x):
            self.x = x
            return x @ self.W

        def backward(self, dout):
            self.dW = self.x.T @ dout
            return dout @ self.W.T

    return check_layer(Slots(), draw(5, 4))


@right("structure/frozen-dataclass", "a frozen dataclass with its cache and gradients in a dict")
def frozen(seed):
    draw = Draw(seed)

    @dataclasses.dataclass(frozen=True)
    class Layer:
        params: dict
        grads: dict = dataclasses.field(default_factory=dict)
        cache: dict = dataclasses.field(default_factory=dict)

        def forward(self, x):
            self.cache["x"] = x
            return x @ self.params["W"]

        def backward(self, dout):
            self.grads["W"] = self.cache["x"].T @ dout
            return dout @ self.params["W"].T

    return check_layer(Layer({"W": draw(4, 3)}), draw(5, 4))


Moments = namedtuple("Moments", "mean std")


@right("structure/namedtuple-cache-and-outputs", "a pair that returns a namedtuple of outputs and takes two gradients")
def outputs(seed):
    def backward(dmean, dstd, cache):
        x, y = cache
        return np.broadcast_to(dmean / 5, x.shape) + dstd * (x - y.mean) / (5 * y.std)

    def forward(x):
        y = Moments(x.mean(axis=0), x.std(axis=0))
        return y.mean, y.std, (x, y)

    return check_layer((forward, backward), Draw(seed)(5, 4))


@right("structure/properties", "W is a property that reads a private array, dW another")
def properties(seed):
    draw = Draw(seed)

    class Layer:
        def __init__(self):
            self._w, self._dw = draw(4, 3), np.zeros((4, 3))

        W = property(lambda self: self._w)
        dW = property(lambda self: self._dw)

        def forward(self, x):
            self._x = x
            return x @ self._w

        def backward(self, dout):
            self._dw = self._x.T @ dout
            return dout @ self._w.T

    return check_layer(Layer(), draw(5, 4))


@right("constant/filters-of-a-blur", "a layer with a fixed kernel and an empty list of params")
def blur(seed):
    class Blur:
        def __init__(self):
            self.kernel, self.params, self.grads = np.array([0.25, 0.5, 0.25]), [], []

        def forward(self, x):
            return np.stack([np.convolve(row, self.kernel, mode="valid") for row in x])

        def backward(self, dout):
            return np.stack([np.convolve(row, self.kernel[::-1], mode="full") for row in dout])

    return check_layer(Blur(), Draw(seed)(3, 8))
