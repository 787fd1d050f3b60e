"""Draws layers that compute in float32 or in the dtype of their inputs."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fuzz.trials import EPS, Operation, Trial, trial_of


def normal(rng: np.random.Generator, *shape: int) -> Any:
    """Returns normal numbers of a random scale and offset."""
    scale = 10 ** rng.uniform(-3, 3) if rng.random() < 0.3 else 10 ** rng.uniform(-1, 0.5)
    offset = float(rng.choice([0, 0, 0, 1, 10, 100]))
    return scale * (rng.standard_normal(shape) + offset)


def sizes(rng: np.random.Generator, count: int, low: int = 2, high: int = 12) -> list[int]:
    """Returns random sizes."""
    return [int(n) for n in rng.integers(low, high + 1, count)]


def softmax_of(xp: Any, z: Any) -> Any:
    e = xp.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_back(p: Any, d: Any) -> Any:
    return p * (d - (d * p).sum(-1, keepdims=True))


def rms(xp: Any, x: Any, g: Any) -> Any:
    return g * x / xp.sqrt((x * x).mean(-1, keepdims=True) + EPS)


def rms_back(d: Any, x: Any, g: Any) -> Any:
    r = np.sqrt((x * x).mean(-1, keepdims=True) + EPS)
    t = d * g
    return (t - x * (t * x).mean(-1, keepdims=True) / r**2) / r, (d * x / r).sum(0)


def normalised(axis: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns LayerNorm (axis -1) or BatchNorm (axis 0)."""

    def forward(xp: Any, x: Any, g: Any, b: Any) -> Any:
        c = x - x.mean(axis, keepdims=True)
        return g * c / xp.sqrt((c * c).mean(axis, keepdims=True) + EPS) + b

    def backward(d: Any, x: Any, g: Any, b: Any) -> Any:
        c = x - x.mean(axis, keepdims=True)
        s = np.sqrt((c * c).mean(axis, keepdims=True) + EPS)
        y, t = c / s, d * g
        dx = (t - t.mean(axis, keepdims=True) - y * (t * y).mean(axis, keepdims=True)) / s
        return dx, (d * y).sum(0), d.sum(0)

    return forward, backward


def attention(xp: Any, q: Any, k: Any, v: Any) -> Any:
    return softmax_of(xp, (q @ k.T) * (1 / math.sqrt(q.shape[-1]))) @ v


def attention_back(d: Any, q: Any, k: Any, v: Any) -> Any:
    scale = 1 / math.sqrt(q.shape[-1])
    p = softmax_of(np, (q @ k.T) * scale)
    ds = softmax_back(p, d @ v.T) * scale
    return ds @ k, ds.T @ q, p.T @ d


ROOT = math.sqrt(2 / math.pi)


def gelu(xp: Any, x: Any) -> Any:
    return 0.5 * x * (1 + xp.tanh(ROOT * (x + 0.044715 * x * x * x)))


def gelu_back(d: Any, x: Any) -> Any:
    t = np.tanh(ROOT * (x + 0.044715 * x * x * x))
    return (d * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * ROOT * (1 + 3 * 0.044715 * x * x)),)


def conv(xp: Any, x: Any, w: Any) -> Any:
    h, v = x.shape[0] - w.shape[0] + 1, x.shape[1] - w.shape[1] + 1
    return sum(x[i : i + h, j : j + v] @ w[i, j] for i in range(w.shape[0]) for j in range(w.shape[1]))


def conv_back(d: Any, x: Any, w: Any) -> Any:
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    h, v = d.shape[:2]
    for i in range(w.shape[0]):
        for j in range(w.shape[1]):
            dx[i : i + h, j : j + v] += d @ w[i, j].T
            dw[i, j] = np.einsum("hvc,hvo->co", x[i : i + h, j : j + v], d)
    return dx, dw


def two_layers(xp: Any, x: Any, w: Any, b: Any, v: Any) -> Any:
    return xp.maximum(x @ w + b, 0) @ v


def two_layers_back(d: Any, x: Any, w: Any, b: Any, v: Any) -> Any:
    z = x @ w + b
    dz = (d @ v.T) * (z > 0)
    return dz @ w.T, x.T @ dz, dz.sum(0), np.maximum(z, 0).T @ d


def log_sum_exp(xp: Any, x: Any) -> Any:
    top = x.max(-1, keepdims=True)
    return (top + xp.log(xp.exp(x - top).sum(-1, keepdims=True)))[..., 0]


