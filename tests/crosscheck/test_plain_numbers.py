"""Tests parameters that are plain numbers: learnable floats are leaves, and other stored gradients are spoken of."""

import numpy as np
import pytest

from jaxnet.crosscheck import SubjectError, Verdict, check

X = np.random.default_rng(0).normal(size=(5, 6))


class PReLU:
    def __init__(self, alpha=0.25, factor=1.0):
        self.alpha, self.factor = alpha, factor

    def forward(self, x):
        self.x = x
        return np.where(x > 0, x, self.alpha * x)

    def backward(self, dout):
        self.dalpha = self.factor * (dout * np.minimum(self.x, 0)).sum()
        return np.where(self.x > 0, dout, self.alpha * dout)


class InDict(PReLU):
    """Holds its slope in a dict, and its gradient in another."""

    def __init__(self, alpha=0.25, factor=1.0):
        super().__init__(None, factor)
        self.params = {"alpha": alpha}

    def forward(self, x):
        self.x = x
        return np.where(x > 0, x, self.params["alpha"] * x)

    def backward(self, dout):
        self.grads = {"alpha": self.factor * (dout * np.minimum(self.x, 0)).sum()}
        return np.where(self.x > 0, dout, self.params["alpha"] * dout)


class Parameter:
    def __init__(self, value):
        self.data, self.grad = value, None


class InObject(PReLU):
    """Holds its slope in a parameter object."""

    def __init__(self, alpha=0.25, factor=1.0):
        super().__init__(Parameter(alpha), factor)

    def forward(self, x):
        self.x = x
        return np.where(x > 0, x, self.alpha.data * x)

    def backward(self, dout):
        self.alpha.grad = self.factor * (dout * np.minimum(self.x, 0)).sum()
        return np.where(self.x > 0, dout, self.alpha.data * dout)


class LayerNorm:
    def __init__(self, gamma, beta):
        self.gamma, self.beta = gamma, beta

    def forward(self, x):
        self.std = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
        self.xhat = (x - x.mean(axis=-1, keepdims=True)) / self.std
        return self.gamma * self.xhat + self.beta

    def backward(self, dout):
        self.dgamma, self.dbeta = 2 * (dout * self.xhat).sum(axis=0), dout.sum(axis=0)
        d = dout * self.gamma
        return (d - d.mean(-1, keepdims=True) - self.xhat * (d * self.xhat).mean(-1, keepdims=True)) / self.std


KINDS = {
    "an attribute": (PReLU, "alpha"),
    "in a dict": (InDict, "params['alpha']"),
    "in an object": (InObject, "alpha"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_float_with_a_stored_gradient_is_a_leaf(name):
    kind, place = KINDS[name]
    right, wrong = check(kind(), X), check(kind(factor=2.0), X)
    assert [(leaf.name, leaf.verdict) for leaf in right.leaves] == [(place, Verdict.PASS), ("x", Verdict.PASS)]
    assert [(leaf.name, leaf.verdict) for leaf in wrong.leaves] == [(place, Verdict.FAIL), ("x", Verdict.PASS)]


def test_a_float_does_not_widen_the_arithmetic_of_a_layer_in_float32():
    dtypes = set()

    class Observed(PReLU):
        def forward(self, x):
            y = super().forward(x)
            dtypes.add((x.dtype.name, y.dtype.name))
            return y

    assert check(Observed(), X.astype(np.float32)).verdict is Verdict.PASS
    assert ("float32", "float32") in dtypes
    assert all(dtype == widened for dtype, widened in dtypes)


@pytest.mark.parametrize("name", KINDS)
def test_an_integer_with_a_stored_gradient_is_no_leaf_and_a_note_says_so(name):
    report = check(KINDS[name][0](1, factor=2.0), X)
    assert [leaf.name for leaf in report.leaves] == ["x"]
    assert any("is the number 1, not a float: its gradient" in note for note in report.notes)
    assert any("is not checked; pass 1.0" in note for note in report.notes)


@pytest.mark.slow
def test_a_size_in_place_of_an_array_is_noted_with_what_to_pass():
    assert check(LayerNorm(6, 6), X).notes == tuple(
        f"{name} is the number 6, not an array: its gradient d{name} is not checked; pass an array "
        f"(in the shell: {name}=shape:6)"
        for name in ("gamma", "beta")
    )
    assert check(LayerNorm(np.ones(6), np.ones(6)), X).verdict is Verdict.FAIL


def test_a_float_in_place_of_an_array_is_refused_with_the_shape_of_its_gradient():
    with pytest.raises(SubjectError, match=r"gamma: a float, .* of shape \(6,\) \(in the shell: gamma=shape:6\)"):
        check(LayerNorm(6.0, 6.0), X)


def test_a_size_beside_the_gradient_of_something_else_is_not_noted():
    class Hidden(PReLU):
        def __init__(self):
            super().__init__()
            self.h = 6

        def forward(self, x):
            return super().forward(x + np.zeros(self.h))

        def backward(self, dout):
            self.dh = super().backward(dout)
            return self.dh

    assert not check(Hidden(), X).notes
