"""Right gradients of functions with high curvature or with numbers of very different sizes."""

import numpy as np

from jaxnet.crosscheck import check_function, check_layer
from mutants.kinds import Draw, right
from mutants.kinds.right_operations import batch_norm, layer_norm, layer_norm_backward, softmax, softmax_backward


@right("steep/chirp", "sin(3e5 x^2), with phases of up to a million radians", undecided=True, never="kink")
def chirp(seed):
    x = Draw(seed).positive(6)
    return check_function(
        lambda x: np.sin(3e5 * x * x), x, gradient=lambda x, dout: dout * 6e5 * x * np.cos(3e5 * x * x)
    )


@right("steep/positional-frequencies", "sines at frequencies 1 to 1e5, as in a Fourier embedding", never="kink")
def frequencies(seed):
    f = 10.0 ** np.arange(6)
    return check_function(
        lambda x: np.sin(x[:, None] * f),
        Draw(seed)(5),
        gradient=lambda x, dout: (dout * f * np.cos(x[:, None] * f)).sum(1),
    )


def logistic_map(x, r, steps=18):
    path = [x]
    for _ in range(steps):
        path.append(r * path[-1] * (1 - path[-1]))
    return path


@right("steep/logistic-map", "18 steps of the logistic map at r = 3.9: slopes of 1e4 and more", never="kink")
def chaos(seed):
    x = Draw(seed).rng.uniform(0.2, 0.8, 5)

    def gradient(x, r, dout):
        dr = np.zeros(())
        for at in reversed(logistic_map(x, r)[:-1]):
            dr = dr + (dout * at * (1 - at)).sum()
            dout = dout * r * (1 - 2 * at)
        return dout, dr

    return check_function(lambda x, r: logistic_map(x, r)[-1], x, np.array(3.9), gradient=gradient)


def lorenz(s):
    x, y, z = s
    return np.array([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])


@right("steep/lorenz", "1,000 Euler steps of the Lorenz system, with the adjoint of each step", never="kink")
def attractor(seed):
    start, h = Draw(seed)(3) + np.array([1, 1, 20]), 0.005

    def run(s):
        path = [s]
        for _ in range(1000):
            path.append(path[-1] + h * lorenz(path[-1]))
        return path

    def gradient(s, dout):
        for x, y, z in reversed(run(s)[:-1]):
            jacobian = np.array([[-10, 10, 0], [28 - z, -1, -x], [y, x, -8 / 3]])
            dout = dout + h * jacobian.T @ dout
        return dout

    return check_function(lambda s: run(s)[-1], start, gradient=gradient)


@right("steep/confident-samples", "cross-entropy of logits of hundreds, with gradients of 1e-40", never="kink")
def sure(seed):
    draw = Draw(seed)
    z, t = 100 * draw(6, 4), draw.labels(6, 4)

    def forward(z, t):
        top = z.max(axis=1, keepdims=True)
        return (top[:, 0] + np.log(np.exp(z - top).sum(axis=1)) - z[np.arange(6), t]).mean(), (z, t)

    return check_layer((forward, lambda dout, c: dout * (softmax(c[0])[0] - np.eye(4)[c[1]]) / 6), z, t)


@right("steep/saturated-softmax", "a softmax at a temperature of 0.02", never="kink")
def cold(seed):
    def backward(dout, y):
        return softmax_backward(dout, y) / 0.02

    return check_layer((lambda x: softmax(x / 0.02), backward), Draw(seed)(5, 6))


@right("scale/layer-norm-with-an-offset", "LayerNorm of normal numbers with an offset of 1e4", never="kink")
def offset(seed):
    draw = Draw(seed)
    return check_layer((layer_norm, layer_norm_backward), 1e4 + draw(5, 8), draw(8), draw(8))


@right("scale/batch-norm-of-columns-of-different-sizes", "BatchNorm of columns of 1e-4, 1 and 1e4", never="kink")
def unlike_columns(seed):
    draw = Draw(seed)
    x = draw(9, 6) * np.array([1e-4, 1e-4, 1, 1, 1e4, 1e4])
    return check_layer((batch_norm, lambda d, c: layer_norm_backward(d, c, 0)), x, draw(6), draw(6))


@right("scale/rows-of-different-sizes", "rows are divided by their norms of 1e-5 or 1", never="kink")
def unlike_rows(seed):
    x = Draw(seed)(6, 5) * np.array([1, 1e-5, 1, 1e-5, 1, 1e-3])[:, None]

    def gradient(x, dout):
        n = np.linalg.norm(x, axis=1, keepdims=True)
        y = x / n
        return (dout - y * (y * dout).sum(axis=1, keepdims=True)) / n

    return check_function(lambda x: x / np.linalg.norm(x, axis=1, keepdims=True), x, gradient=gradient)


