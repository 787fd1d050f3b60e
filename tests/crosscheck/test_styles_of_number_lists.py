"""Tests layers of plain Python numbers in nested lists, written without NumPy."""

import numpy as np
import pytest

from jaxnet.crosscheck import check


def draw(*shape):
    return np.random.default_rng(shape).standard_normal(shape)


class Dense:
    """A layer of one sample, which fills its lists in place."""

    def __init__(self, factor):
        self.factor, self.weights, self.biases = factor, draw(3, 4).tolist(), draw(3).tolist()
        self.weights_grad, self.biases_grad = [[0.0] * 4 for _ in range(3)], [0.0] * 3
        self.outputs = [0.0] * 3

    def forward(self, inputs):
        self.inputs = inputs
        for n in range(3):
            self.outputs[n] = sum(inputs[i] * self.weights[n][i] for i in range(4)) + self.biases[n]
        return self.outputs

    def backward(self, gradient):
        above = [0.0] * 4
        for n in range(3):
            self.biases_grad[n] = gradient[n]
            for i in range(4):
                self.weights_grad[n][i] = self.factor * gradient[n] * self.inputs[i]
                above[i] += gradient[n] * self.weights[n][i]
        return above


class AveragePooling:
    """A layer of lists of lists, which makes them anew."""

    def __init__(self, factor):
        self.factor = factor

    def forward(self, inputs):
        return [[(row[0] + row[1]) / 2, (row[2] + row[3]) / 2] for row in inputs]

    def backward(self, dout):
        return [[self.factor * row[j // 2] / 2 for j in range(4)] for row in dout]


@pytest.mark.parametrize(("kind", "shape", "leaf"), [(Dense, (4,), "weights"), (AveragePooling, (3, 4), "inputs")])
def test_lists_of_numbers_are_read_as_arrays(kind, shape, leaf):
    report = check(kind(1.0), draw(*shape))
    assert report.verdict == "PASS", str(report)
    assert any("is given lists of numbers" in note for note in report.notes)
    failed = [leaf.name for leaf in check(kind(1.01), draw(*shape)).leaves if leaf.verdict == "FAIL"]
    assert failed == [leaf]


def test_a_gradient_in_lists_under_another_name_is_no_failure():
    class Scale:
        def __init__(self):
            self.weights = [1.5, 0.5]

        def forward(self, inputs):
            self.inputs = inputs
            return [x * w for x, w in zip(inputs, self.weights, strict=True)]

        def backward(self, gradient):
            self.steps = [g * x for g, x in zip(gradient, self.inputs, strict=True)]
            return [g * w for g, w in zip(gradient, self.weights, strict=True)]

    report = check(Scale(), draw(2))
    assert report.verdict == "INCONCLUSIVE", str(report)
    assert "weights affects the output, but no gradient was returned for it" in str(report)


def test_the_lists_of_the_layer_are_not_changed():
    layer = Dense(1.0)
    weights = [list(row) for row in layer.weights]
    check(layer, draw(4))
    assert layer.weights == weights
    assert isinstance(layer.weights[0][0], float)
