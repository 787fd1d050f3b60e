"""Tests layers whose backward is given an optimizer of which no class is known."""

import numpy as np
import pytest
from conftest import exhaustive, sampled
from styles import Styles, draw

from jaxnet.crosscheck import SubjectError, check

STYLES = Styles()
style = STYLES.add


class _Affine:
    def __init__(self, k, size=3):
        self.W, self.b, self.k = draw(4, size), draw(1, size), k
        self.mean_W, self.mean_b = np.zeros_like(self.W), np.zeros_like(self.b)

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def slopes(self, dout):
        return dout @ self.W.T, self.k * self.x.T @ dout, dout.sum(axis=0, keepdims=True)


@style
class ParametersOneByOne(_Affine):
    def backward(self, dout, optimizer):
        dx, dW, db = self.slopes(dout)
        optimizer.step(self.W, dW)
        optimizer.step(self.b, db)
        return dx


@style
class AssignedParameters(_Affine):
    def backward(self, dout, opt):
        dx, dW, db = self.slopes(dout)
        self.W = opt.update(self.W, dW)
        self.b = opt.update(self.b, db[0])
        return dx


@style
class ListsWithAKey(_Affine):
    def backward(self, dout, optimizer, key):
        dx, dW, db = self.slopes(dout)
        optimizer.update([self.W, self.b], [dW, db], key)
        return dx


@style
class DictsOfBoth(_Affine):
    def backward(self, dout, optimizer=None):
        dx, dW, db = self.slopes(dout)
        optimizer.apply_gradients({"W": self.W, "b": self.b}, {"W": dW, "b": db})
        return dx


@style
class StatesOfTheOptimizerBesideARate(_Affine):
    def backward(self, dout, optimizer_fn, learning_rate):
        dx, dW, db = self.slopes(dout)
        self.W, self.b, self.mean_W, self.mean_b = optimizer_fn.minimize(
            self.W, self.b, dW, db, self.mean_W, self.mean_b, learning_rate
        )
        return dx


@style
class TheLayerItself(_Affine):
    def backward(self, dout, optimizer):
        dx, dW, db = self.slopes(dout)
        optimizer.update(self, dW, db, layer_id=2)
        return dx


@style
class GradientsAlone(_Affine):
    def backward(self, dout, lr, optimizer):
        dx, dW, db = self.slopes(dout)
        self.W -= lr * optimizer.direction(dW)
        self.b += lr * optimizer.direction(db)
        return dx


@style
class AFunction(_Affine):
    def backward(self, dout, optimizer):
        dx, dW, db = self.slopes(dout)
        self.W, self.b = optimizer(self.W, dW), optimizer(self.b, db)
        return dx


@style
class TheRateOfTheOptimizer(_Affine):
    def backward(self, dout, optimizer):
        dx, dW, db = self.slopes(dout)
        self.W -= optimizer.lr * dW
        self.b -= optimizer.lr * db
        return dx


@style
class ALaterUpdateByGradientsOfOtherNames(_Affine):
    def backward(self, dout):
        dx, self.first_slope, self.second_slope = self.slopes(dout)
        return dx

    def update(self, optimizer):
        self.W = optimizer.step(self.W, self.first_slope)
        self.b = optimizer.step(self.b, self.second_slope)


@style
class ALaterUpdateAtARate(ALaterUpdateByGradientsOfOtherNames):
    def update(self, lr):
        self.W = self.W - lr * self.first_slope
        self.b = self.b - lr * self.second_slope


@style
class MomentumAndDecayAsOptions(_Affine):
    def __init__(self, k):
        super().__init__(k)
        self.vW, self.vb = np.zeros_like(self.W), np.zeros_like(self.b)

    def backward(self, dout, learning_rate, beta=0.9, l2_lambda=0.1):
        dx, dW, db = self.slopes(dout)
        self.vW = beta * self.vW + (1 - beta) * (dW + 2 * l2_lambda * self.W)
        self.vb = beta * self.vb + (1 - beta) * db
        self.W -= learning_rate * self.vW
        self.b -= learning_rate * self.vb
        return dx


