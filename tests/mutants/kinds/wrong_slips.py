"""Slips that can be named: a mask not applied, a shift by one, a block lost, the first row for the sum."""

import numpy as np

from jaxnet.crosscheck import check_function, check_layer
from mutants.kinds import Draw, wrong


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def dense(change_w=None, change_b=None, change_x=None):
    """Returns a pair y = x w + b, with one of its gradients changed."""

    def forward(x, w, b):
        return x @ w + b, (x, w)

    def backward(dout, cache):
        x, w = cache
        dx, dw, db = dout @ w.T, x.T @ dout, dout.sum(0)
        return (
            change_x(dx, dout) if change_x else dx,
            change_w(dw, x, dout) if change_w else dw,
            change_b(db, dout) if change_b else db,
        )

    return forward, backward


def inputs(seed, n=None):
    draw = Draw(seed)
    a, d, m = draw.sizes(3)
    return draw(n or a, d), draw(d, m), draw(m)


def zeroed(dx, where):
    dx = dx.copy()
    dx[where] = 0
    return dx


def block(x, seed):
    """Returns the gradient of w when the rows beyond the last whole block of 4 are not read."""
    whole = len(x) // 4 * 4
    return x[:whole], seed[:whole]


SLIPS = {
    "bias-first-row": ("db is the first row of dout instead of the sum.", r"(?i)first|row",
                       dense(change_b=lambda db, d: d[0].copy())),
    "bias-last-row": ("db is the last row of dout instead of the sum.", r"(?i)last|row",
                      dense(change_b=lambda db, d: d[-1].copy())),
    "bias-mean": ("db is the mean instead of the sum.", r"(?i)mean|batch|times|factor",
                  dense(change_b=lambda db, d: d.mean(0))),
    "bias-never-written": ("db is made with np.empty and never written.", "",
                           dense(change_b=lambda db, d: np.full_like(db, 6.9e-310))),
    "weights-last-block": ("Rows beyond the last whole block of 4 are not read.", r"(?i)last|block|lost",
                           dense(change_w=lambda dw, x, d: block(x, d)[0].T @ block(x, d)[1])),
    "weights-last-row-of-dw": ("The last row of dW stays 0.", r"(?i)last|row",
                               dense(change_w=lambda dw, x, d: zeroed(dw, -1))),
    "x-last-sample": ("The last sample's dx stays 0.", r"(?i)last|sample|row",
                      dense(change_x=lambda dx, d: zeroed(dx, -1))),
    "x-batch-reversed": ("dx comes in the reversed order of the batch.", r"(?i)revers|order",
                         dense(change_x=lambda dx, d: dx[::-1].copy())),
    "x-shifted": ("dx is shifted by one sample.", r"(?i)shift|roll", dense(change_x=lambda dx, d: np.roll(dx, 1, 0))),
    "w-n-minus-1": ("dW is divided by n - 1 and multiplied by n.", r"(?i)n ?- ?1|times|factor",
                    dense(change_w=lambda dw, x, d: dw * len(x) / (len(x) - 1))),
}  # fmt: skip

for _name, (_sentence, _says, _pair) in SLIPS.items():

    def _run(seed, pair=_pair):
        return check_layer(pair, *inputs(seed, 7))

    wrong(f"slip/{_name}", _sentence, says=_says)(_run)


def by_time(name, sentence, forward, backward, says="", shape=(3, 6)):
    """Registers a pair of functions of one input."""
    wrong(f"slip/{name}", sentence, says=says)(lambda seed: check_layer((forward, backward), Draw(seed)(*shape)))


