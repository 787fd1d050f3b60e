"""Tests that figures of one run show the numbers of the run."""

import io
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from jaxnet import History, Progress, TrainState, plots
from jaxnet.crosscheck.measure.step_sweep import StepErrors


def history(steps, evaluations):
    rng = np.random.default_rng(0)
    return History(
        np.exp(rng.standard_normal(steps)), np.linspace(0, steps, evaluations).astype(int),
        rng.random(evaluations), rng.random(evaluations),
    )  # fmt: skip


def rendered(figure):
    figure.savefig(io.BytesIO(), format="png", dpi=40)  # lays out the figure; a warning fails the test
    return figure


def images_of(figure):
    return [image for axes in figure.axes for image in axes.images]


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "evaluations"), [(0, 1), (1, 2), (10, 2), (3000, 31), (3000, 300)])
def test_learning_curves_show_the_numbers_of_the_history(steps, evaluations):
    run = history(steps, evaluations)
    above, below = rendered(plots.learning_curves(run)).axes
    if steps:
        np.testing.assert_array_equal(above.lines[0].get_ydata(), run.loss)
        np.testing.assert_array_equal(above.lines[0].get_xdata(), np.arange(steps))  # before the update of each step
    train, test = below.lines
    np.testing.assert_array_equal(train.get_xydata(), np.stack([run.eval_step, run.train_accuracy], axis=1))
    np.testing.assert_array_equal(test.get_xydata(), np.stack([run.eval_step, run.test_accuracy], axis=1))
    assert train.get_linestyle() != test.get_linestyle()  # distinct without color


@pytest.mark.slow
@pytest.mark.parametrize(("train", "test"), [(0.9, 0.8), (0.8, 0.9), (0.9, 0.9)])
def test_accuracy_labels_show_name_and_final_value_and_do_not_overlap(train, test):
    run = history(10, 2)._replace(train_accuracy=np.array([0.1, train]), test_accuracy=np.array([0.1, test]))
    figure = rendered(plots.learning_curves(run))
    labels = figure.axes[1].texts
    assert [label.get_text() for label in labels] == [f"train {train:.2%}", f"test {test:.2%}"]
    assert [label.xy for label in labels] == [(10, train), (10, test)]
    first, second = (label.get_window_extent() for label in labels)
    assert not first.overlaps(second)


@pytest.mark.slow
def test_the_smoothed_loss_is_the_median_of_as_many_steps_as_the_title_says_and_begins_at_step_0():
    run = history(3000, 3)
    above = rendered(plots.learning_curves(run)).axes[0]
    assert "running median of 61 steps" in above.get_title(loc="left")
    smoothed = above.lines[1].get_xydata()
    np.testing.assert_array_equal(smoothed[0], [0, run.loss[0]])
    step, value = smoothed[100]
    assert value == np.median(run.loss[int(step) - 30 : int(step) + 31])


def test_learning_curves_have_a_title_and_labels_on_their_axes():
    figure = plots.learning_curves(history(300, 4), "validation", "64-50-10 on digits, run a")
    above, below = figure.axes
    assert figure.get_suptitle() == "64-50-10 on digits, run a"
    assert (above.get_ylabel(), below.get_ylabel(), below.get_xlabel()) == ("loss (nats)", "accuracy", "step")
    assert below.texts[1].get_text().startswith("validation")


