"""Tests that surrogate gradients of quantizers are told as such, alike in NumPy, JAX and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mostly_slow

from jaxnet.crosscheck import Cause, check, check_function

X = 2 * np.random.default_rng(0).standard_normal((4, 3))
QUANTIZERS = ("round", "sign", "floor")
REASON = "x: forward is piecewise constant in x, so its derivative is 0 wherever it has one, and the gradient is not 0"


def identity(x, dout):
    return dout


def clipped(x, dout):
    return dout * (abs(x) <= 1)


def in_numpy(forward, backward):
    return (lambda x: (forward(x), x)), (lambda dout, x: backward(x, dout))


def in_jax(forward, backward):
    @jax.custom_vjp
    def quantized(x):
        return forward(x)

    quantized.defvjp(lambda x: (forward(x), x), lambda x, dout: (backward(x, dout),))
    return quantized


def in_torch(forward, backward):
    import torch

    class Quantized(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return forward(x)

        @staticmethod
        def backward(ctx, dout):
            return backward(*ctx.saved_tensors, dout)

    return Quantized


def quantizer(framework, name, backward):
    """Returns code of a framework, and its input."""
    if framework == "numpy":
        return in_numpy(getattr(np, name), backward), X
    if framework == "jax":
        return in_jax(getattr(jnp, name), backward), X
    torch = pytest.importorskip("torch")
    return in_torch(getattr(torch, name), backward), torch.tensor(X)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in QUANTIZERS[1:]]


@pytest.mark.parametrize("backward", [identity, pytest.param(clipped, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [QUANTIZERS[0], *SLOW])
@pytest.mark.parametrize("framework", ["numpy", "jax", "torch"])
def test_a_surrogate_is_inconclusive_with_the_reason_and_what_to_pass(framework, name, backward):
    report = check(*quantizer(framework, name, backward))
    assert report.verdict == "INCONCLUSIVE"
    assert [leaf.cause for leaf in report.leaves] == [Cause.PIECEWISE_CONSTANT]
    text = report.text(width=None)
    assert REASON in text
    assert "pass expected=, the function whose derivative it is meant to be" in text


@pytest.mark.parametrize("framework", ["numpy", "jax", "torch"])
def test_expected_decides_as_the_reason_says(framework):
    code, x = quantizer(framework, "round", identity)
    assert check(code, x, expected=lambda x: x).verdict == "PASS"
    assert check(code, x, expected=lambda x: 2 * x).verdict == "FAIL"


OTHER = {
    "8 bits": lambda x: np.round(x * 127) / 127,
    "clipped, of steps": lambda x: np.clip(np.round(x / 0.1), -8, 7) * 0.1,
    "a detached difference": lambda x: x + (np.round(x) - x),
    "a threshold": lambda x: (x > 0.3).astype(float),
    "a product": lambda x: np.round(x) @ np.arange(1.0, 7.0).reshape(3, 2),
}


@pytest.mark.parametrize("name", mostly_slow(OTHER, 3))
@pytest.mark.parametrize("at", ["anywhere", "on jumps"])
def test_other_quantizers_are_recognized_on_and_off_their_jumps(name, at):
    x = X if at == "anywhere" else np.round(X) + 0.5
    forward = OTHER[name]
    code = in_numpy(forward, lambda x, dout: np.resize(dout, x.shape))
    assert [leaf.cause for leaf in check(code, x).leaves] == [Cause.PIECEWISE_CONSTANT]


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_gradient_of_zero_still_passes(name):
    assert check(in_numpy(getattr(np, name), lambda x, dout: 0 * dout), X).verdict == "PASS"


NO_STEPS = {
    "lost in rounding": (lambda x: 1e8 + 1e-9 * x, lambda x, dout: 1e-9 * dout, Cause.LOST_IN_ROUNDING),
    "float16 inside": (
        lambda x: np.sin(x.astype(np.float16)).astype(x.dtype),
        lambda x, dout: dout * np.cos(x),
        Cause.UNRESOLVED,
    ),
    "float16 inside, wrong": (
        lambda x: np.sin(x.astype(np.float16)).astype(x.dtype),
        lambda x, dout: 2 * dout * np.cos(x),
        Cause.ANALYTIC_WRONG,
    ),
    "fast": (lambda x: np.sin(1e9 * x), identity, Cause.UNRESOLVED),
    "partly flat": (lambda x: np.maximum(x, 0), identity, Cause.ANALYTIC_WRONG),
    "partly steps": (lambda x: np.where(x > 0, np.round(x), x), lambda x, dout: 2 * dout, Cause.ANALYTIC_WRONG),
    "saw": (lambda x: x - np.floor(x), lambda x, dout: 2 * dout, Cause.ANALYTIC_WRONG),
}


@pytest.mark.parametrize("name", NO_STEPS)
def test_other_functions_are_not_called_piecewise_constant(name):
    forward, backward, cause = NO_STEPS[name]
    assert check_function(forward, X, gradient=backward).leaves[0].cause is cause
