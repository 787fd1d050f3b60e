"""Tests the measurement of a leaf, including functions that difference quotients do not resolve."""

import math

import numpy as np
import pytest
from synthetic import derivation_of

from jaxnet.crosscheck.measure.contradiction import is_steady
from jaxnet.crosscheck.measure.derivation import Derivations
from jaxnet.crosscheck.measure.finite_differences import FIRST_STEP
from jaxnet.crosscheck.measure.leaf import between, measure_leaf
from jaxnet.crosscheck.streams import Stream, stream


def measured(derivation, resolution=1e-8):
    return measure_leaf("x", Derivations(derivation), resolution, 0.0, stream(Stream.DIRECTIONS, 0))


# Each gradient is right, but the function has a feature narrower than any step, so all quotients are wrong.
NARROW = {
    "an oscillation of many elements": (
        np.random.default_rng(3).standard_normal(40),
        lambda x: np.sin(1e15 * x),
        lambda x: 1e15 * np.cos(1e15 * x),
    ),
    "an oscillation that steps meet at nearly the same phase, at 13 periods and at 8": (
        np.array([-3.738631557081568e-07, 0.4, 1.2]),
        lambda x: np.sin(1 / x),
        lambda x: -np.cos(1 / x) / x**2,
    ),
    "a step from one level to another": (
        np.array([1e-14, -2e-14, 1.0, 0.5]),
        lambda x: 1e-4 * np.tanh(x * 1e13) + x,
        lambda x: 1e9 / np.cosh(np.minimum(np.abs(x * 1e13), 300)) ** 2 + 1,
    ),
}


@pytest.mark.parametrize("name", NARROW)
def test_a_correct_gradient_that_no_step_resolves_is_not_contradicted(name):
    x, f, slope = NARROW[name]
    measurement = measured(derivation_of(f, lambda dout, x: dout * slope(x), x))
    assert measurement.outside is None
    assert not measurement.confirmed


@pytest.mark.parametrize("error", [1e-6, 0.01, 1.0])
def test_a_wrong_gradient_of_a_smooth_function_is_contradicted(error):
    x = np.random.default_rng(3).standard_normal(40)
    right = measured(derivation_of(np.sin, lambda dout, x: dout * np.cos(x), x))
    wrong = measured(derivation_of(np.sin, lambda dout, x: (1 + error) * dout * np.cos(x), x))
    assert right.with_numerical.within_tolerance
    assert not wrong.with_numerical.within_tolerance
    assert wrong.confirmed


@pytest.mark.parametrize(
    ("k", "h", "steady"),
    [(1.0, FIRST_STEP, True), (1e3, FIRST_STEP, True), (1e8, FIRST_STEP, False), (1e8, FIRST_STEP * 1e-4, True)],
)
def test_a_gradient_is_steady_where_a_step_resolves_its_oscillation(k, h, steady):
    """The phase changes by 4e-7, 4e-4, 40 and 4e-3 within a step. Below 1, extrapolation follows the oscillation."""
    x = np.array([0.3, 0.2])
    derivation = derivation_of(lambda x: np.sin(k * x), lambda dout, x: dout * k * np.cos(k * x), x)
    size = float(np.abs(derivation.scaled_gradient("x")).max())
    assert is_steady(derivation, "x", np.array([1.0, 0.0]), h, gap=1e-2 * size) is steady


def test_an_error_in_a_small_element_is_not_hidden_by_steps_of_its_own_size():
    """Curvature makes the first quotients too inaccurate for the resolution, but they still show the error."""
    x = np.random.default_rng(5).standard_normal((6, 5))
    x[0, 0] = 1e-4

    def gradient(error):
        wrong = np.ones(x.shape)
        wrong[0, 0] += error
        return lambda dout, x: dout * 2e3 * wrong * np.cos(2e3 * x)

    def f(x):
        return np.sin(2e3 * x)

    assert measured(derivation_of(f, gradient(0.0), x)).with_numerical.within_tolerance
    measurement = measured(derivation_of(f, gradient(0.3), x))
    assert measurement.confirmed or measurement.outside is not None


def test_the_tolerance_of_elements_includes_the_one_that_moves_least():
    """Takes sin(3e6 x) of a row of 1e-6 and a row of 1. Only steps relative to its own size resolve the first row."""
    scales = np.array([[1e6], [1.0]])
    x = np.random.default_rng(5).uniform(0.5, 1, (2, 100)) / scales
    derivation = derivation_of(
        lambda x: np.sin(3 * x * scales), lambda dout, x: dout * 3 * scales * np.cos(3 * x * scales), x
    )
    measurement = measured(derivation)
    assert measurement.with_numerical.within_tolerance
    assert measurement.tolerance_of_elements > 1e4 * measurement.tolerance


def test_a_difference_to_autodiff_is_compared_less_the_digits_that_an_element_loses():
    """The derivative of tanh(log(1 + x)) at 1e-8 has one digit if it is computed by 1 - tanh²."""
    x = np.array([0.3, 0.2, 1e-8, 0.7]) - 1

    def f(x):
        return np.tanh(np.log1p(x))

    def slope(x):
        return 4 * (1 + x) / ((1 + x) ** 2 + 1) ** 2

    exact = derivation_of(f, lambda dout, x: dout * slope(x), x)
    lossy = derivation_of(f, lambda dout, x: dout * (1 - f(x) ** 2) / (1 + x), x)
    wrong = derivation_of(f, lambda dout, x: dout * slope(x) * np.array([1, 1 + 1e-8, 1, 1]), x)
    assert abs(lossy.gradient["x"] - exact.gradient["x"]).max() > 1e-10
    assert between("x", exact, lossy, []).within_tolerance
    assert not between("x", exact, wrong, []).within_tolerance


def one_minus_square(dout, x):
    """Uses the common formula 1 - tanh², which loses nearly all digits where tanh is nearly 1."""
    return dout * (1 - np.tanh(x) ** 2)


def test_jitter_comes_from_rounding_and_not_from_curvature():
    x = np.array([0.3, 17.6])
    jitter = derivation_of(np.tanh, one_minus_square, x).jitter
    assert jitter.output.max() < 1e-14
    assert jitter.gradient["x"][0] < 1e-14
    assert not math.isnan(jitter.gradient["x"][1])


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)).astype(np.float64)


def test_digits_lost_in_float32_count_as_jitter():
    """In a softmax of float32 numbers near 5000, a few elements have three digits, and most are exactly 0 or 1."""
    x = np.random.default_rng(3).normal(5000, 50, (6, 10))
    x[1, 3] = x[1].max() + 0.7

    def slope(dout, x):
        p = softmax(x)
        return p * (dout - (dout * p).sum(axis=1, keepdims=True))

    rounded = derivation_of(lambda x: softmax(x.astype(np.float32)), slope, x)
    exact = derivation_of(softmax, slope, x)
    other = derivation_of(lambda x: softmax(1.1 * x), slope, x)
    assert np.abs(rounded.output - exact.output).max() > 1e-6
    assert rounded.forward_gap(exact).within_tolerance
    assert not rounded.forward_gap(other).within_tolerance
