"""Tests that the two methods of a layer or of an activation are found under the names that people give them."""

import numpy as np
import pytest
from conftest import mostly_slow
from styles import draw

from jaxnet.crosscheck import check
from jaxnet.crosscheck.inspect.errors import SubjectError

PASSES = [
    ("loss_foward", "backprop"), ("forwardPass", "backwardPass"), ("ForwardProp", "BackProp"), ("fwd", "bwd"),
    ("feedForward", "backPropagate"), ("layerForward", "layerBackward"), ("forward", "backpropagate_error"),
    ("__call__", "bwd"), ("f_prop", "b_prop"), ("front_prop", "back_prop"), ("output", "backward"), ("run", "backprop"),
]  # fmt: skip
SLOPES = [
    ("act", "derivative"), ("phi", "dphi"), ("tanh", "dtanh"), ("func", "d_func"), ("sigma", "sigma_prime"),
    ("transfer", "transfer_derivative"), ("use", "getDerivative"), ("regular", "derivative"),
]  # fmt: skip


def with_methods(**methods):
    """Returns an object of a class that has these methods and nothing else."""
    return type("Named", (), methods)()


def affine(forward, backward, factor):
    def run_forward(self, x):
        self.x = x
        return x @ self.W

    def run_backward(self, dout):
        self.dW = factor * self.x.T @ dout
        return dout @ self.W.T

    layer = with_methods(**{forward: run_forward, backward: run_backward})
    layer.W = draw(4, 3)
    return layer


def tanh(value, slope, factor):
    return with_methods(**{
        value: lambda self, z: np.tanh(z),
        slope: lambda self, z: factor * (1 - np.tanh(z) ** 2),
    })  # fmt: skip


@pytest.mark.parametrize("names", mostly_slow(PASSES))
def test_a_layer_is_checked_by_its_two_passes(names):
    report = check(affine(*names, 1), draw(5, 4))
    assert {leaf.name: leaf.verdict.value for leaf in report.leaves} == {"W": "PASS", "x": "PASS"}
    report = check(affine(*names, 1.01), draw(5, 4))
    assert {leaf.name: leaf.verdict.value for leaf in report.leaves} == {"W": "FAIL", "x": "PASS"}


@pytest.mark.parametrize("names", mostly_slow(SLOPES))
def test_an_activation_is_checked_by_its_value_and_its_slope(names):
    assert check(tanh(*names, 1), draw(5, 4)).verdict == "PASS"
    assert check(tanh(*names, 1.01), draw(5, 4)).verdict == "FAIL"


def test_a_derivative_that_says_it_is_for_other_classes_is_passed_over():
    def refuse(self, z):
        raise NotImplementedError("only for the last layer")

    activation = tanh("act", "derivative", 1.01)
    type(activation).grad = refuse
    assert check(activation, draw(5, 4)).verdict == "FAIL"


def test_two_methods_that_may_be_the_forward_pass_are_refused():
    layer = affine("forward_train", "backprop", 1)
    type(layer).forward_test = lambda self, x: x
    with pytest.raises(SubjectError):
        check(layer, draw(5, 4))
