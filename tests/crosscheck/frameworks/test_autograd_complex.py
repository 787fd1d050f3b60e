"""Tests complex functions and primitives of HIPS autograd: rules are right by its own convention, dL/dx - i dL/dy."""

import numpy as np
import pytest
from conftest import mostly_slow

autograd = pytest.importorskip("autograd", reason="autograd is not installed")
import autograd.numpy as anp  # noqa: E402
from autograd.extend import defjvp, defvjp, primitive  # noqa: E402

from jaxnet.crosscheck import Verdict, check, inspected  # noqa: E402
from jaxnet.crosscheck.explain.slips import Slip  # noqa: E402


def draw(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


Z, W, X = draw(3, 2), draw(2, 4, seed=1), draw(5, seed=2).real


def ruled(function, rule, pushed=None):
    """Returns a primitive with a rule of (g, z) for reverse mode, and one of (g, z) for forward mode."""

    @primitive
    def f(z):
        return function(z)

    defvjp(f, lambda ans, z: lambda g: rule(g, z))
    if pushed is not None:
        defjvp(f, lambda g, ans, z: pushed(g, z))
    return f


def square(z):
    return z * z


def turned(x):
    return np.exp(1j * x)


RULES = {
    "square": (square, Z, lambda g, z: g * 2 * z, lambda g, z: g * np.conj(2 * z), ["z.real", "z.imag"]),
    "abs": (np.abs, Z, lambda g, z: g * np.conj(z) / np.abs(z), lambda g, z: g * z / np.abs(z), ["z.imag"]),
    "real": (np.real, Z, lambda g, z: g + 0j, lambda g, z: 1j * g, None),
    "conj": (np.conj, Z, lambda g, z: np.conj(g), lambda g, z: g, None),
    "rotation": (
        turned,
        X,
        lambda g, x: np.real(g * 1j * turned(x)),
        lambda g, x: np.real(g * np.conj(1j * turned(x))),
        ["z"],
    ),
    "complex64": (square, Z.astype(np.complex64), lambda g, z: g * 2 * z, lambda g, z: g * z, None),
}


@pytest.mark.parametrize("name", mostly_slow(RULES, 3))
def test_a_rule_passes_by_the_convention_of_autograd_and_its_conjugate_fails(name):
    function, at, right, wrong, conjugated = RULES[name]
    report = check(ruled(function, right), at)
    assert report.verdict is Verdict.PASS, str(report)
    assert [leaf.name for leaf in report.leaves] == (["z.real", "z.imag"] if np.iscomplexobj(at) else ["z"])
    report = check(ruled(function, wrong), at)
    assert report.verdict is Verdict.FAIL
    if conjugated is not None:
        slips = {leaf.name: leaf.slip for leaf in report.leaves if leaf.verdict is Verdict.FAIL}
        assert slips == dict.fromkeys(conjugated, Slip.CONJUGATE)


def test_the_gradient_is_the_one_that_autograd_returns():
    subject = inspected(lambda z: anp.sum(anp.abs(anp.sin(z)) ** 2), Z)
    found = subject.backward(subject.leaves, np.ones(()))
    own = autograd.grad(lambda z: anp.sum(anp.abs(anp.sin(z)) ** 2))(Z)
    np.testing.assert_allclose(found["z.real"] - 1j * found["z.imag"], own, rtol=1e-12)


def test_functions_of_autograd_numpy_pass_with_complex_parameters_and_outputs():
    report = check(lambda p, x: (anp.dot(x, p["W"]), anp.sum(anp.exp(x))), {"W": W}, Z)
    assert report.verdict is Verdict.PASS, str(report)
    assert [leaf.name for leaf in report.leaves] == ["p.W.real", "p.W.imag", "x.real", "x.imag"]
    assert check(lambda x: anp.abs(anp.fft.fft(x)) ** 2, X).verdict is Verdict.PASS


def test_forward_mode_is_compared_too():
    def rule(g, z):
        return g * 2 * z

    assert check(ruled(square, rule, rule), Z).verdict is Verdict.PASS
    report = check(ruled(square, rule, lambda g, z: g * np.conj(2 * z)), Z)
    assert report.verdict is Verdict.FAIL
    assert "forward mode is wrong" in report.text(width=None)


def test_a_complex_array_that_the_code_captures_is_named():
    scale = draw(2, seed=3)
    report = check(lambda x: anp.sin(x) * scale, Z)
    assert report.verdict is Verdict.PASS
    for part in ("scale.real", "scale.imag"):
        assert f"{part} affects the output and has no gradient" in report.text(width=None)


@pytest.mark.slow
def test_the_second_derivative_of_a_complex_function_is_checked():
    assert check(anp.exp, Z, order=2).derivatives[0].verdict is Verdict.PASS
    report = check(ruled(square, lambda g, z: g * 2 * autograd.tracer.getval(z)), Z, order=2)
    assert [leaf.verdict.value for leaf in report.derivatives[0].leaves[:2]] == ["FAIL", "FAIL"]
