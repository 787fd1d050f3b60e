"""Interpolation, pooling, sorting and margins, partly at ties and kinks, with wrong gradients."""

import numpy as np

from jaxnet.crosscheck import check_function, check_layer
from mutants.kinds import Draw, wrong


@wrong(
    "kink/interpolation-position-sign",
    "Linear interpolation, half at integers; the gradient of the position has the wrong sign.",
)
def _(seed):
    draw = Draw(seed)

    def forward(img, pos):
        i = np.clip(np.floor(pos).astype(int), 0, len(img) - 2)
        r = pos - i
        return (1 - r) * img[i] + r * img[i + 1], (img, i, r)

    def backward(dout, cache):
        img, i, r = cache
        dimg = np.zeros_like(img)
        np.add.at(dimg, i, dout * (1 - r))
        np.add.at(dimg, i + 1, dout * r)
        return dimg, dout * (img[i] - img[i + 1])

    return check_layer((forward, backward), draw(9), np.array([1.0, 2.0, 2.5, 3.25, 5.0, 6.75]))


def _along_both(seed):
    x = np.array([[2.0, 2.0, 1.0]])
    slope = ((x + np.array([1e-6, 1e-6, 0])).max() - x.max()) / 1e-6  # along (1, 1, 0)
    return abs(2 - slope) / slope


@wrong(
    "kink/max-pool-gives-ties-everything",
    "Each of two equal maxima gets all of dout, so the slope along (1, 1) is twice too large.",
    undecided=True,
    true=_along_both,
)
def _(seed):
    draw = Draw(seed)

    def forward(x):
        return x.max(-1), (x, x.max(-1, keepdims=True))

    def backward(dout, cache):
        x, top = cache
        return dout[:, None] * (x == top)

    x = draw(4, 3)
    x[:, 1] = x[:, 0] = np.abs(x).max() + 1
    return check_layer((forward, backward), x)


@wrong("kink/max-pool-to-the-first", "Max-pooling gives its gradient to the first of each window; some windows tie.")
def _(seed):
    draw = Draw(seed)

    def backward(dout, x):
        dx = np.zeros_like(x)
        dx[:, 0] = dout
        return dx

    x = draw(6, 4)
    x[0, :2] = 3.0
    x[1:, 0] = -5.0
    return check_layer((lambda x: (x.max(-1), x), backward), x)


@wrong(
    "kink/sort-without-the-inverse",
    "A sort's gradient is permuted like the values, not inversely; some values are equal.",
)
def _(seed):
    draw = Draw(seed)

    def forward(x):
        order = np.argsort(x, kind="stable")
        return x[order] * np.arange(1, len(x) + 1), order

    def backward(dout, order):
        return (dout * np.arange(1, len(dout) + 1))[order]

    x = np.concatenate([draw(7) + np.array([0, 3, -4, 8, 2, -9, 5.0]), [40.0, 40.0]])
    return check_layer((forward, backward), draw.rng.permutation(x))


@wrong("kink/top-k-one-short", "The sum of the three largest elements, only two of which get a gradient.")
def _(seed):
    def gradient(x):
        g = np.zeros_like(x)
        g[np.argsort(x)[-2:]] = 1
        return g

    return check_function(lambda x: np.sort(x)[-3:].sum(), Draw(seed)(8), gradient=gradient)


@wrong("kink/median-of-even-count", "The median is a mean of two values, but only one of them gets the gradient.")
def _(seed):
    def gradient(x):
        g = np.zeros_like(x)
        g[np.argsort(x)[len(x) // 2]] = 1
        return g

    return check_function(np.median, Draw(seed)(8), gradient=gradient, name="median")


@wrong(
    "kink/triplet-margin-forgets-anchor",
    "A triplet loss whose anchor gets only the positive's gradient; some triplets are at the margin.",
)
def _(seed):
    draw = Draw(seed)

    def loss(a, p, n):
        return np.maximum(((a - p) ** 2).sum(-1) - ((a - n) ** 2).sum(-1) + 1, 0).sum()

    def gradient(a, p, n):
        on = (((a - p) ** 2).sum(-1) - ((a - n) ** 2).sum(-1) + 1 > 0)[:, None]
        return 2 * (a - p) * on, -2 * (a - p) * on, 2 * (a - n) * on

    a, p, n = draw(6, 3), draw(6, 3), draw(6, 3)
    a[0], p[0], n[0] = 0, 0, np.array([1.0, 0, 0])
    p[1], n[1] = a[1] + 3, a[1] + 0.1
    return check_function(loss, a, p, n, gradient=gradient)


@wrong("kink/multiclass-svm-true-class", "CS231n's hinge loss: the true class gets -1 for any number of violations.")
def _(seed):
    draw = Draw(seed)
    n, c = draw.sizes(2)

    def forward(x, y):
        margins = np.maximum(0, x - x[np.arange(len(x)), y][:, None] + 1)
        margins[np.arange(len(x)), y] = 0
        return margins.sum() / len(x), (margins, y)

    def backward(dout, cache):
        margins, y = cache
        dx = (margins > 0).astype(float)
        dx[np.arange(len(y)), y] -= 1
        return dout * dx / len(y)

    return check_layer((forward, backward), 0.1 * draw(n, c), draw.labels(n, c))
