"""Tests the measurement of gradients in float16 and bfloat16 against rounding, and the causes of larger errors."""

import json

import ml_dtypes
import numpy as np
import pytest
from conftest import mostly_slow, sampled
from crosscheck.half_grid import HALVES, LAYERS, inputs_of, pair

from jaxnet.crosscheck import Cause, Verdict, check, check_function, check_layer
from jaxnet.crosscheck.measure.findings import Behaviour
from jaxnet.crosscheck.number_format import BFLOAT16, FLOAT16, half_format

pytestmark = pytest.mark.filterwarnings("ignore")  # NumPy warns of overflow, PyTorch of its own past

BF16 = np.dtype(ml_dtypes.bfloat16)
F16 = np.dtype(np.float16)


def leaf_of(report, name):
    return next(leaf for leaf in report.leaves if leaf.name == name)


def drawn(shape, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


# rounding

INTERESTING = [0.0, 1.0, -1.0, 1 + 2.0**-11, 1 + 3 * 2.0**-12, 65504.0, 65519.0, 65520.0, 2.0**-14, 2.0**-24, 2.0**-25,
               3e-8, 1e-40, 3.4e38, 3.396e38, -1e39, np.inf]  # fmt: skip


@pytest.mark.parametrize("known", [FLOAT16, BFLOAT16], ids=lambda known: known.name)
def test_numbers_are_rounded_as_numpy_rounds_them(known):
    values = np.array([*INTERESTING, *np.random.default_rng(0).normal(size=200)])
    dtype = HALVES[known.name]
    if known is BFLOAT16:  # ml_dtypes rounds float64 by way of float32
        values = values.astype(np.float32).astype(np.float64)
    with np.errstate(over="ignore"):
        assert np.array_equal(known.rounded(values), values.astype(dtype).astype(np.float64))


def test_formats_are_those_of_ml_dtypes():
    for dtype, known in ((F16, FLOAT16), (BF16, BFLOAT16)):
        info = ml_dtypes.finfo(dtype)
        assert (known.largest, known.smallest_normal) == (float(info.max), float(info.smallest_normal))
        assert known.roundoff == float(info.eps) / 2
        assert half_format(dtype) is known
    assert half_format(np.dtype(np.float32)) is None
    assert half_format(np.dtype(ml_dtypes.float8_e5m2)).largest == 57344.0


# right layers


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("layer", mostly_slow(LAYERS, 3))
def test_a_layer_that_accumulates_in_float32_passes_with_a_ratio_of_one(layer, half):
    make, shapes = LAYERS[layer]
    report = check_layer(pair(make, "float32"), *inputs_of(shapes, HALVES[half], 3))
    assert report.verdict is Verdict.PASS, str(report)
    assert all(0 < leaf.rounding_ratio < 1.2 for leaf in report.leaves)
    assert f"in {half}, its error is" in report.text(width=None)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("layer", mostly_slow([name for name in LAYERS if "sum" not in name], 3))
def test_a_layer_that_rounds_every_step_passes(layer, half):
    make, shapes = LAYERS[layer]
    report = check_layer(pair(make, "steps"), *inputs_of(shapes, HALVES[half], 4))
    assert report.verdict is Verdict.PASS, str(report)
    assert all(0 < leaf.rounding_ratio < 4 for leaf in report.leaves)


def test_the_ratio_is_data_too():
    report = check_layer(pair(LAYERS["gelu"][0], "float32"), drawn((5, 4), BF16))
    assert json.loads(json.dumps(report.to_dict()))["leaves"][0]["rounding_ratio"] == report.leaves[0].rounding_ratio
    double = check_layer(pair(LAYERS["gelu"][0], "float32"), drawn((5, 4), np.float64))
    assert double.to_dict()["leaves"][0]["rounding_ratio"] is None


# planted faults


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("layer", mostly_slow(["affine", "softmax", "layer norm", "gelu", "attention", "conv"], 3))
def test_an_error_of_one_percent_in_16_bits_does_not_pass(layer, half):
    make, shapes = LAYERS[layer]
    report = check_layer(pair(make, "float32", "1 %"), *inputs_of(shapes, HALVES[half], 5))
    causes = {leaf.cause for leaf in report.leaves}
    if half == "float16":
        assert (report.verdict, causes) == (Verdict.FAIL, {Cause.LOW_PRECISION}), str(report)
    else:  # a bfloat16 has 3 digits, so 1 % is a few roundings, but these do not average out
        assert (report.verdict, causes) == (Verdict.INCONCLUSIVE, {Cause.SYSTEMATIC_ERROR}), str(report)


@pytest.mark.parametrize("half", HALVES)
def test_a_wrong_formula_in_16_bits_fails(half):
    make, shapes = LAYERS["affine"]
    report = check_layer(pair(make, "float32", "wrong"), *inputs_of(shapes, HALVES[half], 5))
    assert report.verdict is Verdict.FAIL
    assert {leaf.cause for leaf in report.leaves} == {Cause.LOW_PRECISION}
    assert all("does not average out" in leaf.reason for leaf in report.leaves)


def test_a_layer_that_is_wrong_in_float64_fails_for_that():
    forward, backward = pair(LAYERS["gelu"][0], "float32")
    wrong = forward, lambda dout, cache: tuple((g * 1.01).astype(g.dtype) for g in backward(dout, cache))
    report = check_layer(wrong, drawn((5, 4), F16))
    assert (report.verdict, report.leaves[0].cause) == (Verdict.FAIL, Cause.ANALYTIC_WRONG)


def summed(terms, in_float32):
    """Returns the sum over the first axis in the dtype of the terms, which rounds it once or after every term."""
    if in_float32:
        return np.sum(terms, axis=0, dtype=np.result_type(terms.dtype, np.float32)).astype(terms.dtype)
    total = np.zeros_like(terms[0])
    for term in terms:
        total = (total + term).astype(terms.dtype)
    return total


def rows_added(in_float32):
    """Returns the layer y = sum over rows of x w, whose terms all have the sign of w."""

    def forward(x, w):
        return summed(x * w, True), (x, w)

    def backward(dout, cache):
        x, w = cache
        return np.broadcast_to(dout * w, x.shape).copy(), summed(x, in_float32) * dout

    return forward, backward


@pytest.mark.slow
@pytest.mark.parametrize("half", sampled(HALVES, every=2))
def test_a_sum_of_4096_positive_terms_in_16_bits_is_named(half):
    x, w = np.abs(drawn((4096, 2), HALVES[half])), drawn(2, HALVES[half])
    report = check_layer(rows_added(in_float32=False), x, w)
    leaf = leaf_of(report, "w")
    assert (leaf.verdict, leaf.cause) == (Verdict.FAIL, Cause.HALF_ACCUMULATION), str(report)
    assert f"accumulated in {half}: with all but a 64th of x set to 0" in leaf.reason
    assert leaf.rounding_ratio > 10
    assert leaf_of(report, "x").verdict is Verdict.PASS
    assert check_layer(rows_added(in_float32=True), x, w).verdict is Verdict.PASS


@pytest.mark.slow
def test_a_wrong_formula_is_no_accumulation_even_if_sums_are_long():
    def forward(x, w):
        return summed(x * w, True), (x, w)

    def backward(dout, cache):
        x, w = cache
        total = summed(x if x.dtype != F16 else x[:-400], True) * dout
        return np.broadcast_to(dout * w, x.shape).copy(), total

    report = check_layer((forward, backward), np.abs(drawn((4096, 2), F16)), drawn(2, F16))
    assert leaf_of(report, "w").cause is Cause.LOW_PRECISION, str(report)


# range


def test_a_softmax_without_the_maximum_subtracted_overflows():
    def softmax(x):
        e = np.exp(x)
        y = e / e.sum(-1, keepdims=True)
        return y, y

    x = drawn((4, 6), F16)
    x[1, 2] = 12.0  # exp(12) is 162,755
    report = check_layer((softmax, lambda dout, y: y * (dout - (dout * y).sum(-1, keepdims=True))), x)
    assert report.verdict is Verdict.FAIL
    assert report.faults == (Behaviour.FORWARD_OUT_OF_RANGE,)
    assert "an intermediate value overflows 65504, the largest float16" in report.behaviour[0]
    x[1, 2] = 9.0
    assert check_layer((softmax, lambda dout, y: y * (dout - (dout * y).sum(-1, keepdims=True))), x)


def root_mean_square(x, g):
    r = np.sqrt((x**2).mean(-1, keepdims=True))
    return x / r * g, (x, g, r)


def root_mean_square_backward(dout, cache):
    x, g, r = cache
    n, dn = x / r, dout * g
    return (dn - n * (dn * n).mean(-1, keepdims=True)) / r, (dout * n).sum(0)


@pytest.mark.parametrize("rows", [slice(None), slice(3, 5)], ids=["all rows", "some rows"])
def test_an_output_that_is_zero_because_a_square_overflows_is_told(rows):
    """300² is beyond 65,504, and x / inf is 0, whose gradient is 0 at all inputs that are tried."""
    pytest.importorskip("ml_dtypes")
    x, g = drawn((16, 8), F16), drawn(8, F16)
    assert check_layer((root_mean_square, root_mean_square_backward), x, g)
    x[rows] *= 300
    report = check_layer((root_mean_square, root_mean_square_backward), x, g)
    assert report.faults == (Behaviour.FORWARD_OUT_OF_RANGE,)
    assert "an intermediate value overflows 65504, the largest float16" in report.behaviour[0]


@pytest.mark.parametrize("layer", [lambda x: np.maximum(x, 0), np.round, lambda x: (x + 100) - 100])
def test_zeros_that_no_overflow_makes_are_no_fault(layer):
    x = drawn((4, 6), F16) * F16.type(0.01)
    x[0] += 1  # so that not all of the output is 0
    report = check_layer((lambda x: (layer(x), x), lambda dout, x: np.ones_like(x) * dout), x)
    assert Behaviour.FORWARD_OUT_OF_RANGE not in report.faults


def test_an_output_beyond_the_range_is_no_fault():
    report = check_layer((lambda x: (x * x * x, x), lambda dout, x: 3 * x * x * dout), np.full(3, 50, F16))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "the output reaches 1.2e+05, beyond 65504, the largest float16" in report.undecided[0]


def test_a_gradient_whose_intermediate_value_overflows_is_told():
    def backward(dout, x):
        return dout * x.dtype.type(40000) * x.dtype.type(1 / 20000) * x

    report = check_layer((lambda x: (x * x, x), backward), drawn((4, 6), F16, 1) + F16.type(3))
    assert (report.verdict, report.leaves[0].cause) == (Verdict.FAIL, Cause.OVERFLOW), str(report)
    assert "an intermediate value overflows 65504" in report.leaves[0].reason


def test_a_gradient_beyond_the_range_is_no_fault():
    x = drawn(6, F16, 1)
    report = check_layer(
        (lambda x: (x * x.dtype.type(60000), x), lambda d, x: d * x.dtype.type(60000)), x * F16.type(0.3)
    )
    assert (report.verdict, report.leaves[0].cause) == (Verdict.INCONCLUSIVE, Cause.BEYOND_RANGE), str(report)
    assert "beyond 65504" in report.leaves[0].reason


def test_an_infinity_that_float64_has_too_is_a_wrong_gradient():
    report = check_layer((lambda x: (x * x, x), lambda dout, x: dout * x / (x - x)), drawn(6, F16, 1))
    assert (report.verdict, report.leaves[0].cause) == (Verdict.FAIL, Cause.WRONG_FORM)
    assert "in a finer format" not in report.leaves[0].reason


def test_an_intermediate_value_of_a_small_dout_underflows():
    def backward(dout, x):
        small = dout * x.dtype.type(1e-4) * x.dtype.type(1e-3)
        return small * x.dtype.type(1e4) * x.dtype.type(1e3) * x * x.dtype.type(2)

    x = drawn((5, 6), F16)
    report = check_layer((lambda x: (x * x, x), backward), x)
    assert (report.verdict, report.leaves[0].cause) == (Verdict.FAIL, Cause.UNDERFLOW), str(report)
    assert "dout the gradient is right, so scale the loss" in report.leaves[0].reason


def test_a_gradient_below_the_range_is_no_fault():
    def backward(dout, x):
        return dout * x.dtype.type(1e-4) * x.dtype.type(1e-3)

    report = check_layer((lambda x: (x.astype(np.float64) * 1e-7, x), backward), drawn((5, 6), F16))
    assert (report.verdict, report.leaves[0].cause) == (Verdict.INCONCLUSIVE, Cause.BEYOND_RANGE), str(report)
    assert "the gradient itself underflows and cannot be judged: scale the loss" in report.leaves[0].reason


# what runs in which dtype


def tanh_from(early):
    """Returns tanh, whose backward computes 1 - y^2 from the y that was rounded to the dtype of x if `early`."""

    def forward(x):
        y = np.tanh(x.astype(np.result_type(x.dtype, np.float32)))
        return y.astype(x.dtype), (y.astype(x.dtype).astype(y.dtype) if early else y)

    def backward(dout, y):
        return (dout.astype(y.dtype) * (1 - y * y)).astype(dout.dtype)

    return forward, backward


@pytest.mark.parametrize("half", HALVES)
def test_a_kernel_that_casts_to_16_bits_too_early_does_not_pass(half):
    x = np.linspace(3.5, 4, 20).astype(HALVES[half])  # where 1 - y^2 has two or three digits less than y
    report = check_layer(tanh_from(early=True), x)
    assert (report.verdict, report.leaves[0].cause) == (Verdict.FAIL, Cause.LOW_PRECISION), str(report)
    assert check_layer(tanh_from(early=False), x).verdict is Verdict.PASS


def test_code_that_rejects_float64_is_compared_in_float32():
    forward, backward = pair(LAYERS["layer norm"][0], "float32")

    def narrow(*inputs):
        assert all(v.dtype != np.float64 for v in inputs)
        return forward(*inputs)

    report = check_layer((narrow, backward), drawn((4, 16), BF16), drawn(16, BF16, 1))
    assert report.verdict is Verdict.PASS, str(report)
    assert all(0 < leaf.rounding_ratio < 1.2 for leaf in report.leaves)


def only_half(factor):
    """Returns tanh and its derivative, computed in float32 and always rounded to bfloat16."""

    def forward(x):
        y = np.tanh(x.astype(np.float32))
        return y.astype(BF16), y

    return forward, lambda dout, y: (dout.astype(np.float32) * (1 - y * y) * factor).astype(BF16)


@pytest.mark.slow
def test_code_that_only_returns_16_bits_is_measured_by_a_reference():
    import jax.numpy as jnp

    x = drawn((5, 6), BF16)
    alone = check_layer(only_half(1), x)
    assert np.isnan(alone.leaves[0].rounding_ratio)
    assert "pass reference=" in alone.text(width=None)
    report = check_layer(only_half(1), x, reference=jnp.tanh)
    assert 0 < report.leaves[0].rounding_ratio < 1.2, str(report)
    wrong = check_layer(only_half(1.01), x, reference=jnp.tanh)
    assert wrong.leaves[0].rounding_ratio > 2
    assert wrong.verdict is not Verdict.PASS


@pytest.mark.slow
@pytest.mark.parametrize("half", sampled(HALVES, every=2))
def test_functions_of_jax_are_measured(half):
    import jax
    import jax.numpy as jnp

    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x) * (1 if x.dtype.itemsize > 2 else 1.05),))
    x = jnp.asarray(drawn((5, 6), HALVES[half]))
    right = check_function(jnp.sin, x)
    assert right.verdict is Verdict.PASS
    assert 0 < right.leaves[0].rounding_ratio < 3
    report = check_function(sine, x)
    assert report.leaves[0].cause is Cause.LOW_PRECISION, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("half", HALVES)
