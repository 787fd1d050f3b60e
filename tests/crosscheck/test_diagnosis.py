"""Tests that the diagnosis names slips, from the whole true gradient or a sample, exact or noisy, but no other errors.

The true gradients are closed forms.
"""

import time

import numpy as np
import pytest
from conftest import exhaustive, sampled

from jaxnet.crosscheck import check_layer
from jaxnet.crosscheck.explain.diagnosis import DiagnosisInput, Slip, diagnose

CASES = {}
EXACT, NOISY = 1e-9, 1e-4


def case(name, slip, says="", never="", noisy=True, whole=True):
    """Adds a case: a function of a generator that returns (claimed, true, other fields of DiagnosisInput)."""

    def add(make):
        assert name not in CASES
        CASES[name] = make, slip, says, never, noisy, whole
        return make

    return add


def evidence(rng, claimed, true, accuracy=EXACT, sampled=False, leaf="x", **fields):
    """Returns the input of a diagnosis: noise of the given accuracy, 30 elements and both ends, three probes."""
    size = np.abs(true).max()
    probes = []
    for _ in range(3):
        direction = rng.standard_normal(true.shape)
        error = accuracy * size * np.sqrt(true.size)
        probes.append((direction, float((direction * true).sum()) + 0.5 * error * rng.uniform(-1, 1), error))
    measured = true + accuracy * size * rng.uniform(-1, 1, true.shape)
    if sampled and true.size > 60:
        chosen = rng.permutation(true.size)[:30]
        first, last = np.arange(8), np.arange(true.size - 8, true.size)
        unmeasured = np.setdiff1d(np.arange(true.size), np.concatenate([chosen, first, last]))
        measured = measured.copy()
        measured.flat[unmeasured] = np.nan
    return DiagnosisInput(leaf, claimed, measured, accuracy, tuple(probes), **fields)


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def pointwise(rng, f, df, claimed, positive=False):
    """Returns the gradients of y = f(x), where the claimed derivative is a function of (x, y)."""
    x = rng.standard_normal((13, 9))
    x = np.abs(x) + 0.2 if positive else x
    y, dout = f(x), rng.standard_normal(x.shape)
    return dout * claimed(x, y), dout * df(x), {"leaves": {"x": x}, "dout": dout, "output": y}


def affine(rng, N=7, D=12, M=9):
    x, W, dout = rng.standard_normal((N, D)), rng.standard_normal((D, M)), rng.standard_normal((N, M))
    fields = {"leaves": {"x": x, "W": W, "b": rng.standard_normal(M)}, "dout": dout, "output": x @ W}
    return x, W, dout, fields


# -- one number


@case("factor-2", Slip.FACTOR, "it equals the true gradient times 2: an extra factor of 2")
def _(rng):
    x, _, dout, fields = affine(rng)
    return 2 * x.T @ dout, x.T @ dout, {"leaf": "W", **fields}


@case("constant-missing", Slip.FACTOR, "1 over c: c = 0.5 is missing")
def _(rng):
    dout = rng.standard_normal((6, 8))
    return dout, 0.5 * dout, {"dout": dout, "numbers": {"c": 0.5}, "leaves": {"x": rng.standard_normal((6, 8))}}


@case("mean-for-sum", Slip.FACTOR, "1 over 7 (the batch size): an extra 1/N, a mean instead of a sum")
def _(rng):
    _, _, dout, fields = affine(rng)
    return dout.mean(axis=0), dout.sum(axis=0), {"leaf": "b", **fields}


@case("n-1-for-n", Slip.FACTOR, "n - 1 instead of n")
def _(rng):
    x, _, dout, fields = affine(rng)
    return x.T @ dout * 7 / 6, x.T @ dout, {"leaf": "W", **fields}


@case("root-of-d", Slip.FACTOR, "the square root of 12")
def _(rng):
    _x, W, dout, fields = affine(rng)
    return dout @ W.T, dout @ W.T / np.sqrt(12), fields


@case("keep-probability", Slip.FACTOR, "1 - rate, the keep probability")
def _(rng):
    dout = rng.standard_normal((11, 10))
    mask = rng.random((11, 10)) < 0.7
    return dout * mask * 0.7, dout * mask, {"dout": dout, "numbers": {"rate": 0.3}}


@case("unexplained-factor", Slip.FACTOR, "times 1.37")
def _(rng):
    x, _, dout, fields = affine(rng)
    return 1.371 * x.T @ dout, x.T @ dout, {"leaf": "W", **fields}


@case("sign", Slip.SIGN, "the sign is wrong")
def _(rng):
    x, _, dout, fields = affine(rng)
    return -x.T @ dout, x.T @ dout, {"leaf": "W", **fields}


@case("sign-of-a-single-element", Slip.SIGN, "sign", never="times", noisy=False)
def _(rng):
    return np.array(-0.7), np.array(0.7), {"leaf": "s"}


