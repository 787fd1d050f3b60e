"""Tests that elements at kinks, with high curvature and at ties are found, and compared with their slopes."""

import numpy as np
import pytest
from synthetic import derivation_of

from jaxnet.crosscheck.measure.finite_differences import FIRST_STEP
from jaxnet.crosscheck.measure.kinks import Goal, Roughness, broken_tie, examine_elements, rough_elements
from jaxnet.crosscheck.streams import Stream, stream

AT_KINKS = np.array([[0.5, 0.0, -1.2], [0.7, -0.4, 0.0]])


def relu(x):
    return np.maximum(x, 0)


def slope(at_zero):
    return lambda dout, x: dout * np.where(x == 0, at_zero, x > 0)


def rough(derivation, x):
    noise, rng = derivation.phi_noise, stream(Stream.DIRECTIONS, 0)
    return rough_elements(derivation, "x", np.ones(x.shape), FIRST_STEP, noise, rng)


def examined(derivation, x, places):
    return examine_elements(
        derivation, "x", places, np.ones(x.shape), Goal(1e-9, 1e-9), derivation.phi_noise, FIRST_STEP
    )


FOUND = {
    "ReLU at 0": (relu, AT_KINKS, [1, 5]),
    "a clip at its bounds": (lambda x: np.clip(x, -1, 1), np.array([1.0, 0.3, -1.0, 2.0]), [0, 2]),
    "|x - 6|": (lambda x: np.abs(x - 6), np.array([6.0, 5.0, 7.0]), [0]),
    "none": (np.sin, AT_KINKS, []),
    "x|x|, which has no kink": (lambda x: x * np.abs(x) + x, np.array([0.5, -0.3, 0.8]), []),
}


@pytest.mark.parametrize("name", FOUND)
def test_rough_elements_are_found_among_smooth_ones(name):
    f, x, places = FOUND[name]
    assert rough(derivation_of(f, lambda dout, x: dout, x), x) == places


def test_rough_elements_are_not_listed_if_there_are_too_many():
    x = np.zeros((40, 30))
    assert rough(derivation_of(relu, slope(0.0), x), x) is None


@pytest.mark.parametrize("at_zero", [0.0, 0.5, 1.0])
def test_every_gradient_between_the_slopes_of_both_sides_is_correct(at_zero):
    elements = examined(derivation_of(relu, slope(at_zero), AT_KINKS), AT_KINKS, [1, 5])
    assert [e.place for e in elements] == [1, 5]
    assert all(e.roughness is Roughness.KINK and e.gap.within_tolerance for e in elements)


@pytest.mark.parametrize("at_zero", [-0.1, 1.1, 2.0])
def test_no_gradient_outside_the_slopes_is_correct(at_zero):
    elements = examined(derivation_of(relu, slope(at_zero), AT_KINKS), AT_KINKS, [1, 5])
    assert not any(e.gap.within_tolerance for e in elements)
    assert all(e.alone for e in elements)  # each changes a single one of several outputs


def test_an_element_of_high_curvature_is_compared_with_its_derivative():
    x = np.array([0.3, 0.9])

    def f(x):
        return np.array([np.sin(1e5 * x[0]), x[1]])

    def gradient(factor):
        return lambda dout, x: dout * np.array([factor * 1e5 * np.cos(1e5 * x[0]), 1.0])

    (right,) = examined(derivation_of(f, gradient(1.0), x), x, [0])
    (wrong,) = examined(derivation_of(f, gradient(1.01), x), x, [0])
    assert right.roughness is wrong.roughness is Roughness.CURVED
    assert right.gap.within_tolerance
    assert not wrong.gap.within_tolerance


def maximum(x):
    return np.array([x.max(), x.sum()])


def to_all(share):
    return lambda dout, x: dout[0] * share * (x == x.max()) + dout[1]


def test_tied_maxima_divide_one_gradient():
    """One of two equal elements may get the whole gradient, or both half of it, but not both the whole."""
    x = np.array([2.0, 2.0, 0.5])

    def tie(gradient):
        derivation = derivation_of(maximum, gradient, x)
        return broken_tie(derivation, "x", [0, 1], derivation.phi_noise, np.random.default_rng(0))

    assert tie(to_all(0.5)) is None
    assert tie(lambda dout, x: dout[0] * np.array([1.0, 0.0, 0.0]) + dout[1]) is None
    broken = tie(to_all(1.0))
    assert broken is not None
    assert not broken.gap.within_tolerance


def median_and_more(x):
    return np.array([np.median(x), x.sum(), x.prod()])


def of_the_first(dout, x):
    """Returns the gradient of a median, with all of it for the first of equal elements."""
    middle = np.eye(x.size)[np.argsort(x, kind="stable")[x.size // 2]]
    return dout[0] * middle + dout[1] + dout[2] * x.prod() / x


@pytest.mark.slow
def test_the_median_of_three_tied_values_is_neither_convex_nor_concave():
    """The median does not bend along any line, and a correct gradient need not be its slope along any line."""
    x = np.array([1.0, 1.0, 1.0])
    derivation = derivation_of(median_and_more, of_the_first, x)
    for seed in range(20):
        assert broken_tie(derivation, "x", [0, 2], derivation.phi_noise, np.random.default_rng(seed)) is None


def test_element_that_shares_its_output_does_not_act_alone():
    """The outputs are |x0 + x1| and 0, so both elements change the output at the place of the first one."""
    x = np.array([0.5, -0.5])
    derivation = derivation_of(lambda x: np.array([abs(x[0] + x[1]), 0.0]), lambda dout, x: 3 * dout[0] + 0 * x, x)
    (element,) = examined(derivation, x, [0])
    assert element.roughness is Roughness.KINK
    assert not element.gap.within_tolerance
    assert not element.alone
