"""Attention and recurrence: a softmax inside, shared weights, gradients from the next step."""

import jax
import jax.numpy as jnp
import numpy as np

from mutants.case import Family

WIDTH = 5


def masked_softmax(s, causal=True):
    if causal:
        s = np.where(np.tril(np.ones(s.shape[-2:], bool)), s, -np.inf)
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def turned(a):
    return a.swapaxes(-1, -2)


def attention_forward(q, k, v):
    P = masked_softmax(q @ turned(k) / np.asarray(q.shape[-1] ** 0.5, q.dtype))
    return P @ v, (q, k, v, P)


def scores(dout, c):
    P, dP = c[3], dout @ turned(c[2])
    return P * (dP - (dP * P).sum(axis=-1, keepdims=True)) / np.asarray(c[0].shape[-1] ** 0.5, dout.dtype)


def attention_reference(q, k, v):
    s = q @ k.swapaxes(-1, -2) / WIDTH**0.5
    return jax.nn.softmax(jnp.where(jnp.tril(jnp.ones(s.shape[-2:], bool)), s, -jnp.inf)) @ v


attention = Family(
    "attention", "q k v", attention_forward,
    lambda dout, c: (scores(dout, c) @ c[1], turned(scores(dout, c)) @ c[0], turned(c[3]) @ dout),
    lambda rng, scale: (
        min(scale, 3.0) * rng.standard_normal((2, 4, WIDTH)), rng.standard_normal((2, 4, WIDTH)),
        scale * rng.standard_normal((2, 4, WIDTH))),
    attention_reference,
)  # fmt: skip
attention.right("einsum", "written with einsum", lambda dout, c: (
    np.einsum("bij,bjd->bid", scores(dout, c), c[1]), np.einsum("bij,bid->bjd", scores(dout, c), c[0]),
    np.einsum("bij,bid->bjd", c[3], dout)))  # fmt: skip
attention.wrong("unscaled", "q", "dq is not divided by sqrt(d)", lambda dout, c, dq: dq * WIDTH**0.5, "1/sqrt(d)")
attention.wrong("scaled_twice", "k", "dk is divided by sqrt(d) twice", lambda dout, c, dk: dk / WIDTH**0.5, "1/sqrt(d)")
attention.wrong(
    "scaled_by_d", "q", "dq is divided by d, not its root", lambda dout, c, dq: dq / WIDTH**0.5, "1/sqrt(d)"
)
attention.wrong("unmasked", "q", "the causal mask is missing in backward", lambda dout, c, dq: scores(
    dout, (*c[:3], masked_softmax(c[0] @ turned(c[1]) / WIDTH**0.5, causal=False))) @ c[1])  # fmt: skip
attention.wrong("diagonal", "q", "only the diagonal of softmax's Jacobian", lambda dout, c, dq: (
    c[3] * (1 - c[3]) * (dout @ turned(c[2])) / WIDTH**0.5).astype(dq.dtype) @ c[1])  # fmt: skip
attention.wrong("no_softmax", "k", "the derivative of softmax is left out", lambda dout, c, dk: turned(
    (dout @ turned(c[2]) / WIDTH**0.5).astype(dk.dtype)) @ c[0])  # fmt: skip
attention.wrong(
    "turned", "k", "dk uses the gradient of the scores without a transpose", lambda dout, c, dk: scores(dout, c) @ c[0]
)
attention.wrong("untransposed", "v", "dv uses P instead of its transpose", lambda dout, c, dv: c[3] @ dout)
attention.wrong("key", "q", "dq uses q instead of k", lambda dout, c, dq: scores(dout, c) @ c[0])


def heads_forward(x):
    n, t, d = x.shape
    return x.reshape(n, t, 2, d // 2).transpose(0, 2, 1, 3).copy(), x.shape


heads = Family(
    "split_heads", "x", heads_forward, lambda dout, shape: (dout.transpose(0, 2, 1, 3).reshape(shape).copy(),),
    lambda rng, scale: (scale * rng.standard_normal((2, 3, 6)),),
    lambda x: x.reshape(2, 3, 2, 3).transpose(0, 2, 1, 3),
)  # fmt: skip
heads.wrong(
    "order", "x", "heads are merged without being moved back", lambda dout, shape, dx: dout.reshape(shape).copy()
)


def rnn_forward(x, h0, Wx, Wh, b):
    hs = [h0]
    for t in range(x.shape[1]):
        hs.append(np.tanh(x[:, t] @ Wx + hs[-1] @ Wh + b))
    return np.stack(hs[1:], axis=1), (x, np.stack(hs, axis=1), Wx, Wh)


def rnn_steps(dout, c, carry=True):
    """Returns the gradient with respect to the sum of each step, (N, T, H)."""
    _, hs, _, Wh = c
    dh, ds = 0, []
    for t in reversed(range(dout.shape[1])):
        ds.insert(0, (dout[:, t] + dh) * (1 - hs[:, t + 1] ** 2))
        dh = ds[0] @ Wh.T if carry else 0
    return np.stack(ds, axis=1)


def rnn_gradients(ds, c):
    x, hs, Wx, Wh = c
    return (
        ds @ Wx.T, ds[:, 0] @ Wh.T, np.einsum("ntd,nth->dh", x, ds), np.einsum("nti,nth->ih", hs[:, :-1], ds),
        ds.sum(axis=(0, 1)),
    )  # fmt: skip


def rnn_reference(x, h0, Wx, Wh, b):
    hs = [h0]
    for t in range(x.shape[1]):
        hs.append(jnp.tanh(x[:, t] @ Wx + hs[-1] @ Wh + b))
    return jnp.stack(hs[1:], axis=1)


rnn = Family(
    "rnn", "x h0 Wx Wh b", rnn_forward, lambda dout, c: rnn_gradients(rnn_steps(dout, c), c),
    lambda rng, scale: (
        scale * rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 5)), rng.standard_normal((3, 5)) / 2,
        rng.standard_normal((5, 5)) / 3, rng.standard_normal(5)),
    rnn_reference, parameters=3,
)  # fmt: skip
rnn.wrong("truncated", "Wx", "no gradient is passed from step to step",
          lambda dout, c, dW: rnn_gradients(rnn_steps(dout, c, carry=False), c)[2])  # fmt: skip