@case("zero", Slip.ZERO, "it is zero everywhere")
def _(rng):
    x, _, dout, fields = affine(rng)
    return 0 * x.T @ dout, x.T @ dout, {"leaf": "W", **fields}


@case("absolute-value", Slip.ABSOLUTE, "absolute value", whole=False)
def _(rng):
    x, t = rng.standard_normal((2, 8, 9))
    return np.sign(x - t), 2 * (x - t), {"leaves": {"x": x, "t": t}}


@case("clipped", Slip.CLIPPED, "clipped to [-1, 1]", whole=False)
def _(rng):
    true = 2 * rng.standard_normal((9, 10))
    return np.clip(true, -1, 1), true, {}


# -- misplaced


@case("transposed", Slip.TRANSPOSED, "transposed")
def _(rng):
    true = rng.standard_normal((9, 9))
    return true.T.copy(), true, {"leaf": "W"}


@case("axes-exchanged", Slip.TRANSPOSED, "axes 0 and 1 exchanged: transposed")
def _(rng):
    true = rng.standard_normal((5, 5, 3, 3))
    return true.swapaxes(0, 1).copy(), true, {"leaf": "W"}


@case("axes-permuted", Slip.TRANSPOSED, "its axes in another order")
def _(rng):
    true = rng.standard_normal((4, 4, 4))
    return true.transpose(1, 2, 0).copy(), true, {}


@case("reshaped", Slip.RESHAPED, "a reshape instead of a transpose")
def _(rng):
    true = rng.standard_normal((8, 12))
    return true.T.copy().reshape(8, 12), true, {"leaf": "W"}


@case("heads-not-moved-back", Slip.TRANSPOSED, "axes must first be put in the order (0, 2, 1, 3)")
def _(rng):
    dout = rng.standard_normal((2, 3, 5, 4))
    return dout.reshape(2, 5, 12), dout.transpose(0, 2, 1, 3).reshape(2, 5, 12), {"dout": dout}


@case("time-reversed", Slip.REVERSED, "reversed along axis 1")
def _(rng):
    true = rng.standard_normal((4, 6, 5))
    return true[:, ::-1].copy(), true, {}


@case("batch-reversed", Slip.REVERSED, "reversed along axis 0")
def _(rng):
    true = rng.standard_normal((11, 7))
    return true[::-1].copy(), true, {}


@case("kernel-not-flipped", Slip.REVERSED, "a kernel that is not flipped")
def _(rng):
    true = rng.standard_normal((4, 3, 3, 3))
    return true[:, :, ::-1, ::-1].copy(), true, {"leaf": "W"}


@case("rolled", Slip.ROLLED, "rolled by 1 along axis 1: shifted by one")
def _(rng):
    true = rng.standard_normal((9, 8))
    return np.roll(true, 1, axis=1), true, {}


@case("rolled-the-other-way", Slip.ROLLED, "rolled by 4 along axis 0")
def _(rng):
    dout = rng.standard_normal((11, 8))
    return np.roll(dout, 2, axis=0), np.roll(dout, -2, axis=0), {"dout": dout}


@case("put-back-at-the-start", Slip.ROLLED, "rolled by -3 along axis 1")
def _(rng):
    true = np.pad(rng.standard_normal((8, 6)), ((0, 0), (3, 4)))
    return np.roll(true, -3, axis=1), true, {}


@case(
    "shifted-by-one-row",
    Slip.ROW_SHIFT,
    "shifted by one along axis 0: row i + 1 holds the values of row i",
    whole=False,
)
def _(rng):
    true, start = rng.standard_normal((12, 8)), rng.standard_normal((1, 8))
    return np.concatenate([start, true[:-1]]), true, {"leaf": "W"}


@case("gates-exchanged", Slip.BLOCKS_EXCHANGED, "its 4 blocks along axis 1 are in the wrong order: 2, 1, 0, 3")
def _(rng):
    true = rng.standard_normal((6, 20))
    return np.concatenate([true[:, 10:15], true[:, 5:10], true[:, :5], true[:, 15:]], axis=1), true, {"leaf": "W"}


@case("permutation-for-its-inverse", Slip.PERMUTED, "order is applied again instead of its inverse")
def _(rng):
    dout, order = rng.standard_normal((11, 8)), rng.permutation(11)
    return dout[order], dout[np.argsort(order)], {"dout": dout, "integers": {"order": order}}


@case(
    "cropped-on-the-wrong-side",
    Slip.CROPPED,
    "cut out of dout at the wrong place: it begins at 0 instead of 2 along axis 1",
)
def _(rng):
    dout = rng.standard_normal((9, 12))
    return dout[:, :8].copy(), dout[:, 2:10].copy(), {"dout": dout}


@case("cumulative-sum", Slip.CUMULATIVE, "starts at the wrong end")
def _(rng):
    dout = rng.standard_normal((9, 8))
    return dout.cumsum(axis=1), dout[:, ::-1].cumsum(axis=1)[:, ::-1], {"dout": dout}


# -- a part


