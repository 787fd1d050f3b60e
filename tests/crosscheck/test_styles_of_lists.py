"""Tests code that takes or returns lists, tuples and dicts of arrays: right passes, wrong fails for its leaf alone."""

import numpy as np
import pytest
from conftest import mostly_slow

from jaxnet.crosscheck import SubjectError, check

CASES = {}


def case(*inputs, wrong):
    """Registers a class of layers, or a function that returns a pair, given the factor of its wrong gradients."""

    def register(make):
        CASES[make.__name__] = make, inputs, wrong
        return make

    return register


def draw(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


A, B, C = draw(4, 3), draw(4, 2), draw(4, 3, seed=1)


class Layer:
    def __init__(self, factor):
        self.factor = factor


def split(dout, arrays):
    return np.split(dout, np.cumsum([a.shape[1] for a in arrays])[:-1], axis=1)


@case([A, B], wrong=["inputs0", "inputs1"])
class Concat(Layer):
    def forward(self, xs):
        self.xs = xs
        return np.concatenate(xs, axis=1)

    def backward(self, dout):
        return [self.factor * part for part in split(dout, self.xs)]


@case((A, B), wrong=["inputs0", "inputs1"])
class ConcatOfATuple(Concat):
    def backward(self, dout):
        return tuple(super().backward(dout))


@case(A, wrong=["x"])
class Split(Layer):
    def forward(self, x):
        self.x = x
        return [x[:, :2] ** 2, np.sin(x[:, 2:])]

    def backward(self, douts):
        first, second = douts
        return np.concatenate(
            [self.factor * first * 2 * self.x[:, :2], second * np.cos(self.x[:, 2:])], axis=1
        )  # fmt: skip


@case(A, wrong=["x"])
class Branches(Layer):
    """Returns arrays of one shape, so that a sum of douts also runs for the first of them alone."""

    def forward(self, x):
        return x.copy(), 2 * x, 3 * x

    def backward(self, dout):
        a, b, c, *_ = dout
        return self.factor * a + 2 * b + 3 * c


@case([A, B], wrong=["inputs0", "inputs1"])
class EachOf(Layer):
    def forward(self, xs):
        self.xs = xs
        return [np.sin(x) for x in xs]

    def backward(self, douts):
        return [self.factor * dout * np.cos(x) for dout, x in zip(douts, self.xs, strict=True)]


@case((A, (B[:, :1], draw(3))), wrong=["inputs0"])
class Nested(Layer):
    def forward(self, inputs):
        self.inputs = inputs
        a, (b, c) = inputs
        return (a * c).sum(axis=1, keepdims=True) * b

    def backward(self, dout):
        a, (b, c) = self.inputs
        dsum = dout * b
        return self.factor * dsum * c, (dout * (a * c).sum(axis=1, keepdims=True), (dsum * a).sum(axis=0))


@case({"a": A, "b": C}, wrong=["a"])
class ProductOfADict(Layer):
    def forward(self, inputs):
        self.inputs = inputs
        return inputs["a"] * inputs["b"]

    def backward(self, dout):
        return {"da": self.factor * dout * self.inputs["b"], "db": dout * self.inputs["a"]}


class SumThenProduct(Layer):
    def __init__(self, factor):
        super().__init__(factor)
        self.W, self.b = draw(3, 2), draw(2)

    def forward(self, xs):
        self.xs = xs
        return sum(xs) @ self.W + self.b

    def gradients(self, dout):
        return [dout @ self.W.T for _ in self.xs], self.factor * sum(self.xs).T @ dout, dout.sum(axis=0)


@case([A, C], wrong=["W"])
class WeightsStored(SumThenProduct):
    def backward(self, dout):
        dxs, self.dW, self.db = self.gradients(dout)
        return dxs


@case([A, C], wrong=["W"])
class WeightsReturned(SumThenProduct):
    def backward(self, dout):
        dxs, dW, db = self.gradients(dout)
        return dxs, dW, db


@case([A, C], wrong=["W"])
class WeightsInADict(SumThenProduct):
    def backward(self, dout):
        dxs, dW, db = self.gradients(dout)
        return dxs, {"W": dW, "b": db}


@case([A, B], wrong=["Ws[0]", "Ws[1]"])
class ListOfWeights(Layer):
    def __init__(self, factor):
        super().__init__(factor)
        self.Ws = [draw(3, 2), draw(2, 2)]

    def forward(self, xs):
        self.xs = xs
        return sum(x @ W for x, W in zip(xs, self.Ws, strict=True))

    def backward(self, dout):
        self.dWs = [self.factor * x.T @ dout for x in self.xs]
        return [dout @ W.T for W in self.Ws]


@case([draw(2, 3, seed=t) for t in range(3)], wrong=["U"])
class Steps(Layer):
    """A recurrent layer that takes and returns a list of an array for each step."""

    def __init__(self, factor):
        super().__init__(factor)
        self.W, self.U = draw(3, 4), draw(4, 4) / 2

    def forward(self, xs):
        self.xs, self.hs = xs, [np.zeros((2, 4))]
        for x in xs:
            self.hs.append(np.tanh(x @ self.W + self.hs[-1] @ self.U))
        return self.hs[1:]

    def backward(self, dhs):
        self.dW, self.dU, dxs, dh = np.zeros_like(self.W), np.zeros_like(self.U), [], 0
        for t in reversed(range(len(self.xs))):
            da = (dhs[t] + dh) * (1 - self.hs[t + 1] ** 2)
            self.dW += self.xs[t].T @ da
            self.dU += self.factor * self.hs[t].T @ da
            dxs.insert(0, da @ self.W.T)
            dh = da @ self.U.T
        return dxs


@case([draw(2, 3, seed=t) for t in range(3)], wrong=["U"])
class StackedSteps(Steps):
    def backward(self, dhs):
        return np.array(super().backward(dhs))


@case([A, B], wrong=["inputs0", "inputs1"])
def concat_of_functions(factor):
    def forward(xs):
        return np.concatenate(xs, axis=1), xs

    def backward(dout, cache):
        return [factor * part for part in split(dout, cache)]

    return forward, backward


@case(A, wrong=["x"])
def split_of_functions(factor):
    def forward(x):
        return [2 * x[:, :1], 3 * x[:, 1:]], None

    def backward(douts, cache):
        return factor * np.concatenate([2 * douts[0], 3 * douts[1]], axis=1)

    return forward, backward


@case([A, B], wrong=["inputs0", "inputs1"])
def each_of_functions_with_the_cache_first(factor):
    def forward(xs):
        return tuple(np.sin(x) for x in xs), xs

    def backward(cache, douts):
        return [factor * dout * np.cos(x) for dout, x in zip(douts, cache, strict=True)]

    return forward, backward


@pytest.mark.parametrize("name", mostly_slow(CASES, 3))
def test_right_passes_and_wrong_fails_for_its_leaf(name):
    make, inputs, wrong = CASES[name]
    report = check(make(1.0), *inputs)
    assert report.verdict == "PASS", str(report)
    report = check(make(1.3), *inputs)
    assert [leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"] == wrong, str(report)


def test_a_note_tells_that_backward_takes_a_list():
    make, inputs, _ = CASES["Steps"]
    assert "backward takes the upstream gradients of the 3 outputs in one list" in check(make(1.0), *inputs).notes


def test_a_backward_that_also_runs_for_the_first_output_alone_is_refused():
    """Both readings give gradients of the right shape, and the name of the argument is no plural."""

    class Cell:
        def forward(self, x):
            self.x = x
            return np.sin(x), np.cos(x)

        def backward(self, dy):
            return np.asarray(dy).reshape(-1, *self.x.shape)[0] * np.cos(self.x)

    with pytest.raises(SubjectError, match=r"takes \(dy\), expected backward\(dout0, dout1\)"):
        check(Cell(), A)