def contrast_to_white(color):
    """Returns the contrast ratio of WCAG 2.2: (1 + 0.05) / (luminance + 0.05)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 1.05 / (np.dot(linear, [0.2126, 0.7152, 0.0722]) + 0.05)


def test_lines_and_labels_have_the_contrast_that_wcag_asks_for():
    above, below = plots.learning_curves(history(3000, 31)).axes
    assert contrast_to_white("#767676") == pytest.approx(4.54, abs=0.01)  # the lightest grey for text, by WCAG
    assert min(contrast_to_white(line.get_color()) for line in [*above.lines, *below.lines]) >= 3
    assert min(contrast_to_white(label.get_color()) for label in below.texts) >= 4.5


def test_a_short_run_is_not_smoothed():
    above = rendered(plots.learning_curves(history(10, 2))).axes[0]
    assert len(above.lines) == 1
    assert above.get_title(loc="left") == "batch of each step"


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss", [np.geomspace(2, 1e30, 150), np.zeros(150), np.where(np.arange(150) % 2, 1e-6, 0), np.full(150, 2.0)]
)
def test_any_loss_can_be_drawn(loss):
    above = rendered(plots.learning_curves(history(150, 2)._replace(loss=loss))).axes[0]
    assert above.get_yscale() == ("log" if loss.any() else "linear")
    low, high = above.get_ylim()
    assert 0 < sum(low <= tick <= high for tick in above.get_yticks()) <= 12


def test_a_run_without_steps_is_titled_as_such():
    above = plots.learning_curves(history(0, 1)).axes[0]
    assert above.get_title(loc="left").endswith("no steps")
    assert list(above.get_yticks()) == [0]


@pytest.mark.slow
def test_the_accuracy_axis_shows_all_from_0_to_1_and_tells_97_from_98_percent():
    accuracies = np.array([0.1, 0.9, 1.0])
    run = history(300, 3)._replace(train_accuracy=accuracies, test_accuracy=accuracies)
    axes = rendered(plots.learning_curves(run)).axes[1]
    low, high = axes.get_ylim()
    assert low == 0
    assert high > 1  # the frame does not cut the markers at 1
    heights = axes.transData.transform([(0, accuracy) for accuracy in (0, 0.97, 0.98, 1)])[:, 1]
    expected = [np.sqrt(1 - accuracy) for accuracy in (0, 0.97, 0.98, 1)]  # distances below 100 %
    np.testing.assert_allclose((heights[3] - heights) / (heights[3] - heights[0]), expected, atol=1e-9)


STEPS = 2.0 ** np.arange(-1, -46, -1)
ROUNDOFF = 1e-16 / STEPS
ERRORS = {"W": StepErrors(STEPS, 0.1 * STEPS**2 + ROUNDOFF), "b": StepErrors(STEPS, 1e-4 + 0.1 * STEPS**2 + ROUNDOFF)}


def test_step_sizes_mark_what_failed_without_color_and_label_their_axes():
    figure = rendered(plots.step_sizes("Dense", ERRORS, failed=["b"]))
    right, wrong = figure.axes
    assert right.lines[1].get_marker() != wrong.lines[1].get_marker()
    assert [("FAIL" in axes.get_title(loc="left")) for axes in figure.axes] == [False, True]
    assert figure.get_supylabel().startswith("relative error")
    assert figure.get_supxlabel() == "step, relative to the leaf's size"
    for axes in figure.axes:
        assert not axes.texts
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert len(boxes) == 3
        for a, b in pairwise(boxes):
            assert not a.overlaps(b)


@pytest.mark.parametrize("fault", [0, 1e-4, 4.0])
def test_step_sizes_say_that_a_linear_leaf_has_no_truncation_error(fault):
    errors = {"x": StepErrors(STEPS, fault + ROUNDOFF), "y": StepErrors(STEPS, fault + 0.1 * STEPS**2 + ROUNDOFF)}
    linear, curved = rendered(plots.step_sizes("Affine", errors)).axes
    assert [text.get_text() for text in linear.texts] == ["linear: no truncation\nerror, only roundoff"]
    assert not curved.texts


def test_weights_are_images_with_symmetric_limits_sorted_by_norm(rng):
    W = rng.standard_normal((12, 5)) * [1, 5, 2, 4, 3]
    images = images_of(rendered(plots.first_layer_weights(W, (3, 4))))
    assert len(images) == 5
    for image, unit in zip(images, [1, 3, 4, 2, 0], strict=True):
        np.testing.assert_array_equal(image.get_array(), W[:, unit].reshape(3, 4))
    (limits,) = {image.get_clim() for image in images}  # all images share one scale
    assert limits[0] == -limits[1] < 0
    assert np.mean(np.abs(W) > limits[1]) <= 1 / 60


def test_weights_may_be_given_as_progress(rng):
    W = rng.standard_normal((12, 5))
    run = Progress(TrainState({"Affine1": {"W": W}}, {}, None, None, 0), history(1, 1))
    images = [images_of(plots.first_layer_weights(weights, (3, 4))) for weights in (W, run)]
    for a, b in zip(*images, strict=True):
        np.testing.assert_array_equal(a.get_array(), b.get_array())


@pytest.mark.parametrize(("largest", "limit"), [(0, 1), (0.25, 0.25)])
def test_weights_that_are_nearly_all_zero_are_drawn(largest, limit):
    W = np.zeros((400, 1))
    W[0] = largest
    (image,) = images_of(rendered(plots.first_layer_weights(W, (20, 20))))
    assert image.get_clim() == (-limit, limit)


@pytest.mark.parametrize(("units", "most", "count"), [(30, 7, 7), (30, 100, 30)])
def test_at_most_max_units_are_drawn(rng, units, most, count):
    figure = plots.first_layer_weights(rng.standard_normal((4, units)), (2, 2), max_units=most)
    assert f"{count} of {units} units" in figure.get_suptitle()
    assert len(images_of(figure)) == count


@pytest.mark.parametrize("image_shape", [(2, 6), (3, 4), (6, 2)])
def test_images_fill_the_figure_with_thin_gaps(rng, image_shape):
    figure = rendered(plots.first_layer_weights(rng.standard_normal((12, 13)), image_shape))
    boxes = [image.get_window_extent() for image in images_of(figure)]  # ten in a row
    gap = boxes[0].x0
    assert 0 < gap < 0.01 * figure.bbox.width
    assert boxes[1].x0 - boxes[0].x1 == pytest.approx(gap)
    assert figure.bbox.width - boxes[9].x1 == pytest.approx(gap)
    assert boxes[0].y0 - boxes[10].y1 == pytest.approx(gap)
    assert boxes[10].y0 == pytest.approx(gap)
    assert boxes[0].height / boxes[0].width == pytest.approx(image_shape[0] / image_shape[1])


X = np.arange(16.0).reshape(4, 4)
LOGITS = np.array([[5.0, 0], [0, 3], [9, 0], [0, 0.5]])  # the predictions are 0, 1, 0, 1


@pytest.mark.parametrize("t", [np.array([0, 0, 1, 0]), np.array([[1, 0], [1, 0], [0, 1], [1, 0]])])
def test_mistakes_are_sorted_by_confidence(t):
    figure = rendered(plots.mistakes(X, t, LOGITS, (2, 2)))
    assert figure.get_suptitle().startswith("3 of 4 images misclassified\nmost confident first")
    images = images_of(figure)
    sure = [f"{1 / (1 + np.exp(-gap)):.0%}" for gap in (9, 3, 0.5)]
    expected = [f"1 → 0  {sure[0]}", f"0 → 1  {sure[1]}", f"0 → 1  {sure[2]}"]
    assert [text.get_text() for text in images[0].axes.texts] == expected
    for image, row in zip(images, [2, 1, 3], strict=True):
        np.testing.assert_array_equal(image.get_array(), X[row].reshape(2, 2))


def test_mistakes_with_a_rounded_confidence_of_1_are_sorted_by_logits():
    logits = np.array([[20, 0], [30, 0], [25, 0]], np.float32)
    images = images_of(plots.mistakes(X[:3], np.ones(3, int), logits, (2, 2)))
    assert [image.get_array()[0, 0] for image in images] == [X[1, 0], X[2, 0], X[0, 0]]


def test_at_most_max_images_are_drawn_and_all_mistakes_are_counted():
    figure = plots.mistakes(X, np.array([0, 0, 1, 0]), LOGITS, (2, 2), max_images=2)
    assert figure.get_suptitle().startswith("3 of 4 images misclassified\nthe 2 most confident")
    assert len(images_of(figure)) == 2


def test_a_run_without_mistakes_is_titled_as_such():
    figure = rendered(plots.mistakes(X, np.array([0, 1, 0, 1]), LOGITS, (2, 2)))
    assert figure.get_suptitle() == "0 of 4 images misclassified\nno mistakes to show"
    assert not images_of(figure)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("learning_curves", [history(5, 0)], r"history.train_accuracy: \[\], expected 0 numbers in \[0, 1\], at least"),
        ("learning_curves", [history(5, 2)._replace(test_accuracy=np.array([0.5, np.nan]))], "history.test_accuracy"),
        ("learning_curves", [history(5, 2)._replace(test_accuracy=np.array([50.0, 90]))], "history.test_accuracy"),
        ("learning_curves", [history(5, 2)._replace(train_accuracy=np.ones(3))], "train_accuracy: .* expected 2"),
        ("first_layer_weights", [np.ones((5, 3)), (2, 2)], r"image_shape: \(2, 2\), expected .* 5 pixels"),
        ("first_layer_weights", [np.ones((4, 3)), (-2, -2)], r"image_shape: \(-2, -2\)"),
        ("first_layer_weights", [np.ones((4, 3)), (4,)], r"image_shape: \(4,\)"),
        ("first_layer_weights", [np.ones((4, 0)), (2, 2)], r"W: float64 of shape \(4, 0\), expected finite"),
        ("first_layer_weights", [np.full((4, 3), np.nan), (2, 2)], "W: .* expected finite"),
        ("first_layer_weights", [np.ones((4, 3)), (2, 2), 0], "max_units: 0, expected"),
        ("mistakes", [X, np.ones(4, int), LOGITS, (2, 3)], r"image_shape: \(2, 3\), expected .* 4 pixels"),
        (
            "mistakes",
            [X * np.nan, np.ones(4, int), LOGITS, (2, 2)],
            r"x\[0, 0\]: nan, expected numbers that are finite",
        ),
        ("mistakes", [X, np.ones(3, int), LOGITS, (2, 2)], r"t: int64 of shape \(3,\), expected"),
        ("mistakes", [X, np.full(4, 2), LOGITS, (2, 2)], "t: runs from 2 to 2, expected class numbers from 0 to 1"),
        ("mistakes", [X, np.ones(4, int), LOGITS[:3], (2, 2)], "logits: 3 rows, expected 4"),
        ("mistakes", [X, np.ones(4, int), np.full_like(LOGITS, np.inf), (2, 2)], r"logits\[0, 0\]: inf"),
        ("mistakes", [X, np.ones(4, int), LOGITS, (2, 2), -1], "max_images: -1, expected"),
    ],
)
def test_invalid_arguments_are_refused_by_name(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(plots, function)(*arguments)