@case("row-not-written", Slip.PART_MISSING, "a part is missing: row 0 is zero", whole=False)
def _(rng):
    true = rng.standard_normal((10, 8))
    claimed = true.copy()
    claimed[0] = 0
    return claimed, true, {"leaf": "W"}


@case("last-rows-lost", Slip.PART_MISSING, "a part is missing", whole=False)
def _(rng):
    true = rng.standard_normal((10, 8))
    claimed = true.copy()
    claimed[7:] = 0
    return claimed, true, {"leaf": "W"}


@case("constant-where-not-written", Slip.NEVER_WRITTEN, "as if never written", whole=False)
def _(rng):
    true = rng.standard_normal((10, 8))
    claimed = true.copy()
    claimed[8:] = 7.0
    return claimed, true, {"leaf": "W"}


@case("relu-mask-not-applied", Slip.MASK_MISSING, "a mask is missing")
def _(rng):
    x, dout = rng.standard_normal((2, 11, 8))
    return dout, dout * (x > 0), {"leaves": {"x": x}, "dout": dout, "output": np.maximum(x, 0)}


@case("causal-mask-not-applied", Slip.MASK_MISSING, "causal")
def _(rng):
    true = rng.standard_normal((9, 9))
    return true, np.tril(true), {}


@case("mask-inverted", Slip.MASK_INVERTED, "the mask is inverted", whole=False)
def _(rng):
    x, dout = rng.standard_normal((2, 11, 8))
    return dout * (x <= 0), dout * (x > 0), {"leaves": {"x": x}, "dout": dout}


@case("other-slope", Slip.PART_FACTOR, "the true gradient times 0.1", whole=False)
def _(rng):
    x, dout = rng.standard_normal((2, 11, 8))
    return dout * np.where(x > 0, 1, 0.01), dout * np.where(x > 0, 1, 0.1), {"leaves": {"x": x}, "dout": dout}


@case("slopes-exchanged", Slip.PART_FACTOR, "the two sides are exchanged")
def _(rng):
    x, dout = rng.standard_normal((2, 11, 8))
    return dout * np.where(x > 0, 0.2, 1), dout * np.where(x > 0, 1, 0.2), {"leaves": {"x": x}, "dout": dout}


@case("sign-of-a-part", Slip.PART_SIGN, "the sign is wrong in a part", whole=False)
def _(rng):
    true = rng.standard_normal((11, 8))
    claimed = true.copy()
    claimed[:, 4:] *= -1
    return claimed, true, {"leaf": "W"}


@case("divided-by-lengths", Slip.LINE_FACTORS, "one factor for each row", whole=False)
def _(rng):
    true, lengths = rng.standard_normal((5, 20)), np.array([3, 2, 5, 4, 7])
    return true / lengths[:, None], true, {"integers": {"lengths": lengths}}


@case("nan-in-the-other-branch", Slip.NAN, "nan", whole=False)
def _(rng):
    true = rng.standard_normal((8, 9))
    claimed = true.copy()
    claimed[true < -0.5] = np.nan
    return claimed, true, {}


# -- sums


@case("wrong-axis", Slip.WRONG_AXIS, "summed over the wrong axis: over axis 1")
def _(rng):
    dout = rng.standard_normal((9, 9))
    return dout.sum(axis=1), dout.sum(axis=0), {"leaf": "b", "dout": dout}


@case("axis-too-many", Slip.SUMMED_TOO_MUCH, "summed over too many axes")
def _(rng):
    dout = rng.standard_normal((7, 9))
    return np.full(9, dout.sum()), dout.sum(axis=0), {"leaf": "b", "dout": dout}


for part, says in {
    "last": "only the last term", "first": "only the first term", "without-last": "the last term left out",
    "without-first": "the first term left out", "last-block": "the last block lost",
}.items():  # fmt: skip

    @case(f"bias-{part}", Slip.PARTIAL_SUM, says)
    def _(rng, part=part):
        _, _, dout, fields = affine(rng, N=11)
        chosen = {"last": dout[-1:], "first": dout[:1], "without-last": dout[:-1], "without-first": dout[1:],
                  "last-block": dout[:8]}[part]  # fmt: skip
        return chosen.sum(axis=0), dout.sum(axis=0), {"leaf": "b", **fields}


@case("weights-of-a-lost-block", Slip.PARTIAL_SUM, "the last block lost, 3 terms of 7")
def _(rng):
    x, _, dout, fields = affine(rng)
    return x[:4].T @ dout[:4], x.T @ dout, {"leaf": "W", **fields}


@case("weights-of-a-lost-sample", Slip.PARTIAL_SUM, "term 3 left out")
def _(rng):
    x, _, dout, fields = affine(rng)
    rest = [0, 1, 2, 4, 5, 6]
    return x[rest].T @ dout[rest], x.T @ dout, {"leaf": "W", **fields}


@case("last-step-alone", Slip.PARTIAL_SUM, "only the last term along axis 1")
def _(rng):
    dout = rng.standard_normal((3, 5, 9))
    return dout[:, -1].sum(axis=0), dout.sum(axis=(0, 1)), {"leaf": "b", "dout": dout}


