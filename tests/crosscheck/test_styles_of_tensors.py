"""Tests layers of tensors whose gradients are attributes of the tensors, right ones and ones wrong by a factor."""

import numpy as np
import pytest
from tensors import torch  # skips this file where PyTorch is missing

from jaxnet.crosscheck import SubjectError, check
from jaxnet.crosscheck.adapters import Style
from jaxnet.crosscheck.adapters.tensors import tensor_attributes


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


class Affine:
    def __init__(self, factor):
        self.weight, self.offset, self.factor = draw(4, 3), draw(3), factor

    def __call__(self, source):
        self.source, self.result = source, source @ self.weight + self.offset
        return self.result

    def backward(self):
        upstream = self.result.g
        self.source.g = upstream @ self.weight.t()
        self.weight.g = self.factor * self.source.t() @ upstream
        self.offset.g = upstream.sum(0)


class Square:
    """A layer whose __call__ keeps what its forward returns for the backward of the subclass."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, *args):
        self.args, self.kept = args, self.forward(*args)
        return self.kept

    def forward(self, source):
        return source**2

    def backward(self):
        self.pull(self.kept, *self.args)

    def pull(self, kept, source):
        source.slope = 2 * self.factor * source * kept.slope


class MeanSquare:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, source, target):
        self.source, self.target = source, target
        return ((source - target) ** 2).mean()

    def backward(self):
        self.source.g = 2 * self.factor * (self.source - self.target) / self.source.numel()


@pytest.mark.parametrize(
    ("layer", "inputs", "leaf"),
    [
        (Affine, (draw(5, 4),), "weight"),
        (Square, (draw(5, 4),), "source"),
        (MeanSquare, (draw(6), draw(6).flip(0)), "source"),
    ],
)
def test_gradients_in_attributes_of_tensors_are_checked(layer, inputs, leaf):
    right, wrong = check(layer(1.0), *inputs), check(layer(1.01), *inputs)
    assert right.verdict.value == "PASS", right
    assert wrong.verdict.value == "FAIL", wrong
    assert [part.name for part in wrong.leaves if part.verdict.value == "FAIL"] == [leaf]
    assert any("are read from the attribute" in note for note in right.notes)


def test_a_backward_that_takes_the_upstream_gradient_costs_no_further_call():
    class Kept:
        calls = 0

        def forward(self, x):
            type(self).calls += 1
            self.x = x
            return x**2

        def backward(self, dout):
            return 2 * self.x * dout

    assert tensor_attributes.adapt(Style(Kept(), (draw(3),))) is None
    assert Kept.calls == 0


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, slope, factor):
        ctx.save_for_backward(x)
        ctx.slope, ctx.factor = slope, factor
        return (x > 0).to(x)

    @staticmethod
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        y = torch.sigmoid(ctx.slope * x)
        return ctx.factor * ctx.slope * y * (1 - y) * dout, None, None


class Scaled(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor, self.scale = factor, torch.nn.Parameter(draw(3))

    def forward(self, x):
        return Step.apply(x * self.scale, 2.0, self.factor)


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (1.01, "FAIL")])
def test_an_expected_function_may_be_one_of_tensors(factor, verdict):
    report = check(Step.apply, draw(5, 4), 2.0, factor, expected=lambda x, slope, _: torch.sigmoid(slope * x))
    assert report.verdict.value == verdict, report
    assert [leaf.verdict.value for leaf in report.leaves if leaf.name == "x"] == [verdict]


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (1.01, "FAIL")])
def test_an_expected_function_of_tensors_takes_the_parameters_of_a_module(factor, verdict):
    report = check(Scaled(factor), draw(5, 3), expected=lambda p, x: torch.sigmoid(2 * x * p["scale"]))
    assert {leaf.name: leaf.verdict.value for leaf in report.leaves} == {"scale": verdict, "x": verdict}


def test_an_expected_function_that_takes_neither_arrays_nor_tensors_is_refused_with_its_own_error():
    with pytest.raises(SubjectError, match=r"^expected: <lambda>: raised KeyError: 'missing'"):
        check(Step.apply, draw(5, 4), 2.0, 1.0, expected=lambda x, *_: {}["missing"])


class Holder:
    """An object that holds an array and a gradient, and records nothing."""

    def __init__(self, value, requires_grad=False):
        self.data, self.grad, self.requires_grad = value, np.zeros_like(value) if requires_grad else None, requires_grad

    def backward(self, grad=None):
        if self.requires_grad:
            self.grad += np.ones_like(self.data) if grad is None else grad


class HeldAffine:
    """A layer of such objects, whose backward takes and returns arrays."""

    def __init__(self, factor):
        self.w = Holder(np.random.default_rng(1).normal(size=(4, 3)), requires_grad=True)
        self.factor = factor

    def forward(self, x):
        self.x = x.data
        return Holder(x.data @ self.w.data)

    def backward(self, grad):
        self.w.grad = self.factor * self.x.T @ grad
        return grad @ self.w.data.T


class HeldLoss:
    """A loss of such an object and labels."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, logits, target):
        self.target = target
        p = np.exp(logits.data - logits.data.max(axis=1, keepdims=True))
        self.p = p / p.sum(axis=1, keepdims=True)
        return Holder(np.array(-np.log(self.p[range(len(target)), target]).mean()))

    def backward(self):
        grad = self.p.copy()
        grad[range(len(self.target)), self.target] -= 1
        return self.factor * grad / len(grad)


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (2.0, "FAIL"), (1.01, "FAIL")])
def test_objects_that_only_hold_an_array_are_taken_as_arrays(factor, verdict):
    x = np.random.default_rng(0).normal(size=(5, 4))
    report = check(HeldAffine(factor), Holder(x))
    assert str(report.verdict) == verdict, report
    assert [leaf.name for leaf in report.leaves if str(leaf.verdict) == "FAIL"] == (["w"] if factor != 1 else [])
    loss = check(HeldLoss(factor), Holder(x), np.array([0, 1, 3, 2, 2]))
    assert str(loss.verdict) == verdict, loss


