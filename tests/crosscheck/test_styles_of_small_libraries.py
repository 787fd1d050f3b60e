"""Tests styles of small libraries: `backward(*grads)`, losses that return probabilities too, arguments never read."""

import numpy as np
import pytest
from styles import Styles, draw

from jaxnet.crosscheck import SubjectError, check

LABELS = np.array([0, 2, 1, 2, 0])
styles = Styles()


@styles.add
class ManyArguments:
    """An activation whose backward takes its upstream gradient by `*grads`."""

    inputs, leaf = (draw(5, 4),), "z"

    def __init__(self, factor):
        self.factor = factor

    def forward(self, z):
        self.slope = self.factor / np.cosh(z) ** 2
        return np.tanh(z)

    def backward(self, *grads):
        return self.slope * grads[0]


@styles.add
class LossAndProbabilities:
    inputs, leaf = (draw(5, 3), LABELS), "y_pred"

    def __init__(self, factor):
        self.factor = factor

    def forward(self, scores, labels):
        p = np.exp(scores - scores.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        return -np.log(p[range(len(p)), labels]).mean(), p

    def backward(self, scores, labels):
        _, p = self.forward(scores, labels)
        return self.factor * (p - np.eye(3)[labels]) / len(p)


@styles.add
class TwoDictsOfOneLetter:
    inputs, leaf = (draw(5, 4),), "P['w']"

    def __init__(self, factor):
        self.P, self.G, self.factor = {"w": draw(4, 3), "c": draw(3)}, {}, factor

    def forward(self, x):
        self.x = x
        return x @ self.P["w"] + self.P["c"]

    def backward(self, dout):
        self.G["w"], self.G["c"] = self.factor * self.x.T @ dout, dout.sum(0)
        return dout @ self.P["w"].T


@styles.add
class InputsInAListTakenAgain:
    inputs, leaf = ([draw(5, 4), draw(5, 3)],), "inputs1"

    def __init__(self, factor):
        self.kernel, self.factor = draw(4, 3), factor

    def forward(self, pair):
        return pair[0] @ self.kernel * pair[1]

    def backward(self, out_grad, pair):
        x, gate = pair
        self.kernel_grad = x.T @ (out_grad * gate)
        return [(out_grad * gate) @ self.kernel.T, self.factor * out_grad * (x @ self.kernel)]


@styles.add
class OwnRateBesideStoredGradients:
    inputs, leaf = (draw(4, 5),), "w"

    def __init__(self, factor):
        self.gamma, self.w, self.factor = 1e-3, draw(3, 4), (factor,)  # in a tuple, as the rate is the only number

    def forward(self, x):
        self.x = x
        return self.w @ x

    def backward(self, dl_ds):
        self.dl_dw = self.factor[0] * dl_ds @ self.x.T
        dl_dx = self.w.T @ dl_ds
        self.w -= self.gamma * self.dl_dw
        return dl_dx


@styles.add
class CallAndD:
    inputs, leaf = (draw(5, 4),), "z"

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, z):
        return np.tanh(z)

    def d(self, z):
        return self.factor / np.cosh(z) ** 2


@styles.add
def argument_that_is_never_read(factor):
    def softplus(z):
        return np.logaddexp(0, z)

    def softplus_backward(dA, z, action):  # as in a framework that calls all of them alike
        return factor * dA / (1 + np.exp(-z))

    return softplus, softplus_backward


argument_that_is_never_read.inputs, argument_that_is_never_read.leaf = (draw(5, 4),), "z"


@pytest.mark.parametrize("name", styles)
def test_right_code_passes_and_wrong_code_fails(name):
    make = styles[name]
    right, wrong = check(make(1.0), *make.inputs), check(make(1.01), *make.inputs)
    assert right.verdict.value == "PASS", right
    assert wrong.verdict.value == "FAIL", wrong
    assert [leaf.name for leaf in wrong.leaves if leaf.verdict.value == "FAIL"] == [make.leaf]


class UpstreamInAnAttribute:
    deltas = None

    def forward_pass(self):
        self.y = np.tanh(self.x)
        return self.y

    def backward_pass(self, settings):
        return self.deltas * (1 - self.y**2)


def test_an_upstream_gradient_that_is_read_from_an_attribute_is_asked_for_and_no_fault():
    layer = UpstreamInAnAttribute()
    layer.x = draw(5, 4)
    with pytest.raises(SubjectError, match=r"takes no inputs, dout may be read from an attribute: pass a subclass"):
        check(layer)


class FirstLayer:
    """A recurrent network that returns its last state too, and whose backward trains it and returns nothing."""

    def __init__(self, factor):
        self.W, self.U, self.factor = draw(3, 3), draw(3, 4), factor

    def forward(self, xs):
        self.xs, self.hs = xs, [np.zeros((3, 1))]
        for x in xs:
            self.hs.append(np.tanh(self.U @ x + self.W @ self.hs[-1]))
        return 2 * self.hs[-1], self.hs[-1]

    def backprop(self, d_y, learn_rate=2e-2):
        dh, dW, dU = 2 * d_y, 0, 0
        for x, h, before in zip(self.xs[::-1], self.hs[:0:-1], self.hs[-2::-1], strict=True):
            dz = (1 - h**2) * dh
            dW, dU, dh = dW + dz @ before.T, dU + self.factor * dz @ x.T, self.W.T @ dz
        self.W -= learn_rate * dW
        self.U -= learn_rate * dU


@pytest.mark.parametrize("xs", [draw(5, 4, 1), [draw(4, 1), draw(1, 4).T, -draw(4, 1)]])
def test_a_first_layer_that_is_trained_in_backward_has_right_parameters_and_may_lack_dx(xs):
    report = check(FirstLayer(1.0), xs)
    assert report.verdict.value == "INCONCLUSIVE", report
    verdicts = {leaf.name: leaf.verdict.value for leaf in report.leaves}
    assert (verdicts.pop("W"), verdicts.pop("U"), {*verdicts.values()}) == ("PASS", "PASS", {"INCONCLUSIVE"})
    names = ("xs",) if isinstance(xs, np.ndarray) else ("xs[0]", "xs[1]", "xs[2]")
    assert check(FirstLayer(1.0), xs, constants=names).verdict.value == "PASS"
    wrong = check(FirstLayer(1.01), xs)
    assert [leaf.name for leaf in wrong.leaves if leaf.verdict.value == "FAIL"] == ["U"], wrong
