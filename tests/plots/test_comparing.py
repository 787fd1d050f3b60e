"""Tests that figures of several runs show the numbers of the runs."""

import io
from itertools import combinations

import numpy as np
import pytest

from jaxnet import History, Progress, Sweep, plots


def rendered(figure):
    figure.savefig(io.BytesIO(), format="png", dpi=40)  # lays out the figure; a warning fails the test
    return figure


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.slow
def test_optimizer_paths_show_every_point_and_the_final_value():
    paths = {"sgd": np.array([[-7.0, 2.0], [-3.0, 1.0], [-1.0, 0.5]]), "adam": np.array([[-7.0, 2.0], [0.0, 0.0]])}
    figure = rendered(plots.optimizer_paths(lambda x, y: x**2 / 20 + y**2, paths))
    assert len(figure.axes) == 2
    for axes, (name, path) in zip(figure.axes, paths.items(), strict=True):
        np.testing.assert_array_equal(axes.lines[0].get_xydata(), path)
        x, y = path[-1]
        assert axes.get_title(loc="left") == f"{name}: f = {x**2 / 20 + y**2:.2g}"


def test_losses_are_running_medians_with_labels_in_the_order_of_the_final_losses():
    high, low = np.exp(np.linspace(1, 0.5, 400)), np.exp(np.linspace(1, -3, 400))
    (axes,) = rendered(plots.losses("two", {"high": high, "low": low})).axes
    step, loss = axes.lines[1].get_data()
    assert (step[0], loss[0]) == (0, low[0])
    half = 4  # of the window in 400 steps; the median of a falling curve is its middle
    inner = (step >= half) & (step < 400 - half)
    np.testing.assert_allclose(loss[inner], low[step[inner].astype(int)])
    assert axes.get_title(loc="left") == f"running median of {2 * half + 1} steps"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "loss (nats)")
    places = {text.get_text(): text.xy[1] for text in axes.texts}
    assert places["low"] < places["high"]
    assert axes.get_yscale() == "log"


@pytest.mark.slow
def test_activations_show_their_standard_deviation():
    rng = np.random.default_rng(0)
    rows = {"wide": [rng.standard_normal(500), 200 * rng.standard_normal(500)], "dead": [np.zeros(50), np.zeros(50)]}
    figure = rendered(plots.activations("two", rows))
    assert [axes.get_title() for axes in figure.axes] == [
        f"layer 1\nσ {np.std(rows['wide'][0]):.2g}", f"layer 2\nσ {np.std(rows['wide'][1]):,.0f}", "σ 0", "σ 0",
    ]  # fmt: skip
    assert not any(axes.texts for axes in figure.axes)  # nothing is written over bars
    assert figure.get_supxlabel() == "activation"


def test_all_bars_of_activations_are_inside_their_axes():
    rows = {"ReLU": [np.maximum(np.random.default_rng(0).standard_normal(500), 0)]}  # half of them are 0
    (axes,) = rendered(plots.activations("one", rows)).axes
    (bars,) = axes.patches
    assert 0.4 < bars.get_data().values.max() <= axes.get_ylim()[1]


def test_a_curve_that_ends_early_is_marked_as_diverged():
    steps = np.array([0, 5, 10])

    def history(n, rate):
        return History(np.ones(10), steps[:n], steps[:n] * rate, steps[:n] * rate)

    runs = {init_std: {"without": history(n, 0.1), "with": history(3, 0.05)} for init_std, n in ((1.0, 2), (0.1, 3))}
    first, second = rendered(plots.accuracies_by_init_std(runs)).axes
    assert texts(first) == ["without:\ndiverged"]
    assert texts(second) == []
    np.testing.assert_array_equal(second.lines[1].get_ydata(), steps * 0.05)
    assert first.lines[0].get_linestyle() != first.lines[1].get_linestyle()


def test_overfitting_shows_the_final_accuracies():
    run = History(np.ones(4), np.array([0, 2, 4]), np.array([0.1, 0.9, 1.0]), np.array([0.1, 0.6, 0.7]))
    (axes,) = rendered(plots.overfitting("few", {"nothing": run})).axes
    assert axes.get_title(loc="left") == "nothing\ntrain 100.0%, test 70.0%"
    assert axes.get_ylim()[1] > 1
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), run.train_accuracy)
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), run.test_accuracy)


def example_sweep():
    accuracy = np.array(
        [[[0.1, 0.3], [0.5, 0.7]], [[0.9, 0.9], [np.nan, 0.8]]]
    )  # 2 rates, 2 initial standard deviations, 2 seeds
    return Sweep(
        np.array([0.01, 0.1]), np.array([0.1, 1.0]), np.array([0, 1]), np.ones((2, 2, 2, 3)), accuracy, accuracy,
        np.isnan(accuracy),
    )  # fmt: skip