class TwiceGiven:
    """A loss whose call returns the value and the gradient, which are methods as well."""

    def __init__(self, factor):
        self.factor = factor

    def loss(self, predictions, targets):
        return (predictions - targets).pow(2).mean()

    def loss_prime(self, predictions, targets):
        return 2 * self.factor * (predictions - targets) / predictions.numel()

    def __call__(self, predictions, targets):
        return self.loss(predictions, targets), self.loss_prime(predictions, targets)


class Splat:
    def __init__(self, factor):
        self.factor = factor

    def forward(self, *inputs):
        self.y = inputs[0].sigmoid()
        return self.y

    def backward(self, *gradwrtoutput):
        return self.factor * gradwrtoutput[0] * self.y * (1 - self.y)


class OwnRate:
    def __init__(self, factor):
        self.gamma, self.w, self.factor = 1e-3, draw(3, 4), (factor,)  # in a tuple, as the rate is the only number

    def forward(self, x):
        self.x = x
        return self.w.mm(x)

    def backward(self, dl_ds):
        self.dl_dw = self.factor[0] * dl_ds.mm(self.x.t())
        dl_dx = self.w.t().mm(dl_ds)
        self.w -= self.gamma * self.dl_dw
        return dl_dx


@pytest.mark.parametrize(
    ("make", "inputs", "leaf"),
    [
        (TwiceGiven, (draw(5, 4), draw(4, 5).t()), "predictions"),
        (Splat, (draw(5, 4),), "inputs[0]"),
        (OwnRate, (draw(4, 5),), "w"),
    ],
)
def test_gradients_written_by_hand_are_checked_and_not_those_that_pytorch_derives(make, inputs, leaf):
    right, wrong = check(make(1.0), *inputs), check(make(1.01), *inputs)
    assert right.verdict.value == "PASS", right
    assert wrong.verdict.value == "FAIL", wrong
    assert [part.name for part in wrong.leaves if part.verdict.value == "FAIL"] == [leaf]


class Parameter:
    def __init__(self, value):
        self.value, self.grad = value, torch.zeros_like(value)


class AffineOfParameters:
    def __init__(self, factor):
        self.w, self.bias, self.factor = Parameter(draw(3, 4)), Parameter(draw(3)), factor

    def forward(self, x):
        self.x = x
        return x.mm(self.w.value.t()) + self.bias.value

    def backward(self, dout):
        self.w.grad = self.factor * dout.t().mm(self.x)  # a new tensor
        self.bias.grad.add_(dout.sum(0))  # the same one
        return dout.mm(self.w.value)


def test_parameters_in_objects_of_a_value_and_its_gradient_are_checked():
    right, wrong = check(AffineOfParameters(1.0), draw(5, 4)), check(AffineOfParameters(1.01), draw(5, 4))
    assert right.verdict.value == "PASS", right
    assert [part.name for part in right.leaves] == ["w", "bias", "x"]
    assert [part.name for part in wrong.leaves if part.verdict.value == "FAIL"] == ["w"], wrong
