"""Right layers with float arrays that are constants: statistics, encodings, masks, labels, class weights."""

import numpy as np

from jaxnet.crosscheck import check_function, check_layer, check_network
from mutants.kinds import Draw, right


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@right(
    "constant/running-statistics",
    "BatchNorm in inference: running_mean and running_var affect y and have no gradient",
)
def running(seed):
    draw = Draw(seed)

    class BatchNorm:
        def __init__(self):
            self.gamma, self.beta = draw(4), draw(4)
            self.running_mean, self.running_var = draw(4), draw.positive(4)

        def forward(self, x):
            self.xhat = (x - self.running_mean) / np.sqrt(self.running_var + 1e-5)
            return self.gamma * self.xhat + self.beta

        def backward(self, dout):
            self.dgamma, self.dbeta = (dout * self.xhat).sum(axis=0), dout.sum(axis=0)
            return dout * self.gamma / np.sqrt(self.running_var + 1e-5)

    return check_layer(BatchNorm(), draw(6, 4))


@right(
    "constant/running-statistics-move", "BatchNorm in training, which also updates its running statistics at each call"
)
def moving(seed):
    draw = Draw(seed)

    class BatchNorm:
        def __init__(self):
            self.gamma, self.beta = draw(4), draw(4)
            self.running_mean, self.running_var = np.zeros(4), np.ones(4)

        def forward(self, x):
            mean, var = x.mean(axis=0), x.var(axis=0)
            self.running_mean = 0.9 * self.running_mean + 0.1 * mean
            self.running_var = 0.9 * self.running_var + 0.1 * var
            self.std = np.sqrt(var + 1e-5)
            self.xhat = (x - mean) / self.std
            return self.gamma * self.xhat + self.beta

        def backward(self, dout):
            self.dgamma, self.dbeta = (dout * self.xhat).sum(axis=0), dout.sum(axis=0)
            d = dout * self.gamma
            return (d - d.mean(axis=0) - self.xhat * (d * self.xhat).mean(axis=0)) / self.std

    return check_layer(BatchNorm(), draw(6, 4))


@right("constant/positional-encoding", "sines in the attribute `pe` that are added to the embedded input")
def positions(seed):
    draw = Draw(seed)
    angle = np.arange(5)[:, None] / 10 ** np.arange(3)

    class Embed:
        def __init__(self):
            self.W, self.pe = draw(4, 6), np.concatenate([np.sin(angle), np.cos(angle)], axis=1)

        def forward(self, x):
            self.x = x
            return np.tanh(x @ self.W + self.pe)

        def backward(self, dout):
            d = dout * (1 - np.tanh(self.x @ self.W + self.pe) ** 2)
            self.dW = self.x.T @ d
            return d @ self.W.T

    return check_layer(Embed(), draw(5, 4))


@right("constant/mask-of-floats", "padding in sequences: a mask of 0.0 and 1.0 that multiplies the loss")
def mask(seed):
    draw = Draw(seed)
    keep = (draw.rng.random((4, 5)) > 0.3).astype(float)
    keep[0, 0] = 1.0

    def forward(x, mask):
        return (mask * x**2).sum() / mask.sum(), (x, mask)

    return check_layer((forward, lambda dout, c: dout * 2 * c[1] * c[0] / c[1].sum()), draw(4, 5), keep)


@right("constant/causal-mask-of-minus-infinity", "attention's scores plus a mask of 0 and -inf")
def causal(seed):
    draw = Draw(seed)
    mask = np.triu(np.full((5, 5), -np.inf), 1)

    def backward(dout, y):
        return y * (dout - (dout * y).sum(axis=-1, keepdims=True))

    def forward(s, mask):
        y = softmax(s + mask)
        return y, y

    return check_layer((forward, backward), draw(5, 5), mask)


def cross_entropy(x, t):
    y = softmax(x)
    return -(t * np.log(y)).sum() / len(x), (y, t)


def cross_entropy_backward(dout, cache):
    y, t = cache
    return dout * (y - t) / len(y)


@right("constant/labels-one-hot", "cross-entropy whose labels are one-hot floats")
def one_hot(seed):
    draw = Draw(seed)
    return check_layer((cross_entropy, cross_entropy_backward), draw(6, 4), np.eye(4)[draw.labels(6, 4)])