@case("gamma-without-xhat", Slip.WRONG_MULTIPLIER, "the factor that multiplies dout is missing")
def _(rng):
    x, dout = rng.standard_normal((2, 8, 12))
    xhat = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)
    return dout.sum(axis=0), (dout * xhat).sum(axis=0), {"leaf": "gamma", "leaves": {"x": x}, "dout": dout}


@case("gamma-with-x", Slip.WRONG_MULTIPLIER, "it is dout * x summed over axis 0")
def _(rng):
    x, dout = rng.standard_normal((2, 8, 12))
    xhat = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)
    return (dout * x).sum(axis=0), (dout * xhat).sum(axis=0), {"leaf": "gamma", "leaves": {"x": x}, "dout": dout}


def embedding(rng):
    ids, dout = rng.integers(0, 9, (4, 5)), rng.standard_normal((4, 5, 8))
    true = np.zeros((9, 8))
    np.add.at(true, ids, dout)
    return ids, dout, true, {"leaf": "W", "integers": {"ids": ids}, "dout": dout}


@case(
    "duplicates-overwritten",
    Slip.OVERWRITTEN,
    "duplicates are overwritten: rows that occur more than once in ids keep only the last",
)
def _(rng):
    ids, dout, true, fields = embedding(rng)
    claimed = np.zeros_like(true)
    claimed[ids] = dout
    return claimed, true, fields


@case("duplicates-averaged", Slip.AVERAGED, "duplicates are averaged")
def _(rng):
    ids, _, true, fields = embedding(rng)
    return true / np.maximum(np.bincount(ids.ravel(), minlength=9), 1)[:, None], true, fields


# -- factors that are arrays


@case("gamma-missing", Slip.MISSING_FACTOR, "the factor gamma is missing")
def _(rng):
    dout, gamma = rng.standard_normal((7, 10)), rng.standard_normal(10)
    return dout, dout * gamma, {"leaves": {"x": rng.standard_normal((7, 10)), "gamma": gamma}, "dout": dout}


@case("gamma-twice", Slip.EXTRA_FACTOR, "the factor gamma is applied once too often")
def _(rng):
    g, gamma = rng.standard_normal((7, 10)), rng.standard_normal(10)
    return g * gamma, g, {"leaves": {"x": rng.standard_normal((7, 10)), "gamma": gamma}}


@case("other-argument", Slip.DERIVATIVE, "it is dout times x, but should be dout times z")
def _(rng):
    x, z, dout = rng.standard_normal((3, 7, 10))
    return dout * x, dout * z, {"leaves": {"x": x, "z": z}, "dout": dout}


for name, f, df, claimed, slip, says in (
    ("tanh-1-y", np.tanh, lambda x: 1 - np.tanh(x) ** 2, lambda x, y: 1 - y, Slip.DERIVATIVE,
     "dout times 1 - y, but should be dout times (1 - y**2)"),
    ("tanh-at-x", np.tanh, lambda x: 1 - np.tanh(x) ** 2, lambda x, y: 1 - x**2, Slip.DERIVATIVE,
     "dout times (1 - x**2), but should be dout times (1 - y**2)"),
    ("tanh-of-y", np.tanh, lambda x: 1 - np.tanh(x) ** 2, lambda x, y: 1 - np.tanh(y) ** 2, Slip.DERIVATIVE,
     "(1 - tanh(y)**2)"),
    ("tanh-dropped", np.tanh, lambda x: 1 - np.tanh(x) ** 2, lambda x, y: 1 + 0 * x, Slip.DOUT_ITSELF, "dout itself"),
    ("sigmoid-y", sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x)), lambda x, y: y, Slip.DERIVATIVE,
     "dout times y, but should be dout times y (1 - y)"),
    ("sigmoid-of-y", sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x)), lambda x, y: sigmoid(y) * (1 - sigmoid(y)),
     Slip.DERIVATIVE, "dout times sigmoid(y) (1 - sigmoid(y)), but should be dout times y (1 - y)"),
    ("silu-first-term", lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))),
     lambda x, y: sigmoid(x), Slip.DERIVATIVE, "dout times sigmoid(x), but should be dout times silu'(x)"),
    ("cube", lambda x: x**3, lambda x: 3 * x**2, lambda x, y: 3 * x, Slip.MISSING_FACTOR, "the factor x is missing"),
    ("sine", np.sin, np.cos, lambda x, y: np.sin(x), Slip.DERIVATIVE, "should be dout times cos(x)"),
):  # fmt: skip

    @case(name, slip, says)
    def _(rng, f=f, df=df, claimed=claimed):
        return pointwise(rng, f, df, claimed)


@case("sigmoid-once-too-often", Slip.EXTRA_FACTOR, "is applied once too often")
def _(rng):
    x, t = rng.standard_normal((9, 8)), rng.integers(0, 2, (9, 8))
    p = sigmoid(x)
    return (p - t) * p * (1 - p), p - t, {"leaves": {"x": x}, "integers": {"t": t}}


