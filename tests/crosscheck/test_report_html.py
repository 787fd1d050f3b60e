"""Tests what a notebook shows of a report: verdict, leaves, the elements that are wrong, curves, and the whole text."""

import copy
import gc
import linecache
import pickle
import re
import weakref

import numpy as np
import pytest
from html_tree import parsed, rows_of, texts_of

from jaxnet.crosscheck import Cause, Leaf, Report, SubjectError, Verdict, check, step_curves
from jaxnet.crosscheck.element_errors import element_errors
from jaxnet.crosscheck.gradient_line import computed_at
from jaxnet.crosscheck.streams import Stream, stream
from jaxnet.plots.html import unbroken


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


class Affine:
    """x W + b, with the elements of dW at `wrong` off by a factor."""

    def __init__(self, rows, columns, wrong=(), factor=1.5):
        self.W, self.b, self.wrong, self.factor = draw(rows, columns), draw(columns, seed=1), wrong, factor

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW, self.db = self.x.T @ dout, dout.sum(axis=0)
        for place in self.wrong:
            self.dW[place] *= self.factor
        return dout @ self.W.T


@pytest.fixture(scope="module")
def passing():
    return check(Affine(4, 3), (5, 4))


@pytest.fixture(scope="module")
def failing():
    return check(Affine(6, 5, [(1, 2), (4, 0)]), (5, 6))


def cells_of(tree):
    """Returns {title: whether the cell is filled} of the cells of all maps."""
    titled = {rect: rect.find("title") for rect in tree.iter("rect")}
    return {title.text: rect.get("class") == "filled" for rect, title in titled.items() if title is not None}


@pytest.mark.slow
def test_a_pass_shows_sign_word_sentence_and_every_leaf(passing):
    tree = parsed(passing._repr_html_())
    head = next(element for element in tree.iter("div") if element.get("class") == "head")
    assert "".join(head.itertext()).split() == ["✓", "PASS", "Affine"]
    assert re.fullmatch(r"an error of norm .* is caught with probability 0.99", next(tree.iter("p")).text)
    assert [row[:2] for row in rows_of(tree)[1:]] == [[leaf.name, "✓ PASS"] for leaf in passing.leaves]
    assert not cells_of(tree)


def test_a_table_says_which_errors_are_those_of_the_code_in_float64():
    layer = Affine(4, 3)
    layer.W, layer.b = np.float32(layer.W), np.float32(layer.b)
    tree = parsed(check(layer, np.float32(draw(5, 4)))._repr_html_())
    texts = "".join("".join(element.itertext()) for element in tree.iter("p"))
    assert "the gradients in float32 were compared with those in float64" in texts


@pytest.mark.slow
def test_a_failure_marks_the_planted_elements_alone(failing):
    tree = parsed(failing._repr_html_())
    cells = cells_of(tree)
    assert len(cells) == 30
    filled = {title for title, is_filled in cells.items() if is_filled}
    assert {title.rpartition(": ")[0] for title in filled} == {"W[1, 2]", "W[4, 0]"}
    rows = rows_of(tree)
    assert [row[:2] for row in rows[1:]] == [["W", "✗ FAIL"], ["b", "✓ PASS"], ["x", "✓ PASS"]]
    assert float(rows[1][2]) == pytest.approx(failing.leaves[0].relative_error, rel=0.1)


@pytest.mark.slow
def test_the_error_of_a_cell_is_relative_to_the_norm_of_the_right_gradient():
    x, dout = draw(5, 3), stream(Stream.DOUT, 0).standard_normal((5, 2))
    cells = cells_of(parsed(check(Affine(3, 2, [(2, 1)]), x)._repr_html_()))
    errors = {place: float(error) for place, _, error in (title.rpartition(": ") for title in cells)}
    right = x.T @ dout
    assert errors["W[2, 1]"] == pytest.approx(abs(right[2, 1]) / 2 / np.linalg.norm(right), rel=0.05)  # two digits
    assert max(error for place, error in errors.items() if place != "W[2, 1]") < 1e-8


@pytest.mark.parametrize(
    ("shape", "cells", "block"), [((6, 5), (6, 5), (1, 1)), ((33, 32), (17, 32), (2, 1)), ((500, 3), (32, 3), (16, 1))]
)
def test_a_large_matrix_is_pooled_by_its_largest_errors(shape, cells, block):
    errors = np.full(shape, 1e-12)
    errors[-1, -1] = 0.5
    errors[0, 0] = np.nan
    pooled = element_errors(errors, 1e-9)
    assert pooled.relative.shape == pooled.wrong.shape == cells
    assert pooled.block == block
    assert np.argwhere(pooled.wrong).tolist() == [[cells[0] - 1, cells[1] - 1]]
    assert pooled.relative[-1, -1] == 0.5
    assert np.isnan(pooled.relative[0, 0]) == (block == (1, 1))
    assert pooled.compared == errors.size - 1


def test_only_matrices_have_a_map():
    assert element_errors(np.ones(5), 0.1) is None
    assert element_errors(np.ones((2, 2, 2)), 0.1) is None
    assert element_errors(np.ones((0, 2)), 0.1) is None


