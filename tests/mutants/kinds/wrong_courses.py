"""Backward passes of recurrent networks, attention and autograd engines, in the style of courses, each with a slip."""

import numpy as np

from jaxnet.crosscheck import check_layer
from mutants.kinds import Draw, wrong


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def rnn(x, h0, Wx, Wh, b):
    h, states = h0, [h0]
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ Wx + h @ Wh + b)
        states.append(h)
    return np.stack(states[1:], 1), (x, states, Wx, Wh)


def rnn_backward(dout, cache, *, carry=True, previous=True, bias_once=False):
    """Returns the gradients of `rnn`: all options at their defaults make it right."""
    x, states, Wx, Wh = cache
    dx, dh = np.zeros_like(x), 0
    dWx, dWh, db = np.zeros_like(Wx), np.zeros_like(Wh), np.zeros(Wh.shape[0])
    for t in reversed(range(x.shape[1])):
        dz = (dout[:, t] + dh) * (1 - states[t + 1] ** 2)
        dx[:, t], dh = dz @ Wx.T, dz @ Wh.T
        dWx += x[:, t].T @ dz
        dWh += states[t if previous else t + 1].T @ dz
        db = dz.sum(0) if bias_once else db + dz.sum(0)
        if not carry:
            dh = 0
    return dx, dz @ Wh.T, dWx, dWh, db


def rnn_inputs(seed):
    draw = Draw(seed)
    n, d, h = draw.sizes(3)
    return draw(n, 4, d), draw(n, h), draw(d, h) / 2, draw(h, h) / 2, draw(h)


for _name, _sentence, _options in (
    ("no-carry", "The gradient does not flow from one step to the one before.", {"carry": False}),
    ("own-state", "dWh uses the state after the step instead of the state before it.", {"previous": False}),
    ("bias-of-the-first-step", "db is overwritten at every step.", {"bias_once": True}),
):

    def _run(seed, options=_options):
        return check_layer((rnn, lambda dout, cache: rnn_backward(dout, cache, **options)), *rnn_inputs(seed))

    wrong(f"course/rnn-{_name}", _sentence)(_run)


def lstm_step(x, h, c, Wx, Wh, b):
    i, f, o, g = np.split(x @ Wx + h @ Wh + b, 4, axis=1)
    i, f, o, g = sigmoid(i), sigmoid(f), sigmoid(o), np.tanh(g)
    after = f * c + i * g
    return o * np.tanh(after), after, (x, h, c, Wx, Wh, i, f, o, g, after)


def lstm_backward(dh, dc, cache, *, slip):
    x, h, c, Wx, Wh, i, f, o, g, after = cache
    t = np.tanh(after)
    dc = dc + dh * o * (1 - (after if slip == "tanh-of-c" else t) ** 2)
    df = dc * (after if slip == "forget-gate" else c)
    gates = [dc * g * i * (1 - i), df * f * (1 - f), dh * t * o * (1 - o), dc * i * (1 - g * g)]
    if slip == "gate-order":
        gates = [gates[1], gates[0], *gates[2:]]
    da = np.concatenate(gates, axis=1)
    return da @ Wx.T, da @ Wh.T, dc * f, x.T @ da, h.T @ da, da.sum(0)


for _slip, _sentence in {
    "tanh-of-c": "The slope of tanh is taken of the cell, not of its tanh.",
    "forget-gate": "The forget gate's gradient uses the next cell instead of the previous one.",
    "gate-order": "The input gate and the forget gate are exchanged in backward.",
}.items():

    def _run(seed, slip=_slip):
        draw = Draw(seed)
        n, d, h = draw.sizes(3)
        pair = lstm_step, lambda dh, dc, cache: lstm_backward(dh, dc, cache, slip=slip)
        return check_layer(
            pair, draw(n, d), draw(n, h), draw(n, h), draw(d, 4 * h) / 2, draw(h, 4 * h) / 2, draw(4 * h)
        )

    wrong(f"course/lstm-{_slip}", _sentence)(_run)


