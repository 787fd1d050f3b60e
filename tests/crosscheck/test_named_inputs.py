"""Tests inputs that are passed by the names of the forward pass's parameters."""

import re

import numpy as np
import pytest

from jaxnet.crosscheck import SubjectError, Verdict, check, check_function, check_layer

X = np.linspace(0.2, 1.0, 6).reshape(2, 3)
W = np.linspace(-1.0, 1.0, 12).reshape(3, 4)
AFFINE = lambda x, W: (x @ W, (x, W)), lambda dout, cache: (dout @ cache[1].T, cache[0].T @ dout)


class Affine:
    def forward(self, x, W):
        self.x, self.W = x, W
        return x @ W

    def backward(self, dout):
        return dout @ self.W.T, self.x.T @ dout


@pytest.mark.slow
@pytest.mark.parametrize("thing", [AFFINE, Affine()], ids=["pair", "layer"])
def test_names_bind_in_any_order(thing):
    for checked in (check, check_layer):
        for report in (checked(thing, named={"W": W, "x": X}), checked(thing, X, named={"W": W})):
            assert report.verdict is Verdict.PASS
            assert [leaf.size for leaf in report.leaves] == [6, 12]


@pytest.mark.slow
def test_arguments_of_functions_bind_by_name():
    report = check_function(
        lambda x, n: x**n, named={"n": 3, "x": X}, gradient=lambda x, n, dout: dout * n * x ** (n - 1)
    )
    assert report.verdict is Verdict.PASS
    assert check(lambda x, n: x**n, X, named={"n": 3}).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"w": W}, "takes x, W, and no w; did you mean W?"),
        ({"dropout": W}, "takes x, W, and no dropout"),
        ({"WW": W}, "takes x, W, and no WW; did you mean W?"),
        ({"x": X}, "x is passed twice"),
        ({}, "W"),
        ([W], "named: a list, expected a dict"),
    ],
)
def test_wrong_names_are_told(named, message):
    with pytest.raises(SubjectError, match=re.escape(message)):
        check(AFFINE, X, named=named)


def test_names_and_shapes_exclude_each_other():
    with pytest.raises(SubjectError, match="shapes: given beside inputs"):
        check(AFFINE, named={"x": X}, shapes=[(2, 3)])
