"""Tests sizes of arrays and exact steps."""

import numpy as np
import pytest

from jaxnet.crosscheck.dtypes import eps_of, in_float64
from jaxnet.crosscheck.measure.leaf_steps import (
    MIN_EXACT_STEP,
    MIN_OWN_SCALE,
    exact_direction,
    own_scales,
    scale_of,
    stepped,
    unit_of,
)


@pytest.mark.parametrize("size", [1e-300, 1e-20, 0.3, 1.0, 7.0, 1e20, 1e300])
def test_the_unit_is_a_power_of_two_near_the_largest_magnitude(size):
    unit = unit_of(np.array([0.1, -size, np.inf, np.nan]) if size > 0.1 else np.array([-size, 0.0]))
    assert np.frexp(unit)[0] == 0.5
    assert 1 <= size / unit < 2


def test_the_unit_of_zeros_is_1():
    assert unit_of(np.zeros(3)) == unit_of(np.zeros(0)) == unit_of() == 1.0


SCALES = {
    "normal numbers": (np.random.default_rng(0).standard_normal(10_000), 1.0),
    "a spread about an offset": (1e2 + np.random.default_rng(0).standard_normal(10_000), 1.0),
    "nearly alike": (np.array([3.0, 3.0 + 1e-6]), 3.0),
    "a number": (np.array(-5.0), 5.0),
    "zeros": (np.zeros(4), 1.0),
    "none": (np.zeros(0), 1.0),
    "with infinities": (np.array([-np.inf, 2.0, -2.0, np.nan]), 2.0),
    "too large to be squared": (np.array([1e300, -1e300]), 1e300),
    "too small to be squared": (np.array([1e-300, -1e-300]), 1e-300),
}


@pytest.mark.parametrize("name", SCALES)
def test_the_scale_of_an_array_is_its_spread_or_its_size(name):
    array, scale = SCALES[name]
    assert scale_of(array) == pytest.approx(scale, rel=0.05)


def test_the_size_of_an_element_is_its_magnitude_or_that_of_its_row_or_column():
    W = np.array([[1.0, -1.0, 1.0], [1e-5, 0.0, -1e-5], [1.0, 1.0, -1.0]])
    own = own_scales(W) * scale_of(W)
    np.testing.assert_allclose(own[[0, 2]], scale_of(W), rtol=0.3)
    np.testing.assert_allclose(own[1, [0, 2]], 1e-5)
    assert 0.5e-5 < own[1, 1] < 2e-5
    assert own_scales(np.array([1e-100, 1.0])).min() == MIN_OWN_SCALE
    assert (own_scales(np.zeros(3)) == 1).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_steps_along_an_exact_direction_leave_no_rounding(dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 5)).astype(dtype)
    smallest = MIN_EXACT_STEP if dtype == np.float64 else 2.0**-8
    direction = rng.standard_normal((6, 5))
    rounded = exact_direction(x, direction, smallest)
    np.testing.assert_allclose(rounded, direction, rtol=0.1, atol=1e-3)
    for j in (-4, -2, -1, 1, 2, 4):
        t = j * smallest
        moved = stepped(x, t, rounded)
        assert moved.dtype == dtype
        np.testing.assert_array_equal(in_float64(moved) - in_float64(x), t * rounded)
    unrounded = in_float64(stepped(x, smallest, direction)) - in_float64(x)
    assert (unrounded != smallest * direction).any()  # the test can fail


def test_elements_that_are_not_finite_do_not_move():
    x = np.array([1.0, -np.inf, 2.0])
    direction = exact_direction(x, np.ones(3), MIN_EXACT_STEP)
    np.testing.assert_array_equal(stepped(x, 0.5, direction), [1.5, -np.inf, 2.5])


def test_a_step_keeps_the_memory_order():
    x = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert stepped(x, 0.5, np.ones((2, 3))).flags.f_contiguous
    assert not stepped(np.ascontiguousarray(x), 0.5, np.ones((2, 3))).flags.f_contiguous


def test_the_spacing_of_each_dtype():
    import ml_dtypes

    sizes = [eps_of(np.ones(1, dtype)) for dtype in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)]
    assert sizes == [2.0**-52, 2.0**-23, 2.0**-10, 2.0**-7]
