"""Right networks in the style of a well-known book on deep learning from scratch."""

from collections import OrderedDict

import numpy as np

from jaxnet.crosscheck import check_layer, check_network
from mutants.kinds import Draw, right
from mutants.kinds.right_structure import Affine

IGNORES = "ignores dout"


class Relu:
    """max(x, 0)."""

    def forward(self, x):
        self.mask = x <= 0
        out = x.copy()
        out[self.mask] = 0
        return out

    def backward(self, dout):
        dout[self.mask] = 0
        return dout


class CleanRelu(Relu):
    """The same, without writing to dout."""

    def backward(self, dout):
        return np.where(self.mask, 0, dout)


class Sigmoid:
    """1 / (1 + exp(-x))."""

    def forward(self, x):
        self.out = 1 / (1 + np.exp(-x))
        return self.out

    def backward(self, dout):
        return dout * (1 - self.out) * self.out


class SoftmaxWithLoss:
    """Softmax and cross-entropy in one layer, with integer or one-hot labels; its dout is always 1 and is not used."""

    def forward(self, x, t):
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        self.y, self.t = e / e.sum(axis=-1, keepdims=True), t
        chosen = self.y[t == 1] if t.size == self.y.size else self.y[np.arange(len(t)), t]
        self.loss = -np.log(chosen).sum() / len(t)
        return self.loss

    def backward(self, dout=1):
        if self.t.size == self.y.size:
            return (self.y - self.t) / len(self.t)
        dx = self.y.copy()
        dx[np.arange(len(self.t)), self.t] -= 1
        return dx / len(self.t)


class Convolution:
    """A convolution of 3 by 3 filters by im2col."""

    def __init__(self, W, b):
        self.W, self.b = W, b

    def forward(self, x):
        n, c, h, w = x.shape
        col = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
        self.shape, self.col = x.shape, col.transpose(0, 2, 3, 1, 4, 5).reshape(-1, c * 9)
        out = self.col @ self.W.reshape(len(self.W), -1).T + self.b
        return out.reshape(n, h - 2, w - 2, -1).transpose(0, 3, 1, 2)

    def backward(self, dout):
        n, c, h, w = self.shape
        rows = dout.transpose(0, 2, 3, 1).reshape(-1, len(self.W))
        self.db, self.dW = rows.sum(axis=0), (self.col.T @ rows).T.reshape(self.W.shape)
        dcol = (rows @ self.W.reshape(len(self.W), -1)).reshape(n, h - 2, w - 2, c, 3, 3)
        dx = np.zeros(self.shape)
        for y in range(3):
            for x in range(3):
                dx[:, :, y : y + h - 2, x : x + w - 2] += dcol[..., y, x].transpose(0, 3, 1, 2)
        return dx


