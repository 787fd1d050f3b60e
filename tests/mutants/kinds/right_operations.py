"""Layers of every dtype, with forward, backward and reference, that other kinds use."""

import math

import jax
import jax.numpy as jnp
import numpy as np

ERF = np.vectorize(math.erf, otypes=[float])
EPS = 1e-5


def rms_norm(x, g):
    r = np.sqrt((x * x).mean(axis=-1, keepdims=True) + x.dtype.type(EPS))
    return g * x / r, (x, g, r)


def rms_norm_backward(dout, cache):
    x, g, r = cache
    d = dout * g
    return (d - x * (d * x).mean(axis=-1, keepdims=True) / r**2) / r, (dout * x / r).sum(axis=0)


def layer_norm(x, g, b):
    std = np.sqrt(x.var(axis=-1, keepdims=True) + x.dtype.type(EPS))
    xhat = (x - x.mean(axis=-1, keepdims=True)) / std
    return g * xhat + b, (xhat, std, g)


def layer_norm_backward(dout, cache, axis=-1):
    xhat, std, g = cache
    d = dout * g
    dx = (d - d.mean(axis=axis, keepdims=True) - xhat * (d * xhat).mean(axis=axis, keepdims=True)) / std
    return dx, (dout * xhat).sum(axis=0), dout.sum(axis=0)


def batch_norm(x, g, b):
    std = np.sqrt(x.var(axis=0) + x.dtype.type(EPS))
    xhat = (x - x.mean(axis=0)) / std
    return g * xhat + b, (xhat, std, g)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    y = e / e.sum(axis=-1, keepdims=True)
    return y, y


def softmax_backward(dout, y):
    return y * (dout - (dout * y).sum(axis=-1, keepdims=True))


def attention(q, k, v):
    scale = q.dtype.type(1 / math.sqrt(q.shape[-1]))
    a, _ = softmax(scale * q @ k.swapaxes(-1, -2))
    return a @ v, (q, k, v, a, scale)


def attention_backward(dout, cache):
    q, k, v, a, scale = cache
    ds = scale * softmax_backward(dout @ v.swapaxes(-1, -2), a)
    return ds @ k, ds.swapaxes(-1, -2) @ q, a.swapaxes(-1, -2) @ dout


def columns(x, size=3):
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * size * size)


def convolution(x, w):
    cols = columns(x)
    n, _, height, width = x.shape
    y = (cols @ w.reshape(len(w), -1).T).reshape(n, height - 2, width - 2, len(w))
    return y.transpose(0, 3, 1, 2), (x.shape, cols, w)


def convolution_backward(dout, cache):
    shape, cols, w = cache
    rows = dout.transpose(0, 2, 3, 1).reshape(-1, len(w))
    dcols = (rows @ w.reshape(len(w), -1)).reshape(shape[0], shape[2] - 2, shape[3] - 2, shape[1], 3, 3)
    dx = np.zeros(shape, dout.dtype)
    for i in range(3):
        for j in range(3):
            dx[:, :, i : i + shape[2] - 2, j : j + shape[3] - 2] += dcols[..., i, j].transpose(0, 3, 1, 2)
    return dx, (rows.T @ cols).reshape(w.shape)


def convolution_reference(x, w):
    return jax.lax.conv_general_dilated(x, w, (1, 1), "VALID")


C = math.sqrt(2 / math.pi)


def gelu_tanh(x):
    t = np.tanh(x.dtype.type(C) * (x + x.dtype.type(0.044715) * x * x * x))
    return x.dtype.type(0.5) * x * (1 + t), (x, t)


def gelu_tanh_backward(dout, cache):
    x, t = cache
    return dout * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * C * (1 + 3 * 0.044715 * x * x)).astype(x.dtype)


def gelu_erf(x):
    phi = (0.5 * (1 + ERF(x.astype(np.float64) / math.sqrt(2)))).astype(x.dtype)
    return x * phi, (x, phi)


def gelu_erf_backward(dout, cache):
    x, phi = cache
    return dout * (phi + x * np.exp(-x * x / 2) / x.dtype.type(math.sqrt(2 * math.pi)))


def log_sum_exp(x):
    top = x.max(axis=-1, keepdims=True)
    e = np.exp(x - top)
    s = e.sum(axis=-1, keepdims=True)
    return (top + np.log(s))[..., 0], e / s


def chain(x, a, b):
    h = x @ a
    return h @ b, (x, h, a, b)