@pytest.mark.slow
def test_a_pooled_map_says_so_and_names_blocks():
    report = check(Affine(100, 50, [(slice(96, 100), slice(48, 50))]), (5, 100), reference=affine_in_jax)
    html = report._repr_html_()
    cells = cells_of(parsed(html))
    assert len(cells) == 25 * 25
    assert [title.rpartition(": ")[0] for title, filled in cells.items() if filled] == ["W[96:100, 48:50]"]
    assert "A cell is the largest error of 4 × 2 elements." in html


def affine_in_jax(params, x):
    return x @ params["W"] + params["b"]


@pytest.mark.slow
def test_a_sampled_map_says_what_was_not_compared():
    html = check(Affine(20, 10, [np.s_[3]]), (5, 20))._repr_html_()
    cells = cells_of(parsed(html))
    assert all(filled == title.startswith("W[3, ") for title, filled in cells.items())
    assert any(cells.values())
    assert "Blank: not compared alone." in html
    assert f"{len(cells)} of 200 elements were compared alone." in html


def test_curves_fall_to_rounding_unless_the_gradient_is_wrong(failing):
    tree = parsed(failing._repr_html_())
    texts = [text for text in texts_of(tree) if ": floor" in text]
    floors = dict(re.fullmatch(r"(\w+): floor (.*), linear", text).groups() for text in texts)
    assert list(floors) == ["W", "b", "x"]
    assert float(floors["W"]) > 1e-3
    assert max(float(floors["b"]), float(floors["x"])) < 1e-12
    heights = [[float(point.split(",")[1]) for point in line.get("points").split()] for line in tree.iter("polyline")]
    assert max(heights[0]) < 40 < 100 < max(heights[1])  # the wrong one stays high on the common axis


@pytest.mark.slow
def test_a_report_lets_go_of_the_code_once_it_was_shown():
    report = check(Affine(4, 3), (5, 4))
    code = weakref.ref(report.step_curves._code[0])
    first = report._repr_html_()
    gc.collect()
    assert code() is None
    assert report._repr_html_() == first


@pytest.mark.slow
def test_a_report_keeps_no_large_arrays():
    report = check((lambda x: (x**2, x), lambda dout, x: 2 * x * dout), draw(2**16 + 1))
    assert report.step_curves._code is None
    assert "<polyline" not in report._repr_html_()


@pytest.mark.slow
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda report: pickle.loads(pickle.dumps(report))])
def test_a_copied_report_is_shown_without_the_code(copied):
    report = check(Affine(4, 3, [(1, 1)]), (5, 4))
    other = copied(report)
    assert str(other) == str(report)
    assert other.to_dict() == report.to_dict()
    assert other.step_curves._code is None
    assert cells_of(parsed(other._repr_html_())) == cells_of(parsed(report._repr_html_()))


def test_code_that_changed_or_raises_after_the_check_has_no_curve():
    state = {"factor": 2.0}

    def forward(x):
        if state["factor"] is None:
            raise RuntimeError("gone")
        return state["factor"] * x, x

    def backward(dout, x):
        return state["factor"] * dout

    for factor in (3.0, None):
        state["factor"] = 2.0
        report = check((forward, backward), (5, 4))
        assert report
        state["factor"] = factor
        assert "<polyline" not in report._repr_html_()
    state["factor"] = 2.0
    assert "<polyline" in check((forward, backward), (5, 4))._repr_html_()


def test_slow_code_has_no_curve(monkeypatch):
    monkeypatch.setattr(step_curves, "MAX_SECONDS", 0.0)
    assert "<polyline" not in check(Affine(4, 3), (5, 4))._repr_html_()


def test_curves_print_nothing(capsys):
    def forward(x):
        print("forward")
        return np.log(x), x

    report = check((forward, lambda dout, x: dout / x), np.linspace(1, 2, 5))
    capsys.readouterr()
    assert "<polyline" in report._repr_html_()
    assert capsys.readouterr() == ("", "")


def test_a_failure_shows_the_derivatives_at_its_worst_element():
    report = check((lambda x: (x**2, x), lambda dout, x: 6 * x * dout), np.array([2.0, 3.0, 5.0]), name="f")
    first, second = [paragraph.text for paragraph in parsed(report._repr_html_()).findall("./p")][:2]
    assert "times 3" in first
    assert re.match(r"x\[\d\]: analytic .*, numerical ", second)


def test_a_failure_shows_the_line_that_computes_the_wrong_gradient():
    report = check(Affine(4, 3, [(1, 2)]), (5, 4))
    tree = parsed(report._repr_html_())
    texts = ["".join(element.itertext()) for element in tree.iter("p")]
    assert any(re.fullmatch(r"the gradient is computed at .*test_report_html.py:\d+:", text) for text in texts)
    assert next(tree.iter("pre")).text == "self.dW[place] *= self.factor"
    assert report.to_dict()["lines"].keys() == {"W"}


