"""Right gradients that are zero, in part or completely, at the inputs or everywhere."""

import numpy as np

from jaxnet.crosscheck import check_function, check_layer
from mutants.kinds import Draw, right


@right("zero/bias-before-batch-norm", "the bias before a BatchNorm has no influence, and its gradient is rounding")
def bias_before_norm(seed):
    draw = Draw(seed)

    def forward(x, w, b):
        z = x @ w + b
        std = np.sqrt(z.var(axis=0) + 1e-5)
        y = (z - z.mean(axis=0)) / std
        return y, (x, w, y, std)

    def backward(dout, cache):
        x, w, y, std = cache
        d = (dout - dout.mean(axis=0) - y * (dout * y).mean(axis=0)) / std
        return d @ w.T, x.T @ d, d.sum(axis=0)

    return check_layer((forward, backward), draw(7, 4), draw(4, 3), draw(3))


@right("zero/key-bias-of-attention", "a bias of attention's keys shifts all scores of a row equally")
def key_bias(seed):
    draw = Draw(seed)

    def parts(q, k, b):
        s = q @ (k + b).T
        e = np.exp(s - s.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def gradient(q, k, b, dout):
        y = parts(q, k, b)
        d = y * (dout - (dout * y).sum(axis=1, keepdims=True))
        return d @ (k + b), d.T @ q, (d.T @ q).sum(axis=0)

    return check_function(parts, draw(4, 3), draw(5, 3), draw(3), gradient=gradient)


@right("zero/shift-of-a-softmax", "a number added to all logits: its gradient is written as a plain 0")
def shift(seed):
    draw = Draw(seed)

    def softmax(x, c):
        e = np.exp(x + c - (x + c).max())
        return e / e.sum()

    def gradient(x, c, dout):
        y = softmax(x, c)
        return y * (dout - dout @ y), np.zeros(())

    return check_function(softmax, draw(5), np.array(0.4), gradient=gradient)


@right("zero/dead-units-among-live-ones", "some units of a ReLU layer are dead for the whole batch")
def dead_units(seed):
    draw = Draw(seed)
    b = np.where(np.arange(6) < 2, -50.0, draw(6))

    def forward(x, w, b):
        z = x @ w + b
        return np.maximum(z, 0), (x, w, z)

    def backward(dout, cache):
        x, w, z = cache
        d = dout * (z > 0)
        return d @ w.T, x.T @ d, d.sum(axis=0)

    return check_layer((forward, backward), draw(5, 4), draw(4, 6), b)


@right("zero/masked-positions", "values at masked positions get a gradient of exactly 0")
def masked(seed):
    draw = Draw(seed)
    keep = np.array([True, True, False, True, False])

    def attend(s, v):
        e = np.where(keep, np.exp(s - s.max(axis=1, keepdims=True)), 0)
        return e / e.sum(axis=1, keepdims=True) @ v

    def gradient(s, v, dout):
        e = np.where(keep, np.exp(s - s.max(axis=1, keepdims=True)), 0)
        a = e / e.sum(axis=1, keepdims=True)
        d = dout @ v.T
        return a * (d - (d * a).sum(axis=1, keepdims=True)), a.T @ dout

    return check_function(attend, draw(3, 5), draw(5, 2), gradient=gradient)


@right("zero/rows-of-a-table-that-are-not-used", "an embedding in which the rows of absent ids get zeros")
def table(seed):
    draw = Draw(seed)
    ids = np.array([1, 4, 1])

    def backward(dout, shape):
        dw = np.zeros(shape)
        np.add.at(dw, ids, dout)
        return dw

    return check_layer((lambda w: (w[ids], w.shape), backward), draw(6, 3))


def minimum_error(seed):
    """Returns the gradient's largest element, which is 0 in exact arithmetic."""
    draw = Draw(seed)
    x, w = draw(9, 3), draw(3)
    return float(np.abs(2 * x.T @ (x @ w - x @ w) / 9).max())


@right("zero/at-a-minimum", "a loss at its minimum, where the whole gradient is rounding", true=minimum_error)
def minimum(seed):
    draw = Draw(seed)
    x, w = draw(9, 3), draw(3)
    y = x @ w
    return check_function(lambda w: ((x @ w - y) ** 2).mean(), w, gradient=lambda w: 2 * x.T @ (x @ w - y) / 9)


@right(
    "zero/zero-weights-of-a-residual-branch",
    "a branch whose weights are initially 0, and so is the gradient of its input",
    undecided=True,
)
def zero_branch(seed):
    draw = Draw(seed)

    def backward(dout, cache):
        x, w, v = cache
        h = np.tanh(x @ w)
        d = dout @ v.T * (1 - h**2)
        return dout + d @ w.T, x.T @ d, h.T @ dout

    def forward(x, w, v):
        return x + np.tanh(x @ w) @ v, (x, w, v)

    return check_layer((forward, backward), draw(5, 4), draw(4, 6), np.zeros((6, 4)))


@right("zero/step-function-and-a-smooth-one", "a count above a threshold has slope 0 almost everywhere")
def counting(seed):
    x = Draw(seed).off_zero(4, 3)
    return check_function(lambda x: np.tanh(x) + (x > 0), x, gradient=lambda x, dout: dout * (1 - np.tanh(x) ** 2))


@right("zero/scale-before-a-norm", "the length of a row does not affect its direction, so dx is orthogonal to x")
def length(seed):
    draw = Draw(seed)

    def gradient(x, s, dout):
        n = np.linalg.norm(s * x, axis=1, keepdims=True)
        y = s * x / n
        d = (dout - y * (dout * y).sum(axis=1, keepdims=True)) / n
        return s * d, (d * x).sum(axis=1, keepdims=True)

    return check_function(
        lambda x, s: s * x / np.linalg.norm(s * x, axis=1, keepdims=True),
        draw(4, 3),
        draw.positive(4, 1),
        gradient=gradient,
    )
