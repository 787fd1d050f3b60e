"""Tests finite differences of functions with known derivatives: the estimated error bounds the actual one."""

import math

import numpy as np
import pytest
from synthetic import noisy

from jaxnet.crosscheck.measure.finite_differences import (
    FIRST_STEP,
    OFFSETS,
    Limit,
    PhiNoise,
    derivative,
    noise_of,
    quotient_at,
)
from jaxnet.crosscheck.measure.kink_detection import has_kink_nearby, one_sided_slopes

EPS = 2.0**-52

SMOOTH = {
    "a line": (lambda t: -3 * t, -3.0, EPS),
    "exp": (math.expm1, 1.0, EPS),
    "exp(30 t)": (lambda t: math.expm1(30 * t), 30.0, EPS),
    "exp(1000 t)": (lambda t: math.expm1(1000 * t), 1000.0, EPS),
    "sin(10⁵ t)": (lambda t: math.sin(1e5 * t), 1e5, EPS),
    "t³ beside t": (lambda t: 2 * t + 1e6 * t**3, 2.0, EPS),
    "an even function": (lambda t: t**2, 0.0, EPS),
    "1e-200 sin": (lambda t: 1e-200 * math.sin(t), 1e-200, 1e-200 * EPS),
    "x|x|, smooth but once": (lambda t: t + t * abs(t), 1.0, EPS),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_the_estimated_error_bounds_the_actual_error(name):
    phi, true, noise = SMOOTH[name]
    result = derivative(phi, PhiNoise(noise), target=0.0)
    assert abs(result.value - true) <= result.error
    assert result.error < 1e-7 * max(abs(true), noise / EPS)


@pytest.mark.parametrize("sigma", [1e-12, 1e-9, 1e-7, 1e-4])
def test_under_noise_the_step_grows_and_the_error_bounds_the_effect_of_noise(sigma):
    covered, steps = [], []
    for seed in range(50):
        result = derivative(noisy(math.sin, sigma, seed), PhiNoise(sigma), target=0.0)
        covered.append(abs(result.value - 1) <= 8 * result.error)  # the factor that the checker allows
        steps.append(result.step)
    assert np.mean(covered) >= 0.98
    # At h ~ (noise / phi''')^(1/3) the error of D(h) is smallest. Richardson extrapolation allows larger steps.
    assert np.median(steps) >= sigma ** (1 / 3) / 8


def test_the_error_is_too_small_if_the_given_noise_is_too_small():
    """Shows that the test above can fail."""
    covered = []
    for seed in range(50):
        result = derivative(noisy(math.sin, 1e-4, seed), PhiNoise(EPS), target=1e-9)
        covered.append(abs(result.value - 1) <= 8 * result.error)
    assert np.mean(covered) < 0.98


def test_no_further_step_is_tried_if_the_first_is_accurate_enough():
    assert len(derivative(math.sin, PhiNoise(EPS), target=1e-6).quotients) == 1
    assert len(derivative(math.sin, PhiNoise(EPS), target=1e-14).quotients) > 1


LIMITS = {
    "none": (math.sin, EPS, 1e-6, Limit.NONE),
    "roundoff": (math.sin, 1e-6, 1e-12, Limit.ROUNDOFF),
    "domain": (lambda t: math.log1p(t / 1e-9) * 1e-9 if t > -1e-9 else math.nan, EPS, 1e-13, Limit.DOMAIN),
}


@pytest.mark.parametrize("name", LIMITS)
def test_the_limit_of_a_derivative_is_reported(name):
    phi, noise, target, limit = LIMITS[name]
    assert derivative(phi, PhiNoise(noise), target).limit is limit


def test_near_the_edge_of_a_domain_the_step_shrinks():
    result = derivative(lambda t: math.log1p(t / 1e-7) if t > -1e-7 else math.nan, PhiNoise(EPS), target=1.0)
    assert result.step < 1e-7 / 4
    assert abs(result.value - 1e7) <= result.error < 1e4


def test_a_function_that_is_finite_only_at_0_has_no_derivative():
    result = derivative(lambda t: 0.0 if t == 0 else math.nan, PhiNoise(EPS), target=1e-9)
    assert math.isnan(result.value)
    assert result.error == math.inf
    assert result.limit is Limit.DOMAIN


def test_a_quotient_evaluates_the_function_eight_times():
    evaluated = []
    quotient_at(lambda t: evaluated.append(t) or t, FIRST_STEP, PhiNoise(EPS))
    assert sorted(evaluated) == [j * FIRST_STEP for j in OFFSETS if j]


# -- one-sided slopes

KINKS = {
    "|t|": (abs, -1.0, 1.0),
    "ReLU": (lambda t: max(t, 0.0), 0.0, 1.0),
    "a concave one": (lambda t: min(2 * t, -0.5 * t), 2.0, -0.5),
    "curved on either side": (lambda t: math.expm1(20 * t) if t > 0 else math.sin(3 * t), 3.0, 20.0),
    "a slight one": (lambda t: t + 1e-5 * abs(t), 1 - 1e-5, 1 + 1e-5),
    "steep": (lambda t: 1e8 * abs(t), -1e8, 1e8),
}


@pytest.mark.parametrize("name", KINKS)
def test_one_sided_slopes_at_a_kink_are_computed(name):
    phi, below, above = KINKS[name]
    slopes = one_sided_slopes(phi, PhiNoise(EPS))
    assert abs(slopes.below - below) <= slopes.error
    assert abs(slopes.above - above) <= slopes.error
    assert slopes.is_kink


SMOOTH_ONCE = {
    "sin": math.sin,
    "high curvature": lambda t: t + 1e6 * t**2,
    "a fast oscillation": lambda t: math.sin(1e6 * t + 1.0) - math.sin(1.0),
    "t|t|": lambda t: t * abs(t),
    "Huber's loss at its corner": lambda t: (1 + t) ** 2 / 2 - 0.5 if t < 0 else t,
    "ELU at 0": lambda t: t if t > 0 else math.expm1(t),
    "zero": lambda t: 0.0,
}


@pytest.mark.parametrize("name", SMOOTH_ONCE)
def test_a_function_with_equal_slopes_has_no_kink(name):
    assert not one_sided_slopes(SMOOTH_ONCE[name], PhiNoise(EPS)).is_kink


@pytest.mark.parametrize("sigma", [1e-9, 1e-6, 1e-3])
def test_noise_is_not_reported_as_a_kink(sigma):
    assert not any(one_sided_slopes(noisy(math.sin, sigma, seed), PhiNoise(sigma)).is_kink for seed in range(50))


# -- noise


@pytest.mark.parametrize("sigma", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize(
    "phi", [lambda t: 0 * t, lambda t: np.sin(t / 100), lambda t: np.maximum(t, 0)], ids=["flat", "smooth", "a kink"]
)
def test_noise_is_measured_to_a_factor_of_four(phi, sigma):
    """Expects Moré and Wild's criterion, a factor of four, in 80 % of the cases: there are only two differences."""
    rng, t = np.random.default_rng(0), 1e-4 * np.linspace(-1, 1, 9)[:, None]
    ratios = noise_of(phi(t) + sigma * rng.standard_normal((9, 400))) / sigma
    assert np.mean((ratios >= 1 / 4) & (ratios <= 4)) > 0.8


def test_a_smooth_function_shows_no_noise():
    t = 1e-3 * np.arange(-4, 5)[:, None]
    assert noise_of(np.sin(t) + 2)[0] < 1e-15
    assert noise_of(np.abs(t))[0] < 1e-15  # a kink in the middle


# -- bends


def bends_of(phi, step):
    return tuple(phi(j * step) + phi(-j * step) for j in (1, 2, 4))


@pytest.mark.parametrize("step", [2.0**-17, 2.0**-10, 2.0**-5])
def test_a_nearby_kink_is_detected_and_a_smooth_function_has_none(step):
    for phi in (abs, lambda t: t + 1e-3 * max(t, 0.0), lambda t: max(t - 1.5 * step, 0.0)):
        assert has_kink_nearby(bends_of(phi, step), EPS, step)
    for phi in (math.sin, lambda t: math.expm1(t), lambda t: 5 * t**2 - t, lambda t: 0.0):
        assert not has_kink_nearby(bends_of(phi, step), EPS, step)


def test_a_kink_below_the_noise_is_not_detected():
    kink = bends_of(lambda t: 1e-6 * abs(t), FIRST_STEP)
    assert has_kink_nearby(kink, 1e-14, FIRST_STEP)
    assert not has_kink_nearby(kink, 1e-9, FIRST_STEP)


SLOWER = {
    "a line": (lambda t: 1e-5 * t, 1e-5, 1e-7),
    "a small one that levels off": (lambda t: 1e-3 * math.tanh(t), 1e-3, 3e-5),
    "an oscillation": (lambda t: 0.1 * math.sin(3 * t), 0.3, 1e-7),
}


@pytest.mark.parametrize("name", SLOWER)
def test_steps_beyond_the_leafs_size_are_used_only_if_smaller_ones_agree(name):
    phi, true, sigma = SLOWER[name]
    result = derivative(noisy(phi, sigma), PhiNoise(sigma), target=0.0)
    assert abs(result.value - true) <= 8 * result.error
    assert result.error < true / 2


def test_quotients_that_are_much_noisier_than_the_point_are_not_smooth():
    """Fast oscillations scatter equally at every step, which looks like noise, but no quotient is smooth."""
    rng = np.random.default_rng(3)
    frequencies, phases = 1e15 * rng.uniform(1, 2, 40), rng.uniform(0, 6, 40)

    def phi(t):
        return float(np.mean(np.sin(frequencies * t + phases) - np.sin(phases)))

    result = derivative(phi, PhiNoise(1e-16), target=0.0)
    assert result.observed_noise(1e-16) > 1e-3
    assert result.smooth_part(1e-16) is None