def test_code_of_a_notebook_has_no_file():
    cell = "def backward(dout, x):\n    return 3 * dout\n"
    linecache.cache["<cell>"] = len(cell), None, cell.splitlines(keepends=True), "<cell>"
    namespace = {}
    exec(compile(cell, "<cell>", "exec"), namespace)
    report = check((lambda x: (2 * x, x), namespace["backward"]), (5, 4))
    assert computed_at(report.lines) == "the gradient is computed at line 2 of a notebook cell"
    assert "<pre>return 3 * dout</pre>" in report._repr_html_()


def test_many_inputs_are_listed_and_the_first_failure_is_whole():
    def backward(dout, x):
        return dout * (1 if len(x) < 3 else 2)

    report = check((lambda x: (1 * x, x), backward), shapes=[(1, 4), (5, 4), (6, 4)], name="f")
    tree = parsed(report._repr_html_())
    assert next(tree.iter("p")).text == "3 inputs: 2 FAIL, 1 PASS"
    verdicts = [row[:2] for row in rows_of(tree) if row[0].startswith("f at")]
    assert verdicts == [["f at (1, 4)", "✓ PASS"], ["f at (5, 4)", "✗ FAIL"], ["f at (6, 4)", "✗ FAIL"]]
    assert sum(element.get("class") == "head" for element in tree.iter("div")) == 1  # the summary names the part
    failures = [part for part in tree.iter("details") if (part.find("summary").text or "").startswith("FAIL: ")]
    assert [part.find("summary").text for part in failures] == ["FAIL: f at (5, 4)", "FAIL: f at (6, 4)"]
    assert [part.get("open") is not None for part in failures] == [True, False]
    assert [header.text for header in tree.iter("th")][:3] == ["input", "verdict", "finding"]


@pytest.mark.parametrize(
    ("f", "backward", "falls", "rises"),
    [
        (lambda x: (x**3, x), lambda dout, x: 3 * x**2 * dout, True, False),
        (lambda x: (3 * x, x), lambda dout, x: 3 * dout, False, True),
    ],
)
def test_curves_are_explained_by_whether_forward_is_linear(f, backward, falls, rises):
    html = check((f, backward), (5, 4))._repr_html_()
    assert ("the error falls as the step shrinks" in html) == falls
    assert ("the error only rises" in html) == rises
    assert "one more random direction" in html


def test_numbers_and_shapes_do_not_break_in_a_table():
    assert unbroken("right to 1e-8 & at (5, 8)") == (
        'right to <span class="unbroken">1e-8</span> &amp; at <span class="unbroken">(5, 8)</span>'
    )


def test_a_network_names_the_wrong_layer():
    wrong = Report("Act", None, (Leaf("x", Verdict.FAIL, Cause.ANALYTIC_WRONG, diagnosis="it is halved"),))
    right = Report("Affine1", None, (Leaf("W", Verdict.PASS, Cause.AGREES),))
    leaves = (Leaf("Affine1.W", Verdict.FAIL, Cause.RECEIVES_WRONG_DOUT, detail="Affine1 is right"),)
    tree = parsed(Report("Net", None, leaves, layers=(right, wrong))._repr_html_())
    assert next(tree.iter("p")).text == "Act is wrong on its own: x: the backward is wrong; it is halved"
    layers = [row[:2] for row in rows_of(tree) if row[0] in ("Affine1", "Act")]
    assert layers == [["Affine1", "✓ PASS"], ["Act", "✗ FAIL"]]


def test_the_whole_text_unfolds(failing):
    *_, last = parsed(failing._repr_html_()).iter("pre")
    assert last.text == failing.details(width=80)


def test_names_and_messages_are_escaped():
    evil = '<img src=x onerror="alert(1)">&'
    leaf = Leaf(evil, Verdict.FAIL, Cause.ANALYTIC_WRONG, diagnosis=evil, index=(0,))
    part = Report(evil, None, (leaf,), behaviour=(evil,), warnings=(evil,), undecided=(evil,), notes=(evil,))
    html = Report(evil, None, (leaf,), layers=(part,), derivatives=(part,), points=(part,))._repr_html_()
    assert "<img" not in html
    assert evil in "".join(parsed(html).itertext())
    errors = element_errors(np.array([[0.0, 1.0]]), 1e-3)
    html = Report("f", None, (Leaf(evil, Verdict.FAIL, Cause.ANALYTIC_WRONG, element_errors=errors),))._repr_html_()
    assert "<img" not in html
    assert f"{evil}[0, 1]: 1.0e+00" in cells_of(parsed(html))


def test_each_verdict_has_a_sign_of_its_own():
    html = [Report("f", None, (Leaf("x", v, Cause.UNRESOLVED),))._repr_html_() for v in Verdict]
    signs = [next(parsed(each).iter("i")).text for each in html]
    assert len(set(signs)) == 3
    assert all(f"</i> {verdict}<" in each for verdict, each in zip(Verdict, html, strict=True))


def test_what_cannot_be_checked_still_raises():
    with pytest.raises(SubjectError):
        check(object(), (5, 4))


def test_figures_are_not_in_the_data(failing):
    data = failing.to_dict()
    assert "step_curves" not in data
    assert all("element_errors" not in leaf for leaf in data["leaves"])
