"""Tests backward passes that clip gradients, as recurrent networks do against exploding gradients."""

import numpy as np
import pytest

from jaxnet.crosscheck import check_layer

X = np.random.default_rng(1).normal(size=(8, 4))


class Clips:
    """A linear layer that clips the gradients of its parameters; `of_input` clips that of its input as well."""

    def __init__(self, bound=0.5, factor=1.0, *, of_input=False):
        rng = np.random.default_rng(0)
        self.bound, self.factor, self.of_input = bound, factor, of_input
        self.W, self.b = rng.normal(size=(4, 3)), rng.normal(size=3)

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW, self.db = self.factor * self.x.T @ dout, dout.sum(axis=0)
        dx = dout @ self.W.T
        for gradient in (self.dW, self.db, *([dx] if self.of_input else [])):
            np.clip(gradient, -self.bound, self.bound, out=gradient)
        return dx


@pytest.mark.parametrize("bound", [0.5, 1, 5, 100])
def test_clipped_gradients_of_parameters_that_are_right_otherwise_are_undecided(bound):
    report = check_layer(Clips(bound), X)
    assert report.verdict == "INCONCLUSIVE"
    assert {leaf.verdict for leaf in report.leaves} == {"PASS"}
    assert f"to [-{bound:g}, {bound:g}], so they are no derivatives" in report.text(width=None)


@pytest.mark.parametrize("options", [{"factor": 1.01}, {"of_input": True}, {"bound": 0.51234}])
def test_other_clipped_gradients_fail(options):
    assert check_layer(Clips(**options), X).verdict == "FAIL"
