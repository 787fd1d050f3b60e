"""Tests that the measured noise of a forward pass is that of its arithmetic, for every dtype of its arrays."""

import numpy as np
import pytest
from synthetic import Synthetic, derivation_of

from jaxnet.crosscheck.measure.noise import measure_noise
from jaxnet.crosscheck.streams import Stream, stream

X = np.random.default_rng(3).standard_normal((6, 5))


def relative_noise(f, x=X, seed=0):
    dout = np.ones(np.shape(f(x)))
    noise = measure_noise(Synthetic(f, lambda dout, x: dout, x), {"x": x}, dout, [], stream(Stream.ROUNDING, seed))
    return noise.relative


def computing_in(dtype, f):
    return lambda x: f(x.astype(dtype)).astype(x.dtype)


def softplus(x):
    return np.log1p(np.exp(x))


FUNCTIONS = {
    "sin": np.sin,
    "softplus": softplus,
    "a product": lambda x: x @ np.arange(10.0).reshape(5, 2).astype(x.dtype),
    "rms": lambda x: x / np.sqrt((x * x).mean(axis=-1, keepdims=True)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("dtype", "unit"), [(np.float64, 2.0**-53), (np.float32, 2.0**-24), (np.float16, 2.0**-11)])
def test_the_precision_of_the_arithmetic_is_measured(name, dtype, unit):
    noise = relative_noise(computing_in(dtype, FUNCTIONS[name]) if dtype != np.float64 else FUNCTIONS[name])
    assert unit / 8 < noise < 30 * unit


def test_added_noise_is_measured():
    rng = np.random.default_rng(0)
    for sigma in (1e-3, 1e-6, 1e-9):
        noise = relative_noise(lambda x, sigma=sigma: 1 + 1e-2 * np.sin(x) + sigma * rng.standard_normal(x.shape))
        assert sigma / 3 < noise < 3 * sigma


KINKED = {
    "ReLU": lambda x: np.maximum(x, 0),
    "a maximum": lambda x: x.max(axis=1),
    "a clip": lambda x: np.clip(x, -1, 1),
    "|x| at 0": lambda x: np.abs(x * (np.abs(x) > 1)),
}


@pytest.mark.parametrize("name", KINKED)
def test_kinks_are_not_noise(name):
    assert relative_noise(KINKED[name]) < 1e-13


def test_high_curvature_is_not_noise():
    assert relative_noise(lambda x: np.sin(1e4 * x)) < 1e-10


def test_digits_lost_to_an_offset_are_noise():
    """(x + 10⁸) - 10⁸ has an error of 10⁸ eps."""
    noise = relative_noise(lambda x: (x + 1e8) - 1e8)
    assert 1e-10 < noise < 1e-7


def test_a_float32_gradient_of_a_float64_forward_pass_is_noisy():
    def gradient(dout, x):
        return (dout.astype(np.float32) * np.cos(x).astype(np.float32)).astype(np.float64)

    noisy = derivation_of(np.sin, gradient, X)
    calm = derivation_of(np.sin, lambda dout, x: dout * np.cos(x), X)
    assert np.median(noisy.noise.gradients["x"]) > 1e-9
    assert np.median(calm.noise.gradients["x"]) < 1e-13
    assert noisy.noise.relative < 1e-13


def test_a_function_that_is_finite_only_at_its_point_has_no_measurable_noise():
    noise = relative_noise(lambda x: np.where(x == X, x, np.nan))
    assert noise == 0.0
