"""Checks leaves of small effect beside the output: a right gradient is no FAIL, and a zero in its place no PASS."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mostly_slow, sampled

from jaxnet.crosscheck import check_function, check_layer, check_network
from jaxnet.crosscheck.decide import Cause
from jaxnet.crosscheck.explain.report_lines import notes

RIGHT, ZERO, FLIPPED = 1.0, 0.0, -1.0
P, F, I = "PASS", "FAIL", "INCONCLUSIVE"  # noqa: E741
ALL_TOLD, NONE_TOLD = (P, F, F), (I, I, I)  # the verdicts on the three factors
LOST = "is lost in the rounding of the output"
ZERO_NOTE = "zero at all inputs tried"


def draw(*shape, dtype=np.float64, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def verdicts(check, leaf):
    """Returns the verdicts on the right gradient, on zeros and on the flipped one; checks what the reports say."""
    reports = [check(factor) for factor in (RIGHT, ZERO, FLIPPED)]
    leaves = [next(each for each in report.leaves if each.name == leaf) for report in reports]
    assert all(ZERO_NOTE not in report.text(width=None) for report in reports)
    assert all((each.cause is Cause.LOST_IN_ROUNDING) == (LOST in each.reason) for each in leaves)
    return tuple(each.verdict for each in leaves)


def layer_with(effect, factor, dtype=np.float64):
    class Layer:
        def __init__(self):
            self.W, self.b = draw(4, 3, dtype=dtype), draw(3, dtype=dtype, seed=2)

        def forward(self, x):
            self.x = x
            return x @ self.W + self.b * dtype(effect)

        def backward(self, dout):
            self.dW, self.db = self.x.T @ dout, dout.sum(axis=0) * dtype(effect * factor)
            return dout @ self.W.T

    return check_layer(Layer(), draw(5, 4, dtype=dtype, seed=3))


# Roundoff is 1e-16 of the output: an effect of 1e-12 is resolved to 1e-3 or better, and one of 1e-18 by no step.
@pytest.mark.slow
@pytest.mark.parametrize(("effect", "expected"), [(1e-6, ALL_TOLD), (1e-10, ALL_TOLD), (1e-18, NONE_TOLD)])
def test_the_bias_of_a_layer(effect, expected):
    assert verdicts(lambda factor: layer_with(effect, factor), "b") == expected


@pytest.mark.slow
@pytest.mark.parametrize("effect", sampled(10.0 ** -np.arange(0, 19, 2), 4))
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_no_effect_is_taken_for_zero_or_for_wrong(effect, dtype):
    right, zero, flipped = verdicts(lambda factor: layer_with(effect, factor, dtype), "b")
    assert right != F
    assert P not in (zero, flipped)


def beside_constant(constant, effect, factor):
    def forward(x, w):
        return constant + effect * (x * w).sum()

    return check_function(
        forward, draw(5), draw(5, seed=2), gradient=lambda x, w: (effect * w, factor * effect * x), constants=()
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("constant", "effect", "expected"), [(1e6, 1e-6, ALL_TOLD), (1e8, 1e-9, NONE_TOLD), (1e8, 1e-12, NONE_TOLD)]
)
def test_a_term_beside_a_constant(constant, effect, expected):
    assert verdicts(lambda factor: beside_constant(constant, effect, factor), "w") == expected


@pytest.mark.slow
@pytest.mark.parametrize(("size", "expected"), [(1e3, ALL_TOLD), (1e7, NONE_TOLD)])
def test_a_prior_beside_a_loss(size, expected):
    X, y = size * draw(50, 5), size * draw(50, seed=2)

    def check(factor):
        return check_function(
            lambda w, b: ((X @ w - y) ** 2).sum() + 1e-3 * (b**2).sum(),
            draw(5, seed=3),
            draw(3, seed=4),
            gradient=lambda w, b: (2 * X.T @ (X @ w - y), factor * 2e-3 * b),
            constants=("X", "y"),
        )

    assert verdicts(check, "b") == expected


class Regression:
    """A network whose loss depends on b by a weak prior alone, with its gradients in a dict."""

    def __init__(self, factor):
        self.params = {"w": draw(5, 1, seed=3), "b": draw(3, seed=4)}
        self.factor = factor

    def loss(self, x, t):
        return ((x @ self.params["w"] - t) ** 2).sum() + 1e-3 * (self.params["b"] ** 2).sum()

    def gradient(self, x, t):
        w, b = self.params["w"], self.params["b"]
        return {"w": 2 * x.T @ (x @ w - t), "b": self.factor * 2e-3 * b}


@pytest.mark.slow
@pytest.mark.parametrize(("size", "expected"), [(1e3, ALL_TOLD), (1e7, NONE_TOLD)])
def test_a_prior_beside_the_loss_of_a_network(size, expected):
    x, t = size * draw(50, 5), size * draw(50, 1, seed=2)
    assert verdicts(lambda factor: check_network(Regression(factor), x, t), "b") == expected


@pytest.mark.slow
@pytest.mark.parametrize("effect", [1e-8, 1e-10])
def test_a_term_that_float32_rounds_off_is_no_fault(effect):
    def forward(x, w):
        return np.float32(1) + np.float32(effect) * (x * w).astype(np.float32).sum()

    def check(factor):
        return check_function(
            forward, draw(5), draw(5, seed=2), gradient=lambda x, w: (effect * w, factor * effect * x)
        )

    assert verdicts(check, "w") == NONE_TOLD


@pytest.mark.slow
@pytest.mark.parametrize(("effect", "expected"), [(1e-10, ALL_TOLD), (1e-18, NONE_TOLD)])
def test_a_rule_of_jax(effect, expected):
    def check(factor):
        scaled = jax.custom_vjp(lambda x, b: jnp.sin(x) + effect * b)
        scaled.defvjp(lambda x, b: (scaled(x, b), x), lambda x, g: (g * jnp.cos(x), factor * effect * g))
        return check_function(scaled, draw(6), draw(6, seed=2))

    assert verdicts(check, "b") == expected


# Each with the leaf whose gradient is zero, exactly or up to rounding.
def centered(x, b):
    return (x + b) - (x + b).mean(axis=0)


def centered_gradient(x, b, dout):
    dx = dout - dout.mean(axis=0)
    return dx, dx.sum(axis=0)


TRUE_ZEROS = {
    "unused": (lambda x, b: np.sin(x), lambda x, b, dout: (dout * np.cos(x), 0 * b)),
    "beside a constant": (lambda x, b: 1e8 + np.sin(x), lambda x, b, dout: (dout * np.cos(x), 0 * b)),
    "dead": (lambda x, b: x + np.maximum(b - 1e3, 0), lambda x, b, dout: (dout, 0 * b)),
    "steps": (lambda x, b: x + np.round(b), lambda x, b, dout: (dout, 0 * b)),
    "a bias before a mean is subtracted": (centered, centered_gradient),
}


@pytest.mark.parametrize("name", TRUE_ZEROS)
def test_a_true_zero_passes_with_what_would_have_been_caught(name):
    forward, gradient = TRUE_ZEROS[name]
    b = draw(1, 4, seed=2) if name.startswith("a bias") else draw(5, 4, seed=2)
    if name.startswith("a bias"):
        b = b[0]
    report = check_function(forward, draw(5, 4), b, gradient=gradient)
    assert report.verdict == P
    zero = report.leaves[1]
    assert zero.cause is Cause.ZERO_EVERYWHERE
    assert f"one of norm {zero.min_detectable_error:.0e} would have been caught" in " ".join(zero.notes)


@pytest.mark.parametrize("norm", [0.5, 2.0])
def test_what_a_true_zero_states_is_caught(norm):
    x, b = draw(5, 4), draw(4, seed=2)
    stated = check_function(centered, x, b, gradient=centered_gradient).leaves[1].min_detectable_error
    error = draw(4, seed=3)
    error *= 4 * norm * stated / np.linalg.norm(error)
    report = check_function(
        centered, x, b, gradient=lambda x, b, dout: (dout - dout.mean(axis=0), error * np.abs(dout).max())
    )
    assert report.verdict != P


# Bounded functions, which grow no further where the leaf moves far, with their derivatives.
BOUNDED = {
    "sin": (np.sin, np.cos),
    "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "a bell": (lambda x: np.exp(-(x**2)), lambda x: -2 * x * np.exp(-(x**2))),
}


def bounded_beside_constant(name, effect, factor, x):
    f, derivative = BOUNDED[name]
    return check_function(
        lambda x: 1e8 + effect * f(x).sum(), x, gradient=lambda x: factor * effect * derivative(x), constants=()
    ).leaves[0]


# A unit in the last place of 1e8 is 1.5e-8: these effects are of 3 to 300 of them.
@pytest.mark.parametrize(
    ("name", "effect"), sampled([("sin", 1e-8), ("tanh", 1e-7), ("tanh", 1e-6), ("a bell", 1e-7)], 2)
)
def test_a_bounded_effect_is_not_taken_for_zero(name, effect):
    right, zero, flipped = (bounded_beside_constant(name, effect, k, draw(5)).verdict for k in (RIGHT, ZERO, FLIPPED))
    assert right != F
    assert P not in (zero, flipped)


@pytest.mark.parametrize("name", mostly_slow(BOUNDED, 3))
@pytest.mark.parametrize("times", [2, 8])
def test_what_a_true_zero_beside_a_constant_states_is_caught(name, times):
    x = draw(5)
    stated = check_function(lambda x: 1e8 + 0 * x.sum(), x, gradient=lambda x: 0 * x, constants=()).leaves[0]
    assert stated.verdict == P
    effect = times * stated.min_detectable_error / np.linalg.norm(BOUNDED[name][1](x))
    assert bounded_beside_constant(name, effect, ZERO, x).verdict != P


@pytest.mark.parametrize("cause", [Cause.ZERO_AT_POINT, Cause.LOST_IN_ROUNDING])
def test_no_precision_is_read_from_a_gradient_that_is_rounding(cause):
    small = bounded_beside_constant("sin", 0.0, ZERO, draw(5))
    assert not [note for note in notes(replace(small, cause=cause, gradient_noise=0.1)) if "computes in" in note]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("size", [1, 1e3])
def test_rounding_is_not_taken_for_an_effect(dtype, size):
    for seed in range(10):
        x, b = draw(3, 4, dtype=dtype, seed=seed), draw(4, dtype=dtype, seed=seed + 100) * dtype(size)
        assert check_function(centered, x, b, gradient=centered_gradient).leaves[1].verdict == P


# Without what tells a zero from a lost effect, the checks took 247 and 242 forward passes.
@pytest.mark.slow
@pytest.mark.parametrize(("shape", "most"), [((5, 10_000), 370), ((10_000,), 363)])
def test_a_true_zero_costs_at_most_half_as_much_again(shape, most):
    calls = [0]

    def forward(x, b):
        calls[0] += 1
        return centered(x, b) if len(shape) == 2 else np.sin(x)

    def gradient(x, b, dout):
        return centered_gradient(x, b, dout) if len(shape) == 2 else (dout * np.cos(x), 0 * b)

    report = check_function(forward, draw(*shape), draw(10_000, seed=2), gradient=gradient)
    assert report.leaves[1].cause is Cause.ZERO_EVERYWHERE
    assert calls[0] <= most
