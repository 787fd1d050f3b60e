"""Figures hold what they are given; how they look is for eyes."""

import io

import numpy as np
import pytest

from jaxnet import History, plots


def history(steps, evaluations):
    rng = np.random.default_rng(0)
    return History(
        np.exp(rng.standard_normal(steps)), np.linspace(0, steps, evaluations).astype(int),
        rng.random(evaluations), rng.random(evaluations),
    )  # fmt: skip


def drawn(figure):
    figure.savefig(io.BytesIO(), format="png", dpi=40)  # lays it out: a warning would fail the test
    return figure


@pytest.mark.parametrize(("steps", "evaluations"), [(1, 2), (10, 2), (3000, 31)])
def test_learning_curves_are_the_historys_numbers(steps, evaluations):
    run = history(steps, evaluations)
    above, below = drawn(plots.learning_curves(run)).axes
    np.testing.assert_array_equal(above.lines[0].get_ydata(), run.loss)
    train, test = below.lines
    np.testing.assert_array_equal(train.get_xydata(), np.stack([run.eval_step, run.train_accuracy], axis=1))
    np.testing.assert_array_equal(test.get_xydata(), np.stack([run.eval_step, run.test_accuracy], axis=1))
    assert f"{run.test_accuracy[-1]:.2%}" in test.get_label()
    assert train.get_linestyle() != test.get_linestyle()  # told apart without colour


def test_the_smoothed_loss_is_the_mean_of_the_steps_it_says():
    run = history(3000, 3)
    smoothed = drawn(plots.learning_curves(run)).axes[0].lines[1]
    assert smoothed.get_label() == "mean of the last 60"
    step, value = smoothed.get_xydata()[100]
    assert value == pytest.approx(run.loss[int(step) - 60 : int(step)].mean())


def test_weights_are_images_about_zero_the_strongest_first(rng):
    W = rng.standard_normal((12, 5)) * [1, 5, 2, 4, 3]
    images = [axes.images[0] for axes in drawn(plots.first_layer_weights(W, (3, 4))).axes if axes.images]
    assert len(images) == 5
    for image, unit in zip(images, [1, 3, 4, 2, 0], strict=True):
        np.testing.assert_array_equal(image.get_array(), W[:, unit].reshape(3, 4))
        low, high = image.get_clim()
        assert low == -high == -np.abs(W).max()


def test_at_most_so_many_units_are_drawn(rng):
    figure = plots.first_layer_weights(rng.standard_normal((4, 30)), (2, 2), most=7)
    assert "7 of 30 units" in figure.get_suptitle()
    assert sum(bool(axes.images) for axes in figure.axes) == 7


def test_mistakes_come_surest_first():
    x = np.arange(16.0).reshape(4, 4)
    logits = np.array([[5.0, 0], [0, 3], [9, 0], [0, 0.5]])  # says 0, 1, 0, 1
    figure = drawn(plots.mistakes(x, np.array([0, 0, 1, 0]), logits, (2, 2)))
    assert figure.get_suptitle() == "3 of 4 test images are wrong"
    cells = [axes for axes in figure.axes if axes.images]
    assert [cell.get_title().split()[0:3] for cell in cells] == [["1", "→", "0"], ["0", "→", "1"], ["0", "→", "1"]]
    np.testing.assert_array_equal(cells[0].images[0].get_array().ravel(), x[2])
    np.testing.assert_array_equal(cells[1].images[0].get_array().ravel(), x[1])
    assert cells[1].get_title().endswith(f"{1 / (1 + np.exp(-3)):.0%}")


def test_no_mistakes_say_so():
    figure = drawn(plots.mistakes(np.ones((2, 4)), np.array([0, 1]), np.eye(2), (2, 2)))
    assert figure.get_suptitle() == "0 of 2 test images are wrong"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.learning_curves(history(0, 1)), "history: no step"),
        (lambda: plots.first_layer_weights(np.ones((5, 3)), (2, 2)), "W: 5 pixels an image, expected 2 by 2"),
        (lambda: plots.mistakes(np.ones((2, 5)), np.ones(2, int), np.ones((2, 3)), (2, 2)), "x: 5 pixels an image"),
        (
            lambda: plots.mistakes(np.ones((2, 4)), np.ones(3, int), np.ones((2, 3)), (2, 2)),
            r"t, logits: shapes \(3,\)",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
