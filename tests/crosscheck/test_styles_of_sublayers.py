"""Tests layers that hold layers whose two passes have other names than `forward` and `backward`."""

import numpy as np
import pytest

from jaxnet.crosscheck import check


def draw(*shape):
    return np.random.default_rng(shape).standard_normal(shape)


class Product:
    def __init__(self, factor):
        self.factor, self.W = factor, draw(4, 3)

    def forward_propagation(self, x):
        self.x = x
        return x @ self.W

    def backward_propagation(self, grad):
        self.grad_W = self.factor * self.x.T @ grad
        return grad @ self.W.T


class Sum:
    def __init__(self):
        self.bias = draw(3)

    def forward_propagation(self, x):
        return x + self.bias

    def backward_propagation(self, grad):
        self.grad_bias = grad.sum(axis=0)
        return grad


class Affine:
    def __init__(self, factor):
        self.product, self.sum = Product(factor), Sum()

    def forward_propagation(self, x):
        return self.sum.forward_propagation(self.product.forward_propagation(x))

    def backward_propagation(self, grad):
        return self.product.backward_propagation(self.sum.backward_propagation(grad))


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (1.01, "FAIL")])
def test_gradients_in_layers_of_other_names_are_read(factor, verdict):
    layer = Affine(factor)
    report = check(layer, draw(5, 4))
    verdicts = {leaf.name: str(leaf.verdict) for leaf in report.leaves}
    assert verdicts == {"product.W": verdict, "sum.bias": "PASS", "x": "PASS"}, str(report)
    assert report.verdict == verdict
    assert type(layer.product) is Product
    assert not hasattr(layer.product, "grad_W")
