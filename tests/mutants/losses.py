"""Losses, whose backward is often called without an upstream gradient, and softmax."""

import jax
import jax.numpy as jnp
import numpy as np

from mutants.case import Family, different, off_kinks


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def draw_labels(rng, scale):
    N, C = different(rng, 2, 3, 8)
    return scale * rng.standard_normal((N, C)), rng.integers(0, C, N)


def draw_numbers(rng, scale):
    N, C = different(rng, 2, 3, 8)
    return scale * rng.standard_normal((N, C)), scale * rng.standard_normal((N, C))


def one_hot(x, t):
    return np.eye(x.shape[1])[t].astype(x.dtype)


def cross_entropy_forward(x, t):
    return -log_softmax(x)[np.arange(len(x)), t].mean(), (x, t, softmax(x))


cross_entropy = Family(
    "cross_entropy", "x t",
    cross_entropy_forward,
    lambda dout, c: (dout * (c[2] - one_hot(c[0], c[1])) / len(c[0]),),
    draw_labels,
    lambda x, t: -jnp.take_along_axis(jax.nn.log_softmax(x), t[:, None], axis=1).mean(),
)  # fmt: skip


def in_place(dout, c):
    dx = c[2].copy()
    dx[np.arange(len(dx)), c[1]] -= 1
    return (dx * (dout / len(dx)),)


cross_entropy.right("in_place", "1 is taken off a copy of y", in_place)
cross_entropy.right(
    "none", "the gradient of the labels is None", lambda dout, c: (*cross_entropy.backward(dout, c), None)
)
cross_entropy.wrong(
    "no_mean", "x", "dx is not divided by the batch size", lambda dout, c, dx: dx * len(dx), "batch size"
)
cross_entropy.wrong("mean_twice", "x", "dx is divided by the batch size twice", lambda dout, c, dx: dx / len(dx),
                    "batch size")  # fmt: skip
cross_entropy.wrong("all_elements", "x", "dx is divided by N C", lambda dout, c, dx: dx / dx.shape[1], "an extra 1/N")
cross_entropy.wrong("sign", "x", "t - y", lambda dout, c, dx: -dx, "sign")
cross_entropy.wrong("no_target", "x", "t is not subtracted", lambda dout, c, dx: dout * c[2] / len(c[2]))
cross_entropy.wrong("true_class", "x", "only the true class's logit gets a gradient",
                    lambda dout, c, dx: dx * one_hot(c[0], c[1]), "a part is missing")  # fmt: skip
cross_entropy.wrong("smoothing", "x", "labels are smoothed only in backward", lambda dout, c, dx: dout * (
    c[2] - 0.9 * one_hot(c[0], c[1]) - np.asarray(0.1, c[2].dtype) / c[2].shape[1]) / len(c[2]))  # fmt: skip
cross_entropy.wrong("dout", "x", "dout is not multiplied in", lambda dout, c, dx:
                    (c[2] - one_hot(c[0], c[1])) / len(c[2]), "ignores dout")  # fmt: skip
cross_entropy.wrong("next_label", "x", "the label of the previous row is subtracted", lambda dout, c, dx: dout * (
    c[2] - one_hot(c[0], np.roll(c[1], 1))) / len(c[2]))  # fmt: skip
cross_entropy.mismatched("summed", "x", "forward sums over the batch, backward averages", lambda x, t: (
    -log_softmax(x)[np.arange(len(x)), t].sum(), (x, t, softmax(x))), "batch size")  # fmt: skip
cross_entropy.mismatched("epsilon", "x", "forward takes log(y + 1e-7): y - t is not its derivative", lambda x, t: (
    -np.log(softmax(x)[np.arange(len(x)), t] + 1e-7).mean().astype(x.dtype), (x, t, softmax(x))))  # fmt: skip

soft = Family(
    "softmax", "x",
    lambda x: (softmax(x), softmax(x)),
    lambda dout, y: (y * (dout - (dout * y).sum(axis=-1, keepdims=True)),),
    lambda rng, scale: (scale * rng.standard_normal((3, 5)),),
    jax.nn.softmax,
)  # fmt: skip
soft.right("jacobian", "with the whole Jacobian of each row", lambda dout, y: (
    np.stack([(np.diag(p) - np.outer(p, p)) @ d for p, d in zip(y, dout, strict=True)]),))  # fmt: skip
