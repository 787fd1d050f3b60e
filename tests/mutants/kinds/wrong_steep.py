"""Steep functions with wrong gradients: saturated samples, small temperatures and widths, poles."""

import numpy as np

from jaxnet.crosscheck import check_function, check_layer
from mutants.kinds import Draw, wrong
from mutants.kinds.wrong_curvature import NOT_A_KINK, conditioned


@wrong(
    "curvature/cross-entropy-of-confident-samples",
    "Logits of about 30; the true class's gradient lacks its -1.",
    **NOT_A_KINK,
)
def _(seed):
    draw = Draw(seed)

    def forward(z, t):
        e = np.exp(z - z.max(-1, keepdims=True))
        p = e / e.sum(-1, keepdims=True)
        return -np.log(p[np.arange(len(t)), t]).mean(), (p, t)

    def backward(dout, cache):
        p, t = cache
        return dout * p / len(t)

    return check_layer((forward, backward), 30 * draw(5, 4), draw.labels(5, 4))


@wrong("curvature/exp-of-20x", "The gradient of exp(20 x) has a factor of 15.", **NOT_A_KINK)
def _(seed):
    return check_function(lambda x: np.exp(20 * x), Draw(seed)(6), gradient=lambda x, dout: 15 * dout * np.exp(20 * x))


@wrong(
    "curvature/logsumexp-at-temperature-1e-3",
    "A soft maximum at temperature 1e-3, with the gradient for temperature 2e-3.",
    step=1e-5,
    **NOT_A_KINK,
)
def _(seed):
    def f(x, t=1e-3):
        m = x.max()
        return float(m + t * np.log(np.exp((x - m) / t).sum()))

    def gradient(x):
        e = np.exp((x - x.max()) / 2e-3)
        return e / e.sum()

    return check_function(f, 1 + 1e-3 * Draw(seed)(6), gradient=gradient)


@wrong(
    "curvature/logistic-map",
    "Twelve steps of the logistic map; each slope is r (1 - x) instead of r (1 - 2x).",
    step=1e-6,
    **NOT_A_KINK,
)
def _(seed):
    def f(x):
        for _ in range(12):
            x = 3.9 * x * (1 - x)
        return x

    def gradient(x, dout):
        for _ in range(12):
            dout = dout * 3.9 * (1 - x)
            x = 3.9 * x * (1 - x)
        return dout

    return check_function(f, Draw(seed).positive(5, low=0.1, high=0.9), gradient=gradient)


@wrong(
    "curvature/reciprocal-near-0",
    "The gradient of 1/x, for x of 1e-3 and of 1, is -1/|x| instead of -1/x**2.",
    step=1e-4,
    **NOT_A_KINK,
)
def _(seed):
    x = Draw(seed).off_zero(6) * np.array([1e-3, 1, 1, 1e-2, 1, 1])
    return check_function(lambda x: 1 / x, x, gradient=lambda x, dout: -dout / np.abs(x))


@wrong(
    "curvature/rbf-of-small-width",
    "A Gaussian of width 1e-2; its gradient lacks the factor 2.",
    step=1e-5,
    **NOT_A_KINK,
)
def _(seed):
    def f(x, c):
        return np.exp(-((x - c) ** 2) / 1e-4)

    def gradient(x, c, dout):
        d = -dout * f(x, c) * (x - c) / 1e-4
        return d, -d

    x = Draw(seed)(7)
    return check_function(f, x, x + 1e-2 * Draw(seed + 1)(7), gradient=gradient)


@wrong(
    "curvature/inverse-not-transposed",
    "The inverse of a matrix of condition 1e3; the second factor is not transposed.",
    step=1e-7,
    **NOT_A_KINK,
)
def _(seed):
    def forward(a):
        y = np.linalg.inv(a)
        return y, y

    return check_layer((forward, lambda dout, y: -y.T @ dout @ y), conditioned(Draw(seed), 4, 1e3))
