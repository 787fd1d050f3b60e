"""Tests that the gradient of a loss is not read as that of its labels, for which a wrong sign would be right."""

import numpy as np
import pytest

from jaxnet.crosscheck import check, check_function


def draw(*shape):
    return np.random.default_rng(shape).standard_normal(shape)


Y, T = draw(5, 4), draw(4, 5).T


def squares(names, sign):
    """Returns a squared error of two arguments of these names, and its gradient by the first that is no label."""
    first, second = names
    source = (
        f"def loss({first}, {second}):\n    return (({first} - {second}) ** 2).sum()\n"
        f"def loss_prime({first}, {second}):\n    return {sign} * 2 * ({first} - {second})\n"
    )
    made = {}
    exec(source, made)
    return made["loss"], made["loss_prime"]


FIRST = [("y", "t"), ("y_pred", "y_true"), ("a", "y"), ("output", "target"), ("predicted", "actual")]
SECOND = [("y_true", "y_pred"), ("y", "p"), ("t", "y"), ("labels", "scores")]


@pytest.mark.parametrize(("names", "sign"), [(n, 1) for n in FIRST] + [(n, -1) for n in SECOND])
def test_the_gradient_by_the_prediction_passes_and_one_of_the_other_sign_fails(names, sign):
    assert check(squares(names, sign), Y, T).verdict == "PASS"
    assert check(squares(names, -sign), Y, T).verdict == "FAIL"
    loss, prime = squares(names, -sign)
    assert check_function(loss, Y, T, gradient=prime).verdict == "FAIL"


def test_a_sign_is_not_decided_where_names_do_not_tell_the_labels():
    assert check(squares(("p", "q"), 1), Y, T).verdict == "PASS"
    report = check(squares(("p", "q"), -1), Y, T)
    assert report.verdict == "INCONCLUSIVE"
    assert "right for q and has the wrong sign for p" in report.text(width=None)


def test_a_layer_whose_gradient_has_the_sign_of_the_labels_fails():
    class Loss:
        def __init__(self, sign):
            self.sign = sign

        def forward(self, y, t):
            self.difference = y - t
            return (self.difference**2).sum()

        def backward(self, dout):
            return dout * self.sign * 2 * self.difference

    assert check(Loss(1), Y, T).verdict == "PASS"
    assert check(Loss(-1), Y, T).verdict == "FAIL"


def test_a_gradient_by_the_second_of_two_factors_is_still_read_as_such():
    report = check_function(lambda x, y: (x * y).sum(), Y, T, gradient=lambda x, y: x)
    assert report.verdict == "PASS"
    assert [leaf.name for leaf in report.leaves if leaf.verdict == "PASS"] == ["y"]
