"""Whole networks in the style of books and courses, each with one slip."""

import numpy as np

from jaxnet.crosscheck import check_network
from mutants.kinds import Draw, wrong
from mutants.kinds.truth import Measuring


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class TwoLayers:
    """CS231n's two-layer network without a slip; `reg` adds reg * |W|^2."""

    reg = 0.1

    def __init__(self, draw, d=4, h=5, c=3):
        self.params = {"W1": draw(d, h), "b1": draw(h), "W2": draw(h, c), "b2": draw(c)}

    def scores(self, x):
        p = self.params
        self.z = x @ p["W1"] + p["b1"]
        self.h = np.maximum(self.z, 0)
        return self.h @ p["W2"] + p["b2"]

    def loss(self, x, t):
        y = softmax(self.scores(x))
        decay = sum((self.params[name] ** 2).sum() for name in ("W1", "W2"))
        return -np.log(y[np.arange(len(t)), t]).mean() + self.reg * decay

    def top(self, x, t):
        """Returns the gradient with respect to the scores."""
        d = softmax(self.scores(x))
        d[np.arange(len(t)), t] -= 1
        return d / len(t)

    def below(self, d):
        """Returns the gradient with respect to the hidden layer's input."""
        return (d @ self.params["W2"].T) * (self.z > 0)

    def gradient(self, x, t):
        d = self.top(x, t)
        grads = {"W2": self.h.T @ d + 2 * self.reg * self.params["W2"], "b2": d.sum(0)}
        d = self.below(d)
        return grads | {"W1": x.T @ d + 2 * self.reg * self.params["W1"], "b1": d.sum(0)}


def two_layers(name, sentence, **expected):
    """Registers a class of the form of TwoLayers."""

    def register(kind):
        def run(seed):
            draw = Draw(seed)
            d, h, c = draw.sizes(3)
            return check_network(kind(draw, d, h, c), draw(7, d), draw.labels(7, c))

        wrong(f"network/{name}", sentence, **expected)(run)
        return kind

    return register


@two_layers("regularisation-without-its-2", "The gradient of reg |W|^2 is reg W instead of 2 reg W.")
class _Decay(TwoLayers):
    def gradient(self, x, t):
        grads = super().gradient(x, t)
        return {n: g - self.reg * self.params[n] if n.startswith("W") else g for n, g in grads.items()}


@two_layers("batch-size-forgotten", "The loss is a mean, and the gradient is not divided by the batch size.")
class _Batch(TwoLayers):
    def top(self, x, t):
        return super().top(x, t) * len(t)


@two_layers("relu-mask-of-the-gradient", "The ReLU's mask is that of the gradient, not of its input.")
class _Mask(TwoLayers):
    def below(self, d):
        d = d @ self.params["W2"].T
        return d * (d > 0)


@two_layers("relu-forgotten", "The ReLU is left out backwards.")
class _Linear(TwoLayers):
    def below(self, d):
        return d @ self.params["W2"].T


@two_layers("softmax-over-the-batch", "The last layer's softmax is over the batch, only in the gradient.")
class _Axis(TwoLayers):
    def top(self, x, t):
        d = softmax(self.scores(x).T).T
        d[np.arange(len(t)), t] -= 1
        return d / len(t)


@two_layers(
    "softmax-jacobian-twice", "The last layer multiplies p - t by an extra factor p (1 - p), the softmax's slope."
)
class _Twice(TwoLayers):
    def top(self, x, t):
        p = softmax(self.scores(x))
        return super().top(x, t) * p * (1 - p)


@two_layers("labels-off-by-one", "The labels begin at 1 in the gradient.")
class _Labels(TwoLayers):
    def top(self, x, t):
        return super().top(x, (t - 1) % self.params["b2"].size)


@two_layers("grads-added-up", "The gradients of two halves are added, and the second half is that of all.")
class _Halves(TwoLayers):
    reg = 0.0

    def gradient(self, x, t):
        first, whole = super().gradient(x[:3], t[:3]), super().gradient(x, t)
        return {name: whole[name] + first[name] * 3 / len(t) for name in whole}


@two_layers("one-bias-not-summed-over-a-row", "b1 sums over all samples but the last.")
class _Rows(TwoLayers):
    def gradient(self, x, t):
        grads = super().gradient(x, t)
        return grads | {"b1": self.below(self.top(x, t))[:-1].sum(0)}


class Seeded:
    """A random network, with the global generator reset before each call."""

    def __init__(self, network):
        self.network, self.params = network, network.params

    def loss(self, x, t):
        np.random.seed(5)  # noqa: NPY002
        return self.network.loss(x, t)

    def gradient(self, x, t):
        np.random.seed(5)  # noqa: NPY002
        return self.network.gradient(x, t)


class Dropping(TwoLayers):
    """The same with Dropout after the ReLU, drawn from np.random as the book does."""

    reg = 0.0

    def scores(self, x):
        super().scores(x)
        self.mask = np.random.rand(*self.h.shape) > 0.4  # noqa: NPY002
        self.h = self.h * self.mask
        return self.h @ self.params["W2"] + self.params["b2"]

    def below(self, d):
        return super().below(d) * self.mask


def dropping(name, sentence):
    """Registers a class of the form of Dropping."""

    def register(kind):
        def make(seed):
            draw = Draw(seed)
            return kind(draw), draw(9, 4), draw.labels(9, 3)

        def true(seed):
            network, x, t = make(seed)
            return Measuring(seed, 1e-3).check_network(Seeded(network), x, t)

        wrong(f"network/{name}", sentence, true=true)(lambda seed: check_network(*make(seed)))
        return kind

    return register


@dropping("dropout-mask-not-applied", "The mask of Dropout is not applied backwards.")
class _NoMask(Dropping):
    def below(self, d):
        return TwoLayers.below(self, d)


@dropping("dropout-scaled-backwards-only", "The gradient is divided by the keep probability, the output is not.")
class _Scaled(Dropping):
    def below(self, d):
        return super().below(d) / 0.6


@dropping("dropout-other-mask", "Backwards, another mask is drawn.")
class _Other(Dropping):
    def below(self, d):
        return TwoLayers.below(self, d) * (np.random.rand(*d.shape[:1], self.h.shape[1]) > 0.4)  # noqa: NPY002
