"""Tests the report: its truth value, its data for JSON, its table, and the cost of the check."""

import json
import math

import jax
import numpy as np
import pytest
from conftest import hand_built, mostly_slow, random_params

import jaxnet
import numpy_ref
from jaxnet.crosscheck import Cause, Leaf, Report, Verdict, check_function, check_layer, check_network


def draw(*shape, seed=2):
    return np.random.default_rng(seed).standard_normal(shape)


class Wrong(numpy_ref.Affine):
    def backward(self, dout):
        dx = super().backward(dout)
        self.dW = self.dW * 1.5
        return dx


def network(wrong=False):
    net = jaxnet.multi_layer_net(6, [5, 4], 3, "relu", batch_norm=True)
    hand = hand_built(net, random_params(net))
    if wrong:
        hand.layers["Affine2"].__class__ = Wrong
    return check_network(hand, draw(7, 6), np.arange(7) % 3)


def random_forward():
    class Unseeded:
        def forward(self, x):
            return x * np.random.default_rng().random(x.shape)

        def backward(self, dout):
            return dout

    return check_layer(Unseeded(), draw(5, 4))


def at_kinks():
    return check_layer(numpy_ref.ReLU(), np.zeros((20, 30)), reference=jax.nn.relu)


def in_float32():
    layer = numpy_ref.Affine(draw(4, 3).astype(np.float32), draw(3).astype(np.float32))
    return check_layer(layer, draw(5, 4).astype(np.float32), reference=lambda p, x: x @ p["W"] + p["b"])


REPORTS = {
    "right": (lambda: check_layer(numpy_ref.Affine(draw(4, 3), draw(3)), draw(5, 4)), "PASS"),
    "wrong": (lambda: check_layer(Wrong(draw(4, 3), draw(3)), draw(5, 4)), "FAIL"),
    "undecided": (random_forward, "INCONCLUSIVE"),
    "at kinks": (at_kinks, "PASS"),
    "with a reference, in float32": (in_float32, "PASS"),
    "zero": (lambda: check_function(lambda x: 0 * x, draw(3), gradient=lambda x, dout: 0 * dout), "PASS"),
    "a form": (lambda: check_function(np.sin, draw(3), gradient=lambda x, dout: (dout * np.cos(x))[:2]), "FAIL"),
    "a network": (network, "PASS"),
    "a wrong network": (lambda: network(wrong=True), "FAIL"),
}


@pytest.fixture(scope="module")
def report_of():
    made = {}

    def make(name):
        if name not in made:
            made[name] = REPORTS[name][0]()
        return made[name]

    return make


@pytest.mark.parametrize("name", mostly_slow(REPORTS, 2))
def test_a_report_is_true_only_for_a_pass(report_of, name):
    report, verdict = report_of(name), REPORTS[name][1]
    assert report.verdict == verdict
    assert bool(report) is (verdict == "PASS")


def test_an_assertion_of_a_failing_report_fails():
    with pytest.raises(AssertionError):
        assert check_layer(Wrong(draw(4, 3), draw(3)), draw(5, 4))


@pytest.mark.parametrize("name", mostly_slow(REPORTS, 3))
def test_the_data_for_json_equals_the_report(report_of, name):
    report = report_of(name)
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["verdict"] == str(report.verdict)
    assert [(leaf["name"], leaf["verdict"], leaf["cause"], leaf["reason"]) for leaf in data["leaves"]] == [
        (leaf.name, str(leaf.verdict), leaf.cause.name, leaf.reason) for leaf in report.leaves
    ]
    for leaf, original in zip(data["leaves"], report.leaves, strict=True):
        error = None if math.isnan(original.relative_error) else original.relative_error
        assert leaf["relative_error"] == error
        assert leaf["index"] == list(original.index)
        assert set(leaf["gaps"]) == set(original.gaps)
    assert len(data["layers"]) == len(report.layers)
    assert (data["calls"], data["seconds"], data["seed"]) == (report.calls, report.seconds, report.seed)


def test_a_number_that_is_not_finite_becomes_none():
    leaf = Leaf("x", Verdict.INCONCLUSIVE, Cause.UNRESOLVED, relative_error=math.inf, values={"analytic": math.nan})
    (data,) = Report("f", None, (leaf,)).to_dict()["leaves"]
    assert data["relative_error"] is None
    assert data["min_detectable_error"] is None
    assert data["values"] == {"analytic": None}


def table_of(report):
    lines = str(report).splitlines()
    start = next((i for i, line in enumerate(lines) if "relative error  explained" in line), None)
    return [] if start is None else lines[start : start + 1 + len(report.leaves)]


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("width", [40, 80])
def test_a_report_fits_its_width_and_loses_no_word(report_of, name, width):
    for printed in (report_of(name).text, report_of(name).details):
        lines = printed(width=width).splitlines()
        assert max(map(len, lines)) <= width
        assert " ".join(lines).split() == printed(width=None).split()


@pytest.mark.parametrize("name", REPORTS)
def test_printing_a_report_prints_each_sentence_on_one_line(report_of, name, capsys):
    print(report_of(name))
    assert capsys.readouterr().out == report_of(name).text(width=None) + "\n"


