"""Tests layers of tensors whose gradients are attributes of the tensors, right ones and ones wrong by a factor."""

import pytest
import torch

from jaxnet.crosscheck import check
from jaxnet.crosscheck.adapters import Style, tensor_attributes


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