soft.wrong("diagonal", "x", "only the Jacobian's diagonal", lambda dout, y, dx: dout * y * (1 - y))
soft.wrong("axis", "x", "the sum runs over the batch", lambda dout, y, dx: y * (dout - (dout * y).sum(axis=0)))
soft.wrong(
    "mean", "x", "the mean instead of the sum", lambda dout, y, dx: y * (dout - (dout * y).mean(axis=-1, keepdims=True))
)
soft.wrong("no_y", "x", "the outer y is left out", lambda dout, y, dx: dout - (dout * y).sum(axis=-1, keepdims=True))
soft.mismatched("whole", "x", "forward normalises over the whole batch", lambda x: (
    np.exp(x - x.max()) / np.exp(x - x.max()).sum(), softmax(x)))  # fmt: skip

log_soft = Family(
    "log_softmax", "x",
    lambda x: (log_softmax(x), softmax(x)),
    lambda dout, y: (dout - y * dout.sum(axis=-1, keepdims=True),),
    lambda rng, scale: (scale * rng.standard_normal((3, 5)),),
    jax.nn.log_softmax,
)  # fmt: skip
log_soft.wrong(
    "sum", "x", "dout - y, right where the rows of dout sum to 1", lambda dout, y, dx: dout - y, "not linear"
)
log_soft.wrong("product", "x", "dout - y dout", lambda dout, y, dx: dout - y * dout)

squares = Family(
    "squared_error", "x t",
    lambda x, t: (((x - t) ** 2).mean(), (x, t)),
    lambda dout, c: (dout * 2 * (c[0] - c[1]) / c[0].size, dout * 2 * (c[1] - c[0]) / c[0].size),
    draw_numbers,
    lambda x, t: ((x - t) ** 2).mean(),
)  # fmt: skip
squares.wrong("two", "x", "the factor 2 is left out", lambda dout, c, dx: dx / 2, "factor of 2 is missing")
squares.wrong("rows", "x", "dx is divided by N instead of N C", lambda dout, c, dx: dx * dx.shape[1], "a missing 1/N")
squares.wrong("no_mean", "x", "dx is not divided at all", lambda dout, c, dx: dx * dx.size, "a missing 1/N")
squares.wrong("target", "t", "dt has the sign of dx", lambda dout, c, dt: -dt, "sign")
squares.wrong("absolute", "x", "the derivative of |x - t|", lambda dout, c, dx: dout * np.sign(c[0] - c[1]) / c[0].size)

logits = Family(
    "binary_cross_entropy", "x t",
    lambda x, t: ((np.logaddexp(0, x) - x * t).mean().astype(x.dtype), (x, t)),
    lambda dout, c: (dout * (0.5 * (1 + np.tanh(c[0] / 2)) - c[1].astype(c[0].dtype)) / c[0].size,),
    lambda rng, scale: (scale * rng.standard_normal((4, 3)), rng.integers(0, 2, (4, 3))),
    lambda x, t: (jnp.logaddexp(0, x) - x * t).mean(),
)  # fmt: skip
logits.wrong("derivative", "x", "the sigmoid's derivative once too often", lambda dout, c, dx:
             dx * 0.25 / np.cosh(c[0] / 2) ** 2)  # fmt: skip
logits.wrong("no_target", "x", "t is not subtracted", lambda dout, c, dx: dx + dout * c[1] / c[0].size)


def hinge_forward(x, t):
    margins = x - x[np.arange(len(x)), t][:, None] + 1
    margins[np.arange(len(x)), t] = 0
    return np.maximum(margins, 0).sum() / len(x), (margins > 0, t)


def hinge_backward(dout, c):
    dx = c[0].astype(np.asarray(dout).dtype)
    dx[np.arange(len(dx)), c[1]] = -dx.sum(axis=1)
    return (dout * dx / len(dx),)


def hinge_reference(x, t):
    true = jax.nn.one_hot(t, x.shape[1], dtype=bool)
    margins = x - jnp.sum(jnp.where(true, x, 0), axis=1, keepdims=True) + 1
    return jnp.where(true, 0, jnp.maximum(margins, 0)).sum() / len(x)


hinge = Family("hinge", "x t", hinge_forward, hinge_backward, lambda rng, scale: (
    scale * off_kinks(rng, 6, 4), rng.integers(0, 4, 6)), hinge_reference)  # fmt: skip
hinge.wrong("true_class", "x", "the true class gets -1 in total, not for each margin", lambda dout, c, dx:
            np.where(np.arange(dx.shape[1]) == c[1][:, None], -dout / len(dx), dx).astype(dx.dtype))  # fmt: skip
hinge.wrong("left_out", "x", "the true class gets no gradient", lambda dout, c, dx: np.maximum(dx * np.sign(dout), 0)
            * np.sign(dout).astype(dx.dtype), "a part is missing")  # fmt: skip
