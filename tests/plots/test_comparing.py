"""Figures that compare runs hold the runs' numbers; how they look is for eyes."""

import io

import numpy as np
import pytest

from jaxnet import History, Sweep, plots


def drawn(figure):
    figure.savefig(io.BytesIO(), format="png", dpi=40)  # lays it out: a warning would fail the test
    return figure


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_a_path_is_drawn_point_by_point_and_its_end_said():
    paths = {"sgd": np.array([[-7.0, 2.0], [-3.0, 1.0], [-1.0, 0.5]]), "adam": np.array([[-7.0, 2.0], [0.0, 0.0]])}
    figure = drawn(plots.optimizer_paths(lambda x, y: x**2 / 20 + y**2, paths))
    assert len(figure.axes) == 2
    for axes, (name, path) in zip(figure.axes, paths.items(), strict=True):
        np.testing.assert_array_equal(axes.lines[0].get_xydata(), path)
        x, y = path[-1]
        assert axes.get_title(loc="left") == f"{name}: f = {x**2 / 20 + y**2:.2g}"


def test_losses_are_medians_of_blocks_and_named_in_the_order_of_their_ends():
    high, low = np.exp(np.linspace(1, 0.5, 400)), np.exp(np.linspace(1, -3, 400))
    (axes,) = drawn(plots.losses("two", {"high": high, "low": low})).axes
    line = axes.lines[1]
    np.testing.assert_allclose(line.get_ydata(), np.median(low.reshape(40, 10), axis=1))
    places = {text.get_text(): text.xy[1] for text in axes.texts}
    assert places["low"] < places["high"]
    assert axes.get_yscale() == "log"


def test_activations_say_their_spread_layer_by_layer():
    rng = np.random.default_rng(0)
    rows = {"wide": [rng.standard_normal(500), 200 * rng.standard_normal(500)], "dead": [np.zeros(50), np.zeros(50)]}
    figure = drawn(plots.activations("two", rows))
    assert [texts(axes)[0] for axes in figure.axes] == [
        f"σ {np.std(rows['wide'][0]):.2g}", f"σ {np.std(rows['wide'][1]):,.0f}", "σ 0", "σ 0",
    ]  # fmt: skip


def test_a_curve_that_ends_early_is_said_to_have_diverged():
    steps = np.array([0, 5, 10])
    curves = {
        s: {"without": (steps[: 2 + i], steps[: 2 + i] / 10), "with": (steps, steps / 20)}
        for i, s in enumerate((1.0, 0.1))
    }
    first, second = drawn(plots.scales(curves)).axes
    assert texts(first) == ["without:\ndiverged"]
    assert texts(second) == []
    np.testing.assert_array_equal(second.lines[1].get_ydata(), steps / 20)
    assert first.lines[0].get_linewidth() < first.lines[1].get_linewidth()


def test_overfitting_says_what_is_left_between_train_and_test():
    run = History(np.ones(4), np.array([0, 2, 4]), np.array([0.1, 0.9, 1.0]), np.array([0.1, 0.6, 0.7]))
    (axes,) = drawn(plots.overfitting("few", {"nothing": run})).axes
    assert texts(axes) == ["train 100.0%\ntest 70.0%"]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), run.train_accuracy)
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), run.test_accuracy)


def a_sweep():
    accuracy = np.array([[[0.1, 0.3], [0.5, 0.7]], [[0.9, 0.9], [np.nan, 0.8]]])  # 2 rates, 2 scales, 2 seeds
    return Sweep(
        np.array([0.01, 0.1]), np.array([0.1, 1.0]), np.array([0, 1]), np.ones((2, 2, 2, 3)), accuracy, accuracy,
        np.isnan(accuracy),
    )  # fmt: skip


def test_a_sweep_is_medians_over_seeds_and_crosses_out_what_diverged():
    figure = drawn(plots.sweep_map("two", a_sweep(), {"mine": (0.01, 0.1), "not swept": (5.0, 0.1)}))
    (axes,) = figure.axes
    said = {text.get_position(): text.get_text() for text in axes.texts}
    assert said == {(0, 0): "20", (0, 1): "60", (1, 0): "90", (1, 1): "×"}
    (frame,) = axes.patches
    assert frame.get_label() == "mine"
    assert frame.get_x() < 0 < frame.get_x() + frame.get_width()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.01", "0.1"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.1", "1"]


BAD = {
    "paths: none": lambda: plots.optimizer_paths(lambda x, y: x + y, {}),
    r"paths\['a'\]: shape \(3,\)": lambda: plots.optimizer_paths(lambda x, y: x + y, {"a": np.ones(3)}),
    "curves: none": lambda: plots.losses("none", {}),
    r"curves\['a'\]: expected losses": lambda: plots.losses("none", {"a": []}),
    "rows: none": lambda: plots.activations("none", {}),
    r"rows: \[1, 2\] layers": lambda: plots.activations("none", {"a": [np.ones(3)], "b": [np.ones(3)] * 2}),
    "expected the same two names": lambda: plots.scales({1.0: {"a": (np.ones(2), np.ones(2))}}),
    r"histories\['a'\]: no evaluation": lambda: plots.overfitting("none", {"a": History(*[np.zeros(0)] * 4)}),
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_drawn_is_refused_by_name(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()