def test_functions_of_pytorch_are_measured(half):
    torch = pytest.importorskip("torch")

    class Sine(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.sin(x)

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * torch.cos(x) * (1 if x.dtype.itemsize > 2 else 1.05)

    x = torch.tensor(drawn((5, 6), np.float64)).to(getattr(torch, half))
    right = check(torch.sin, x)
    assert right.verdict is Verdict.PASS, str(right)
    assert 0 < right.leaves[0].rounding_ratio < 3
    report = check_function(Sine.apply, x)
    assert report.leaves[0].cause is Cause.LOW_PRECISION, str(report)


def test_elements_at_a_kink_do_not_count_as_errors():
    w = drawn((6, 8), BF16)
    for seed in range(5):
        x = drawn((4, 6), BF16, seed)

        def forward(x, w):
            h = (x @ w).astype(x.dtype)
            return np.maximum(h, x.dtype.type(0)), (x, w, h)

        def backward(dout, cache):
            x, w, h = cache
            d = np.where(h > 0, dout, dout.dtype.type(0))
            return (d @ w.T).astype(x.dtype), (x.T @ d).astype(x.dtype)

        assert check_layer((forward, backward), x, w).verdict is not Verdict.FAIL


# 1 / 300 lies near the middle of two numbers of bfloat16, so that the nearest one is off by nearly half a spacing.
@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (1.01, "FAIL")])
def test_equal_elements_that_are_rounded_once_are_right(factor, verdict):
    def mean(x):
        return x.astype(np.float32).mean().astype(x.dtype)

    def gradient(x):
        return np.full(x.shape, factor / x.size).astype(x.dtype)

    x = np.random.default_rng(0).standard_normal(300).astype(BF16)
    assert check_function(mean, x, gradient=gradient).verdict == verdict
