"""Tests that sums accumulated in 16 bits are named at every draw, and that other errors in 16 bits are not named so."""

import re

import numpy as np
import pytest
from conftest import exhaustive, sampled
from crosscheck.half_grid import HALVES
from crosscheck.half_sums import SUMS, report_on

from jaxnet.crosscheck import Cause, Verdict, check_layer

pytestmark = pytest.mark.filterwarnings("ignore")  # NumPy warns of overflow

LONG = {  # the leaves whose gradients contain long sums
    "matmul": {1, 2},
    "mean": {1},
    "layer norm": {1},
    "softmax": {0},
    "log-sum-exp": {0},
    "convolution": {1},
    "attention": {0, 1, 2},
    "cumulative sum": {0},
}


def is_named(leaf, half):
    return any(f"like a sum that is accumulated in {half}" in text for text in (leaf.reason, *leaf.notes))


BFLOAT16 = HALVES["bfloat16"]
FORWARD = "in bfloat16, forward differs .* like a sum that is accumulated in bfloat16: with all axes of 4,096 cut"


def column_mean(forward_dtype):
    """Makes mean(x^2, 0) by a sum in this dtype, which in bfloat16 stops growing at 256, with a right backward."""

    def forward(x):
        total = np.add.accumulate(x * x, 0, dtype=forward_dtype if x.dtype == BFLOAT16 else x.dtype)[-1]
        return (total / len(x)).astype(x.dtype), x

    return forward, lambda dout, x: dout / dout.dtype.type(len(x) / 2) * x


@pytest.mark.parametrize("seed", [0, *map(exhaustive, (1, 2))])
@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("kernel", sampled(SUMS, 12))
def test_a_sum_in_16_bits_is_named_at_every_draw(kernel, half, seed):
    leaves = report_on(kernel, half, "sums", seed).leaves
    for i in LONG[kernel]:
        assert is_named(leaves[i], half), str(leaves[i])
        expected = Cause.HALF_ACCUMULATION if leaves[i].verdict is Verdict.FAIL else Cause.AGREES
        assert leaves[i].cause is expected


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("kernel", sampled(SUMS, 4))
def test_the_same_sum_in_float32_passes_and_is_not_named(kernel, half):
    report = report_on(kernel, half, "float32", 0)
    assert report.verdict is Verdict.PASS, str(report)
    assert not any(is_named(leaf, half) for leaf in report.leaves)


@pytest.mark.slow
@pytest.mark.parametrize("half", HALVES)
def test_positions_counted_in_16_bits_are_no_accumulation(half):
    """A rotary embedding whose positions are rounded is right in short sequences, whatever its sums do."""

    def turned(x, dtype):
        positions = np.arange(len(x)).astype(dtype).astype(np.float64)
        return np.cos(positions)[:, None] * x

    def forward(x, w):
        return (turned(x, np.float64) * w).sum(0).astype(x.dtype), (x, w)

    def backward(dout, cache):
        x, w = cache
        dx = turned(np.broadcast_to(w * dout.astype(np.float64), x.shape), x.dtype)
        return dx.astype(x.dtype), (turned(x, x.dtype).sum(0) * dout).astype(x.dtype)

    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4096, 2)).astype(HALVES[half]), rng.normal(size=2).astype(HALVES[half])
    for leaf in check_layer((forward, backward), x, w).leaves:
        assert (leaf.verdict, leaf.cause) == (Verdict.FAIL, Cause.LOW_PRECISION), str(leaf)
        assert not is_named(leaf, half)


@pytest.mark.slow
def test_a_count_beyond_the_range_is_no_accumulation():
    def forward(x):
        return x.mean(dtype=np.result_type(x.dtype, np.float32)).astype(x.dtype), x

    def backward(dout, x):
        return np.full_like(x, dout / x.dtype.type(x.size))  # 1 / inf in float16

    x = np.random.default_rng(0).normal(size=70_000).astype(np.float16)
    report = check_layer((forward, backward), x)
    assert report.verdict is not Verdict.PASS
    assert not is_named(report.leaves[0], "float16"), str(report)


def test_a_forward_alone_that_sums_in_bfloat16_is_inconclusive_and_named():
    x = np.abs(np.random.default_rng(5).normal(size=(4096, 2))).astype(BFLOAT16)
    report = check_layer(column_mean(BFLOAT16), x)
    assert [leaf.verdict for leaf in report.leaves] == [Verdict.PASS]
    assert report.verdict is Verdict.INCONCLUSIVE
    assert re.search(FORWARD, report.text(width=None))
    right = check_layer(column_mean(np.float32), x)
    assert right.verdict is Verdict.PASS
    assert "forward differs" not in right.text(width=None)


def test_another_function_in_bfloat16_is_no_sum():
    """A factor, or positions that are rounded, make another function of short arrays or of parts of them too."""

    def scaled(x):
        return x * x.dtype.type(1.5 if x.dtype == BFLOAT16 else 1.0), x

    def turned(x):
        return np.cos(np.arange(len(x)).astype(x.dtype).astype(np.float64)).astype(x.dtype)[:, None] * x, x

    x = np.random.default_rng(5).normal(size=(4096, 2)).astype(BFLOAT16)
    for forward in (scaled, turned):
        text = check_layer((forward, lambda dout, x: dout), x).text(width=None)
        assert "forward differs" not in text
