"""Tests of `jaxnet bench --check`: right layers in every framework, counted passes, verdicts, skipped checkers."""

import json
import math
import runpy
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mostly_slow

from jaxnet.cli.bench import check as bench_check
from jaxnet.cli.bench.check import SIZES, Case, Forecast, count, measure, parse_cases
from jaxnet.cli.bench.check_layers import LAYERS
from jaxnet.cli.bench.checkers import ERROR, FRAMEWORKS, Calls, Subject

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs `python scripts/bench.py --check ARGUMENTS` in this process; returns exit status, stdout and stderr."""

    def bench(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench.py", "--check", *arguments])
        try:
            runpy.run_path(str(SCRIPTS / "bench.py"), run_name="__main__")
            status = 0
        except SystemExit as stopped:
            status = stopped.code or 0
        return status, *capsys.readouterr()

    return bench


@pytest.mark.parametrize("name", mostly_slow(LAYERS, 5))
def test_the_backward_pass_is_the_one_that_jax_derives(name):
    layer = LAYERS[name]
    arrays = layer.draw(300)
    y, cache = layer.forward(np, *arrays)
    dout = np.random.default_rng(1).standard_normal(y.shape)
    with jax.enable_x64(True):
        expected, derive = jax.vjp(lambda *leaves: layer.forward(jnp, *leaves)[0], *map(jnp.asarray, arrays))
        gradients = derive(jnp.asarray(dout))
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    for gradient, derived in zip(layer.backward(np, dout, cache), gradients, strict=True):
        np.testing.assert_allclose(gradient, derived, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", LAYERS)
def test_the_leaves_have_about_the_elements_that_were_asked_for(name):
    layer = LAYERS[name]
    for size in SIZES:
        elements = sum(map(math.prod, layer.shapes(size)))
        assert 0.7 * size <= elements <= 1.1 * size
    assert layer.wrong in layer.leaves


@pytest.mark.parametrize("framework", mostly_slow(FRAMEWORKS, 3))
def test_check_passes_a_right_gradient_and_fails_a_wrong_one(framework):
    if framework != "jax":
        pytest.importorskip(framework)
    arrays = LAYERS["Affine"].draw(60)
    for wrong in (False, True):
        assert FRAMEWORKS[framework](Subject(LAYERS["Affine"], arrays, wrong))["check"]() is not wrong


def test_only_the_gradient_of_the_wrong_leaf_differs():
    layer = LAYERS["LSTM"]
    arrays = layer.draw(100)
    y, cache = layer.forward(np, *arrays)
    right, wrong = (Subject(layer, arrays, wrong).backward(np, y, cache) for wrong in (False, True))
    ratios = {
        name: np.unique(np.round(b / a, 9)).tolist() for name, a, b in zip(layer.leaves, right, wrong, strict=True)
    }
    assert ratios == {"x": [1.0], "Wx": [1.0], "Wh": [ERROR], "b": [1.0]}


@pytest.mark.parametrize(
    ("framework", "name", "forward"),
    [
        ("scipy", "check_grad", 37),  # the value, and a forward difference for each of 12 + 18 + 6 elements
        ("scipy", "check_grad, random", 2),
        ("jax", "check_grads", 4),
    ],
)
def test_passes_are_counted(framework, name, forward):
    calls, layer = Calls(), LAYERS["Affine"]._replace(shapes=lambda _size: [(4, 3), (3, 6), (6,)])
    row = count(FRAMEWORKS[framework](Subject(layer, layer.draw(36), False, calls))[name], calls)
    assert (row["forward"], row["backward"]) == (forward, 1)


def test_ratios_are_those_of_one_round(monkeypatch):
    clock = iter([0, 4, 4, 6, 6, 12, 12, 13])  # check takes 4 and 6 seconds, its peer 2 and 1
    monkeypatch.setattr(bench_check.time, "process_time", lambda: next(clock))
    rows = {"check": {"seconds_counting": 1.0}, "peer": {"seconds_counting": 1.0}}
    measure({"check": lambda: None, "peer": lambda: None}, rows, 2)
    assert rows["check"]["times"] == [4, 6]
    assert rows["check"]["ratios"] == [1, 1]
    assert rows["peer"]["ratios"] == [2, 6]
    assert (rows["peer"]["min_ratio"], rows["peer"]["median_ratio"]) == (2, 4)


def test_a_long_round_is_measured_once():
    rows, runs = {"check": {"seconds_counting": bench_check.LONG_ROUND + 0.1}}, []
    measure({"check": lambda: runs.append(1)}, rows, 3)
    assert len(runs) == len(rows["check"]["times"]) == 1


def test_a_forecast_follows_the_growth_between_two_sizes():
    forecast = Forecast()
    assert forecast.seconds(100) == 0
    forecast.add(100, 1.0)
    assert forecast.seconds(1000) == 1
    forecast.add(1000, 100.0)
    assert forecast.seconds(10_000) == pytest.approx(10_000)  # quadratic
    forecast.add(10_000, math.inf)  # was not measured
    assert forecast.seconds(100_000) == math.inf


def test_a_layer_alone_stands_for_all_sizes():
    assert parse_cases(("Affine@50", "LSTM")) == [Case("Affine", 50), *(Case("LSTM", size) for size in SIZES)]
    assert len(parse_cases(())) == len(LAYERS) * len(SIZES)


def test_a_run_writes_seconds_passes_and_verdicts(run, tmp_path):
    file = tmp_path / "bench.json"
    status, out, _ = run("Affine@60", "--only", "scipy", "--rounds", "2", "--output", str(file))
    assert status == 0
    (results,) = json.loads(file.read_text())["checkers"].values()
    assert results["skipped"] == {}
    assert set(results["checkers"]) == {"scipy: check", "scipy: check_grad", "scipy: check_grad, random"}
    for name, by_verdict in results["checkers"].items():
        assert name in out
        assert all(len(row["times"]) == 2 for row in by_verdict.values())
    own = results["checkers"]["scipy: check"]
    assert (own["PASS"]["passes"], own["FAIL"]["passes"]) == (True, False)
    assert own["PASS"]["forward"] > own["PASS"]["backward"] > 0


def test_a_missing_library_is_skipped_with_the_reason(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    status, out, _ = run("Affine@60", "--only", "scipy")
    assert status == 0
    assert "skipped: scipy: import of scipy.optimize halted; None in sys.modules" in out.splitlines()


def test_a_checker_that_would_take_too_long_is_not_run(run, monkeypatch):
    monkeypatch.setattr(bench_check, "LONGEST", 0.0)  # so that all are skipped after the first size
    status, out, _ = run("Affine@60", "Affine@70", "--only", "scipy", "--rounds", "1")
    first, second = out.split("Affine@70")
    assert status == 0
    assert ">0" not in first
    assert second.count(">0") == 6


def test_a_checker_that_passes_a_wrong_gradient_is_named(run, monkeypatch):
    checks = {"check": lambda: False, "blind": lambda: True, "silent": lambda: None}
    monkeypatch.setattr(bench_check, "FRAMEWORKS", {"scipy": lambda _subject: checks})
    _, out, _ = run("Affine@60", "--only", "scipy", "--rounds", "1")
    mistakes = [line for line in out.splitlines() if line.startswith("mistaken")]
    assert mistakes == [
        "mistaken: scipy: check does not pass a right gradient",
        "mistaken: scipy: blind passes a wrong gradient",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["Afine"],
            "networks: 'Afine', expected with --check some of Affine, BatchNorm, Convolution, Attention, LSTM,",
        ),
        (["Affine@"], "networks: 'Affine@', expected with --check"),
        (["Affine@1e3"], "networks: 'Affine@1e3', expected with --check"),
        (["Affine@5"], "networks: 'Affine@5', expected with --check"),
        (["784-50-10@32"], "networks: '784-50-10@32', expected with --check"),
        (["--only", "equinox"], "only: 'equinox', expected some of torch, jax, scipy"),
        (["--predict"], "check: given beside --predict, expected one of them"),
    ],
)
def test_an_invalid_option_prints_one_line_and_exits_with_2(run, arguments, message):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"bench.py: {message}")
    assert err.count("\n") == 1
