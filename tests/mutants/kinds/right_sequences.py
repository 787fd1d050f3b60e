"""Right layers for sequences in the style of a book and of courses, with params and grads in lists."""

import numpy as np

from jaxnet.crosscheck import check_layer, check_network
from mutants.kinds import Draw, right


class Embedding:
    """W[ids], with the gradient written into the array in grads."""

    def __init__(self, W):
        self.params, self.grads, self.idx = [W], [np.zeros_like(W)], None

    def forward(self, idx):
        (W,) = self.params
        self.idx = idx
        return W[idx]

    def backward(self, dout):
        (dW,) = self.grads
        dW[...] = 0
        np.add.at(dW, self.idx, dout)


class RNN:
    """h' = tanh(h Wh + x Wx + b)."""

    def __init__(self, Wx, Wh, b):
        self.params, self.grads = [Wx, Wh, b], [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]

    def forward(self, x, h_prev):
        Wx, Wh, b = self.params
        h_next = np.tanh(h_prev @ Wh + x @ Wx + b)
        self.cache = x, h_prev, h_next
        return h_next

    def backward(self, dh_next):
        Wx, Wh, _ = self.params
        x, h_prev, h_next = self.cache
        dt = dh_next * (1 - h_next**2)
        self.grads[0][...], self.grads[1][...], self.grads[2][...] = x.T @ dt, h_prev.T @ dt, dt.sum(axis=0)
        return dt @ Wx.T, dt @ Wh.T


class TimeRNN:
    """RNN over (N, T, D), with new cells in every forward."""

    def __init__(self, Wx, Wh, b, stateful=False):
        self.params, self.grads = [Wx, Wh, b], [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]
        self.layers, self.h, self.dh, self.stateful = None, None, None, stateful

    def forward(self, xs):
        n, steps, _ = xs.shape
        self.layers, hs = [], []
        if not self.stateful or self.h is None:
            self.h = np.zeros((n, len(self.params[1])), dtype=xs.dtype)
        for t in range(steps):
            cell = RNN(*self.params)
            self.h = cell.forward(xs[:, t], self.h)
            hs.append(self.h)
            self.layers.append(cell)
        return np.stack(hs, axis=1)

    def backward(self, dhs):
        steps = dhs.shape[1]
        dxs, dh, grads = [], 0, [0, 0, 0]
        for t in reversed(range(steps)):
            dx, dh = self.layers[t].backward(dhs[:, t] + dh)
            dxs.append(dx)
            grads = [total + part for total, part in zip(grads, self.layers[t].grads, strict=True)]
        for place, total in enumerate(grads):
            self.grads[place][...] = total
        self.dh = dh
        return np.stack(dxs[::-1], axis=1)


class TimeAffine:
    """An affine layer over (N, T, D)."""

    def __init__(self, W, b):
        self.params, self.grads = [W, b], [np.zeros_like(W), np.zeros_like(b)]

    def forward(self, x):
        n, steps, _ = x.shape
        self.x = x
        return (x.reshape(n * steps, -1) @ self.params[0] + self.params[1]).reshape(n, steps, -1)

    def backward(self, dout):
        x, W = self.x, self.params[0]
        rows, flat = x.reshape(-1, x.shape[2]), dout.reshape(-1, dout.shape[2])
        self.grads[0][...], self.grads[1][...] = rows.T @ flat, flat.sum(axis=0)
        return (flat @ W.T).reshape(x.shape)


class TimeSoftmaxWithLoss:
    """Cross-entropy over (N, T, V) that ignores labels of -1."""

    def __init__(self):
        self.params, self.grads, self.cache = [], [], None

    def forward(self, xs, ts):
        n, steps, v = xs.shape
        mask, labels, flat = (ts != -1).ravel(), ts.ravel(), xs.reshape(n * steps, v)
        e = np.exp(flat - flat.max(axis=1, keepdims=True))
        ys = e / e.sum(axis=1, keepdims=True)
        self.cache = labels, ys, mask, xs.shape
        return -(np.log(ys[np.arange(n * steps), labels]) * mask).sum() / mask.sum()

    def backward(self, dout=1):
        labels, ys, mask, shape = self.cache
        dx = ys.copy()
        dx[np.arange(len(labels)), labels] -= 1
        dx *= dout / mask.sum() * mask[:, None]
        return dx.reshape(shape)


def rnn(draw, d=4, h=3, **options):
    return TimeRNN(draw(d, h) / 2, draw(h, h) / 2, draw(h), **options)


@right("sequence/time-rnn", "a recurrent layer whose cells are made in forward, with params and grads in lists")
def time_rnn(seed):
    draw = Draw(seed)
    return check_layer(rnn(draw), draw(2, 5, 4))