rnn.wrong(
    "last_step", "b", "db is only that of the last step", lambda dout, c, db: rnn_steps(dout, c)[:, -1].sum(axis=0)
)
rnn.wrong("same_h", "Wh", "dWh uses h after the step, not before", lambda dout, c, dW: np.einsum(
    "nti,nth->ih", c[1][:, 1:], rnn_steps(dout, c)))  # fmt: skip
rnn.wrong("first_step", "Wh", "the step from h0 is left out of dWh", lambda dout, c, dW: np.einsum(
    "nti,nth->ih", c[1][:, 1:-1], rnn_steps(dout, c)[:, 1:]))  # fmt: skip
rnn.wrong("overwritten", "Wx", "each step overwrites dWx, the first remains", lambda dout, c, dW: np.einsum(
    "nd,nh->dh", c[0][:, 0], rnn_steps(dout, c)[:, 0]))  # fmt: skip
rnn.wrong("dh0", "h0", "dh0 lacks the product with Wh", lambda dout, c, dh: rnn_steps(dout, c)[:, 0])
rnn.wrong("Wh", "x", "dx is made with Wh's scale of steps reversed", lambda dout, c, dx: dx[:, ::-1].copy(), "reverse")


def gates(x, h, Wx, Wh):
    f, g, i, o = np.split(x @ Wx + h @ Wh, 4, axis=1)
    f, i, o = (0.5 * (1 + np.tanh(0.5 * a)) for a in (f, i, o))
    return f, np.tanh(g), i, o


def lstm_forward(x, h, c, Wx, Wh):
    f, g, i, o = gates(x, h, Wx, Wh)
    c_next = f * c + g * i
    return np.concatenate([o * np.tanh(c_next), c_next], axis=1), (x, h, c, Wx, Wh, f, g, i, o, c_next)


def lstm_gradients(dout, cache, through_output=True, forget=True, squash=True):
    x, h, c, Wx, Wh, f, g, i, o, c_next = cache
    dh, dc = np.split(dout, 2, axis=1)
    ds = dc + dh * o * (1 - np.tanh(c_next) ** 2) * through_output
    df = ds * c * (f * (1 - f) if forget else 1)
    dA = np.hstack(
        [df, ds * i * (1 - g**2), ds * g * i * (1 - i), dh * np.tanh(c_next) * o * ((1 - o) if squash else 1)]
    )
    return dA @ Wx.T, dA @ Wh.T, ds * f, x.T @ dA, h.T @ dA


def lstm_reference(x, h, c, Wx, Wh):
    f, g, i, o = jnp.split(x @ Wx + h @ Wh, 4, axis=1)
    c_next = jax.nn.sigmoid(f) * c + jnp.tanh(g) * jax.nn.sigmoid(i)
    return jnp.concatenate([jax.nn.sigmoid(o) * jnp.tanh(c_next), c_next], axis=1)


lstm = Family(
    "lstm", "x h c Wx Wh", lstm_forward, lambda dout, c: lstm_gradients(dout, c),
    lambda rng, scale: (
        scale * rng.standard_normal((4, 3)), rng.standard_normal((4, 2)), rng.standard_normal((4, 2)),
        rng.standard_normal((3, 8)) / 2, rng.standard_normal((2, 8)) / 2),
    lstm_reference, parameters=2,
)  # fmt: skip
lstm.wrong("output", "c", "dc lacks the path through h", lambda dout, c, d:
           lstm_gradients(dout, c, through_output=False)[2])  # fmt: skip
lstm.wrong("forget", "Wx", "the derivative of the forget gate's sigmoid is missing", lambda dout, c, d:
           lstm_gradients(dout, c, forget=False)[3])  # fmt: skip
lstm.wrong("gate", "Wh", "the output gate's derivative is o, not o (1 - o)", lambda dout, c, d:
           lstm_gradients(dout, c, squash=False)[4])  # fmt: skip
lstm.wrong("exchanged", "Wx", "two gates are stacked in the wrong order", lambda dout, c, d: np.hstack(
    [d[:, 4:6], d[:, 2:4], d[:, :2], d[:, 6:]]))  # fmt: skip