def cross_entropy(xp: Any, x: Any, t: Any) -> Any:
    z = x - x.max(-1, keepdims=True)
    return (xp.log(xp.exp(z).sum(-1)) - z[np.arange(len(t)), t]).mean()


def cross_entropy_back(d: Any, x: Any, t: Any) -> Any:
    p = softmax_of(np, x)
    p[np.arange(len(t)), t] -= 1
    return (d * p / x.dtype.type(len(t)),)


def squared_back(d: Any, x: Any, y: Any) -> Any:
    g = d * (x - y) / x.dtype.type(x.size) * x.dtype.type(2)
    return g, -g


def network_loss(xp: Any, x: Any, w: Any, v: Any, t: Any) -> Any:
    return cross_entropy(xp, xp.maximum(x @ w, 0) @ v, t)


def network_loss_back(d: Any, x: Any, w: Any, v: Any, t: Any) -> Any:
    a = np.maximum(x @ w, 0)
    (dy,) = cross_entropy_back(d, a @ v, t)
    dz = (dy @ v.T) * (a > 0)
    return dz @ w.T, x.T @ dz, a.T @ dy


def drawing(*kinds: Any) -> Callable[[np.random.Generator], list[Any]]:
    """Returns a function that draws arrays whose axes are named by letters, such as "nd"."""

    def draw(rng: np.random.Generator) -> list[Any]:
        by_letter = dict(zip("ndmkhv", sizes(rng, 6), strict=True)) | {"3": 3, "2": 2}
        by_letter["h"] += 2
        by_letter["v"] += 2
        drawn = []
        for kind in kinds:
            if kind[0] == "t":
                drawn.append(rng.integers(0, by_letter[kind[2]], by_letter[kind[1]]))
            elif kind[0] == "w":
                shape = [by_letter[c] for c in kind[1:]]
                drawn.append(rng.standard_normal(shape) / math.sqrt(shape[0]))
            else:
                drawn.append(normal(rng, *(by_letter[c] for c in kind)))
        return drawn

    return draw


LAYERS = {
    "rms_norm": Operation(rms, rms_back, drawing("nd", "wd")),
    "layer_norm": Operation(*normalised(-1), drawing("nd", "wd", "wd")),
    "batch_norm": Operation(*normalised(0), drawing("nd", "wd", "wd")),
    "softmax": Operation(softmax_of, lambda d, x: (softmax_back(softmax_of(np, x), d),), drawing("nd")),
    "attention": Operation(attention, attention_back, drawing("wnd", "wmd", "wmk")),
    "gelu": Operation(gelu, gelu_back, drawing("nd")),
    "convolution": Operation(conv, conv_back, drawing("hvd", "w32dm")),
    "affine": Operation(
        lambda xp, x, w, b: x @ w + b, lambda d, x, w, b: (d @ w.T, x.T @ d, d.sum(0)), drawing("nd", "wdm", "wm")
    ),
    "product": Operation(
        lambda xp, x, a, b: x @ a @ b,
        lambda d, x, a, b: (d @ b.T @ a.T, x.T @ (d @ b.T), (x @ a).T @ d),
        drawing("nd", "wdm", "wmk"),
    ),
    "log_sum_exp": Operation(log_sum_exp, lambda d, x: (d[..., None] * softmax_of(np, x),), drawing("nd")),
    "cross_entropy": Operation(cross_entropy, cross_entropy_back, drawing("nd", "tnd")),
    "squared_error": Operation(lambda xp, x, y: ((x - y) ** 2).mean(), squared_back, drawing("nd", "nd")),
    "two_layers": Operation(two_layers, two_layers_back, drawing("nd", "wdm", "wm", "wmk")),
    "network_loss": Operation(network_loss, network_loss_back, drawing("nd", "wdm", "wmk", "tnk")),
}


def float32_inside(rng: np.random.Generator, seed: int) -> Trial:
    """Draws a layer that computes in float32 for inputs of every dtype."""
    name = str(rng.choice(list(LAYERS)))
    return trial_of(LAYERS[name], rng, seed, name, ["float32", "float64"], ["float32", "float32", "forward"])


def in_own_dtype(rng: np.random.Generator, seed: int) -> Trial:
    """Draws a layer that computes in the dtype of its inputs."""
    name = str(rng.choice(list(LAYERS)))
    return trial_of(LAYERS[name], rng, seed, name, ["float32", "float64"], [""])
