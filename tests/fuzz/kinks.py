"""Draws networks with many exact kinks and ties."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fuzz.layers import sizes
from fuzz.trials import Operation, Trial, trial_of


def split_max(x: Any) -> Any:
    """Returns whether each element is a maximum of its row."""
    return x == x.max(-1, keepdims=True)


def first_max(x: Any) -> Any:
    return np.arange(x.shape[-1]) == x.argmax(-1)[..., None]


def sorted_back(d: Any, x: Any) -> Any:
    dx = np.empty_like(x)
    np.put_along_axis(dx, x.argsort(-1, kind="stable"), d, -1)
    return dx


def pooled(x: Any) -> Any:
    return x.reshape(*x.shape[:-1], -1, 2)


KINKY: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "relu": (lambda xp, z: xp.maximum(z, 0), lambda d, z: d * (z > 0)),
    "relu_ge": (lambda xp, z: xp.maximum(z, 0), lambda d, z: d * (z >= 0)),
    "leaky": (lambda xp, z: xp.where(z > 0, z, 0.1 * z), lambda d, z: d * np.where(z > 0, 1.0, 0.1).astype(z.dtype)),
    "abs": (lambda xp, z: xp.abs(z), lambda d, z: d * np.sign(z)),
    "clip": (lambda xp, z: xp.clip(z, -1, 1), lambda d, z: d * (np.abs(z) < 1)),
    "clip_le": (lambda xp, z: xp.clip(z, -1, 1), lambda d, z: d * (np.abs(z) <= 1)),
    "hard_swish": (
        lambda xp, z: z * xp.clip(z + 3, 0, 6) / 6,
        lambda d, z: (d * np.where(z >= 3, 1.0, np.where(z <= -3, 0.0, z / 3 + 0.5))).astype(z.dtype),
    ),
    "max_pool": (
        lambda xp, z: pooled(z).max(-1),
        lambda d, z: (d[..., None] * first_max(pooled(z))).reshape(z.shape),
    ),
    "row_max": (lambda xp, z: z.max(-1), lambda d, z: d[..., None] * first_max(z)),
    "row_max_split": (
        lambda xp, z: z.max(-1),
        lambda d, z: d[..., None] * split_max(z) / split_max(z).sum(-1, keepdims=True).astype(z.dtype),
    ),
    "sort": (lambda xp, z: xp.sort(z, -1), sorted_back),
    "identity": (lambda xp, z: z, lambda d, z: d),
}


def on_grid(rng: np.random.Generator, *shape: int) -> Any:
    """Returns multiples of 0.5, with many zeros and ties and with exact sums."""
    return rng.integers(-4, 5, shape) / 2.0


def kinked_network(rng: np.random.Generator, seed: int) -> Trial:
    """Draws a network of one or two kinked functions, with inputs and weights on a grid."""
    first, second = (str(rng.choice(list(KINKY))) for _ in range(2))
    depth = int(rng.integers(3))
    (f, df), (g, dg) = KINKY[first], KINKY[second]
    n, d, m = sizes(rng, 3, 2, 5)
    m, k, d = 2 * m, 2 * int(rng.integers(1, 4)), 2 * d
    off = rng.random() < 0.3  # inputs off the grid have few kinks

    def pointwise(xp: Any, x: Any) -> Any:
        return f(xp, x)

    def affine(xp: Any, x: Any, w: Any, b: Any) -> Any:
        return f(xp, x @ w + b)

    def affine_back(dout: Any, x: Any, w: Any, b: Any) -> Any:
        dz = df(dout, x @ w + b)
        return dz @ w.T, x.T @ dz, dz.sum(0)

    def deep(xp: Any, x: Any, w: Any, v: Any) -> Any:
        return g(xp, f(xp, x @ w) @ v)

    def deep_back(dout: Any, x: Any, w: Any, v: Any) -> Any:
        z = x @ w
        a = f(np, z)
        du = dg(dout, a @ v)
        dz = df(du @ v.T, z)
        return dz @ w.T, x.T @ dz, a.T @ du

    def draw(rng: np.random.Generator) -> list[Any]:
        jitter = 0.1 * rng.standard_normal() if off else 0.0
        x = on_grid(rng, n, d) + (jitter * rng.random((n, d)) if off else 0)
        if depth == 0:
            return [x]
        hidden = {"max_pool": m // 2, "row_max": 0, "row_max_split": 0}.get(first, m)
        return (
            [x, on_grid(rng, d, m), on_grid(rng, m)] if depth == 1 else [x, on_grid(rng, d, m), on_grid(rng, hidden, k)]
        )

    if depth == 2 and first.startswith("row_max"):
        depth = 1
    op = [
        Operation(pointwise, lambda dout, x: (df(dout, x),), draw),
        Operation(affine, affine_back, draw),
        Operation(deep, deep_back, draw),
    ][depth]
    about = f"{first}{'(x W + b)' if depth == 1 else ''}{' then ' + second if depth == 2 else ''} on a grid"
    return trial_of(op, rng, seed, about, ["float64", "float64", "float32"], ["", "", "float32"])
