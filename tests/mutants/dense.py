"""The affine layer, residual connections and products."""

import jax.numpy as jnp
import numpy as np

from mutants.case import Family, different


def draw_affine(rng, scale):
    N, D, M = different(rng, 3)
    return scale * rng.standard_normal((N, D)), rng.standard_normal((D, M)), rng.standard_normal(M)


def draw_square(rng, scale):
    (N,) = different(rng, 1, 3)
    return scale * rng.standard_normal((N, N)), rng.standard_normal((N, N)), rng.standard_normal(N)


def one_element(gradient, factor=1.0001):
    wrong = gradient.copy()
    wrong[np.unravel_index(np.abs(wrong).argmax(), wrong.shape)] *= factor
    return wrong


affine = Family(
    "affine", "x W b",
    lambda x, W, b: (x @ W + b, (x, W)),
    lambda dout, c: (dout @ c[1].T, c[0].T @ dout, dout.sum(axis=0)),
    draw_affine,
    lambda x, W, b: x @ W + b,
    parameters=2,
)  # fmt: skip
affine.right("einsum", "written with einsum", lambda dout, c: (
    np.einsum("nm,dm->nd", dout, c[1]), np.einsum("nd,nm->dm", c[0], dout), np.einsum("nm->m", dout)))  # fmt: skip
affine.right("by_rows", "one sample at a time", lambda dout, c: (
    np.stack([c[1] @ row for row in dout]),
    sum(np.outer(x, row) for x, row in zip(c[0], dout, strict=True)), sum(dout)))  # fmt: skip
affine.right("square", "N = D = M", affine.backward, draw_square)
affine.right("fortran", "gradients in another memory order", lambda dout, c: (
    np.asfortranarray(dout @ c[1].T), (dout.T @ c[0]).T, dout.sum(axis=0)))  # fmt: skip
affine.wrong("db_mean", "b", "db is averaged over the batch, not summed", lambda dout, c, db: db / len(dout),
             "batch size")  # fmt: skip
affine.wrong("dW_mean", "W", "dW is averaged over the batch, although the loss already is",
             lambda dout, c, dW: dW / len(dout), "batch size")  # fmt: skip
affine.wrong("dW_times_n", "W", "dW is multiplied by the batch size", lambda dout, c, dW: dW * len(dout), "batch size")
affine.wrong("dx_sign", "x", "dx has the wrong sign", lambda dout, c, dx: -dx, "sign")
affine.wrong("dW_twice", "W", "dW is added twice", lambda dout, c, dW: 2 * dW, "factor of 2")
affine.wrong("dx_half", "x", "dx is halved", lambda dout, c, dx: dx / 2, "factor of 2 is missing")
affine.wrong("db_kept", "b", "db keeps the batch axis, (1, M)", lambda dout, c, db: db[None], "only broadcasts")
affine.wrong("db_rows", "b", "db is summed over the features, not the batch", lambda dout, c, db: dout.sum(axis=1),
             "wrong axis", draw_square)  # fmt: skip
affine.wrong("db_all", "b", "db is summed over both axes and broadcast",
             lambda dout, c, db: np.full_like(db, dout.sum()), "summed over too many axes")  # fmt: skip
affine.wrong("db_scalar", "b", "db is summed over both axes, one number", lambda dout, c, db: dout.sum(),
             "broadcasts")  # fmt: skip
affine.wrong("db_first", "b", "db is the first row of dout", lambda dout, c, db: dout[0].copy())
affine.wrong("db_last_missing", "b", "db lacks the last row", lambda dout, c, db: dout[:-1].sum(axis=0))
affine.wrong("dW_transposed", "W", "dW is transposed", lambda dout, c, dW: dW.T.copy(), "transposed", draw_square)
affine.wrong("dW_shape", "W", "dW is transposed, and W is not square", lambda dout, c, dW: dW.T.copy(), "transpose it")
affine.wrong("dW_reshaped", "W", "dW is reshaped where it should be transposed",
             lambda dout, c, dW: np.ascontiguousarray(dW.T).reshape(dW.shape), "transpose")  # fmt: skip
affine.wrong("dx_W", "x", "dx uses W instead of its transpose", lambda dout, c, dx: dout @ c[1], "", draw_square)
affine.wrong("dW_thousandth", "W", "dW is 1.001 of what it should be", lambda dout, c, dW: dW * 1.001, "1.001")
affine.wrong("dW_element", "W", "one element of dW is off by 1e-4 of itself", lambda dout, c, dW: one_element(dW),
             "element [")  # fmt: skip
affine.wrong("dW_row", "W", "the first row of dW is never written", lambda dout, c, dW:
             np.concatenate([np.zeros_like(dW[:1]), dW[1:]]), "row 0")  # fmt: skip
affine.wrong("dW_column", "W", "the last column of dW is never written", lambda dout, c, dW:
             np.concatenate([dW[:, :-1], np.zeros_like(dW[:, -1:])], axis=1), "a part is missing")  # fmt: skip
affine.wrong(
    "dW_zero", "W", "dW is allocated and never filled", lambda dout, c, dW: np.zeros_like(dW), "zero everywhere"
)
affine.wrong("dW_ones", "W", "dW lacks dout: x.T @ 1", lambda dout, c, dW: c[0].T @ np.ones_like(dout), "ignores dout")
affine.wrong("dx_b", "x", "dx has db added to every row",
             lambda dout, c, dx: dx + dout.sum(), "")  # fmt: skip
affine.wrong("dW_nan", "W", "dW is nan, and nan > tolerance is False", lambda dout, c, dW: dW * np.nan, "nan")
affine.wrong("dW_abs", "W", "dW takes the absolute value of dout", lambda dout, c, dW: c[0].T @ np.abs(dout),
             "not linear")  # fmt: skip
