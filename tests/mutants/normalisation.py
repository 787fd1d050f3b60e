"""BatchNorm, LayerNorm and RMSNorm for vectors and images; terms through the statistics are often forgotten."""

import jax.numpy as jnp
import numpy as np

from mutants.case import Family, different

EPS = 1e-5


def normaliser(name, axes, others, shape_of, draw):
    """y = gamma xhat + beta with statistics over `axes`; gamma, made to fit x by `shape_of`, is shared by `others`."""

    def reference(x, gamma, beta):
        mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
        return shape_of(gamma, x) * (x - mean) / jnp.sqrt(var + EPS) + shape_of(beta, x)

    def forward(x, gamma, beta):
        std = np.sqrt(x.var(axis=axes, keepdims=True) + EPS)
        xhat = (x - x.mean(axis=axes, keepdims=True)) / std
        return shape_of(gamma, x) * xhat + shape_of(beta, x), (x, xhat, std, gamma)

    def backward(dout, c):
        x, xhat, std, gamma = c
        d = dout * shape_of(gamma, x)
        dx = (d - d.mean(axis=axes, keepdims=True) - xhat * (d * xhat).mean(axis=axes, keepdims=True)) / std
        return dx, (dout * xhat).sum(axis=others), dout.sum(axis=others)

    return Family(name, "x gamma beta", forward, backward, draw, reference, parameters=2)


def vectors(rng, scale):
    N, D = different(rng, 2, 4, 9)
    return scale * rng.standard_normal((N, D)) + rng.standard_normal(D), rng.standard_normal(D), rng.standard_normal(D)


def images(rng, scale):
    return scale * rng.standard_normal((3, 2, 4, 3)), rng.standard_normal(2), rng.standard_normal(2)


def nearly_constant(rng, scale):
    x = scale * (1 + 1e-3 * rng.standard_normal((6, 5)))
    return x, rng.standard_normal(5), rng.standard_normal(5)


def plain(gamma, x):
    return gamma


def channels(gamma, x):
    return gamma[:, None, None]


def scaled(dout, c, shape=plain):
    return dout * shape(c[3], c[0])


batch = normaliser("batch_norm", (0,), (0,), plain, vectors)
layer = normaliser("layer_norm", (-1,), (0,), plain, vectors)
image = normaliser("batch_norm_images", (0, 2, 3), (0, 2, 3), channels, images)
batch.right("nearly_constant", "inputs vary by a thousandth of their mean", batch.backward, nearly_constant)
layer.right("nearly_constant", "inputs vary by a thousandth of their mean", layer.backward, nearly_constant)


def step_by_step(dout, c):
    x, xhat, std, gamma = c
    n, xc, d = len(x), xhat * std, dout * gamma
    dstd = -(d * xc).sum(axis=0) / std**2
    dxc = d / std + 2 * xc / n * (0.5 * dstd / std)
    return dxc - dxc.sum(axis=0) / n, (dout * xhat).sum(axis=0), dout.sum(axis=0)


batch.right("graph", "step by step through the computational graph", step_by_step)
for family, axes in ((batch, 0), (layer, -1)):
    family.wrong("no_mean", "x", "the term through the mean is missing", lambda dout, c, dx, a=axes: (
        scaled(dout, c) - c[1] * (scaled(dout, c) * c[1]).mean(axis=a, keepdims=True)) / c[2],
        "through the mean")  # fmt: skip
    family.wrong("no_variance", "x", "the term through the variance is missing", lambda dout, c, dx, a=axes: (
        scaled(dout, c) - scaled(dout, c).mean(axis=a, keepdims=True)) / c[2], "through the variance")  # fmt: skip
    family.wrong("constants", "x", "mean and variance are treated as constants", lambda dout, c, dx:
                 scaled(dout, c) / c[2], "through mean and variance")  # fmt: skip
    family.wrong("variance", "x", "divided by the variance, not its root", lambda dout, c, dx: dx / c[2])
    family.wrong("thousandth", "x", "dx is 1.001 of what it should be", lambda dout, c, dx: dx * 1.001, "1.001")
    family.wrong("sum", "x", "a sum instead of the mean in the last term", lambda dout, c, dx, a=axes: (
        scaled(dout, c) - scaled(dout, c).mean(axis=a, keepdims=True)
        - c[1] * (scaled(dout, c) * c[1]).sum(axis=a, keepdims=True)) / c[2], "variance")  # fmt: skip
    family.wrong("dgamma", "gamma", "dgamma uses x instead of xhat", lambda dout, c, dg: (dout * c[0]).sum(axis=0))
    family.wrong("dbeta", "beta", "dbeta is a mean", lambda dout, c, db: db / len(dout), "batch size")