def test_a_pass_is_one_line_with_the_largest_error_and_what_is_caught(report_of):
    report = report_of("right")
    worst = max(leaf.relative_error for leaf in report.leaves)
    least = max(leaf.min_detectable_error for leaf in report.leaves)
    assert str(report) == f"PASS  Affine (W, b, x): relative error {worst:.1e}, detects {least:.0e}"
    assert len(table_of(report)) == 0
    assert "in any of these leaves is caught with probability 0.99" in report.details()


def test_a_pass_that_does_not_cover_every_element_says_which_it_covers(report_of):
    first, *rest = report_of("at kinks").text(width=None).splitlines()
    assert "detects" not in first
    assert any("at a kink" in line for line in rest)


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("forward,backward", "forward,backward (x): relative error 1.0e-11, detects 1e-08"),
        ("conv_forward,conv_backward_naive", "conv_forward,conv_backward_naive: relative error 1.0e-11, detects 1e-08"),
        ("f" * 90, f"{'f' * 90}: relative error 1.0e-11, detects 1e-08"),
    ],
)  # fmt: skip
def test_a_pass_names_the_whole_subject_and_the_leaves_if_80_columns_have_room(name, printed):
    leaf = Leaf("x", Verdict.PASS, Cause.AGREES, relative_error=1e-11, min_detectable_error=1e-8, size=1, compared=1)
    assert str(Report(name, None, (leaf,))) == f"PASS  {printed}"


def a_failing_network(leaves):
    passing = [Leaf(f"W{i}", Verdict.PASS, Cause.AGREES, relative_error=1e-11) for i in range(leaves - 1)]
    return Report("f", None, (*passing, Leaf("b", Verdict.FAIL, Cause.ANALYTIC_WRONG, relative_error=0.5)))


def test_a_long_table_lists_what_is_not_a_pass_and_details_list_all():
    assert len(table_of(a_failing_network(16))) == 17
    table = table_of(a_failing_network(17))
    assert [row.split()[:2] for row in table[1:2]] == [["b", "FAIL"]]
    assert "  and 16 that pass" in str(a_failing_network(17)).splitlines()
    assert all(f"W{i} " in a_failing_network(17).details() for i in range(16))


LONG = "encoder.layers.11.attention.output.projection.weight"


@pytest.mark.parametrize("name", ["W", "Affine12.W", "params['embedding']['table']", "BatchNormalization1.gamma", LONG])
@pytest.mark.parametrize("index", [(), (3,), (127, 4095), (1, 127, 255, 255)])
def test_a_row_fits_80_columns_and_shows_verdict_error_and_index(name, index):
    leaf = Leaf(name, Verdict.FAIL, Cause.ANALYTIC_WRONG, relative_error=1.24e-6, relative_tolerance=3e-10, index=index)
    row = table_of(Report("f", None, (leaf,)))[1]
    assert len(row) <= 80
    assert "FAIL" in row
    assert "1.2e-06" in row
    assert name[-14:] in row
    assert not index or row.endswith(f"[{', '.join(map(str, index))}]")


def test_details_list_every_pair_of_derivations_and_the_cost(report_of):
    report = report_of("with a reference, in float32")
    for leaf in report.leaves:
        assert {"analytic - autodiff", "analytic - numerical", "autodiff - numerical"} <= set(leaf.gaps)
        for pair in leaf.gaps:
            assert f"{leaf.name}: {pair}: error" in report.details()
    assert f"{report.calls:,} forward passes" in report.details()


@pytest.mark.parametrize("name", REPORTS)
def test_every_report_has_calls_and_seconds(report_of, name):
    report = report_of(name)
    assert report.calls > 0
    assert 0 < report.seconds < 60


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_the_report_counts_the_forward_passes(factor):
    calls = 0

    class Counting(numpy_ref.Affine):
        def forward(self, x):
            nonlocal calls
            calls += 1
            return super().forward(x)

        def backward(self, dout):
            dx = super().backward(dout)
            self.dW = self.dW * factor
            return dx

    report = check_layer(Counting(draw(4, 3), draw(3)), draw(5, 4))
    assert report.calls == pytest.approx(calls, abs=4)  # except those made while the layer is inspected


def guarded_entropy(p, t):
    return -np.sum(t * np.log(p + 1e-8))


@pytest.mark.parametrize(("factor", "is_named"), [(1.0, True), (1 + 1e-7, False)])
def test_a_small_constant_of_the_forward_pass_alone_is_named(factor, is_named):
    p, t = np.linspace(0.2, 0.8, 12).reshape(4, 3), np.eye(3)[[0, 1, 2, 0]]
    report = check_function(guarded_entropy, p, t, gradient=lambda p, t: {"p": -factor * t / p}, constants=("t",))
    assert report.verdict == "FAIL"
    assert ("with 0 in place of 1e-08" in str(report)) is is_named
    assert ("typical of a solver" in str(report)) is not is_named
    assert guarded_entropy(np.zeros(1), np.ones(1)) == pytest.approx(-np.log(1e-8))  # is as it was
