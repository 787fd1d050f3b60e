"""Layers whose hand-written forward and backward pass run in NumPy, PyTorch and JAX alike, for comparing checkers.

`xp` is the namespace of the arrays: `numpy`, `torch` or `jax.numpy`. Every checker is given the same operations, so
that a ratio of two times compares the checkers, not two implementations of a layer.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Arrays = tuple[Any, ...]
Shape = tuple[int, ...]
EPS = 1e-5  # added to a variance


class CheckedLayer(NamedTuple):
    """A layer as two functions of arrays.

    Attributes:
        leaves: The names of the inputs and parameters.
        shapes: Returns the shapes of the leaves, which have about this many elements in total.
        forward: Takes xp and the leaves, and returns the output and a cache.
        backward: Takes xp, dout and the cache, and returns a gradient for each leaf.
        wrong: The leaf whose gradient is falsified.
    """

    leaves: tuple[str, ...]
    shapes: Callable[[int], list[Shape]]
    forward: Callable[..., tuple[Any, Arrays]]
    backward: Callable[[Any, Any, Arrays], Arrays]
    wrong: str

    def draw(self, size: int, seed: int = 0) -> list[np.ndarray]:
        """Draws float64 values for all leaves, each weight small enough that outputs are near 1."""
        rng, arrays = np.random.default_rng(seed), []
        for name, shape in zip(self.leaves, self.shapes(size), strict=True):
            fan_in = 1 if name == "x" or len(shape) == 1 else math.prod(shape[1:] if len(shape) > 2 else shape[:1])
            arrays.append(rng.standard_normal(shape) / math.sqrt(fan_in))
        return arrays


def affine_shapes(size: int) -> list[Shape]:
    """Returns the shapes for four samples."""
    D = _largest(lambda D: D * D + 5 * D, size)
    return [(4, D), (D, D), (D,)]


def affine_forward(_xp: Any, x: Any, W: Any, b: Any) -> tuple[Any, Arrays]:
    """Maps x (N, D) to y (N, M)."""
    return x @ W + b, (x, W)


def affine_backward(_xp: Any, dout: Any, cache: Arrays) -> Arrays:
    """Returns dx, dW and db."""
    x, W = cache
    return dout @ W.T, x.T @ dout, dout.sum(0)


def batch_norm_shapes(size: int) -> list[Shape]:
    """Returns the shapes for as many samples as features."""
    D = _largest(lambda D: D * D + 2 * D, size)
    return [(D, D), (D,), (D,)]


def batch_norm_forward(xp: Any, x: Any, gamma: Any, beta: Any) -> tuple[Any, Arrays]:
    """Maps x (N, D) to y (N, D), with the mean and the variance of the batch."""
    centered = x - x.mean(0)
    std = xp.sqrt((centered**2).mean(0) + EPS)
    x_hat = centered / std
    return gamma * x_hat + beta, (x_hat, std, gamma)


def batch_norm_backward(_xp: Any, dout: Any, cache: Arrays) -> Arrays:
    """Returns dx, dgamma and dbeta."""
    x_hat, std, gamma = cache
    dx_hat = dout * gamma
    dx = (dx_hat - dx_hat.mean(0) - x_hat * (dx_hat * x_hat).mean(0)) / std
    return dx, (dout * x_hat).sum(0), dout.sum(0)


def convolution_shapes(size: int) -> list[Shape]:
    """Returns the shapes for two images of two channels, and two filters of 3 by 3."""
    H = _largest(lambda H: 4 * H * H + 38, size)
    return [(2, 2, H, H), (2, 2, 3, 3), (2,)]


def convolution_forward(xp: Any, x: Any, W: Any, b: Any) -> tuple[Any, Arrays]:
    """Maps x (N, C, H, W) to y (N, F, H - 2, W - 2)."""
    rows, columns = (length - 2 for length in x.shape[2:])
    y = b.reshape(1, -1, 1, 1)
    for i, j in np.ndindex(3, 3):
        y = y + xp.einsum("nchw,fc->nfhw", x[:, :, i : i + rows, j : j + columns], W[:, :, i, j])
    return y, (x, W)


def convolution_backward(xp: Any, dout: Any, cache: Arrays) -> Arrays:
    """Returns dx, dW and db; dx is a convolution of the padded dout with the flipped filters."""
    x, W = cache
    H, V = x.shape[2:]
    above = xp.zeros((*dout.shape[:2], 2, V - 2), dtype=dout.dtype)
    beside = xp.zeros((*dout.shape[:2], H + 2, 2), dtype=dout.dtype)
    padded = xp.concatenate([beside, xp.concatenate([above, dout, above], 2), beside], 3)
    dx, dW = xp.zeros(x.shape, dtype=dout.dtype), []
    for i, j in np.ndindex(3, 3):
        dx = dx + xp.einsum("nfhw,fc->nchw", padded[:, :, 2 - i : 2 - i + H, 2 - j : 2 - j + V], W[:, :, i, j])
        dW.append(xp.einsum("nfhw,nchw->fc", dout, x[:, :, i : i + H - 2, j : j + V - 2]))
    return dx, xp.stack(dW, -1).reshape(W.shape), dout.sum((0, 2, 3))


def attention_shapes(size: int) -> list[Shape]:
    """Returns the shapes for two sequences of eight vectors, and projections to q, k, v and the output."""
    D = _largest(lambda D: 4 * D * D + 16 * D, size)
    return [(2, 8, D), (D, D), (D, D), (D, D), (D, D)]


def attention_forward(xp: Any, x: Any, Wq: Any, Wk: Any, Wv: Any, Wo: Any) -> tuple[Any, Arrays]:
    """Maps x (N, T, D) to y (N, T, D), with one head."""
    q, k, v = x @ Wq, x @ Wk, x @ Wv
    scores = xp.einsum("ntd,nsd->nts", q, k) / math.sqrt(Wq.shape[1])
    e = xp.exp(scores - xp.amax(scores, -1)[..., None])
    weights = e / e.sum(-1)[..., None]
    o = xp.einsum("nts,nsd->ntd", weights, v)
    return o @ Wo, (x, Wq, Wk, Wv, Wo, q, k, v, weights, o)


def attention_backward(xp: Any, dout: Any, cache: Arrays) -> Arrays:
    """Returns dx, dWq, dWk, dWv and dWo."""
    x, Wq, Wk, Wv, Wo, q, k, v, weights, o = cache
    do = dout @ Wo.T
    dv = xp.einsum("nts,ntd->nsd", weights, do)
    dweights = xp.einsum("ntd,nsd->nts", do, v)
    dscores = weights * (dweights - (dweights * weights).sum(-1)[..., None]) / math.sqrt(Wq.shape[1])
    dq, dk = xp.einsum("nts,nsd->ntd", dscores, k), xp.einsum("nts,ntd->nsd", dscores, q)
    dx = dq @ Wq.T + dk @ Wk.T + dv @ Wv.T
    rows = [(x, dq), (x, dk), (x, dv), (o, dout)]
    return dx, *(a.reshape(-1, a.shape[-1]).T @ d.reshape(-1, d.shape[-1]) for a, d in rows)


def lstm_shapes(size: int) -> list[Shape]:
    """Returns the shapes for two sequences of four vectors, with as many hidden units as inputs."""
    D = _largest(lambda D: 8 * D * D + 12 * D, size)
    return [(2, 4, D), (D, 4 * D), (D, 4 * D), (4 * D,)]


def lstm_forward(xp: Any, x: Any, Wx: Any, Wh: Any, b: Any) -> tuple[Any, Arrays]:
    """Maps x (N, T, D) to all hidden states (N, T, H), from states of zeros."""
    H = Wh.shape[0]
    h = c = xp.zeros((x.shape[0], H), dtype=x.dtype)
    states, steps = [], []
    for t in range(x.shape[1]):
        z = x[:, t] @ Wx + h @ Wh + b
        i, f, o = (1 / (1 + xp.exp(-z[:, k * H : (k + 1) * H])) for k in range(3))
        g, h_before, c_before = xp.tanh(z[:, 3 * H :]), h, c
        c = f * c_before + i * g
        tanh_c = xp.tanh(c)
        h = o * tanh_c
        states.append(h)
        steps.append((i, f, o, g, h_before, c_before, tanh_c))
    return xp.stack(states, 1), (x, Wx, Wh, b, steps)


def lstm_backward(xp: Any, dout: Any, cache: Arrays) -> Arrays:
    """Returns dx, dWx, dWh and db, by backpropagation through time."""
    x, Wx, Wh, b, steps = cache
    dWx, dWh, db, dx = xp.zeros_like(Wx), xp.zeros_like(Wh), xp.zeros_like(b), []
    dh = dc = xp.zeros_like(dout[:, 0])
    for t, (i, f, o, g, h_before, c_before, tanh_c) in reversed(list(enumerate(steps))):
        dh = dh + dout[:, t]
        dc = dc + dh * o * (1 - tanh_c**2)
        di, df, do, dg = (
            dc * g * i * (1 - i),
            dc * c_before * f * (1 - f),
            dh * tanh_c * o * (1 - o),
            dc * i * (1 - g**2),
        )
        dz = xp.concatenate([di, df, do, dg], 1)
        dWx, dWh, db = dWx + x[:, t].T @ dz, dWh + h_before.T @ dz, db + dz.sum(0)
        dx.append(dz @ Wx.T)
        dh, dc = dz @ Wh.T, dc * f
    return xp.stack(dx[::-1], 1), dWx, dWh, db


def _largest(elements: Callable[[int], int], size: int) -> int:
    """Returns the largest width, at least 3, with at most this many elements."""
    width = 3
    while elements(2 * width) <= size:
        width *= 2
    return max(d for d in range(width, 2 * width) if d == width or elements(d) <= size)


LAYERS = {
    "Affine": CheckedLayer(("x", "W", "b"), affine_shapes, affine_forward, affine_backward, "W"),
    "BatchNorm": CheckedLayer(("x", "gamma", "beta"), batch_norm_shapes, batch_norm_forward, batch_norm_backward, "x"),
    "Convolution": CheckedLayer(("x", "W", "b"), convolution_shapes, convolution_forward, convolution_backward, "W"),
    "Attention": CheckedLayer(
        ("x", "Wq", "Wk", "Wv", "Wo"), attention_shapes, attention_forward, attention_backward, "Wk"
    ),
    "LSTM": CheckedLayer(("x", "Wx", "Wh", "b"), lstm_shapes, lstm_forward, lstm_backward, "Wh"),
}
