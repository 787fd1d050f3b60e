"""Tests cost: a PASS takes about a hundred forward passes for any size, a FAIL at most five times as many."""

from functools import cache

import numpy as np
import pytest
from conftest import sampled

from jaxnet.crosscheck import check_function, check_layer

MOST_TIMES = 5
LARGE, SMALL = (40, 30, 20), (5, 4, 3)


def draw(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def affine(n, d, m):
    return (
        lambda x, W, b: (x @ W + b, (x, W)),
        lambda dout, c: (dout @ c[1].T, c[0].T @ dout, dout.sum(axis=0)),
        (draw(n, d), draw(d, m), draw(m)),
    )


def tanh_product(n, d, m):
    def backward(dout, cache):
        x, W, y = cache
        d = dout * (1 - y**2)
        return d @ W.T, x.T @ d

    return (
        lambda x, W: (np.tanh(x @ W), (x, W, np.tanh(x @ W))),
        backward,
        (draw(n, d), draw(d, m)),
    )


def relu(n, d, m):
    x = draw(n, d)
    return lambda x: (np.maximum(x, 0), x), lambda dout, x: (dout * (x > 0),), (x + 0.1 * np.sign(x),)


def relu_at_kinks(n, d, m):
    x = np.round(draw(n, d))
    x[0, :2] = 0
    x[0, 2:] = 1  # several kinks, but not everywhere
    return lambda x: (np.maximum(x, 0), x), lambda dout, x: (dout * (x > 0),), (np.where(x == 0, 0.0, x),)


def softmax(n, d, m):
    def forward(x):
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return (y := e / e.sum(axis=1, keepdims=True)), y

    return forward, lambda dout, y: (y * (dout - (dout * y).sum(axis=1, keepdims=True)),), (draw(n, d),)


def rms_in_float32(n, d, m):
    def forward(x):
        v = x.astype(np.float32)
        return (v / np.sqrt((v * v).mean(axis=1, keepdims=True))).astype(x.dtype), x

    def backward(dout, x):
        s = np.sqrt((x * x).mean(axis=1, keepdims=True))
        return ((dout - (dout * x).mean(axis=1, keepdims=True) * x / s**2) / s,)

    return forward, backward, (draw(n, d),)


LAYERS = {make.__name__: make for make in (affine, tanh_product, relu, relu_at_kinks, softmax, rms_in_float32)}
ERRORS = ["a factor", "one element", "anything"]  # of the last gradient


@cache
def calls_of(name, sizes, error=None):
    """Returns the verdict and the number of forward passes."""
    forward, backward, inputs = LAYERS[name](*sizes)
    rng, calls = np.random.default_rng(0), [0]
    nonsense, spotted = rng.standard_normal(inputs[-1].shape), np.ones(inputs[-1].shape)
    spotted.flat[int(np.argmax(inputs[-1]))] = 1.5

    def counting(*given):
        calls[0] += 1
        return forward(*given)

    def broken(dout, cache):
        *others, last = backward(dout, cache)
        if error == "a factor":
            last = 1.01 * last
        elif error == "one element":
            last = last * spotted
        elif error == "anything":
            last = nonsense * dout.mean()
        return (*others, last)

    verdict = check_layer((counting, broken), *inputs).verdict
    return verdict, calls[0]


@pytest.mark.parametrize("error", sampled(ERRORS, every=3))
@pytest.mark.parametrize("name", sampled(LAYERS, 2))
@pytest.mark.parametrize("sizes", [SMALL, LARGE], ids=["small", "large"])
def test_a_fail_costs_at_most_five_times_a_pass(name, error, sizes):
    verdict, right = calls_of(name, sizes)
    assert verdict == "PASS"
    verdict, wrong = calls_of(name, sizes, error)
    assert verdict == "FAIL"
    assert wrong <= MOST_TIMES * right, (right, wrong)


@pytest.mark.parametrize("name", LAYERS)
def test_a_pass_costs_no_more_for_a_larger_leaf(name):
    small, large = calls_of(name, SMALL)[1], calls_of(name, LARGE)[1]
    if name == "relu_at_kinks":  # kinks are found by bisection, and examined one by one
        assert max(small, large) < 1000
    else:
        assert large <= small + 20
        assert large < 200


@pytest.mark.slow
def test_the_cost_of_each_wrong_leaf_is_bounded():
    """Checks twelve wrong leaves, which share the budget of the diagnosis."""

    def calls(factor):
        count = [0]

        def f(*leaves):
            count[0] += 1
            return sum(np.sin(leaf) for leaf in leaves)

        leaves = [draw(5, 4) for _ in range(12)]
        report = check_function(
            f, *leaves, gradient=lambda *args: tuple(factor * args[-1] * np.cos(a) for a in args[:-1]), takes_dout=True
        )
        return report.verdict, count[0]

    (right, few), (wrong, many) = calls(1.0), calls(1.01)
    assert (right, wrong) == ("PASS", "FAIL")
    assert many <= MOST_TIMES * few