# -- softmax and losses


def soft(rng, axis=-1):
    x, dout = rng.standard_normal((2, 9, 8))
    y = softmax(x, axis)
    total = (y * dout).sum(axis=axis, keepdims=True)
    return x, y, dout, y * (dout - total), {"leaves": {"x": x}, "dout": dout, "output": y}


@case("softmax-sum-forgotten", Slip.SOFTMAX_SUM, "the sum over p is forgotten")
def _(rng):
    _, y, dout, true, fields = soft(rng)
    return y * dout, true, fields


@case("softmax-diagonal", Slip.SOFTMAX_SUM, "only the diagonal y (1 - y) of the Jacobian is there")
def _(rng):
    _, y, dout, true, fields = soft(rng)
    return y * (1 - y) * dout, true, fields


@case(
    "softmax-wrong-axis",
    Slip.SOFTMAX_AXIS,
    "the sum over p is taken along the wrong axis: along axis 0 instead of axis 1",
)
def _(rng):
    _, y, dout, true, fields = soft(rng)
    return y * (dout - (y * dout).sum(axis=0)), true, fields


@case("softmax-unknown-dout", Slip.SOFTMAX_SUM, "the sum over p is forgotten")
def _(rng):
    x, y, dout, true, _ = soft(rng)
    return y * dout, true, {"leaves": {"x": x}, "dout": rng.standard_normal((9, 3))}


@case("log-softmax-sum", Slip.SOFTMAX_SUM, "the sum of dout is forgotten")
def _(rng):
    _x, y, dout, _, fields = soft(rng)
    return dout - y * dout, dout - y * dout.sum(axis=1, keepdims=True), {**fields, "output": np.log(y)}


def cross_entropy(rng):
    x, t = 2 * rng.standard_normal((9, 8)), rng.integers(0, 8, 9)
    p, one_hot = softmax(x), np.eye(8)[t]
    return p, one_hot, (p * one_hot).sum(axis=1, keepdims=True), {
        "leaves": {"x": x}, "integers": {"t": t}, "dout": np.ones(()), "output": np.ones(())}  # fmt: skip


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("eps", [1e-7, 1e-3, 1e-2])
def test_an_eps_in_the_log_is_recovered(labels, eps):
    """The eps of log(p + eps) is found with the labels and without them."""
    p, one_hot, own, fields = cross_entropy(np.random.default_rng(0))
    claimed = (p - one_hot) / 9
    if not labels:
        fields["integers"] = {}
    diagnosis_input = evidence(
        np.random.default_rng(1), claimed, claimed * own / (own + eps), 1e-9 if eps < 1e-3 else 1e-6, **fields
    )
    diagnosis = diagnose(diagnosis_input)
    assert diagnosis.slip is Slip.EPSILON
    assert f"{eps:g}" in diagnosis.sentence
    assert "forward and backward do not match" in diagnosis.sentence


@case("targets-forgotten", Slip.TARGET, "the target t is not subtracted")
def _(rng):
    p, one_hot, _, fields = cross_entropy(rng)
    return p / 9, (p - one_hot) / 9, fields


@case("label-of-the-row-before", Slip.ROW_SHIFT, "the target t is shifted by one: each row uses that of the row before")
def _(rng):
    p, one_hot, _, fields = cross_entropy(rng)
    return (p - np.roll(one_hot, 1, axis=0)) / 9, (p - one_hot) / 9, fields


# -- normalisation


def normalised(rng, axis, eps=1e-5):
    x, dout, gamma = rng.standard_normal((11, 8)), rng.standard_normal((11, 8)), 1 + rng.random(8)
    std = np.sqrt(x.var(axis=axis, keepdims=True) + eps)
    xhat, d = (x - x.mean(axis=axis, keepdims=True)) / std, dout * gamma
    mean, slope = d.mean(axis=axis, keepdims=True), (d * xhat).mean(axis=axis, keepdims=True)
    fields = {"leaves": {"x": x, "gamma": gamma}, "dout": dout, "output": gamma * xhat, "numbers": {"eps": eps}}
    return d, mean, xhat, slope, std, (d - mean - xhat * slope) / std, fields


