"""Convolution and pooling, with strides, padding and overlapping windows."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from mutants.case import Family

STRIDE, PAD = 2, 1


def windows(x, k, stride):
    """Returns the windows of (N, C, H, W) as a view of shape (N, C, OH, OW, k, k)."""
    return np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))[:, :, ::stride, ::stride]


def spread(taps, shape, stride):
    """Returns the transpose of `windows`: adds (N, C, OH, OW, k, k) up at the places that they come from."""
    x, (oh, ow, k) = np.zeros(shape, taps.dtype), taps.shape[2:5]
    for i in range(k):
        for j in range(k):
            x[:, :, i : i + stride * oh : stride, j : j + stride * ow : stride] += taps[..., i, j]
    return x


def padded(x, pad=PAD):
    return np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))


def conv_forward(x, W, b):
    cols = windows(padded(x), W.shape[-1], STRIDE)
    return np.einsum("ncijkl,fckl->nfij", cols, W) + b[:, None, None], (x, W, cols)


def conv_backward(dout, c):
    x, W, cols = c
    dx = spread(np.einsum("nfij,fckl->ncijkl", dout, W), padded(x).shape, STRIDE)
    return dx[:, :, PAD:-PAD, PAD:-PAD].copy(), np.einsum("nfij,ncijkl->fckl", dout, cols), dout.sum(axis=(0, 2, 3))


def conv_reference(x, W, b):
    y = lax.conv_general_dilated(x, W, (STRIDE, STRIDE), [(PAD, PAD)] * 2, dimension_numbers=("NCHW", "OIHW", "NCHW"))
    return y + b[:, None, None]


def draw_conv(rng, scale):
    return scale * rng.standard_normal((2, 3, 7, 7)), rng.standard_normal((3, 3, 3, 3)), rng.standard_normal(3)


def conv_loops(dout, c):
    x, W, _ = c
    xp, dW = padded(x), np.zeros_like(W)
    dxp, k = np.zeros_like(xp), W.shape[-1]
    for n, f, i, j in np.ndindex(*dout.shape):
        window = np.s_[n, :, i * STRIDE : i * STRIDE + k, j * STRIDE : j * STRIDE + k]
        dW[f] += dout[n, f, i, j] * xp[window]
        dxp[window] += dout[n, f, i, j] * W[f]
    return dxp[:, :, PAD:-PAD, PAD:-PAD].copy(), dW, dout.sum(axis=(0, 2, 3))


def uncut(dout, c, dx):
    return spread(np.einsum("nfij,fckl->ncijkl", dout, c[1]), padded(c[0]).shape, STRIDE)


def overwritten(dout, c, dx):
    taps = np.einsum("nfij,fckl->ncijkl", dout, c[1])
    dxp, (oh, ow, k) = np.zeros_like(padded(c[0])), taps.shape[2:5]
    for i in range(oh):
        for j in range(ow):
            dxp[:, :, i * STRIDE : i * STRIDE + k, j * STRIDE : j * STRIDE + k] = taps[:, :, i, j]
    return dxp[:, :, PAD:-PAD, PAD:-PAD].copy()


conv = Family("conv", "x W b", conv_forward, conv_backward, draw_conv, conv_reference, parameters=2)
conv.right("loops", "one output pixel at a time", conv_loops)
conv.wrong("flipped", "W", "the taps of dW are flipped", lambda dout, c, dW: dW[:, :, ::-1, ::-1].copy(), "reverse")
conv.wrong("flipped_dx", "x", "dx uses the kernel flipped", lambda dout, c, dx: conv_backward(
    dout, (c[0], c[1][:, :, ::-1, ::-1], c[2]))[0])  # fmt: skip
conv.wrong("uncut", "x", "the padding is not cut off dx", uncut, "shape")
conv.wrong("cut_wrong", "x", "the padding is cut off only at one end", lambda dout, c, dx:
           uncut(dout, c, dx)[:, :, 2 * PAD :, 2 * PAD :].copy())  # fmt: skip
conv.wrong("overwritten", "x", "overlapping windows overwrite each other", overwritten)
conv.wrong("channels", "W", "input and output channels of dW are exchanged",
           lambda dout, c, dW: dW.swapaxes(0, 1).copy(), "transposed")  # fmt: skip
conv.wrong("taps", "W", "height and width of dW exchanged", lambda dout, c, dW: dW.swapaxes(2, 3).copy(), "transposed")
conv.wrong("stride", "W", "dW is taken from windows that are not strided", lambda dout, c, dW: np.einsum(
    "nfij,ncijkl->fckl", dout,
    windows(padded(c[0]), 3, 1)[:, :, : dout.shape[2], : dout.shape[3]]))  # fmt: skip
conv.wrong("unpadded", "W", "dW is taken from x without its padding", lambda dout, c, dW: np.einsum(
    "nfij,ncijkl->fckl", dout[:, :, :3, :3], windows(c[0], 3, STRIDE)[:, :, :3, :3]))  # fmt: skip
conv.wrong("bias", "b", "db is averaged over the batch", lambda dout, c, db: db / len(dout), "batch size")
conv.wrong("bias_pixels", "b", "db is averaged over the pixels", lambda dout, c, db: db / dout[0, 0].size,
           "a mean instead of a sum")  # fmt: skip
conv.wrong("one_sample", "W", "dW uses only the first sample", lambda dout, c, dW:
           np.einsum("nfij,ncijkl->fckl", dout[:1], c[2][:1]))  # fmt: skip
conv.wrong("last_row", "W", "the last row of outputs is left out by the loop", lambda dout, c, dW:
           np.einsum("nfij,ncijkl->fckl", dout[:, :, :-1], c[2][:, :, :-1]))  # fmt: skip
conv.wrong("thousandth", "W", "dW is 1.001 of what it should be", lambda dout, c, dW: dW * 1.001, "1.001")


def pool_taps(x):
    return windows(x, 3, 2).reshape(*windows(x, 3, 2).shape[:4], 9)


def pooled(dout, c, weights):
    taps = (weights * dout[..., None]).astype(dout.dtype)
    return spread(taps.reshape(*dout.shape, 3, 3), c.shape, 2)


def at(index):
    return np.arange(9) == index[..., None]


def draw_image(rng, scale):
    return (scale * rng.standard_normal((2, 2, 7, 7)),)


def draw_ties(rng, scale):
    return (scale * rng.integers(0, 3, (2, 2, 7, 7)).astype(float),)


def last(taps):
    return 8 - taps[..., ::-1].argmax(axis=-1)


def overwritten_pool(dout, x, dx):
    best, dx = pool_taps(x).argmax(axis=-1), np.zeros_like(x)
    for n, c, i, j in np.ndindex(*dout.shape):
        a, b = divmod(int(best[n, c, i, j]), 3)
        dx[n, c, 2 * i + a, 2 * j + b] = dout[n, c, i, j]
    return dx


largest = Family(
    "max_pool", "x", lambda x: (pool_taps(x).max(axis=-1), x),
    lambda dout, x: (pooled(dout, x, at(pool_taps(x).argmax(axis=-1))),), draw_image,
    lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 3, 3), (1, 1, 2, 2), "VALID"),
)  # fmt: skip
largest.right("ties_first", "the first of several ties gets the gradient", largest.backward, draw_ties)
largest.right("ties_last", "the last of several ties gets the gradient", lambda dout, x: (
    pooled(dout, x, at(last(pool_taps(x)))),), draw_ties)  # fmt: skip
largest.wrong("overwritten", "x", "overlapping windows overwrite each other", overwritten_pool)
largest.wrong("smallest", "x", "the smallest element of a window gets the gradient", lambda dout, x, dx:
              pooled(dout, x, at(pool_taps(x).argmin(axis=-1))))  # fmt: skip
largest.wrong("ties_all", "x", "each of several ties gets the whole gradient", lambda dout, x, dx:
              pooled(dout, x, pool_taps(x) == pool_taps(x).max(axis=-1, keepdims=True)), "",
              lambda rng, scale: (scale * rng.integers(0, 2, (2, 2, 7, 7)).astype(float),))  # fmt: skip
largest.wrong("exchanged", "x", "row and column of the maximum are exchanged", lambda dout, x, dx: pooled(
    dout, x, at(3 * (pool_taps(x).argmax(axis=-1) % 3) + pool_taps(x).argmax(axis=-1) // 3)))  # fmt: skip
largest.wrong("spread", "x", "spread over the window, like the gradient of an average", lambda dout, x, dx:
              pooled(dout, x, np.full(9, 1 / 9)))  # fmt: skip

average = Family(
    "average_pool", "x", lambda x: (pool_taps(x).mean(axis=-1), x),
    lambda dout, x: (pooled(dout, x, np.full(9, 1 / 9)),), draw_image,
    lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 1, 3, 3), (1, 1, 2, 2), "VALID") / 9,
)  # fmt: skip
average.wrong("sum", "x", "not divided by the window's size", lambda dout, x, dx: 9 * dx, "times 9")
average.wrong("side", "x", "divided by the window's side, not its size", lambda dout, x, dx: 3 * dx, "times 3")
average.wrong("centre", "x", "only the centre of a window gets the gradient", lambda dout, x, dx:
              pooled(dout, x, at(np.full(dout.shape, 4))))  # fmt: skip

overall = Family(
    "global_average", "x", lambda x: (x.mean(axis=(2, 3)), x.shape),
    lambda dout, shape: (np.broadcast_to(dout[:, :, None, None] / (shape[2] * shape[3]), shape).copy(),),
    lambda rng, scale: (scale * rng.standard_normal((2, 3, 4, 5)),), lambda x: x.mean(axis=(2, 3)),
)  # fmt: skip
overall.wrong("sum", "x", "not divided by the image's size", lambda dout, shape, dx: dx * 20, "a missing 1/N")
overall.wrong("square", "x", "divided by the height squared", lambda dout, shape, dx: dx * 20 / 16)
