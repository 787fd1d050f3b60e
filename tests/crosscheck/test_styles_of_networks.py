"""Tests networks whose `loss(X, y)` returns or stores the gradients too, and the note that says how one was read."""

import numpy as np
import pytest

from jaxnet.crosscheck import SubjectError, check, check_network


def draw(*shape):
    return np.random.default_rng(shape).standard_normal(shape)


X, Y = draw(6, 4), np.array([0, 2, 1, 1, 0, 2])


def softmax_loss(W, X, y, reg, wrong=1.0):
    """Returns the mean cross entropy of X W with the decay reg |W|^2, and its gradient by W."""
    p = np.exp(X @ W)
    p /= p.sum(axis=1, keepdims=True)
    loss = -np.log(p[np.arange(len(X)), y]).mean() + reg * (W**2).sum()
    p[np.arange(len(X)), y] -= 1
    return loss, X.T @ p / len(X) + wrong * 2 * reg * W


class WithParams:
    def __init__(self, reg, wrong=1.0):
        self.params, self.reg, self.wrong, self.momentum = {"W": draw(4, 3)}, reg, np.array(wrong), 0.9

    def loss(self, X, y):
        loss, dW = softmax_loss(self.params["W"], X, y, self.reg, self.wrong)
        return loss, {"W": dW}


class WithStoredGradients(WithParams):
    def loss(self, X, y, reg):
        loss, dW = softmax_loss(self.params["W"], X, y, reg, self.wrong)
        self.grads = {"W": dW}
        return loss


class WithSeparateGradients(WithParams):
    def loss(self, X, y):
        return softmax_loss(self.params["W"], X, y, self.reg)[0]

    def compute_grads(self, X, y):
        return {"W": softmax_loss(self.params["W"], X, y, self.reg, self.wrong)[1]}


class WithAttributes:
    """Holds W as an attribute, as a linear classifier does, and returns its gradient alone."""

    def __init__(self, wrong=1.0):
        self.W, self.wrong = draw(4, 3), wrong

    def loss(self, X, y, reg):
        return softmax_loss(self.W, X, y, reg, self.wrong)


class OfTargets:
    def __init__(self, wrong=1.0):
        self.params, self.wrong = {"W": draw(4, 3)}, wrong

    def loss(self, X, T):
        d = X @ self.params["W"] - T
        return (d**2).sum(), {"dW": self.wrong * 2 * X.T @ d}


READINGS = [
    (
        lambda wrong: WithParams(0.5, wrong),
        (X, Y),
        "WithParams.loss returned the loss and the gradients of params for the labels y as passed and reg = 0.5 of the "
        "object",
    ),
    (
        lambda wrong: WithParams(0.5, wrong).loss,
        (X, Y),
        "WithParams.loss returned the loss and the gradients of params for the labels y as passed and reg = 0.5 of the "
        "object",
    ),
    (
        lambda wrong: WithStoredGradients(0.1, wrong),
        (X, Y, 0.5),
        "WithStoredGradients.loss returned the loss, and stored the gradients of params in grads for the labels y as "
        "passed and reg = 0.5",
    ),
    (
        lambda wrong: WithSeparateGradients(0.5, wrong),
        (X, Y),
        "WithSeparateGradients.loss returned the loss, and WithSeparateGradients.compute_grads the gradients of params "
        "for the labels y as passed and reg = 0.5 of the object",
    ),
    (
        WithAttributes,
        (X, Y, 0.5),
        "WithAttributes.loss returned the loss and the gradients of W for the labels y as passed and reg = 0.5",
    ),
    (
        lambda wrong: WithAttributes(wrong).loss,
        (X, Y, 0.5),
        "WithAttributes.loss returned the loss and the gradients of W for the labels y as passed and reg = 0.5",
    ),
    (
        OfTargets,
        ((6, 4), (6, 3)),
        "OfTargets.loss returned the loss and the gradients of params for drawn labels T",
    ),
]


@pytest.mark.parametrize(("make", "inputs", "note"), READINGS)
def test_a_note_tells_what_the_loss_returned_and_for_which_labels_and_strengths(make, inputs, note):
    report = check(make(1.0), *inputs)
    assert report.verdict == "PASS", str(report)
    assert note in report.notes
    wrong = check(make(1.3), *inputs)
    assert wrong.verdict == "FAIL", str(wrong)
    assert [leaf.name for leaf in wrong.leaves if leaf.verdict == "FAIL"] == ["W"]
    assert note in wrong.notes


def test_check_network_takes_parameters_in_attributes_too():
    class WithDict(WithAttributes):
        def loss(self, X, y, reg):
            loss, dW = super().loss(X, y, reg)
            return loss, {"dW": dW}

    assert check_network(WithDict(), X, Y, 0.5).verdict == "PASS"
    assert check_network(WithDict(0.0), X, Y, 0.5).verdict == "FAIL"


def test_a_parameter_in_an_attribute_without_a_gradient_is_inconclusive():
    class WithBias(WithAttributes):
        def __init__(self):
            super().__init__()
            self.b = draw(4)

        def loss(self, X, y, reg):
            return super().loss(X + self.b, y, reg)

    report = check(WithBias(), X, Y, 0.5)
    assert report.verdict == "INCONCLUSIVE", str(report)
    assert [leaf.name for leaf in report.leaves if leaf.verdict != "PASS"] == ["b"]


def test_scores_beside_a_loss_are_not_read_as_a_gradient():
    class WithScores(WithAttributes):
        def loss(self, X, y, reg):
            return super().loss(X, y, reg)[0], X @ self.W

    with pytest.raises(SubjectError):
        check(WithScores(), draw(4, 4), Y[:4], 0.5)


def linear_cost(X, y, theta, decay):
    """Returns a cost of a column theta, and its gradient as a flat array, as an optimizer takes it."""
    d = X @ theta.reshape(-1, 1) - y
    gradient = X.T @ d
    gradient[1:] += decay * theta.reshape(-1, 1)[1:]
    return float((d**2).sum() + decay * (theta[1:] ** 2).sum()) / 2, gradient.ravel()


def test_a_gradient_of_another_shape_beside_a_value_is_refused_with_the_shape_to_pass():
    arrays, theta = (draw(6, 3), draw(6, 1)), draw(3)
    assert check(linear_cost, *arrays, theta, 0.1).verdict == "PASS"
    words = (
        r"linear_cost: returns its value and its gradient by theta, of shape \(3,\), where theta has shape \(3, 1\); "
        r"return the gradient in the shape of theta, or pass theta of shape \(3,\)$"
    )
    with pytest.raises(SubjectError, match=words):
        check(linear_cost, *arrays, theta.reshape(3, 1), 0.1)


def test_another_value_of_the_size_of_an_argument_is_not_called_its_gradient():
    def value_and_cosines(theta):
        return float((theta**2).sum()), np.cos(theta).ravel()

    with pytest.raises(SubjectError) as caught:
        check(value_and_cosines, draw(3, 1))
    assert "its gradient by" not in str(caught.value)