@right("scale/tiny-eps-under-a-root", "sqrt(x + 1e-12) with elements of 1e-9 and of 1", never="kink")
def tiny_eps(seed):
    x = Draw(seed).positive(6) * 10.0 ** np.array([0, -9, 0, -6, -9, 0])
    return check_function(lambda x: np.sqrt(x + 1e-12), x, gradient=lambda x, dout: 0.5 * dout / np.sqrt(x + 1e-12))


@right("scale/learned-scales-of-any-size", "one array contains parameters from 1e-6 to 1e6 that all affect the output")
def any_size(seed):
    draw = Draw(seed)
    scale = 10.0 ** np.array([-6, -3, 0, 3, 6])
    return check_function(
        lambda p: np.tanh(p / scale), scale * draw(5), gradient=lambda p, dout: dout / scale / np.cosh(p / scale) ** 2
    )


UNARY = {  # name: function, derivative, inputs by the draw
    "log-near-0": (np.log, lambda x: 1 / x, lambda draw: draw.positive(6) * 1e-7),
    "root-near-0": (np.sqrt, lambda x: 0.5 / np.sqrt(x), lambda draw: draw.positive(6) * 1e-10),
    "inverse-square-root": (lambda x: x**-0.5, lambda x: -0.5 * x**-1.5, lambda draw: draw.positive(6) * 1e-6),
    "arcsin-near-1": (np.arcsin, lambda x: 1 / np.sqrt((1 - x) * (1 + x)), lambda draw: 1 - 1e-7 * draw.positive(6)),
    "arctanh-near-1": (np.arctanh, lambda x: 1 / ((1 - x) * (1 + x)), lambda draw: 1 - 1e-6 * draw.positive(6)),
    "tan-near-its-pole": (np.tan, lambda x: 1 + np.tan(x) ** 2, lambda draw: np.pi / 2 - 1e-4 * draw.positive(6)),
    "exp-of-large": (np.exp, np.exp, lambda draw: 100 * draw.positive(6)),
    "reciprocal-of-small": (lambda x: 1 / x, lambda x: -1 / (x * x), lambda draw: 1e-8 * draw.positive(6)),
    "log1p-of-small": (np.log1p, lambda x: 1 / (1 + x), lambda draw: 1e-12 * draw(6)),
    "entropy-near-0": (lambda p: -p * np.log(p), lambda p: -np.log(p) - 1, lambda draw: 1e-9 * draw.positive(6)),
    "power-of-40": (lambda x: x**40, lambda x: 40 * x**39, lambda draw: draw.positive(6, low=0.3, high=3)),
    "sigmoid-far-out": (lambda x: 1 / (1 + np.exp(-x)), lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2,
                        lambda draw: 25 * draw.off_zero(6)),
    "narrow-bumps": (lambda x: np.exp(-0.5e6 * (x - x.round(2)) ** 2),
                     lambda x: -1e6 * (x - x.round(2)) * np.exp(-0.5e6 * (x - x.round(2)) ** 2),
                     lambda draw: 0.07 + 1e-3 * draw(6)),
    "large-cancelling-terms": (lambda x: (x + 1e6) ** 2 - 1e12 - 2e6 * x, lambda x: 2 * x, lambda draw: draw(6)),
}  # fmt: skip


def cancelling_error(seed):
    """Returns the error of 2 x, found by a complex step, which needs no difference."""
    x = Draw(seed)(6)
    z = x + 1e-30j
    return float(np.abs(((z + 1e6) ** 2 - 1e12 - 2e6 * z).imag / 1e-30 - 2 * x).max())


for label, (function, slope, draw_inputs) in UNARY.items():

    @right(
        f"scale/{label}",
        f"{label}: right up to rounding, although a single step size for all elements gives large errors",
        never="kink",
        undecided=label in ("large-cancelling-terms", "narrow-bumps"),
        true=cancelling_error if label == "large-cancelling-terms" else None,
    )
    def check(seed, function=function, slope=slope, draw_inputs=draw_inputs):
        x = draw_inputs(Draw(seed))
        return check_function(lambda x: function(x), x, gradient=lambda x, dout: dout * slope(x))


@right("steep/sum-with-cancellation", "a sum of numbers of 1e6 that cancel, and of numbers of 1", never="kink")
def cancelling(seed):
    big = 1e6 * Draw(seed)(5)
    x = np.concatenate([big, -big, Draw(seed + 1)(4)])
    return check_function(lambda x: np.sin(x.sum()), x, gradient=lambda x: np.full_like(x, np.cos(x.sum())))
