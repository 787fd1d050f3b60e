"""Right pairs of functions in the style of courses: forward(x, ...) -> (out, cache), backward(dout, cache)."""

# ruff: noqa: NPY002, the global generator is what courses use

import numpy as np

from jaxnet.crosscheck import check_function, check_layer
from mutants.kinds import Draw, right


def affine_forward(x, w, b):
    return x.reshape(len(x), -1) @ w + b, (x, w, b)


def affine_backward(dout, cache):
    x, w, _ = cache
    return (dout @ w.T).reshape(x.shape), x.reshape(len(x), -1).T @ dout, dout.sum(axis=0)


@right("course/affine-of-images", "an affine layer that flattens (N, d1, d2)")
def affine(seed):
    draw = Draw(seed)
    return check_layer((affine_forward, affine_backward), draw(4, 3, 2), draw(6, 5), draw(5))


def batchnorm_forward(x, gamma, beta, bn_param):
    mode, eps, momentum = bn_param["mode"], bn_param.get("eps", 1e-5), bn_param.get("momentum", 0.9)
    mean = bn_param.setdefault("running_mean", np.zeros(x.shape[1], dtype=x.dtype))
    var = bn_param.setdefault("running_var", np.ones(x.shape[1], dtype=x.dtype))
    if mode == "train":
        mu, v = x.mean(axis=0), x.var(axis=0)
        bn_param["running_mean"] = momentum * mean + (1 - momentum) * mu
        bn_param["running_var"] = momentum * var + (1 - momentum) * v
        mean, var = mu, v
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std
    return gamma * xhat + beta, (xhat, std, gamma, mode)


def batchnorm_backward(dout, cache):
    xhat, std, gamma, mode = cache
    d = dout * gamma
    if mode == "train":
        d = d - d.mean(axis=0) - xhat * (d * xhat).mean(axis=0)
    return d / std, (dout * xhat).sum(axis=0), dout.sum(axis=0)


@right("course/batchnorm-train", "batch normalisation that writes its running statistics into a dict of options")
def batchnorm(seed):
    draw = Draw(seed)
    return check_layer((batchnorm_forward, batchnorm_backward), draw(6, 4), draw(4), draw(4), {"mode": "train"})


@right("course/batchnorm-test", "batch normalisation with running statistics that are passed in a dict")
def batchnorm_test(seed):
    draw = Draw(seed)
    options = {"mode": "test", "running_mean": draw(4), "running_var": draw.positive(4)}
    return check_layer((batchnorm_forward, batchnorm_backward), draw(6, 4), draw(4), draw(4), options)


@right("course/layernorm", "layer normalisation as batch normalisation of the transpose")
def layernorm(seed):
    draw = Draw(seed)

    def forward(x, gamma, beta, ln_param):
        std = np.sqrt(x.T.var(axis=0) + ln_param.get("eps", 1e-5))
        xhat = ((x.T - x.T.mean(axis=0)) / std).T
        return gamma * xhat + beta, (xhat, std, gamma)

    def backward(dout, cache):
        xhat, std, gamma = cache
        d, h = (dout * gamma).T, xhat.T
        return ((d - d.mean(axis=0) - h * (d * h).mean(axis=0)) / std).T, (dout * xhat).sum(axis=0), dout.sum(axis=0)

    return check_layer((forward, backward), draw(5, 6), draw(6), draw(6), {})


def channels_last(x):
    return x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1])


def channels_first(rows, shape):
    n, c, h, w = shape
    return rows.reshape(n, h, w, c).transpose(0, 3, 1, 2)


@right("course/spatial-batchnorm", "batch normalisation of images, computed by that of rows")
def spatial(seed):
    draw = Draw(seed)

    def forward(x, gamma, beta, bn_param):
        rows, cache = batchnorm_forward(channels_last(x), gamma, beta, bn_param)
        return channels_first(rows, x.shape), cache

    def backward(dout, cache):
        rows, dgamma, dbeta = batchnorm_backward(channels_last(dout), cache)
        return channels_first(rows, dout.shape), dgamma, dbeta

    return check_layer((forward, backward), draw(2, 3, 4, 5), draw(3), draw(3), {"mode": "train"})


@right("course/spatial-groupnorm", "group normalisation, gamma and beta of shape (1, C, 1, 1), G a number")
def groupnorm(seed):
    draw = Draw(seed)

    def forward(x, gamma, beta, G, gn_param):
        g = x.reshape(len(x), G, -1)
        std = np.sqrt(g.var(axis=2, keepdims=True) + gn_param.get("eps", 1e-5))
        xhat = ((g - g.mean(axis=2, keepdims=True)) / std).reshape(x.shape)
        return gamma * xhat + beta, (xhat, std, gamma, G)

    def backward(dout, cache):
        xhat, std, gamma, G = cache
        d, h = ((dout * gamma).reshape(len(dout), G, -1), xhat.reshape(len(dout), G, -1))
        dx = (d - d.mean(axis=2, keepdims=True) - h * (d * h).mean(axis=2, keepdims=True)) / std
        return (
            dx.reshape(dout.shape),
            (dout * xhat).sum(axis=(0, 2, 3), keepdims=True),
            dout.sum(axis=(0, 2, 3), keepdims=True),
        )

    gamma, beta = draw(1, 6, 1, 1), draw(1, 6, 1, 1)
    return check_layer((forward, backward), draw(2, 6, 3, 4), gamma, beta, 2, {})