affine.wrong("dx_clipped", "x", "dx is clipped to [-1, 1], against exploding gradients",
             lambda dout, c, dx: np.clip(dx, -1, 1), "not linear")  # fmt: skip
affine.wrong("dW_normalised", "W", "dW is divided by the norm of dout",
             lambda dout, c, dW: dW / np.linalg.norm(dout), "not linear")  # fmt: skip
affine.wrong("dW_decay", "W", "weight decay is added to dW, but not to the loss",
             lambda dout, c, dW: dW + 0.01 * c[1], "not linear")  # fmt: skip

residual = Family(
    "residual", "x W",
    lambda x, W: (x + np.tanh(x @ W), (x, W, np.tanh(x @ W))),
    lambda dout, c: (dout + dout * (1 - c[2] ** 2) @ c[1].T, c[0].T @ (dout * (1 - c[2] ** 2))),
    lambda rng, scale: (scale * rng.standard_normal((3, 5)), rng.standard_normal((5, 5)) / 3),
    lambda x, W: x + jnp.tanh(x @ W),
    parameters=1,
)  # fmt: skip
residual.wrong("skip", "x", "dx lacks the skip connection's term", lambda dout, c, dx: dx - dout)
residual.wrong("branch", "x", "dx has only the skip connection's term", lambda dout, c, dx: dout.copy(), "dout itself")
residual.wrong("skip_twice", "x", "the skip connection's term is added twice", lambda dout, c, dx: dx + dout)
residual.wrong("skip_dW", "W", "dW uses dout without the derivative of tanh", lambda dout, c, dW: c[0].T @ dout)
residual.wrong("in_place", "x", "dout is overwritten by +=", lambda dout, c, dx: (
    dout.__imul__(2.0), dx)[1], "overwrites dout")  # fmt: skip

matmul = Family(
    "matmul", "a b",
    lambda a, b: (a @ b, (a, b)),
    lambda dout, c: (dout @ c[1].swapaxes(-1, -2), c[0].swapaxes(-1, -2) @ dout),
    lambda rng, scale: (scale * rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 4, 5))),
    lambda a, b: a @ b,
)  # fmt: skip
matmul.right("einsum", "written with einsum", lambda dout, c: (
    np.einsum("bik,bjk->bij", dout, c[1]), np.einsum("bji,bjk->bik", c[0], dout)))  # fmt: skip
matmul.wrong("batch", "b", "the gradient of the second factor is summed over the batch",
             lambda dout, c, db: np.broadcast_to(db.sum(axis=0), db.shape).copy(), "too many axes")  # fmt: skip
matmul.wrong("first", "a", "the first matrix of the batch is used for all samples",
             lambda dout, c, da: dout @ c[1][:1].swapaxes(-1, -2))  # fmt: skip

multiply = Family(
    "multiply", "x y", lambda x, y: (x * y, (x, y)), lambda dout, c: (dout * c[1], dout * c[0]),
    lambda rng, scale: (scale * rng.standard_normal((3, 4)), rng.standard_normal((3, 4))), lambda x, y: x * y,
)  # fmt: skip
multiply.wrong("swapped", "x", "dx and dy are exchanged", lambda dout, c, dx: dout * c[0])
multiply.wrong("own", "y", "dy lacks the other factor", lambda dout, c, dy: dout.copy(), "factor x")

divide = Family(
    "divide", "x y", lambda x, y: (x / y, (x, y)), lambda dout, c: (dout / c[1], -dout * c[0] / c[1] ** 2),
    lambda rng, scale: (scale * rng.standard_normal((3, 4)), 1 + rng.random((3, 4))), lambda x, y: x / y,
)  # fmt: skip
divide.wrong("sign", "y", "dy lacks its minus sign", lambda dout, c, dy: -dy, "sign")
divide.wrong("square", "y", "dy is divided by y once", lambda dout, c, dy: dy * c[1], "factor y")

bias = Family(
    "bias", "x b",
    lambda x, b: (x + b[:, None, None], x.shape), lambda dout, c: (dout.copy(), dout.sum(axis=(0, 2, 3))),
    lambda rng, scale: (scale * rng.standard_normal((2, 3, 4, 5)), rng.standard_normal(3)),
    lambda x, b: x + b[:, None, None], parameters=1,
)  # fmt: skip
bias.wrong("mean", "b", "db is averaged over the image", lambda dout, c, db: dout.mean(axis=(2, 3)).sum(axis=0),
           "a mean instead of a sum")  # fmt: skip
bias.wrong("axes", "b", "db is summed only over the batch, at the first pixel", lambda dout, c, db:
           dout[:, :, 0, 0].sum(axis=0))  # fmt: skip

affine3 = Family(
    "scale_shift", "x gamma beta", lambda x, gamma, beta: (x * gamma + beta, (x, gamma)),
    lambda dout, c: (dout * c[1], (dout * c[0]).sum(axis=0), dout.sum(axis=0)),
    lambda rng, scale: (scale * rng.standard_normal((5, 4)), rng.standard_normal(4), rng.standard_normal(4)),
    lambda x, g, b: x * g + b, parameters=2,
)  # fmt: skip
affine3.wrong("gamma", "x", "dx lacks gamma", lambda dout, c, dx: dout.copy(), "gamma")
affine3.wrong("x", "gamma", "dgamma lacks x", lambda dout, c, dg: dout.sum(axis=0))
affine3.wrong("gamma_twice", "x", "dx has gamma twice", lambda dout, c, dx: dx * c[1], "gamma")
affine3.wrong("not_summed", "beta", "dbeta is not summed over the batch", lambda dout, c, db: dout.copy(), "shape")