@right("sequence/rnn-cell", "one step, with two inputs and two gradients")
def cell(seed):
    draw = Draw(seed)
    return check_layer(RNN(draw(4, 3), draw(3, 3), draw(3)), draw(5, 4), draw(5, 3))


@right("sequence/time-affine", "an affine layer over time, grads written in place")
def time_affine(seed):
    draw = Draw(seed)
    return check_layer(TimeAffine(draw(4, 3), draw(3)), draw(2, 5, 4))


@right("sequence/embedding-returns-nothing", "an embedding whose backward returns None: ids have no gradient")
def embedding(seed):
    draw = Draw(seed)
    return check_layer(Embedding(draw(6, 4)), draw.rng.integers(0, 6, (3, 5)))


@right("sequence/loss-that-ignores-some-labels", "a loss over time that ignores labels of -1, whose rows are zero")
def masked_loss(seed):
    draw = Draw(seed)
    ts = draw.rng.integers(0, 4, (3, 5))
    ts[0, 2:] = -1
    return check_layer(TimeSoftmaxWithLoss(), draw(3, 5, 4), ts)


@right(
    "sequence/whole-language-model", "embedding, RNN, affine, loss over time; params and grads are flat lists in a dict"
)
def language_model(seed):
    draw = Draw(seed)

    class Model:
        def __init__(self):
            self.layers = [Embedding(draw(6, 4)), rnn(draw), TimeAffine(draw(3, 6), draw(6))]
            self.loss_layer = TimeSoftmaxWithLoss()
            arrays = [array for layer in self.layers for array in layer.params]
            self.params = {f"p{i}": array for i, array in enumerate(arrays)}

        def loss(self, xs, ts):
            for layer in self.layers:
                xs = layer.forward(xs)
            return self.loss_layer.forward(xs, ts)

        def gradient(self, xs, ts):
            self.loss(xs, ts)
            dout = self.loss_layer.backward()
            for layer in reversed(self.layers):
                dout = layer.backward(dout)
            arrays = [array for layer in self.layers for array in layer.grads]
            return {f"p{i}": array.copy() for i, array in enumerate(arrays)}

    return check_network(Model(), draw.rng.integers(0, 6, (2, 5)), draw.rng.integers(0, 6, (2, 5)))


def sigmoid(x):
    """Returns the sigmoid, computed without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def lstm_step(x, h, c, Wx, Wh, b):
    a = x @ Wx + h @ Wh + b
    n = h.shape[1]
    i, f, o = sigmoid(a[:, :n]), sigmoid(a[:, n : 2 * n]), sigmoid(a[:, 2 * n : 3 * n])
    g = np.tanh(a[:, 3 * n :])
    after = f * c + i * g
    return o * np.tanh(after), after, (x, h, c, Wx, Wh, i, f, o, g, after)


def lstm_step_backward(dh, dc, cache):
    x, h, c, Wx, Wh, i, f, o, g, after = cache
    t = np.tanh(after)
    dc = dc + dh * o * (1 - t * t)
    da = np.hstack([dc * g * i * (1 - i), dc * c * f * (1 - f), dh * t * o * (1 - o), dc * i * (1 - g * g)])
    return da @ Wx.T, da @ Wh.T, dc * f, x.T @ da, h.T @ da, da.sum(axis=0)


@right("sequence/lstm-step", "an LSTM step in the style of a course, with two outputs and six gradients")
def one_lstm_step(seed):
    draw = Draw(seed)
    return check_layer(
        (lstm_step, lstm_step_backward), draw(3, 4), draw(3, 2), draw(3, 2), draw(4, 8), draw(2, 8), draw(8)
    )


@right("sequence/lstm", "an LSTM over a sequence, whose first cell state is 0, with a cache for each step")
def lstm(seed):
    draw = Draw(seed)

    def forward(x, h0, Wx, Wh, b):
        h, c, hs, caches = h0, np.zeros_like(h0), [], []
        for t in range(x.shape[1]):
            h, c, cache = lstm_step(x[:, t], h, c, Wx, Wh, b)
            hs.append(h)
            caches.append(cache)
        return np.stack(hs, axis=1), caches

    def backward(dhs, caches):
        dxs, dh, dc, totals = [], 0, 0, [0, 0, 0]
        for t in reversed(range(len(caches))):
            dx, dh, dc, *parts = lstm_step_backward(dhs[:, t] + dh, dc, caches[t])
            dxs.append(dx)
            totals = [total + part for total, part in zip(totals, parts, strict=True)]
        return (np.stack(dxs[::-1], axis=1), dh, *totals)

    return check_layer((forward, backward), draw(2, 4, 3), draw(2, 3), draw(3, 12), draw(3, 12), draw(12))