def test_a_sweep_map_shows_medians_over_seeds_and_crosses_for_divergence():
    figure = rendered(plots.sweep_map("two", example_sweep(), {"mine": (0.01, 0.1), "not swept": (5.0, 0.1)}))
    (axes,) = figure.axes
    labels = {text.get_position(): text.get_text() for text in axes.texts}
    assert labels == {(0, 0): "20", (0, 1): "60", (1, 0): "90", (1, 1): "×"}
    (frame,) = axes.patches
    assert frame.get_label() == "mine"
    assert frame.get_x() < 0 < frame.get_x() + frame.get_width()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.01", "0.1"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.1", "1"]


BAD = {
    "paths: empty": lambda: plots.optimizer_paths(lambda x, y: x + y, {}),
    r"paths\['a'\]: shape \(3,\)": lambda: plots.optimizer_paths(lambda x, y: x + y, {"a": np.ones(3)}),
    "curves: empty": lambda: plots.losses("none", {}),
    r"curves\['a'\]: expected losses": lambda: plots.losses("none", {"a": []}),
    "rows: empty": lambda: plots.activations("none", {}),
    r"rows: \[1, 2\] layers": lambda: plots.activations("none", {"a": [np.ones(3)], "b": [np.ones(3)] * 2}),
    "expected the same two names": lambda: plots.accuracies_by_init_std({1.0: {"a": History(*[np.ones(2)] * 4)}}),
    r"runs\['a'\].train_accuracy: \[\], expected 0 numbers": lambda: plots.overfitting(
        "none", {"a": History(*[np.zeros(0)] * 4)}
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_invalid_arguments_are_refused_by_name(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()


def test_losses_of_a_sweep_are_labelled_by_rate_standard_deviation_and_seed():
    sweep = example_sweep()._replace(loss=np.arange(1.0, 25).reshape(2, 2, 2, 3))
    (axes,) = rendered(plots.losses("sweep", sweep)).axes
    assert len(axes.lines) == 8
    assert "0.01, σ 0.1, seed 0" in texts(axes)
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), sweep.loss[0, 0, 1])
    with pytest.raises(ValueError, match="curves: a sweep of 13 runs, expected at most 12; see sweep_map"):
        plots.losses("sweep", sweep._replace(diverged=np.zeros((13, 1, 1), bool)))


@pytest.mark.slow
def test_progress_is_drawn_like_its_history():
    history = History(np.ones(4), np.array([0, 2, 4]), np.array([0.1, 0.9, 1.0]), np.array([0.1, 0.6, 0.7]))
    run = Progress(None, history)
    for draw in (
        lambda run: plots.losses("a", {"a": run}),
        lambda run: plots.overfitting("a", {"a": run}),
        lambda run: plots.accuracies_by_init_std({0.1: {"a": run, "b": run}}),
        plots.learning_curves,
    ):
        figures = [rendered(draw(argument)) for argument in (run, history)]
        data = [[line.get_xydata() for axes in figure.axes for line in axes.lines] for figure in figures]
        assert data[0]
        for a, b in zip(*data, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_lines_are_told_apart_by_dashes_or_markers_and_their_names_do_not_overlap():
    loss = np.geomspace(2, 0.1, 100)
    figure = rendered(plots.losses("many", {f"run {i}": loss for i in range(12)}))
    (axes,) = figure.axes
    styles = {(line.get_linestyle(), str(line._dash_pattern), line.get_marker()) for line in axes.lines}
    assert len(styles) == 12
    assert_no_overlap(axes.texts)


def assert_no_overlap(labels):
    boxes = [label.get_window_extent() for label in labels if label.get_text()]
    assert boxes
    for a, b in combinations(boxes, 2):
        assert not a.overlaps(b)


@pytest.mark.slow
def test_titles_and_ticks_of_activations_do_not_overlap():
    rng = np.random.default_rng(0)
    rows = {name: [scale * rng.standard_normal(500) for _ in range(5)] for name, scale in (("a", 1e4), ("b", 1e-6))}
    figure = plots.activations("five", rows)
    figure.draw_without_rendering()
    ticks = [label for axes in figure.axes for label in axes.get_xticklabels() if shown(axes, label)]
    assert_no_overlap([*(axes.title for axes in figure.axes), *ticks])


def shown(axes, label):
    low, high = axes.get_xlim()
    return low <= label.get_position()[0] <= high


def test_runs_are_compared_on_labelled_axes_from_step_0():
    run = History(np.array([2.0, 1.0]), np.array([0, 2]), np.array([0.1, 0.9]), np.array([0.1, 0.8]))
    above, below = rendered(plots.run_curves({"a": run, "b": Progress(None, run)})).axes
    assert (above.get_ylabel(), below.get_ylabel(), below.get_xlabel()) == ("loss (nats)", "held-out accuracy", "step")
    for first, second in (above.lines, below.lines):
        assert first.get_xdata()[0] == 0
        assert first._dash_pattern != second._dash_pattern
    with pytest.raises(ValueError, match=r"histories\['a'\].train_accuracy: \[\], expected 0"):
        plots.run_curves({"a": History(*[np.zeros(0)] * 4)})