class Pooling:
    """Max pooling over 2 by 2."""

    def forward(self, x):
        n, c, h, w = x.shape
        self.shape = x.shape
        col = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(-1, 4)
        self.arg_max = col.argmax(axis=1)
        return col.max(axis=1).reshape(n, c, h // 2, w // 2)

    def backward(self, dout):
        n, c, h, w = self.shape
        dmax = np.zeros((dout.size, 4))
        dmax[np.arange(dout.size), self.arg_max] = dout.ravel()
        return dmax.reshape(n, c, h // 2, w // 2, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(self.shape)


class Flatten:
    """(N, ...) to (N, D)."""

    def forward(self, x):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dout):
        return dout.reshape(self.shape)


class Network:
    """Layers in an OrderedDict, a last layer, and params that layers share."""

    def __init__(self, layers, params):
        self.layers, self.params, self.lastLayer = OrderedDict(layers), params, SoftmaxWithLoss()

    def predict(self, x):
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def loss(self, x, t):
        return self.lastLayer.forward(self.predict(x), t)

    def gradient(self, x, t):
        self.loss(x, t)
        dout = self.lastLayer.backward(1)
        for layer in reversed(list(self.layers.values())):
            dout = layer.backward(dout)
        return {f"{p}{i}": getattr(self.layers[f"L{i}"], f"d{p}") for i in self.numbers() for p in "Wb"}

    def numbers(self):
        return [name[1:] for name in self.params if name.startswith("W")]


def two_layers(draw, activation):
    params = {"W1": draw(5, 7), "b1": np.zeros(7), "W2": draw(7, 4), "b2": np.zeros(4)}
    layers = [
        ("L1", Affine(params["W1"], params["b1"])),
        ("A1", activation),
        ("L2", Affine(params["W2"], params["b2"])),
    ]
    return Network(layers, params)


for label, activation in (("relu", CleanRelu), ("sigmoid", Sigmoid)):
    for one_hot in (False, True):

        @right(
            f"book/two-layer-net-{label}" + "-one-hot" * one_hot,
            "the book's two-layer network; its last layer ignores a dout that is always 1",
            says=IGNORES,
            never="receives a wrong gradient",
        )
        def two_layer_net(seed, activation=activation, one_hot=one_hot):
            draw = Draw(seed)
            t = draw.labels(6, 4)
            return check_network(two_layers(draw, activation()), draw(6, 5), np.eye(4)[t] if one_hot else t)


@right("book/relu-overwrites-an-unused-dout", "its ReLU masks in place the dout that the next layer returned")
def in_place_within(seed):
    draw = Draw(seed)
    return check_network(two_layers(draw, Relu()), draw(6, 5), draw.labels(6, 4))


@right("book/digits-with-blank-pixels", "pixels of 0 to 255 over 255, many exactly 0, biases 0, 0.01 randn weights")
def blank_pixels(seed):
    draw = Draw(seed)
    net = two_layers(draw, CleanRelu())
    for name in ("W1", "W2"):
        net.params[name] *= 0.01
    x = np.maximum(draw.rng.integers(-255, 256, (6, 5)), 0) / 255
    x[2] = 0
    return check_network(net, x, draw.labels(6, 4))


@right("book/simple-convolutional-net", "convolution, ReLU, max pooling, two affine layers", says=IGNORES)
def simple_conv_net(seed):
    draw = Draw(seed)
    params = {"W1": draw(3, 2, 3, 3), "b1": draw(3), "W2": draw(12, 6), "b2": draw(6), "W3": draw(6, 4), "b3": draw(4)}
    two, three = (Affine(params[f"W{i}"], params[f"b{i}"]) for i in (2, 3))
    first = Convolution(params["W1"], params["b1"])
    layers = [("L1", first), ("A1", CleanRelu()), ("Pool", Pooling()), ("Flat", Flatten()), ("L2", two),
              ("A2", CleanRelu()), ("L3", three)]  # fmt: skip
    return check_network(Network(layers, params), draw(3, 2, 6, 6), draw.labels(3, 4))


@right("book/convolution-and-pooling-alone", "the convolution and the pooling of the book, one after the other")
def convolution_alone(seed):
    draw = Draw(seed)

    class Block:
        def __init__(self):
            self.conv, self.pool = Convolution(draw(3, 2, 3, 3), draw(3)), Pooling()

        def forward(self, x):
            return self.pool.forward(self.conv.forward(x))

        def backward(self, dout):
            return self.conv.backward(self.pool.backward(dout))

    return check_layer(Block(), draw(2, 2, 6, 6))


@right("book/weight-decay-in-the-loss", "weight decay in the loss, and its gradient added to the layers'", says=IGNORES)
def weight_decay(seed):
    draw = Draw(seed)

    class Decays(Network):
        def loss(self, x, t):
            return super().loss(x, t) + 0.05 * sum((self.params[f"W{i}"] ** 2).sum() for i in self.numbers())

        def gradient(self, x, t):
            gradients = super().gradient(x, t)
            return gradients | {f"W{i}": gradients[f"W{i}"] + 0.1 * self.params[f"W{i}"] for i in self.numbers()}

    plain = two_layers(draw, Sigmoid())
    return check_network(Decays(plain.layers, plain.params), draw(6, 5), draw.labels(6, 4))