def chain_backward(dout, cache):
    x, h, a, b = cache
    dh = dout @ b.T
    return dh @ a.T, x.T @ dh, h.T @ dout


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(x, c, w, b):
    z = x @ w + b
    i, f, o, g = np.split(z, 4, axis=1)
    i, f, o, g = sigmoid(i), sigmoid(f), sigmoid(o), np.tanh(g)
    after = f * c + i * g
    return np.concatenate([o * np.tanh(after), after], axis=1), (x, c, w, i, f, o, g, after)


def lstm_backward(dout, cache):
    x, c, w, i, f, o, g, after = cache
    dh, dafter = np.split(dout, 2, axis=1)
    t = np.tanh(after)
    dc = dafter + dh * o * (1 - t * t)
    parts = [dc * g * i * (1 - i), dc * c * f * (1 - f), dh * t * o * (1 - o), dc * i * (1 - g * g)]
    dz = np.concatenate(parts, axis=1)
    return dz @ w.T, dc * f, x.T @ dz, dz.sum(axis=0)


def lstm_reference(x, c, w, b):
    i, f, o, g = jnp.split(x @ w + b, 4, axis=1)
    after = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jnp.concatenate([jax.nn.sigmoid(o) * jnp.tanh(after), after], axis=1)


def cosine(a, b):
    na, nb = (np.sqrt((v * v).sum(axis=1, keepdims=True)) for v in (a, b))
    s = (a * b).sum(axis=1, keepdims=True) / (na * nb)
    return s[:, 0], (a, b, na, nb, s)


def cosine_backward(dout, cache):
    a, b, na, nb, s = cache
    d = dout[:, None]
    return d * (b / (na * nb) - s * a / na**2), d * (a / (na * nb) - s * b / nb**2)


def cross_entropy(x, t):
    y, _ = softmax(x)
    return -np.log(y[np.arange(len(t)), t]).mean(dtype=x.dtype), (y, t)


def cross_entropy_backward(dout, cache):
    y, t = cache
    d = y.copy()
    d[np.arange(len(t)), t] -= 1
    return d * y.dtype.type(dout) / len(t)


OPERATIONS = {
    "rms_norm": (rms_norm, rms_norm_backward, [(5, 7), (7,)], lambda x, g: rms_reference(x, g)),
    "layer_norm": (layer_norm, layer_norm_backward, [(5, 7), (7,), (7,)], lambda x, g, b: norm_reference(x, g, b, -1)),
    "batch_norm": (batch_norm, lambda d, c: layer_norm_backward(d, c, 0), [(9, 4), (4,), (4,)],
                   lambda x, g, b: norm_reference(x, g, b, 0)),
    "softmax": (softmax, softmax_backward, [(4, 6)], lambda x: jax.nn.softmax(x)),
    "attention": (attention, attention_backward, [(2, 5, 3), (2, 4, 3), (2, 4, 6)],
                  lambda q, k, v: jax.nn.softmax(q @ k.swapaxes(-1, -2) / jnp.sqrt(q.shape[-1])) @ v),
    "convolution": (convolution, convolution_backward, [(2, 3, 6, 5), (4, 3, 3, 3)], convolution_reference),
    "gelu_tanh": (gelu_tanh, gelu_tanh_backward, [(4, 6)], lambda x: jax.nn.gelu(x, approximate=True)),
    "gelu_erf": (gelu_erf, gelu_erf_backward, [(4, 6)], lambda x: jax.nn.gelu(x, approximate=False)),
    "log_sum_exp": (log_sum_exp, lambda d, p: d[..., None] * p, [(4, 6)],
                    lambda x: jax.scipy.special.logsumexp(x, axis=-1)),
    "cumsum": (lambda x: (np.cumsum(x, axis=1), x), lambda d, c: np.cumsum(d[:, ::-1], axis=1)[:, ::-1], [(3, 40)],
               lambda x: jnp.cumsum(x, axis=1)),
    "matmul_chain": (chain, chain_backward, [(6, 8), (8, 9), (9, 4)], lambda x, a, b: x @ a @ b),
    "lstm_cell": (lstm, lstm_backward, [(3, 5), (3, 2), (5, 8), (8,)], lstm_reference),
    "cosine_similarity": (cosine, cosine_backward, [(5, 6), (5, 6)],
                          lambda a, b: (a * b).sum(1) / jnp.linalg.norm(a, axis=1) / jnp.linalg.norm(b, axis=1)),
}  # fmt: skip


def rms_reference(x, g):
    return g * x / jnp.sqrt((x * x).mean(axis=-1, keepdims=True) + EPS)


def norm_reference(x, g, b, axis):
    mean, var = x.mean(axis=axis, keepdims=True), x.var(axis=axis, keepdims=True)
    return g * (x - mean) / jnp.sqrt(var + EPS) + b
