"""Draws compositions of pointwise functions, some of them steep or near the edge of their domain."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fuzz.layers import sizes
from fuzz.trials import Operation, Trial, trial_of


def pointwise(name: str, rng: np.random.Generator) -> tuple[Callable[..., Any], Callable[..., Any], Any, str]:
    """Returns a function, its derivative, inputs within its domain, and its description."""
    shape = tuple(sizes(rng, 2))
    x = rng.standard_normal(shape)
    edge = 10.0 ** rng.uniform(-8, -1, shape)
    k = float(rng.choice([1.0, 3.0, 20.0, 300.0, 1e4, 1e6]))
    slower = min(k, 300.0) / 3
    c = {
        "sin": (lambda xp, x: xp.sin(k * x), lambda x: k * np.cos(k * x), x),
        "exp": (lambda xp, x: xp.exp(slower * x), lambda x: slower * np.exp(slower * x), x),
        "tanh": (lambda xp, x: xp.tanh(k * x), lambda x: k / np.cosh(np.minimum(np.abs(k * x), 300)) ** 2, x),
        "sigmoid": (
            lambda xp, x: 0.5 + 0.5 * xp.tanh(k * x / 2),
            lambda x: k / 4 / np.cosh(np.minimum(np.abs(k * x / 2), 300)) ** 2,
            x / k,
        ),
        "log": (lambda xp, x: xp.log(x), lambda x: 1 / x, edge),
        "log1p": (lambda xp, x: xp.log1p(x), lambda x: 1 / (1 + x), edge - 1),
        "sqrt": (lambda xp, x: xp.sqrt(x), lambda x: 0.5 / np.sqrt(x), edge),
        "arcsin": (lambda xp, x: xp.arcsin(x), lambda x: 1 / np.sqrt((1 - x) * (1 + x)), 1 - edge),
        "arctanh": (lambda xp, x: xp.arctanh(x), lambda x: 1 / ((1 - x) * (1 + x)), 1 - edge),
        "reciprocal": (lambda xp, x: 1 / x, lambda x: -1 / x**2, np.sign(x) * edge),
        "power": (lambda xp, x: x**7, lambda x: 7 * x**6, x),
        "softplus": (lambda xp, x: xp.logaddexp(x * k, 0 * x) / k, lambda x: 0.5 + 0.5 * np.tanh(k * x / 2), x),
        "square": (lambda xp, x: x * x, lambda x: 2 * x, x),
        "gauss": (lambda xp, x: xp.exp(-k * x * x), lambda x: -2 * k * x * np.exp(-k * x * x), x / math.sqrt(k)),
        "arctan": (lambda xp, x: xp.arctan(k * x), lambda x: k / (1 + (k * x) ** 2), x),
        "log_square": (lambda xp, x: xp.log(1 + k * x * x), lambda x: 2 * k * x / (1 + k * x * x), x),
    }  # fmt: skip
    f, df, drawn = c[name]
    return f, df, drawn, f"{name}(k={k:g})"


STEEP = [
    "sin",
    "exp",
    "tanh",
    "sigmoid",
    "log",
    "log1p",
    "sqrt",
    "arcsin",
    "arctanh",
    "reciprocal",
    "power",
    "softplus",
    "square",
    "gauss",
    "arctan",
    "log_square",
]
OUTER = {  # functions of any real number, applied to the result
    "": (lambda xp, y: y, lambda y: np.ones_like(y)),
    "tanh": (lambda xp, y: xp.tanh(y), lambda y: 1 / np.cosh(np.minimum(np.abs(y), 300)) ** 2),
    "arctan": (lambda xp, y: xp.arctan(y), lambda y: 1 / (1 + y * y)),
    "sin": (lambda xp, y: xp.sin(y), np.cos),
    "log_square": (lambda xp, y: xp.log(1 + y * y), lambda y: 2 * y / (1 + y * y)),
    "offset": (lambda xp, y: y + 1e4, lambda y: np.ones_like(y)),
}


def composition(rng: np.random.Generator, seed: int) -> Trial:
    """Draws a pointwise function: steep, near the edge of its domain, with an offset, or with uneven rows."""
    name, outer = str(rng.choice(STEEP)), str(rng.choice(list(OUTER)))
    f, df, x, about = pointwise(name, rng)
    g, dg = OUTER[outer]
    special = str(rng.choice(["", "", "rows", "offset"]))
    weights = 1.0
    if special == "rows":
        weights = 10.0 ** rng.uniform(-6, 6, (len(x), 1))
        x = x * weights
    shift = 1e4 if special == "offset" else 0.0

    def inner(x: Any) -> Any:
        return (x / weights).astype(x.dtype) - shift if special else x

    def forward(xp: Any, x: Any) -> Any:
        return g(xp, f(xp, inner(x)))

    def backward(d: Any, x: Any) -> Any:
        u = inner(x)
        return ((d * dg(f(np, u)) * df(u) / weights).astype(x.dtype),)

    op = Operation(forward, backward, lambda rng: [x + shift])
    total = rng.random() < 0.15
    if total:  # a scalar
        op = Operation(lambda xp, x: forward(xp, x).mean(), lambda d, x: backward(d / x.dtype.type(x.size), x), op.draw)
    about = f"{'mean of ' * total}{outer + ' of ' if outer else ''}{about} {special}"
    return trial_of(op, rng, seed, about, ["float64"], [""])
