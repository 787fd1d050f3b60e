"""Tests networks that hold their weights in lists, with the gradients in lists of many arrangements."""

from itertools import pairwise

import numpy as np
import pytest

from jaxnet.crosscheck import check

RNG = np.random.default_rng(0)


class Tanhs:
    """Layers of tanh(x W + b), whose gradients a subclass arranges."""

    def __init__(self, sizes, factor=1):
        self.weights = [RNG.normal(size=shape) for shape in pairwise(sizes)]
        self.biases = [RNG.normal(size=size) for size in sizes[1:]]
        self.factor = factor

    def forward(self, x):
        self.outputs = [x]
        for W, b in zip(self.weights, self.biases, strict=True):
            self.outputs.append(np.tanh(self.outputs[-1] @ W + b))
        return self.outputs[-1]

    def backward(self, dout):
        dWs, dbs = [], []
        for W, x, y in zip(self.weights[::-1], self.outputs[-2::-1], self.outputs[:0:-1], strict=True):
            dz = dout * (1 - y**2)
            dWs.insert(0, x.T @ dz)
            dbs.insert(0, dz.sum(axis=0))
            dout = dz @ W.T
        dWs[0] = self.factor * dWs[0]
        return self.arrange(dWs, dbs, dout)


def stored(**of):
    """Returns an `arrange` that stores functions of both lists under these names, and returns dx."""

    def arrange(self, dWs, dbs, dx):
        for name, function in of.items():
            setattr(self, name, function(dWs, dbs))
        return dx

    return arrange


def first(dWs, _dbs):
    return dWs


def second(_dWs, dbs):
    return dbs


def alternating(dWs, dbs):
    return [gradient for pair in zip(dWs, dbs, strict=True) for gradient in pair]


ARRANGEMENTS = {
    "d before the plural": stored(dweights=first, dbiases=second),
    "dW and db": stored(dW=first, db=second),
    "the plural of gradients": stored(weight_gradients=first, bias_gradients=second),
    "nabla": stored(nabla_w=first, nabla_b=second),
    "a dict": stored(grads=lambda dWs, dbs: {"weights": dWs, "biases": dbs}),
    "stored pairs": stored(grads=lambda dWs, dbs: list(zip(dWs, dbs, strict=True))),
    "stored in turn": stored(gradients=alternating),
    "in the order of backward": stored(dweights=lambda dWs, _: dWs[::-1], dbiases=lambda _, dbs: dbs[::-1]),
    "returned after dx": lambda _self, dWs, dbs, dx: (dx, dWs, dbs),
    "returned before dx": lambda _self, dWs, dbs, dx: (dWs, dbs, dx),
    "returned alone": lambda _self, dWs, dbs, _dx: (dWs, dbs),
    "returned pairs": lambda _self, dWs, dbs, _dx: list(zip(dWs, dbs, strict=True)),
    "a returned dict": lambda _self, dWs, dbs, _dx: {"dW": dWs, "db": dbs},
}


def network(arrangement, sizes, factor):
    kind = type("Network", (Tanhs,), {"arrange": ARRANGEMENTS[arrangement]})
    return kind(sizes, factor)


SLOW = {name: () if i % 6 == 0 else pytest.mark.slow for i, name in enumerate(ARRANGEMENTS)}


@pytest.mark.parametrize("arrangement", [pytest.param(name, marks=mark) for name, mark in SLOW.items()])
@pytest.mark.parametrize("factor", [1, 1.01])
def test_every_weight_in_a_list_is_checked(arrangement, factor):
    report = check(network(arrangement, (4, 5, 3), factor), RNG.normal(size=(6, 4)))
    verdicts = {leaf.name: leaf.verdict for leaf in report.leaves}
    assert {"weights[0]", "weights[1]", "biases[0]", "biases[1]"} <= verdicts.keys()
    assert {name for name, verdict in verdicts.items() if verdict != "PASS"} == (
        {"weights[0]"} if factor > 1 else set()
    )


def test_lists_of_gradients_of_one_shape_in_the_order_of_backward_are_in_doubt():
    report = check(network("in the order of backward", (4, 4, 4), 1), RNG.normal(size=(6, 4)))
    assert report.verdict == "INCONCLUSIVE"
    assert "the gradients of weights[0], weights[1], biases[0], biases[1] are right in the reverse order" in str(report)


def test_wrong_lists_of_gradients_of_one_shape_fail_in_either_order():
    for arrangement in ("d before the plural", "in the order of backward"):
        report = check(network(arrangement, (4, 4, 4), 1.01), RNG.normal(size=(6, 4)))
        assert "weights[0]" in {leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"}


def test_a_list_of_the_shapes_of_two_lists_is_read_as_the_gradients_of_neither():
    class Gains:
        def __init__(self):
            self.gains, self.scales = ([RNG.normal(size=4) for _ in range(2)] for _ in range(2))

        def forward(self, x):
            self.x = x
            return x * self.gains[0] * self.gains[1] * self.scales[0] * self.scales[1]

        def backward(self, dout):
            product = np.prod([*self.gains, *self.scales], axis=0)
            each = [(dout * self.x * product / a).sum(axis=0) for a in (*self.gains, *self.scales)]
            self.grads = each[::2] + each[1::2]
            return dout * product

    assert check(Gains(), RNG.normal(size=(5, 4))).verdict == "INCONCLUSIVE"