@right("constant/labels-smoothed", "cross-entropy whose labels are smoothed, 0.9 and 0.1 / 4")
def smoothed(seed):
    draw = Draw(seed)
    t = 0.9 * np.eye(4)[draw.labels(6, 4)] + 0.1 / 4

    def forward(x, targets):
        return cross_entropy(x, targets)

    return check_layer((forward, cross_entropy_backward), draw(6, 4), t)


@right("constant/soft-targets-of-a-teacher", "distillation, with the teacher's probabilities declared as a constant")
def teacher(seed):
    draw = Draw(seed)

    def forward(x, teacher):
        return cross_entropy(x, teacher)

    return check_layer((forward, cross_entropy_backward), draw(6, 4), softmax(draw(6, 4)), constants=("teacher",))


@right("constant/class-weights", "a weighted cross-entropy, with the class weights declared as a constant")
def class_weights(seed):
    draw = Draw(seed)

    class Weighted:
        def __init__(self):
            self.class_weight = draw.positive(4)

        def forward(self, x, t):
            self.y, self.t, self.w = softmax(x), t, self.class_weight[t]
            return (-self.w * np.log(self.y[np.arange(len(t)), t])).sum() / self.w.sum()

        def backward(self, dout=1):
            return dout * self.w[:, None] * (self.y - np.eye(4)[self.t]) / self.w.sum()

    return check_layer(Weighted(), draw(6, 4), draw.labels(6, 4), constants=("class_weight",))


@right("constant/targets-of-a-network", "a regression network with one float target for each sample")
def targets(seed):
    draw = Draw(seed)

    class Net:
        def __init__(self):
            self.params, self.mean, self.std = {"W": draw(4, 2), "b": draw(2)}, draw(4), draw.positive(4)

        def scaled(self, x):
            return (x - self.mean) / self.std

        def loss(self, x, t):
            return ((self.scaled(x) @ self.params["W"] + self.params["b"] - t) ** 2).mean()

        def gradient(self, x, t):
            e = 2 * (self.scaled(x) @ self.params["W"] + self.params["b"] - t) / t.size
            return {"W": self.scaled(x).T @ e, "b": e.sum(axis=0)}

    return check_network(Net(), draw(6, 4), draw(6, 2))


@right("constant/frozen-layer", "a frozen embedding, not listed in params")
def frozen(seed):
    draw = Draw(seed)

    class Head:
        def __init__(self):
            self.table, self.params, self.grads = draw(7, 5), [draw(5, 3)], [None]

        def forward(self, x):
            self.h = np.tanh(x @ self.table)
            return self.h @ self.params[0]

        def backward(self, dout):
            self.grads[0] = self.h.T @ dout
            return (dout @ self.params[0].T * (1 - self.h**2)) @ self.table.T

    return check_layer(Head(), draw(5, 7))


@right("constant/data-in-a-closure", "a likelihood that closes over its data, with a gradient of the parameters")
def closure(seed):
    draw = Draw(seed)
    x, y = draw(20, 3), draw.rng.integers(0, 2, 20)

    def loss(w, b):
        return np.logaddexp(0, (1 - 2 * y) * (x @ w + b)).mean()

    def gradient(w, b):
        r = (1 / (1 + np.exp(-(x @ w + b))) - y) / 20
        return x.T @ r, np.array(r.sum())

    return check_function(loss, draw(3), np.array(0.3), gradient=gradient)


@right("constant/old-log-probabilities", "PPO's clipped ratio, with two arrays declared as constants")
def ppo(seed):
    draw = Draw(seed)

    def parts(logp, old, adv):
        r = np.exp(logp - old)
        return r, r * adv, np.clip(r, 0.8, 1.2) * adv

    def gradient(logp, old, adv):
        _, plain, clipped = parts(logp, old, adv)
        return -np.where(plain <= clipped, plain, 0) / logp.size

    old = draw(8)
    return check_function(
        lambda logp, old, adv: -np.minimum(*parts(logp, old, adv)[1:]).mean(),
        old + 0.3 * draw.off_zero(8), old, draw.off_zero(8), gradient=gradient, constants=("old", "adv"),
    )  # fmt: skip