batch.wrong("gamma", "x", "dx lacks gamma", lambda dout, c, dx: dx / c[3], "gamma")
batch.wrong("unbiased", "x", "N - 1 in backward, N in forward", lambda dout, c, dx: (
    scaled(dout, c) - scaled(dout, c).mean(axis=0)
    - c[1] * (scaled(dout, c) * c[1]).sum(axis=0) / (len(dout) - 1)) / c[2], "variance")  # fmt: skip
batch.wrong("epsilon", "x", "eps is left out of the root in backward", lambda dout, c, dx:
            dx * c[2] / np.sqrt(np.maximum(c[2] ** 2 - EPS, EPS)))  # fmt: skip
batch.mismatched(
    "ddof",
    "x",
    "forward divides by N - 1, backward by N",
    lambda x, gamma, beta: (
        gamma * (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0, ddof=1) + EPS) + beta,
        (x, (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0, ddof=1) + EPS), np.sqrt(x.var(axis=0, ddof=1) + EPS), gamma),
    ),
)
layer.wrong("axis", "x", "the means run over the batch", lambda dout, c, dx: (
    scaled(dout, c) - scaled(dout, c).mean(axis=0) - c[1] * (scaled(dout, c) * c[1]).mean(axis=0)) / c[2])  # fmt: skip
layer.wrong("gamma_late", "x", "dout is multiplied by gamma after the means are taken", lambda dout, c, dx: c[3] * (
    dout - dout.mean(axis=-1, keepdims=True) - c[1] * (dout * c[1]).mean(axis=-1, keepdims=True)) / c[2])  # fmt: skip
image.wrong("batch_only", "x", "the means are taken over the batch only", lambda dout, c, dx: (
    scaled(dout, c, channels) - scaled(dout, c, channels).mean(axis=0)
    - c[1] * (scaled(dout, c, channels) * c[1]).mean(axis=0)) / c[2])  # fmt: skip
image.wrong("no_mean", "x", "the term through the mean is missing", lambda dout, c, dx: (
    scaled(dout, c, channels)
    - c[1] * (scaled(dout, c, channels) * c[1]).mean(axis=(0, 2, 3), keepdims=True)) / c[2],
    "through the mean")  # fmt: skip
image.wrong(
    "dgamma_axes", "gamma", "dgamma is averaged over the image", lambda dout, c, dg: dg / 12, "a mean instead of a sum"
)

rms = Family(
    "rms_norm", "x gamma",
    lambda x, g: (g * x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + EPS),
                  (x, g, np.sqrt((x**2).mean(axis=-1, keepdims=True) + EPS))),
    lambda dout, c: (
        (dout * c[1] - c[0] * (dout * c[1] * c[0]).mean(axis=-1, keepdims=True) / c[2] ** 2) / c[2],
        (dout * c[0] / c[2]).sum(axis=0),
    ),
    lambda rng, scale: (scale * rng.standard_normal((4, 7)), rng.standard_normal(7)),
    lambda x, g: g * x / jnp.sqrt((x**2).mean(axis=-1, keepdims=True) + EPS),
    parameters=1,
)  # fmt: skip
rms.wrong("constant", "x", "the root mean square is treated as a constant", lambda dout, c, dx: dout * c[1] / c[2],
          "through the mean square")  # fmt: skip
rms.wrong("power", "x", "the last term is divided by the root once too little", lambda dout, c, dx: (
    dout * c[1] - c[0] * (dout * c[1] * c[0]).mean(axis=-1, keepdims=True) / c[2]) / c[2])  # fmt: skip