@wrong("course/gru-reset-gate", "A GRU whose reset gate's gradient lacks the path through the candidate.")
def _(seed):
    draw = Draw(seed)
    n, d = draw.sizes(2)

    def forward(x, h, Wz, Wr, Wn):
        both = np.concatenate([x, h], 1)
        z, r = sigmoid(both @ Wz), sigmoid(both @ Wr)
        inner = np.concatenate([x, r * h], 1)
        new = np.tanh(inner @ Wn)
        return (1 - z) * new + z * h, (both, h, z, r, inner, new, Wz, Wr, Wn)

    def backward(dout, cache):
        both, h, z, r, inner, new, Wz, Wr, Wn = cache
        dz = dout * (h - new) * z * (1 - z)
        dn = dout * (1 - z) * (1 - new**2)
        dinner = dn @ Wn.T
        dr = dinner[:, -h.shape[1] :] * r * (1 - r)  # times h
        dboth = dz @ Wz.T + dr @ Wr.T
        k = both.shape[1] - h.shape[1]
        dh = dout * z + dboth[:, k:] + dinner[:, k:] * r
        return dboth[:, :k] + dinner[:, :k], dh, both.T @ dz, both.T @ dr, inner.T @ dn

    weights = [draw(d + 3, 3) / 2 for _ in range(3)]
    return check_layer((forward, backward), draw(n, d), draw(n, 3), *weights)


def heads(x, count):
    n, d = x.shape
    return x.reshape(n, count, d // count).transpose(1, 0, 2)


def merged(x):
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)


class Attention:
    """Causal self-attention of two heads, with one slip in backward."""

    def __init__(self, draw, d, slip):
        self.Wq, self.Wk, self.Wv, self.Wo = (draw(d, d) / 2 for _ in range(4))
        self.slip = slip

    def forward(self, x):
        self.x = x
        self.q, self.k, self.v = (heads(x @ W, 2) for W in (self.Wq, self.Wk, self.Wv))
        self.scale = 1 / np.sqrt(self.q.shape[-1])
        self.mask = np.tril(np.ones((len(x), len(x)), bool))
        self.p = softmax(np.where(self.mask, self.q @ self.k.transpose(0, 2, 1) * self.scale, -1e30))
        self.o = merged(self.p @ self.v)
        return self.o @ self.Wo

    def backward(self, dout):
        self.dWo = self.o.T @ dout
        do = heads(dout @ self.Wo.T, 2)
        dp = do @ self.v.transpose(0, 2, 1)
        p = self.p
        if self.slip == "softmax-over-queries":
            ds = p * (dp - (dp * p).sum(-2, keepdims=True))
        else:
            ds = p * (dp - (dp * p).sum(-1, keepdims=True))
        if self.slip != "scale":
            ds = ds * self.scale
        if self.slip == "one-head":
            ds[1] = 0
        dq, dv = ds @ self.k, p.transpose(0, 2, 1) @ do
        dk = (ds if self.slip == "keys-transposed" else ds.transpose(0, 2, 1)) @ self.q
        gradients = [merged(g) for g in (dq, dk, dv)]
        self.dWq, self.dWk, self.dWv = (self.x.T @ g for g in gradients)
        return sum(g @ W.T for g, W in zip(gradients, (self.Wq, self.Wk, self.Wv), strict=True))


for _slip, _sentence in {
    "scale": "1 / sqrt(d) is left out backwards.",
    "softmax-over-queries": "The softmax's sum is over queries.",
    "one-head": "The second head's scores get no gradient.",
    "keys-transposed": "The scores' gradient is not transposed for the keys.",
}.items():
    wrong(f"course/attention-{_slip}", _sentence)(
        lambda seed, slip=_slip: check_layer(Attention(Draw(seed), 4, slip), Draw(seed + 9)(5, 4))
    )