@style
class LayersWithinANetwork:
    def __init__(self, k):
        self.layers = [ListsWithAKey(k, 4), ListsWithAKey(1.0)]

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dout, optimizer):
        for i, layer in reversed(list(enumerate(self.layers))):
            dout = layer.backward(dout, optimizer, f"layer{i}")
        return dout


@pytest.mark.parametrize("name", sampled(STYLES, 4))
def test_correct_gradients_that_an_optimizer_is_given_pass(name):
    report = check(STYLES[name](1.0), draw(5, 4))
    assert report.verdict == "PASS", str(report)
    assert sum(leaf.name.endswith(("W", "b")) for leaf in report.leaves) in (2, 4)


@pytest.mark.parametrize("factor", [1.01, exhaustive(2.0), exhaustive(-1.0)])
@pytest.mark.parametrize("name", sampled(STYLES, 4))
def test_a_wrong_gradient_that_an_optimizer_is_given_fails(name, factor):
    report = check(STYLES[name](factor), draw(5, 4))
    wrong = [leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"]
    assert wrong == (["layers[0].W"] if name == "LayersWithinANetwork" else ["W"]), str(report)


def test_a_note_says_to_what_the_gradients_were_given():
    report = check(ParametersOneByOne(1.0), draw(5, 4))
    assert "the gradients that backward gives to optimizer.step are checked" in " ".join(report.notes)


def test_a_gradient_that_is_given_alone_may_be_zero():
    class Dead(GradientsAlone):
        def forward(self, x):
            return super().forward(x) * np.array([1.0, 0.0, 1.0])

        def backward(self, dout, lr, optimizer):
            return super().backward(dout * np.array([1.0, 0.0, 1.0]), lr, optimizer)

    report = check(Dead(1.0), draw(5, 4))
    assert report.verdict == "PASS", str(report)
    assert "FAIL" not in str(check(Dead(1.0), np.zeros((5, 4))))


class _AfterAnUpdate(_Affine):
    def backward(self, dout, optimizer):
        _, dW, db = self.slopes(dout)
        optimizer.step(self.W, dW)
        optimizer.step(self.b, db)
        return dout @ self.W.T


class _WithAnotherParameterOfItsShape(_Affine):
    def __init__(self, k):
        super().__init__(k, 4)
        self.U = draw(4, 4)

    def forward(self, x):
        return super().forward(x) @ self.U

    def backward(self, dout, optimizer):
        dh = dout @ self.U.T
        dx, dW, db = self.slopes(dh)
        optimizer.update(self, (self.x @ self.W + self.b).T @ dout, dW, db)
        return dx


class _ComputedByTheOptimizer(_Affine):
    def backward(self, dout, optimizer):
        return optimizer.update(self, dout)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (_AfterAnUpdate, "after a call of optimizer depends on what that does"),
        (_WithAnotherParameterOfItsShape, "a gradient fits no parameter that is passed with it, or several"),
        (_ComputedByTheOptimizer, "the optimizer is given the layer and dout"),
    ],
)
def test_gradients_whose_parameters_are_not_certain_are_refused(layer, reason):
    with pytest.raises(SubjectError, match=rf"{reason}; pass a subclass that takes a rate"):
        check(layer(1.0), draw(4, 4))


def test_a_note_names_parameters_that_forward_draws_anew():
    class DrawsItsWeights:
        def forward(self, x):
            self.x, self.W = x, np.random.default_rng(0).normal(size=(4, 3))
            return x @ self.W

        def backward(self, dout, learning_rate):
            dx = dout @ self.W.T
            self.W -= learning_rate * 2 * self.x.T @ dout
            return dx

    report = check(DrawsItsWeights(), draw(5, 4))
    assert [leaf.name for leaf in report.leaves] == ["x"]
    assert "not checked, because forward makes them anew in each call: W" in report.text(width=None)
