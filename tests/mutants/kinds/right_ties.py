"""Right gradients at ties: pooling, sorting, order statistics, margins, integer positions, knots."""

import numpy as np

from jaxnet.crosscheck import check_function, check_layer
from mutants.kinds import Draw, right


def with_ties(draw, *shape):
    """Returns integers, some of them equal."""
    return draw.rng.integers(-3, 4, shape).astype(float)


def pooled(x):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4)


def unpooled(d, shape):
    n, c, h, w = shape
    return d.reshape(n, c, h // 2, w // 2, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(shape)


@right("tie/max-pool-first-of-the-ties", "max pooling with the whole gradient for the first of several maxima")
def pool_first(seed):
    def backward(dout, x):
        chosen = np.eye(4)[pooled(x).argmax(axis=-1)]
        return unpooled(chosen * dout[..., None], x.shape)

    return check_layer((lambda x: (pooled(x).max(axis=-1), x), backward), with_ties(Draw(seed), 2, 2, 4, 6))


@right("tie/max-pool-shared-evenly", "max pooling of whole numbers, with equal gradients for several maxima")
def pool_shared(seed):
    def backward(dout, x):
        chosen = pooled(x) == pooled(x).max(axis=-1, keepdims=True)
        return unpooled(chosen / chosen.sum(axis=-1, keepdims=True) * dout[..., None], x.shape)

    return check_layer((lambda x: (pooled(x).max(axis=-1), x), backward), with_ties(Draw(seed), 2, 2, 4, 6))


@right("tie/max-pool-of-a-relu", "max pooling of windows of zeros, as after a ReLU")
def pool_zeros(seed):
    x = np.maximum(Draw(seed)(2, 2, 4, 6) - 0.6, 0)

    def backward(dout, x):
        return unpooled(np.eye(4)[pooled(x).argmax(axis=-1)] * dout[..., None], x.shape)

    return check_layer((lambda x: (pooled(x).max(axis=-1), x), backward), x)


def sort_beside(seed):
    """Returns the error of a sort's gradient against that at a nearby point with the same order and no ties."""
    x = with_ties(Draw(seed), 3, 6)
    order = np.argsort(x, axis=1, kind="stable")
    apart = x + 1e-3 * np.argsort(order, axis=1)
    return float(np.abs(np.argsort(apart, axis=1) - order).max())


@right(
    "tie/sort",
    "a sort of partly equal numbers, whose backward uses the order found, which is right near the tie",
    true=sort_beside,
)
def sorting(seed):
    def forward(x):
        order = np.argsort(x, axis=1, kind="stable")
        return np.take_along_axis(x, order, axis=1), order

    def backward(dout, order):
        dx = np.zeros_like(dout)
        np.put_along_axis(dx, order, dout, axis=1)
        return dx

    return check_layer((forward, backward), with_ties(Draw(seed), 3, 6))


@right("tie/median", "a median of an odd number of values, several of which are equal")
def median(seed):
    def backward(dout, x):
        order = np.argsort(x, axis=1, kind="stable")[:, x.shape[1] // 2]
        return np.eye(x.shape[1])[order] * dout[:, None]

    return check_layer((lambda x: (np.median(x, axis=1), x), backward), with_ties(Draw(seed), 4, 7))


@right("tie/top-k", "the two largest, summed, where the second is as large as the third")
def top_two(seed):
    x = Draw(seed)(4, 6)
    x[:, 1] = x[:, 4] = np.sort(x, axis=1)[:, -2]

    def backward(dout, x):
        dx = np.zeros_like(x)
        np.put_along_axis(dx, np.argsort(x, axis=1, kind="stable")[:, -2:], dout[:, None], axis=1)
        return dx

    return check_layer((lambda x: (np.sort(x, axis=1)[:, -2:].sum(axis=1), x), backward), x)


@right(
    "tie/elementwise-maximum-of-equals",
    "the maximum of two partly equal arrays, with the whole gradient for the first",
)
def larger(seed):
    draw = Draw(seed)
    a, b = with_ties(draw, 4, 5), with_ties(draw, 4, 5)
    first = lambda a, b, dout: (dout * (a >= b), dout * (a < b))  # noqa: E731
    return check_function(np.maximum, a, b, gradient=first, takes_dout=True, name="maximum")


@right("tie/elementwise-minimum-halved", "the minimum of two partly equal arrays, with half of the gradient for each")
def smaller(seed):
    draw = Draw(seed)
    a, b = with_ties(draw, 4, 5), with_ties(draw, 4, 5)

    def gradient(a, b, dout):
        share = np.where(a < b, 1.0, np.where(a == b, 0.5, 0.0))
        return dout * share, dout * (1 - share)

    return check_function(lambda a, b: np.minimum(a, b), a, b, gradient=gradient)


@right("tie/maximum-over-axis", "a maximum over an axis and a minimum over all, with ties, subtracted")
def spread(seed):
    def backward(dout, x):
        dx = np.eye(x.shape[1])[x.argmax(axis=1)] * dout[:, None]
        dx[np.unravel_index(x.argmin(), x.shape)] -= dout.sum()
        return dx

    return check_layer((lambda x: (x.max(axis=1) - x.min(), x), backward), with_ties(Draw(seed), 4, 5))


@right("tie/hinge-on-the-margin", "a binary hinge loss where some samples are exactly at the margin")
def hinge(seed):
    draw = Draw(seed)
    t, score = draw.rng.choice([-1.0, 1.0], 8), draw(8)
    score[:3] = t[:3]
    return check_function(
        lambda score, t: np.maximum(0, 1 - t * score).mean(),
        score,
        t,
        gradient=lambda score, t: -t * (t * score < 1) / t.size,
    )


@right("tie/multiclass-hinge-of-equal-scores", "a multiclass hinge with weights 0: every margin is exactly 1")
def zero_scores(seed):
    draw = Draw(seed)
    x, y, w = draw(6, 4), draw.labels(6, 3), np.zeros((4, 3))

    def loss(w, x, y):
        s = x @ w
        margins = np.maximum(0, s - s[np.arange(6), y][:, None] + 1)
        margins[np.arange(6), y] = 0
        return margins.sum() / 6

    def gradient(w, x, y):
        s = x @ w
        active = (s - s[np.arange(6), y][:, None] + 1 > 0).astype(float)
        active[np.arange(6), y] = 0
        active[np.arange(6), y] = -active.sum(axis=1)
        return x.T @ active / 6

    return check_function(loss, w, x, y, gradient=gradient)


@right("tie/absolute-error-at-targets", "an L1 loss where some predictions equal the targets")
def absolute_error(seed):
    draw = Draw(seed)
    y, t = with_ties(draw, 5, 4), with_ties(draw, 5, 4)
    return check_function(lambda y, t: np.abs(y - t).mean(), y, t, gradient=lambda y, t: np.sign(y - t) / y.size)


@right("tie/quantile-loss", "a pinball loss where some predictions equal the targets, with one side's slope")
def pinball(seed):
    draw = Draw(seed)
    y, t, q = with_ties(draw, 5, 4), with_ties(draw, 5, 4), 0.9

    def loss(y, t):
        return np.maximum(q * (t - y), (q - 1) * (t - y)).sum()

    return check_function(loss, y, t, gradient=lambda y, t: np.where(t >= y, -q, 1 - q))


@right("tie/fractional-part", "x - floor(x) and its square, between whole positions: the slope is 1, or 2 r")
def fraction(seed):
    x = Draw(seed).rng.uniform(0.1, 0.9, (3, 4)) + Draw(seed).rng.integers(-4, 4, (3, 4))
    return check_function(lambda x: (x - np.floor(x)) ** 2, x, gradient=lambda x, dout: 2 * dout * (x - np.floor(x)))


@right("tie/bilinear-sampling-at-whole-positions", "an image sampled at positions some of which are integers")
def bilinear(seed):
    draw = Draw(seed)
    image, p = draw(7, 6), draw.rng.uniform(0.1, 4.9, (8, 2))
    p[:3] = np.floor(p[:3])
    p[3, 0] = np.floor(p[3, 0])

    def parts(image, p):
        i, r = np.floor(p).astype(int).T, (p - np.floor(p)).T
        corners = [[image[i[0] + a, i[1] + b] for b in (0, 1)] for a in (0, 1)]
        return i, r, corners

    def forward(image, p):
        _, (r, s), q = parts(image, p)
        y = (1 - r) * ((1 - s) * q[0][0] + s * q[0][1]) + r * ((1 - s) * q[1][0] + s * q[1][1])
        return y, (image, p)

    def backward(dout, cache):
        i, (r, s), q = parts(*cache)
        dimage = np.zeros_like(cache[0])
        for a, along in ((0, 1 - r), (1, r)):
            for b, across in ((0, 1 - s), (1, s)):
                np.add.at(dimage, (i[0] + a, i[1] + b), dout * along * across)
        dr = (1 - s) * (q[1][0] - q[0][0]) + s * (q[1][1] - q[0][1])
        ds = (1 - r) * (q[0][1] - q[0][0]) + r * (q[1][1] - q[1][0])
        return dimage, np.stack([dout * dr, dout * ds], axis=1)

    return check_layer((forward, backward), image, p)


@right("tie/linear-spline-at-knots", "piecewise linear interpolation between knots, evaluated at some of them")
def spline(seed):
    draw = Draw(seed)
    knots = np.sort(draw.rng.choice(20, 6, replace=False)).astype(float)
    values, x = draw(6), draw.rng.uniform(knots[0] + 0.1, knots[-1] - 0.1, 7)
    x[:3] = knots[1:4]

    def gradient(values, x, dout):
        i = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, 4)
        width = knots[i + 1] - knots[i]
        r, dvalues = (x - knots[i]) / width, np.zeros_like(values)
        np.add.at(dvalues, i, dout * (1 - r))
        np.add.at(dvalues, i + 1, dout * r)
        return dvalues, dout * (values[i + 1] - values[i]) / width

    return check_function(lambda values, x: np.interp(x, knots, values), values, x, gradient=gradient)


@right("tie/total-variation-of-flat-parts", "a total variation of a signal that has flat parts, with sign 0 there")
def total_variation(seed):
    x = np.repeat(with_ties(Draw(seed), 5), 3)

    def gradient(x):
        s = np.sign(np.diff(x))
        return np.concatenate([[0], s]) - np.concatenate([s, [0]])

    return check_function(lambda x: np.abs(np.diff(x)).sum(), x, gradient=gradient)
