"""Tests what a notebook shows of networks and histories: content, well-formed HTML, and rules for dark mode."""

import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from html_tree import parsed, rows_of, texts_of

import jaxnet
from jaxnet.plots.html import folded, framed, paragraph, table
from jaxnet.plots.svg import Axis, Cell, Curve, cell_map, line_chart
from jaxnet.train.history import History, Progress

HISTORY = History(
    np.array([2.0, 1.0, 0.5, 0.25]), np.array([0, 2, 4]), np.array([0.1, 0.5, 0.875]), np.array([0.1, 0.4, 0.75])
)


def test_a_table_shows_the_layers_of_a_network_and_their_sum():
    rows = rows_of(parsed(jaxnet.two_layer_net(4, 3, 2)._repr_html_()))
    assert rows[0] == ["layer", "kind", "parameters", "count"]
    assert rows[1] == ["Affine1", "Affine(4, 3)", "W (4, 3), b (3,)", "15"]
    assert rows[3] == ["Affine2", "Affine(3, 2)", "W (3, 2), b (2,)", "8"]
    assert rows[4] == ["total", "", "", "23"]


@pytest.mark.parametrize(
    "net",
    [jaxnet.two_layer_net(4, 3, 2), jaxnet.simple_conv_net(), jaxnet.deep_conv_net()],
    ids=["two", "conv", "deep"],
)
def test_the_table_says_what_the_text_says(net):
    rows = [" ".join(row).split() for row in rows_of(parsed(net._repr_html_()))]
    assert rows == [line.split() for line in repr(net).splitlines()]


@pytest.mark.slow
def test_a_notebook_shows_the_html(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    source = "import jaxnet\njaxnet.two_layer_net(4, 3, 2)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (output,) = notebook.cells[0].outputs
    assert output.data["text/html"] == jaxnet.two_layer_net(4, 3, 2)._repr_html_()
    assert output.data["text/plain"] == repr(jaxnet.two_layer_net(4, 3, 2))


def test_a_single_layer_is_shown_as_text():
    layer = jaxnet.two_layer_net(4, 3, 2).layers["Affine1"]
    assert layer._repr_html_() is None
    assert repr(layer) == "Affine(4, 3)"


def test_a_history_shows_its_last_figures_and_three_curves():
    tree = parsed(HISTORY._repr_html_())
    assert rows_of(tree)[1] == ["4", "0.25", "87.50%", "75.00%"]
    points = [len(line.get("points").split()) for line in tree.iter("polyline")]
    assert points == [4, 3, 3]
    assert [bool(line.get("stroke-dasharray")) for line in tree.iter("polyline")] == [False, False, True]
    assert {"train", "test"} <= set(texts_of(tree))


def test_progress_shows_its_history():
    assert Progress(None, HISTORY)._repr_html_() == HISTORY._repr_html_()


def test_a_long_loss_is_drawn_as_medians_of_blocks():
    loss = np.repeat([3.0, 1.0], 500)
    loss[7] = 1e9  # a median ignores it
    tree = parsed(HISTORY._replace(loss=loss)._repr_html_())
    assert "loss in nats: medians of 10 batches" in texts_of(tree)
    heights = [float(point.split(",")[1]) for point in next(tree.iter("polyline")).get("points").split()]
    assert len(heights) == 100
    assert len(set(heights[:50])) == len(set(heights[50:])) == 1
    assert heights[0] < heights[-1]  # y points downwards


@pytest.mark.parametrize(
    "loss", [np.zeros(0), np.zeros(3), np.full(3, np.nan), np.full(1, 2.0)], ids=["none", "zero", "nan", "one"]
)
def test_a_history_without_a_curve_is_still_shown(loss):
    tree = parsed(HISTORY._replace(loss=loss)._repr_html_())
    assert rows_of(tree)[1][0] == str(len(loss))
    assert len(list(tree.iter("polyline"))) == (3 if len(loss) == 1 else 2)


def test_a_history_of_arrays_of_jax_is_shown():
    assert jax.tree.map(jax.numpy.asarray, HISTORY)._repr_html_() == HISTORY._repr_html_()


def test_text_is_escaped():
    evil = '<b onclick="x">&amp;'
    shown = [
        framed(paragraph(evil), folded(evil), table([evil], [["cell"]])),
        line_chart(evil, evil, [Curve(evil, [0, 1], [0, 1])], Axis.of([0, 1]), Axis.of([0, 1])),
        cell_map(evil, (1, 1), [Cell(0, 0, None, evil)]),
    ]
    for html in shown:
        tree = parsed(html)
        assert "<b" not in html
        assert any(evil in text for text in [*tree.itertext(), *(e.get("aria-label", "") for e in tree.iter())])


def test_colors_come_from_the_page():
    html = HISTORY._repr_html_()
    style = html.partition("<style>")[2].partition("</style>")[0]
    assert "var(--jp-content-font-color1, currentColor)" in style
    assert set(re.findall(r'(?:stroke|fill)="(.*?)"', html)) <= {"currentColor", "none", "var(--bad)"}
    fallbacks = re.findall(r"var\(--jp-[a-z0-9-]+, (#\w+)\)", style)
    assert len(fallbacks) == len(re.findall(r"#[0-9a-f]{3,6}", style)) == 3
    for color in fallbacks:
        luminance = luminance_of(color)
        assert 1.05 / (luminance + 0.05) >= 4  # the contrast with white, by WCAG 2.1
        assert (luminance + 0.05) / (luminance_of("#111111") + 0.05) >= 4


def luminance_of(color):
    """Returns the relative luminance of WCAG 2.1."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_results_need_no_script_id_or_other_file():
    for html in (HISTORY._repr_html_(), jaxnet.two_layer_net(4, 3, 2)._repr_html_()):
        assert not re.search(r"<script|\bid=|href|url\(|@import|\bsrc=", html)


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0.0, 1.0, False, ["0", "0.5", "1"]),  # steps of 0.2 would need six ticks
        (0.0, 300.0, False, ["0", "100", "200", "300"]),
        (1e-10, 1.0, True, ["1e-10", "1e-05", "1"]),
        (7.0, 7.0, False, ["6.6", "6.8", "7", "7.2", "7.4"]),
    ],
)
def test_ticks_are_round(low, high, log, expected):
    axis = Axis.of([low, high], log=log)
    ticks = axis.ticks()
    assert [label for _, label in ticks] == expected
    assert all(0 <= axis.at(value) <= 1 for value, _ in ticks)


def test_the_ticks_of_less_than_a_decade_are_where_they_say():
    axis = Axis.of([0.27, 2.1], log=True)
    assert all(0 <= axis.at(float(label)) <= 1 and value == float(label) for value, label in axis.ticks())


@pytest.mark.slow
def test_importing_jaxnet_imports_nothing_for_notebooks():
    code = "import sys, jaxnet.crosscheck; print('jaxnet.plots.svg' in sys.modules, 'jaxnet.plots.html' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]
