"""Convolutions, pooling and a transformer block, in the style of NumPy courses, each with a slip."""

import numpy as np

from jaxnet.crosscheck import check_layer, check_network
from mutants.kinds import Draw, wrong


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def conv_forward(x, w, b):
    """Convolves (n, c, h, w) with stride 2 and padding 1."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    k = w.shape[-1]
    rows, cols = (padded.shape[2] - k) // 2 + 1, (padded.shape[3] - k) // 2 + 1
    y = np.zeros((len(x), len(w), rows, cols))
    for i in range(rows):
        for j in range(cols):
            patch = padded[:, :, 2 * i : 2 * i + k, 2 * j : 2 * j + k]
            y[:, :, i, j] = np.tensordot(patch, w, ([1, 2, 3], [1, 2, 3])) + b
    return y, (x, padded, w)


def conv_backward(dout, cache, slip):
    _, padded, w = cache
    k, (rows, cols) = w.shape[-1], dout.shape[2:]
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    for i in range(rows - (slip == "last-row")):
        for j in range(cols):
            area = (slice(None), slice(None), slice(2 * i, 2 * i + k), slice(2 * j, 2 * j + k))
            d = dout[:, :, i, j]
            kernel = w[:, :, ::-1, ::-1] if slip == "flipped" else w
            add = np.tensordot(d, kernel, (1, 0))
            if slip == "overlap":
                dpadded[area] = add
            else:
                dpadded[area] += add
            dw += np.tensordot(d, padded[area], (0, 0))
    crop = slice(0, -2) if slip == "crop" else slice(1, -1)
    dx = dpadded[:, :, crop, crop]
    return dx, dw, dout.sum((0, 2) if slip == "bias" else (0, 2, 3)).reshape(len(w), -1)[:, 0]


for _slip, _sentence in {
    "overlap": "Overlapping windows overwrite each other's gradient.",
    "flipped": "The kernel is flipped in backward, as for a true convolution.",
    "crop": "Both columns of padding are cut off on one side.",
    "last-row": "The last row of windows is left out.",
    "bias": "db sums over rows, and then uses only the first column.",
}.items():

    def _run(seed, slip=_slip):
        draw = Draw(seed)
        pair = conv_forward, lambda dout, cache: conv_backward(dout, cache, slip)
        return check_layer(pair, draw(2, 3, 5, 5), draw(4, 3, 3, 3), draw(4))

    wrong(f"spatial/conv-{_slip}", _sentence)(_run)


@wrong(
    "spatial/max-pool-first-of-a-row", "2 x 2 max pooling searches for the maximum only in the first row of a window."
)
def _(seed):
    def forward(x):
        n, h, w = x.shape
        windows = x.reshape(n, h // 2, 2, w // 2, 2).transpose(0, 1, 3, 2, 4)
        return windows.max((-1, -2)), windows

    def backward(dout, windows):
        mask = windows == windows[..., :1, :].max((-1, -2), keepdims=True)
        d = (mask * dout[..., None, None]).transpose(0, 1, 3, 2, 4)
        return d.reshape(len(d), d.shape[1] * 2, -1)

    return check_layer((forward, backward), Draw(seed)(3, 4, 6))


@wrong(
    "spatial/average-pool-not-divided",
    "Average pooling whose gradient is not divided by the window's size.",
    says=r"(?i)times|factor|divide",
)
def _(seed):
    def forward(x):
        n, h, w = x.shape
        return x.reshape(n, h // 2, 2, w // 2, 2).mean((2, 4)), None

    return check_layer((forward, lambda dout, _: dout.repeat(2, 1).repeat(2, 2)), Draw(seed)(3, 4, 6))


@wrong(
    "spatial/batchnorm-channels-over-the-batch", "Spatial BatchNorm whose dgamma and dbeta are means over positions."
)
def _(seed):
    draw = Draw(seed)

    def forward(x, gamma, beta):
        mean, var = x.mean((0, 2), keepdims=True), x.var((0, 2), keepdims=True)
        y = (x - mean) / np.sqrt(var + 1e-5)
        return gamma[:, None] * y + beta[:, None], (y, gamma, np.sqrt(var + 1e-5))

    def backward(dout, cache):
        y, gamma, s = cache
        d = dout * gamma[:, None]
        dx = (d - d.mean((0, 2), keepdims=True) - y * (d * y).mean((0, 2), keepdims=True)) / s
        return dx, (dout * y).mean(2).sum(0), dout.mean(2).sum(0)

    return check_layer((forward, backward), draw(4, 3, 5), draw(3), draw(3))


@wrong(
    "spatial/transposed-convolution-shift",
    "A one-dimensional transposed convolution reads dout one element too far right.",
)
def _(seed):
    draw = Draw(seed)

    def forward(x, w):
        y = np.zeros(2 * len(x) + len(w))
        for i, v in enumerate(x):
            y[2 * i : 2 * i + len(w)] += v * w
        return y, (x, w)

    def backward(dout, cache):
        x, w = cache
        dx = np.array([dout[2 * i + 1 : 2 * i + 1 + len(w)] @ w for i in range(len(x))])
        return dx, sum(v * dout[2 * i : 2 * i + len(w)] for i, v in enumerate(x))

    return check_layer((forward, backward), draw(5), draw(3))


class Block:
    """A pre-norm transformer block of one head, with one slip in backward."""

    def __init__(self, draw, d, slip):
        self.slip = slip
        self.params = {name: draw(d, d) / 2 for name in ("q", "k", "v", "up", "down")}
        self.grads = {}

    def norm(self, x):
        c = x - x.mean(-1, keepdims=True)
        s = np.sqrt((c * c).mean(-1, keepdims=True) + 1e-5)
        return c / s, s

    def norm_back(self, d, y, s):
        if self.slip == "norm":
            return d / s
        return (d - d.mean(-1, keepdims=True) - y * (d * y).mean(-1, keepdims=True)) / s

    def forward(self, x):
        p = self.params
        self.a, self.sa = self.norm(x)
        self.q, self.k, self.v = (self.a @ p[name] for name in "qkv")
        self.p = softmax(self.q @ self.k.T / np.sqrt(x.shape[-1]))
        x = x + self.p @ self.v
        self.m, self.sm = self.norm(x)
        self.h = np.tanh(self.m @ p["up"])
        return x + self.h @ p["down"]

    def backward(self, dout):
        p = self.params
        self.grads["down"] = self.h.T @ dout
        dh = dout @ p["down"].T * (1 - self.h**2)
        self.grads["up"] = self.m.T @ dh
        d = self.norm_back(dh @ p["up"].T, self.m, self.sm)
        d = d if self.slip == "residual" else d + dout
        dp = d @ self.v.T
        ds = self.p * (dp - (dp * self.p).sum(-1, keepdims=True)) / np.sqrt(d.shape[-1])
        gradients = {"q": ds @ self.k, "k": ds.T @ self.q, "v": self.p.T @ d}
        if self.slip == "values":
            gradients["v"] = self.p @ d
        self.grads |= {name: self.a.T @ g for name, g in gradients.items()}
        da = sum(g @ p[name].T for name, g in gradients.items() if not (self.slip == "keys" and name == "k"))
        return d + self.norm_back(da, self.a, self.sa)


for _slip, _sentence in {
    "norm": "In backward, LayerNorm is treated as a division.",
    "residual": "The second residual connection is left out backwards.",
    "values": "The values' gradient has the attention matrix untransposed.",
    "keys": "The path through the keys is missing in dx only.",
}.items():
    wrong(f"spatial/transformer-block-{_slip}", _sentence)(
        lambda seed, slip=_slip: check_layer(Block(Draw(seed), 4, slip), Draw(seed + 5)(5, 4))
    )


class SmallConvNet:
    """Convolution, ReLU and a linear layer, with another flattening order in backward."""

    def __init__(self, draw):
        self.params = {"conv": draw(2, 1, 3, 3) / 2, "bias": draw(2), "W": draw(18, 3) / 2}

    def loss(self, x, t):
        p = self.params
        self.y, self.cache = conv_forward(x, p["conv"], p["bias"])
        self.flat = np.maximum(self.y, 0).reshape(len(x), -1)
        self.e = self.flat @ p["W"] - t
        return 0.5 * (self.e**2).mean()

    def gradient(self, x, t):
        self.loss(x, t)
        d = self.e / self.e.size
        n, c, rows, cols = self.y.shape
        dy = (d @ self.params["W"].T).reshape(n, rows, cols, c).transpose(0, 3, 1, 2) * (self.y > 0)
        _, dconv, _ = conv_backward(dy, self.cache, "")
        return {"conv": dconv, "bias": dy.sum((0, 2, 3)), "W": self.flat.T @ d}


@wrong(
    "spatial/network-unflattens-in-another-order",
    "forward flattens (channels, rows, columns), backward unflattens (rows, columns, channels).",
)
def _(seed):
    draw = Draw(seed)
    return check_network(SmallConvNet(draw), draw(4, 1, 5, 5), draw(4, 3))