def conv_forward_naive(x, w, b, conv_param):
    stride, pad = conv_param["stride"], conv_param["pad"]
    f, _, hh, ww = w.shape
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    rows, cols = 1 + (padded.shape[2] - hh) // stride, 1 + (padded.shape[3] - ww) // stride
    out = np.zeros((len(x), f, rows, cols))
    for n in range(len(x)):
        for k in range(f):
            for i in range(rows):
                for j in range(cols):
                    window = padded[n, :, i * stride : i * stride + hh, j * stride : j * stride + ww]
                    out[n, k, i, j] = (window * w[k]).sum() + b[k]
    return out, (x, w, b, conv_param)


def conv_backward_naive(dout, cache):
    x, w, _, conv_param = cache
    stride, pad = conv_param["stride"], conv_param["pad"]
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    for n, k, i, j in np.ndindex(*dout.shape):
        across = (slice(i * stride, i * stride + w.shape[2]), slice(j * stride, j * stride + w.shape[3]))
        dw[k] += padded[(n, slice(None), *across)] * dout[n, k, i, j]
        dpadded[(n, slice(None), *across)] += w[k] * dout[n, k, i, j]
    dx = dpadded[:, :, pad : padded.shape[2] - pad, pad : padded.shape[3] - pad]
    return dx, dw, dout.sum(axis=(0, 2, 3))


for stride, pad in ((1, 1), (2, 0), (2, 1)):

    @right(f"course/conv-naive-stride-{stride}-pad-{pad}", "a convolution in loops, out made by np.zeros of float64")
    def conv_naive(seed, stride=stride, pad=pad):
        draw = Draw(seed)
        pair = conv_forward_naive, conv_backward_naive
        return check_layer(pair, draw(2, 2, 5, 5), draw(3, 2, 3, 3), draw(3), {"stride": stride, "pad": pad})


@right("course/max-pool-naive", "max pooling in loops, with x == max as its mask, overlapping windows")
def max_pool(seed):
    draw = Draw(seed)

    def forward(x, pool_param):
        s, p = pool_param["stride"], pool_param["pool_height"]
        n, c, h, w = x.shape
        out = np.zeros((n, c, 1 + (h - p) // s, 1 + (w - p) // s))
        for i, j in np.ndindex(*out.shape[2:]):
            out[:, :, i, j] = x[:, :, i * s : i * s + p, j * s : j * s + p].max(axis=(2, 3))
        return out, (x, pool_param)

    def backward(dout, cache):
        x, pool_param = cache
        s, p, dx = pool_param["stride"], pool_param["pool_height"], np.zeros_like(x)
        for n, c, i, j in np.ndindex(*dout.shape):
            window = x[n, c, i * s : i * s + p, j * s : j * s + p]
            dx[n, c, i * s : i * s + p, j * s : j * s + p] += (window == window.max()) * dout[n, c, i, j]
        return dx

    return check_layer((forward, backward), draw(2, 2, 5, 7), {"stride": 1, "pool_height": 3, "pool_width": 3})


def svm(x, y):
    correct = x[np.arange(len(y)), y]
    margins = np.maximum(0, x - correct[:, None] + 1.0)
    margins[np.arange(len(y)), y] = 0
    positive = (margins > 0).astype(float)
    dx = positive.copy()
    dx[np.arange(len(y)), y] -= positive.sum(axis=1)
    return margins.sum() / len(y), dx / len(y)


def softmax(x, y):
    shifted = x - x.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    dx = np.exp(log_p)
    dx[np.arange(len(y)), y] -= 1
    return -log_p[np.arange(len(y)), y].sum() / len(y), dx / len(y)


for label, both in (("svm", svm), ("softmax", softmax)):

    @right(f"course/{label}-loss-and-gradient", f"{label}_loss(x, y) -> (loss, dx), split into function and gradient")
    def loss(seed, both=both):
        draw = Draw(seed)
        return check_function(
            lambda x, y: both(x, y)[0], 5 * draw(6, 4), draw.labels(6, 4), gradient=lambda x, y: both(x, y)[1]
        )


@right("course/svm-on-whole-number-scores", "an SVM loss of whole-number scores: margins of exactly 0")
def svm_on_margin(seed):
    draw = Draw(seed)
    x = draw.rng.integers(-2, 3, (6, 4)).astype(float)
    return check_function(lambda x, y: svm(x, y)[0], x, draw.labels(6, 4), gradient=lambda x, y: svm(x, y)[1])


@right("course/dropout-with-a-seed", "dropout_forward(x, dropout_param), which seeds the global generator")
def dropout(seed):
    def forward(x, dropout_param):
        np.random.seed(dropout_param["seed"])
        mask = (np.random.rand(*x.shape) < dropout_param["p"]) / dropout_param["p"]
        return x * mask, mask

    return check_layer((forward, lambda dout, mask: dout * mask), Draw(seed)(5, 4), {"p": 0.6, "seed": 123})