for axis in (0, 1):
    for name, slip, says, wrong in (
        ("mean", Slip.MEAN_TERM, "the term through the mean is missing", lambda d, m, h, s, std, n: (d - h * s) / std),
        ("variance", Slip.VARIANCE_TERM, "the term through the variance is missing",
         lambda d, m, h, s, std, n: (d - m) / std),
        ("both", Slip.STATISTICS, "the terms through mean and variance are missing",
         lambda d, m, h, s, std, n: d / std),
        ("sum", Slip.VARIANCE_TERM, "has a sum instead of a mean",
         lambda d, m, h, s, std, n: (d - m - n * h * s) / std),
        ("unbiased", Slip.VARIANCE_TERM, "divided by n - 1 instead of n",
         lambda d, m, h, s, std, n: (d - m - n / (n - 1) * h * s) / std),
        ("root", Slip.MISSING_FACTOR, "the standard deviation of x",
         lambda d, m, h, s, std, n: (d - m - h * s) / std**2),
    ):  # fmt: skip

        @case(f"normalised-{axis}-{name}", slip, says)
        def _(rng, axis=axis, wrong=wrong):
            d, mean, xhat, slope, std, true, fields = normalised(rng, axis)
            return wrong(d, mean, xhat, slope, std, d.shape[axis]), true, fields

    @case(f"normalised-{axis}-eps", Slip.EPSILON, "eps = 0.1 is added to the variance", noisy=True)
    def _(rng, axis=axis):
        *_, std, true, fields = normalised(rng, axis, eps=0.1)
        return true * std / np.sqrt(std**2 - 0.1), true, {**fields, "numbers": {"eps": 0.1}}


@case("norm-forgotten", Slip.MISSING_FACTOR, "the norm of x along axis 1")
def _(rng):
    x, dout = rng.standard_normal((2, 11, 8))
    n = np.linalg.norm(x, axis=1, keepdims=True)
    claimed = dout - x / n * (x / n * dout).sum(axis=1, keepdims=True)
    return claimed, claimed / n, {"leaves": {"x": x}, "dout": dout, "output": x / n}


# -- the product rule

PRODUCT_RULES = (
    ("first-term-alone", lambda s, x, c: s, Slip.TERM_MISSING, "the term beta x sigmoid'(beta x) of the product rule"),
    ("second-term-alone", lambda s, x, c: c * x * s * (1 - s), Slip.TERM_MISSING, "the term sigmoid(beta x) of the"),
    (
        "without-beta",
        lambda s, x, c: s + x * s * (1 - s),
        Slip.MISSING_FACTOR,
        "the factor beta is missing in the term",
    ),
    ("without-x", lambda s, x, c: s + c * s * (1 - s), Slip.MISSING_FACTOR, "the factor x is missing in the term"),
)
for name, wrong, slip, says in PRODUCT_RULES:
    for kind, beta in (("number", np.array(1.7)), ("leaf", np.array([0.5, 0.8, 1.1, 1.4, 1.7, 2.0, 2.3, 2.6, 2.9]))):

        @case(f"swish-{name}-{kind}", slip, says)
        def _(rng, wrong=wrong, beta=beta):
            x, dout = rng.standard_normal((2, 13, 9))
            s, epsilon = sigmoid(beta * x), 1e-20
            true = dout * np.imag((x + 1j * epsilon) * sigmoid(beta * (x + 1j * epsilon))) / epsilon  # a complex step
            fields = {"leaves": {"x": x, "beta": beta}} if beta.ndim else {"numbers": {"beta": 1.7}, "leaves": {"x": x}}
            return dout * wrong(s, x, beta), true, {"dout": dout, "output": x * s, **fields}


# -- terms and products


@case("skip-connection", Slip.TERM_MISSING, "the term dout is missing")
def _(rng):
    W, dout = rng.standard_normal((8, 8)), rng.standard_normal((9, 8))
    return dout @ W.T @ W.T, dout + dout @ W.T @ W.T, {"dout": dout, "leaves": {"x": rng.standard_normal((9, 8))}}


@case("weight-decay", Slip.TERM_EXTRA, "the error is W times 0.01", noisy=False)
def _(rng):
    x, W, dout, fields = affine(rng)
    return 0.01 * W + x.T @ dout, x.T @ dout, {"leaf": "W", **fields}


@case("one-of-two-uses", Slip.TERM_MISSING, "used once instead of twice")
def _(rng):
    x, E, dout = rng.standard_normal((7, 10)), rng.standard_normal((10, 8)), rng.standard_normal((7, 10))
    first, second = x.T @ (dout @ E), dout.T @ (x @ E)
    return first, first + second, {"leaf": "E", "leaves": {"x": x, "E": E}, "dout": dout, "output": x @ E @ E.T}


@case("W-for-its-transpose", Slip.WRONG_PRODUCT, "it is dout @ W, but should be dout @ W.T")
def _(rng):
    _x, W, dout, fields = affine(rng, N=9, D=8, M=8)
    return dout @ W, dout @ W.T, fields


@pytest.mark.parametrize("accuracy", [EXACT, exhaustive(NOISY)])
@pytest.mark.parametrize("sampled", [pytest.param(False, marks=pytest.mark.slow), True], ids=["all", "sample"])
@pytest.mark.parametrize("name", CASES)
def test_a_slip_is_named(name, sampled, accuracy):
    make, slip, says, never, noisy, whole = CASES[name]
    if accuracy == NOISY and not noisy:
        pytest.skip("the slip is smaller than the noise")
    for seed in range(3):
        rng = np.random.default_rng(seed)
        claimed, true, fields = make(rng)
        diagnosis = diagnose(evidence(rng, claimed, true, accuracy, sampled, **fields))
        assert diagnosis is not None
        assert (diagnosis.slip, says in diagnosis.sentence) == (slip, True), diagnosis.sentence
        assert not never or never not in diagnosis.sentence
        assert diagnosis.whole or not whole


