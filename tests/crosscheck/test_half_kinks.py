"""Tests that functions with kinks pass in 16 bits, and that wrong gradients of them fail there."""

import numpy as np
import pytest
from conftest import mostly_slow
from crosscheck.half_grid import HALVES

from jaxnet.crosscheck import Cause, Verdict, check_layer

pytestmark = pytest.mark.filterwarnings("ignore")


def relu(x):
    return np.maximum(x, x.dtype.type(0)), x


def clip(x):
    return np.clip(x, x.dtype.type(-1), x.dtype.type(1)), x


def pairs(x):
    return x.reshape(len(x), -1, 2)


def argmax_mask(x):
    return np.arange(x.shape[-1]) == x.argmax(-1)[..., None]


RIGHT = {
    "relu": (relu, lambda dout, x: dout * (x > 0)),
    "absolute value": (lambda x: (np.abs(x), x), lambda dout, x: dout * np.sign(x)),
    "clip": (clip, lambda dout, x: dout * (np.abs(x) < 1)),
    "maximum": (lambda x: (x.max(-1), x), lambda dout, x: dout[..., None] * argmax_mask(x)),
    "max pool": (
        lambda x: (pairs(x).max(-1), x),
        lambda dout, x: (dout[..., None] * argmax_mask(pairs(x))).reshape(x.shape),
    ),
    "hinge": (lambda x: relu(x.dtype.type(1) - x), lambda dout, margin: -dout * (margin > 0)),
}
WRONG = {
    "no mask": (relu, lambda dout, x: dout),
    "the other side": (relu, lambda dout, x: dout * (x < 0)),
    "factor 1.5": (relu, lambda dout, x: dout * (x > 0) * x.dtype.type(1.5)),
    "mask of y >= 0": (lambda x: (relu(x)[0], relu(x)[0]), lambda dout, y: dout * (y >= 0)),
    "no sign": (lambda x: (np.abs(x), x), lambda dout, x: dout),
    "no bounds": (clip, lambda dout, x: dout),
}
WRONG_IN_HALF = {
    "no mask": lambda dout, x: dout,
    "the other side": lambda dout, x: dout * (x < 0),
    "factor 1.5": lambda dout, x: dout * (x > 0) * x.dtype.type(1.5),
}


def drawn(half, shape=(6, 8), zeros=slice(0)):
    x = np.random.default_rng(0).normal(size=shape).astype(HALVES[half])
    x.flat[zeros] = 0
    return x


@pytest.mark.parametrize("shape", [(6, 8), (64, 32)])
@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("function", mostly_slow(RIGHT, 3))
def test_a_function_with_kinks_passes_in_16_bits(function, half, shape):
    report = check_layer(RIGHT[function], drawn(half, shape))
    assert report.verdict is Verdict.PASS, str(report)


@pytest.mark.parametrize("half", HALVES)
def test_zeros_at_the_kink_of_relu_may_have_either_slope(half):
    x = drawn(half, zeros=slice(None, None, 7))
    assert check_layer(RIGHT["relu"], x).verdict is Verdict.PASS
    assert check_layer((relu, lambda dout, x: dout * (x >= 0)), x).verdict is Verdict.PASS


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_gradient_at_kinks_fails_in_16_bits(mistake, half):
    leaf = check_layer(WRONG[mistake], drawn(half)).leaves[0]
    assert (leaf.verdict, leaf.cause) == (Verdict.FAIL, Cause.ANALYTIC_WRONG), str(leaf)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("mistake", WRONG_IN_HALF)
def test_a_gradient_that_is_wrong_in_16_bits_alone_fails(mistake, half):
    def backward(dout, x):
        rule = WRONG_IN_HALF[mistake] if x.dtype.itemsize == 2 else RIGHT["relu"][1]
        return rule(dout, x)

    leaf = check_layer((relu, backward), drawn(half)).leaves[0]
    assert (leaf.verdict, leaf.cause) == (Verdict.FAIL, Cause.LOW_PRECISION), str(leaf)


@pytest.mark.parametrize("half", HALVES)
def test_code_that_rejects_float64_is_judged_in_float32(half):
    def forward(x):
        if x.dtype == np.float64:
            raise TypeError("float64")
        return relu(x)

    assert check_layer((forward, RIGHT["relu"][1]), drawn(half)).verdict is Verdict.PASS
    assert check_layer((forward, WRONG["no mask"][1]), drawn(half)).verdict is Verdict.FAIL
