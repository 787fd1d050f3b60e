"""Tests layers that put gradients in dicts, update their own parameters, or take plain numbers."""

import pytest
from conftest import exhaustive, sampled
from styles import Styles, draw

from jaxnet.crosscheck import SubjectError, check

STYLES = Styles()
style = STYLES.add


class _Affine:
    def __init__(self, k):
        self.weights, self.bias, self.k = draw(4, 3), draw(3), k

    def forward(self, x):
        self.x = x
        return x @ self.weights + self.bias

    def gradients(self, dout):
        return self.k * self.x.T @ dout, dout.sum(axis=0)


@style
def a_dict_that_backward_is_given_and_fills(k):
    class Scale:
        def __init__(self):
            self._arrays, self.params = None, {"scale/gain": draw(4)}

        def forward(self, x):
            return x * self.params["scale/gain"], {}

        def backward(self, x, cache, upstream_gradient, into):
            into["scale/gain"] = k * (upstream_gradient * x).sum(axis=0)
            return upstream_gradient * self.params["scale/gain"]

    return Scale(), (draw(5, 4),)


@style
def a_dict_that_stays_empty_and_a_backward_that_runs_forward_again(k):
    class Square:
        def forward(self, x):
            return x**2, {}

        def backward(self, x, cache, upstream_gradient, gradients):
            y, _ = self.forward(x)
            return k * 2 * y / x * upstream_gradient

    return Square(), (draw(5, 4),)


@style
def gradients_in_a_returned_dict_by_the_names_of_parameters(k):
    class Dense:
        def __init__(self):
            self.weights = {"W": draw(4, 3), "b": draw(3)}

        def forward(self, inputs):
            return inputs @ self.weights["W"] + self.weights["b"]

        def backward(self, inputs, delta):
            dW = k * inputs.T @ delta
            return {"W": dW, "b": delta.sum(axis=0), "x": delta @ self.weights["W"].T}

    return Dense(), (draw(5, 4),)


@style
def gradients_in_a_dict_that_the_layer_holds(k):
    class Dense(_Affine):
        def backward(self, dout):
            dW, db = self.gradients(dout)
            self.param_grads = {"weights": dW, "bias": db}
            return dout @ self.weights.T

    return Dense(k), (draw(5, 4),)


@style
def gradients_with_the_word_after_a_short_name(k):
    class Dense(_Affine):
        def backward(self, dout):
            self.w_gradient, self.b_gradient = self.gradients(dout)
            return dout @ self.weights.T

    return Dense(k), (draw(5, 4),)


@style
def gradients_with_the_word_before_a_short_name(k):
    class Dense(_Affine):
        def backward(self, dout):
            self.gradient_w, self.gradient_b = self.gradients(dout)
            return dout @ self.weights.T

    return Dense(k), (draw(5, 4),)


@style
def gradients_with_a_long_name_for_a_short_one(k):
    class Dense:
        def __init__(self):
            self.W = draw(4, 3)

        def forward(self, x):
            self.x = x
            return x @ self.W

        def backward(self, dout):
            self.weights_gradient = k * self.x.T @ dout
            return dout @ self.W.T

    return Dense(), (draw(5, 4),)


@style
def an_update_by_an_argument_of_any_name(k):
    class Dense(_Affine):
        def backward(self, dout, nudge):
            dx = dout @ self.weights.T
            dW, db = self.gradients(dout)
            self.weights -= nudge * dW
            self.bias -= nudge * db
            return dx

    return Dense(k), (draw(5, 4),)


@style
def an_update_by_an_attribute_of_any_name(k):
    class Dense(_Affine):
        def __init__(self, k):
            super().__init__(k)
            self.pace = 0.1

        def backward(self, dout):
            dx = dout @ self.weights.T
            dW, db = self.gradients(dout)
            self.weights -= self.pace * dW
            self.bias -= self.pace * db
            return dx

    return Dense(k), (draw(5, 4),)


@style
def stored_gradients_and_an_update_at_a_default_rate(k):
    class Dense(_Affine):
        def backward(self, dout, learning_rate=0.01):
            dx = dout @ self.weights.T
            self.dweights, self.dbias = self.gradients(dout)
            self.weights -= learning_rate * self.dweights / len(dout)
            self.bias -= learning_rate * self.dbias / len(dout)
            return dx

    return Dense(k), (draw(5, 4),)


@style
def a_loss_that_rejects_an_array_for_a_number(k):
    def ridge(x, y, w, penalty):
        if not isinstance(penalty, float):
            raise TypeError("penalty must be a number")
        error = x @ w - y
        return float(error @ error + penalty * w @ w), k * (2 * x.T @ error + 2 * penalty * w)

    return ridge, (draw(5, 4), draw(5), draw(4), 0.1)


@style
def a_layer_that_rejects_an_array_for_a_number(k):
    class Power:
        def forward(self, x, scale):
            if not isinstance(scale, float):
                raise TypeError("scale must be a number")
            self.x, self.scale = x, scale
            return scale * x**2

        def backward(self, dout):
            return 2 * k * self.scale * self.x * dout, (self.x**2 * dout).sum()

    return Power(), (draw(5, 4), 0.5)


@style
def a_loss_that_takes_labels_first_in_both_passes(k):
    class Squares:
        def forward(self, target, out):
            return ((out - target) ** 2).mean()

        def backward(self, target, out):
            return 2 * k * (out - target) / out.size

    return Squares(), (draw(5, 3), draw(3, 5).T)


@pytest.mark.parametrize("name", sampled(STYLES, 2))
def test_a_correct_gradient_in_this_style_passes(name):
    thing, inputs = STYLES[name](1.0)
    assert check(thing, *inputs).verdict.name == "PASS"


@pytest.mark.parametrize("factor", [1.001, exhaustive(1.5), exhaustive(-2.0)])
@pytest.mark.parametrize("name", sampled(STYLES, 2))
def test_a_wrong_gradient_in_this_style_fails(name, factor):
    thing, inputs = STYLES[name](factor)
    assert check(thing, *inputs).verdict.name == "FAIL"


def test_a_note_says_that_an_update_beside_stored_gradients_is_not_checked():
    thing, inputs = STYLES["stored_gradients_and_an_update_at_a_default_rate"](1.0)
    report = check(thing, *inputs)
    assert "backward updates bias, weights as well" in str(report)
    assert {leaf.name for leaf in report.leaves} == {"weights", "bias", "x"}


def test_an_argument_whose_effect_is_no_update_is_no_rate():
    class Decayed(_Affine):
        def backward(self, dout, decay):
            dx = dout @ self.weights.T
            dW, _ = self.gradients(dout)
            self.weights -= 0.1 * (dW + decay * self.weights)
            return dx

    with pytest.raises(SubjectError, match=r"takes \(dout, decay\)"):
        check(Decayed(1.0), draw(5, 4))