def test_every_reading_of_a_number_is_listed():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 6))
    fields = {"leaves": {"x": x}, "dout": x, "numbers": {"c": 0.25}}
    diagnosis = diagnose(evidence(rng, x, 0.25 * x, **fields))
    assert any("batch size" in reading for reading in diagnosis.readings)
    assert any("c = 0.25 is missing in backward" in reading for reading in diagnosis.readings)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("accuracy", [1e-9, 1e-4])
def test_a_single_element_gets_no_factor(shape, accuracy):
    diagnosis = diagnose(DiagnosisInput("s", np.full(shape, 0.5), np.full(shape, 1.0), accuracy, numbers={"c": 0.5}))
    assert diagnosis is None


def test_one_compared_element_gets_no_factor():
    true = np.full((5, 6), np.nan)
    true[2, 3] = 1.0
    assert diagnose(DiagnosisInput("x", np.full((5, 6), 0.5), true, 1e-9)) is None


@pytest.mark.parametrize(("factor", "accuracy"), [(1 + 1e-7, 1e-6), (1.001, 1e-3), (1.05, 1e-2)])
def test_an_error_within_the_accuracy_is_not_named(factor, accuracy):
    true = np.random.default_rng(0).standard_normal((7, 8))
    assert diagnose(DiagnosisInput("x", factor * true, true, accuracy)) is None


@pytest.mark.parametrize(
    ("leaf", "shape", "index", "says"),
    [
        ("W", (6, 7), np.s_[3], "row 3 is wrong"),
        ("W", (6, 7), np.s_[:, 2], "column 2 is wrong"),
        ("W", (6, 7), np.s_[4:], "rows 4, 5, the last 2, are wrong"),
        ("W", (6, 7), np.s_[2, 5], "element [2, 5] is wrong"),
        ("x", (4, 5, 3), np.s_[1], "sample 1 is wrong"),
        ("x", (4, 3, 5, 5), np.s_[:, 2], "channel or head 2 is wrong"),
        ("W", (4, 3, 5), np.s_[:, :, 1], "index along axis 2: 1 is wrong"),
    ],
)
def test_the_place_is_named_if_the_slip_is_unknown(leaf, shape, index, says):
    rng = np.random.default_rng(0)
    true = rng.standard_normal(shape)
    claimed = true.copy()
    claimed[index] += 1 + rng.random(true[index].shape)
    diagnosis = diagnose(evidence(rng, claimed, true, leaf=leaf, dout=rng.standard_normal((4, 9))))
    assert diagnosis.slip is Slip.PLACE
    assert diagnosis.sentence.startswith(says)
    assert diagnosis.sentence.endswith("and the rest is right to 1e-8")


def test_one_row_is_singular_and_several_are_plural():
    true = np.random.default_rng(0).standard_normal((4, 3))
    for rows, says in (
        ([1], "row 1 is not zero as it should be"),
        ([1, 2], "rows 1, 2 are not zero as they should be"),
    ):
        right = true.copy()
        right[rows] = 0
        assert f"a mask is missing: {says}" in diagnose(DiagnosisInput("x", true, right, 1e-9)).sentence


@pytest.mark.slow
def test_no_input_raises_an_error():
    for seed in range(100):
        rng = np.random.default_rng(seed)

        def shape(rng=rng):
            return tuple(int(n) for n in rng.integers(0 if rng.random() < 0.1 else 1, 5, rng.integers(0, 5)))

        own = shape()
        true = np.where(rng.random(own) < 0.2, np.nan, rng.standard_normal(own))
        diagnose(
            DiagnosisInput(
                "x",
                rng.standard_normal(own),
                true,
                10 ** rng.uniform(-12, 0),
                ((rng.standard_normal(own), 1.0, 1e-3),),
                {name: rng.standard_normal(shape()) for name in ("x", "W", "b")},
                rng.standard_normal(shape()),
                rng.standard_normal(own),
                {"zero": 0.0, "infinite": np.inf, "nan": np.nan, "c": -2.0, "eps": 1e-5},
                {"ids": rng.integers(-3, 5, own[:-1]), "k": np.array(3)},
                {"t": rng.integers(0, 2, own)},
            )
        )


UNRELATED = {
    "another gradient": lambda rng, true: rng.standard_normal(true.shape),
    "noise added": lambda rng, true: true + rng.standard_normal(true.shape),
    "a factor for each element": lambda rng, true: true * rng.uniform(0.5, 2, true.shape),
    "a function of it": lambda rng, true: true + 0.3 * np.sin(3 * true),
    "mixed": lambda rng, true: np.tensordot(rng.standard_normal((len(true), len(true))), true, 1),
    "some elements": lambda rng, true: true + (rng.random(true.shape) < 0.2) * rng.standard_normal(true.shape),
    "smooth": lambda rng, true: true + np.linspace(0.5, 1.5, true.size).reshape(true.shape) ** 2,
    "partly zero": lambda rng, true: true * (rng.random(true.shape) < 0.5) + rng.standard_normal(true.shape),
}