by_time(
    "mask-not-applied",
    "A causal mask is applied forwards and not backwards.",
    lambda z: (np.tril(np.tanh(z)), z),
    lambda d, z: d * (1 - np.tanh(z) ** 2),
    r"(?i)mask",
    (5, 5),
)
by_time(
    "cumsum-not-reversed",
    "The gradient of a cumulative sum runs forwards in time.",
    lambda x: (np.cumsum(x, 1), None),
    lambda d, _: np.cumsum(d, 1),
)
by_time(
    "cumsum-shifted",
    "The gradient of a cumulative sum leaves out the element itself.",
    lambda x: (np.cumsum(x, 1), None),
    lambda d, _: np.cumsum(d[:, ::-1], 1)[:, ::-1] - d,
)
by_time(
    "roll-wrong-way",
    "A roll by 2 is undone by another roll by 2.",
    lambda x: (np.roll(x, 2, 1), None),
    lambda d, _: np.roll(d, 2, 1),
    r"(?i)roll|shift|order|direction",
)
by_time(
    "crop-wrong-side",
    "One column of padding is cut off on the wrong side.",
    lambda x: (np.pad(x, ((0, 0), (1, 0))) ** 3, x),
    lambda d, x: d[:, :-1] * 3 * x**2,
)
by_time(
    "flip-one-axis",
    "The gradient of a flip along time flips the batch.",
    lambda x: (np.sin(x[:, ::-1]), x),
    lambda d, x: d[::-1] * np.cos(x),
    "",
    (4, 4),
)
by_time(
    "softmax-sum-forgotten",
    "Softmax's backward is p * dout, without the sum.",
    lambda z: (softmax(z), softmax(z)),
    lambda d, p: p * d,
    r"(?i)sum",
)
by_time(
    "softmax-sum-over-batch",
    "The backward of softmax sums over the batch.",
    lambda z: (softmax(z), softmax(z)),
    lambda d, p: p * (d - (p * d).sum(0)),
)
by_time(
    "softmax-diagonal-only",
    "Only the diagonal p (1 - p) of softmax's Jacobian is used.",
    lambda z: (softmax(z), softmax(z)),
    lambda d, p: d * p * (1 - p),
)
by_time(
    "variance-n-minus-1",
    "The variance divides by n, its gradient by n - 1.",
    lambda x: (x.var(1), x - x.mean(1, keepdims=True)),
    lambda d, c: 2 * d[:, None] * c / (c.shape[1] - 1),
    r"(?i)n ?- ?1|times|factor|too (large|small)",
)
by_time(
    "std-without-eps",
    "eps is only in the forward pass.",
    lambda x: (x / np.sqrt((x * x).mean(1, keepdims=True) + 0.1), x),
    lambda d, x: _rms_without_eps(d, x),
    r"(?i)eps",
)
by_time(
    "where-nan",
    "A where over a square root gives nan at negative inputs.",
    lambda x: (np.sqrt(np.where(x > 0, x, 0)), x),
    lambda d, x: np.where(x > 0, 1, 0) * d * 0.5 / np.sqrt(x),
    r"(?i)nan",
)
by_time(
    "stride-2-fills-the-odd",
    "A stride of 2 selects the even columns, and the gradient is written to the odd ones.",
    lambda x: (np.sin(x[:, ::2]), x),
    lambda d, x: _odd(d, x),
)
by_time(
    "mean-over-the-other-axis",
    "A mean over time is divided by the batch size.",
    lambda x: (x.mean(1) ** 2, x),
    lambda d, x: np.repeat((d * 2 * x.mean(1))[:, None], x.shape[1], 1) / len(x),
)
by_time(
    "upsample-keeps-the-first",
    "The gradient of nearest-neighbour upsampling is the first of each pair.",
    lambda x: (np.tanh(np.repeat(x, 2, 1)), x),
    lambda d, x: d[:, ::2] * (1 - np.tanh(x) ** 2),
)
by_time("difference-loses-its-end", "The gradient of np.diff lacks the last column.",
        lambda x: (np.diff(x, axis=1) ** 2, x), lambda d, x: _diff_back(d, x))  # fmt: skip


def _rms_without_eps(d, x):
    s = np.sqrt((x * x).mean(1, keepdims=True))
    return (d - x * (d * x).mean(1, keepdims=True) / s**2) / s


def _odd(d, x):
    dx = np.zeros_like(x)
    dx[:, 1::2] = d * np.cos(x[:, ::2])
    return dx


def _diff_back(d, x):
    dx, d = np.zeros_like(x), 2 * d * np.diff(x, axis=1)
    dx[:, :-1] -= d
    dx[:, 1:-1] += d[:, :-1]
    return dx


@wrong(
    "slip/embedding-overwrites-repeats",
    "Repeated tokens overwrite each other's gradients.",
    says=r"(?i)repeat|index|indices|overw|duplicate",
)
def _(seed):
    draw = Draw(seed)
    table, ids = draw(6, 3), np.array([[1, 2, 1], [4, 1, 2]])

    def backward(dout, cache):
        dtable = np.zeros_like(cache[0])
        dtable[cache[1]] = dout
        return dtable

    return check_layer((lambda table, ids: (table[ids], (table, ids)), backward), table, ids)


@wrong("slip/labels-shifted", "Next-token loss: the gradient uses token t instead of token t + 1.")
def _(seed):
    draw = Draw(seed)
    n, c = draw.sizes(2)

    def forward(z, ids):
        return -np.log(softmax(z[:-1])[np.arange(len(z) - 1), ids[1:]]).mean(), (z, ids)

    def backward(dout, cache):
        z, ids = cache
        dz = np.zeros_like(z)
        dz[:-1] = softmax(z[:-1])
        dz[np.arange(len(z) - 1), ids[:-1]] -= 1
        return dout * dz / (len(z) - 1)

    ids = (np.arange(n) + 1) % c
    return check_layer((forward, backward), draw(n, c), ids)


@wrong("slip/outer-product-transposed", "The gradient of a square weight is transposed.", says=r"(?i)transpos")
def _(seed):
    draw = Draw(seed)

    def gradient(w, x, dout):
        return np.outer(x, dout), w.T @ dout

    return check_function(lambda w, x: w @ x, draw(4, 4), draw(4), gradient=gradient)