@pytest.mark.slow
@pytest.mark.parametrize("accuracy", sampled([1e-9, 1e-4, 1e-2], 3))
@pytest.mark.parametrize("large", [False, True], ids=["all", "sample"])
@pytest.mark.parametrize("kind", UNRELATED)
def test_an_unrelated_error_is_not_named(kind, large, accuracy):
    for seed, shape in enumerate([(2,), (3,), (5, 4), (9, 9), (12, 20), (2, 3, 4, 4), (4, 4, 4), (3, 7)]):
        rng = np.random.default_rng(seed)
        true = rng.standard_normal(shape)
        claimed = UNRELATED[kind](rng, true)
        dout = rng.standard_normal((7, *shape)) if len(shape) == 1 else rng.standard_normal(shape)
        fields = {
            "leaves": {
                "x": rng.standard_normal(shape),
                "W": rng.standard_normal((shape[-1], 9)),
                "t": rng.random(shape),
            },
            "dout": dout,
            "output": np.tanh(dout),
            "integers": {"ids": rng.integers(0, 2, shape[:-1] or 1)},
            "numbers": {"c": 0.5, "eps": 1e-5, "rate": 0.3, "stride": 2.0},
        }
        diagnosis = diagnose(evidence(rng, claimed, true, accuracy, large, **fields))
        assert diagnosis is None or diagnosis.slip is Slip.PLACE, (shape, diagnosis)


def test_probes_refute_a_slip_that_fits_only_the_sample():
    """The factor is 2 at the measured elements and 3 elsewhere."""
    rng = np.random.default_rng(0)
    true = rng.standard_normal((12, 20))
    diagnosis_input = evidence(rng, 2 * true, true, sampled=True)
    claimed = np.where(np.isnan(diagnosis_input.true), 3 * true, 2 * true)
    diagnosis = diagnose(evidence(np.random.default_rng(0), claimed, true, sampled=True))
    assert diagnosis is None or not diagnosis.whole
    assert diagnose(diagnosis_input).whole
    elsewhere = DiagnosisInput("x", claimed, diagnosis_input.true, diagnosis_input.accuracy, diagnosis_input.probes)
    assert diagnose(elsewhere) is None


LARGE = {
    "rows": lambda rng, x, dout: (rng.standard_normal((1000, 1000)), dout),
    "transposed": lambda rng, x, dout: (dout.T.copy(), dout),
    "tanh": lambda rng, x, dout: (dout * (1 - np.tanh(x)), dout * (1 - np.tanh(x) ** 2)),
    "layer norm": lambda rng, x, dout: (
        (dout - dout.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True),
        dout * 0.5,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sampled(LARGE, every=2))
def test_a_large_leaf_takes_milliseconds(kind):
    rng = np.random.default_rng(0)
    x, dout = rng.standard_normal((2, 1000, 1000))
    claimed, true = LARGE[kind](rng, x, dout)
    diagnosis_input = evidence(rng, claimed, true, sampled=True, leaves={"x": x}, dout=dout, output=np.tanh(x))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        diagnose(diagnosis_input)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0  # about 0.05 on an idle machine


def inaccurate_elements(claimed, true, error):
    """Returns an input whose elements are too inaccurate to be compared, with three probes that are more accurate."""
    rng = np.random.default_rng(3)
    directions = [rng.standard_normal(true.shape) for _ in range(3)]
    probes = tuple((d, float((d * true).sum()), error) for d in directions)
    return DiagnosisInput("x", claimed, true, 0.05, probes)


def test_probes_show_a_factor_that_inaccurate_elements_do_not():
    true = np.random.default_rng(2).standard_normal((6, 5))
    diagnosis = diagnose(inaccurate_elements(0.99 * true, true, 1e-3))
    assert diagnosis.slip is Slip.FACTOR
    assert "0.99" in diagnosis.sentence
    assert diagnose(inaccurate_elements(0.99 * true, true, 0.1)) is None  # the probes are inaccurate too
    row = true.copy()
    row[2] *= 0.9
    assert diagnose(inaccurate_elements(row, true, 1e-3)) is None  # there is more than one factor


@pytest.mark.parametrize(("power", "words"), [(-1, "1 over 15"), (1, "15")])
def test_a_mean_in_place_of_a_sum_is_named_for_one_element(power, words):
    x = np.random.default_rng(3).normal(size=(5, 3))

    def backward(dout, cache):
        x, gamma = cache
        return dout * gamma, np.full(1, (dout * x).sum() * 15.0**power)

    report = check_layer((lambda x, gamma: (x * gamma, (x, gamma)), backward), x, np.array([0.7]))
    assert f": {words} (the size of" in report.leaves[1].diagnosis
