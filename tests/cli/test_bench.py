"""Tests of the benchmark as a user runs it: results, skipped and differing contenders, refused options."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
SMALL = ["--sizes", "12-8-4@16", "--dataset", "random", "--rounds", "1", "--seconds", "0.002"]


@pytest.fixture
def contenders(monkeypatch):
    """Returns the contenders of the script, to which a test may add. For speed, only NumPy computes the bound."""
    from jaxnet.cli import bench, bench_bound

    def multipliers(sizes, batch_size, _threads):
        return {"numpy": bench_bound.multiply_numpy(bench_bound.operands(sizes, batch_size, True), 1)}

    monkeypatch.setattr(bench, "multipliers", multipliers)
    monkeypatch.setattr(bench, "CONTENDERS", dict(bench.CONTENDERS))
    return bench.CONTENDERS


@pytest.fixture
def run(contenders, monkeypatch, capsys):
    """Runs `python scripts/bench.py ARGUMENTS` in this process; returns exit status, stdout and stderr."""

    def bench(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench.py", *arguments])
        try:
            runpy.run_path(str(SCRIPTS / "bench.py"), run_name="__main__")
            status = 0
        except SystemExit as stopped:
            status = stopped.code or 0
        return status, *capsys.readouterr()

    return bench


@pytest.mark.slow
def test_bench_measures_every_contender_and_the_bound(run, tmp_path):
    file = tmp_path / "bench.json"
    status, out, err = run(*SMALL, "--only", "plain-scan", "numpy_ref", "--output", str(file))
    assert status == 0
    assert not err or err.startswith("bench.py: the machine is busy")
    written = json.loads(file.read_text())
    assert list(tmp_path.iterdir()) == [file]
    assert written["threads"] >= 1
    assert {"jax", "numpy", "optax"} <= set(written["versions"])
    assert written["options"]["rounds"] == 1
    (size,) = written["sizes"].values()
    assert size["bound"]["by"] == "numpy"
    assert size["bound"]["times"] == size["products"]["numpy"]["times"]
    assert set(size["contenders"]) == {"plain-scan", "numpy_ref"}
    assert size["skipped"] == {}
    for name, row in size["contenders"].items():
        assert name in out
        assert size["difference"][name] < 1e-5
        assert row["min"] == row["median"] == row["times"][0]
        assert row["min_ratio"] == pytest.approx(row["min"] / size["bound"]["min"])


@pytest.mark.slow
def test_a_contender_with_other_final_weights_is_reported_and_not_timed(run, contenders, tmp_path):
    def too_fast(problem):
        train = contenders["numpy_ref"](problem)
        return lambda batches: train(batches[: len(batches) - 1])  # one step less

    contenders["planted"] = too_fast
    file = tmp_path / "bench.json"
    status, out, _ = run(*SMALL, "--only", "numpy_ref", "planted", "--output", str(file))
    (size,) = json.loads(file.read_text())["sizes"].values()
    assert status == 0
    assert "differs: planted trains something else" in out
    assert set(size["contenders"]) == {"numpy_ref"}
    assert 0.05 < size["difference"]["planted"] < 0.2  # one of ten steps is missing


@pytest.mark.parametrize("wrong", [np.zeros((12, 8)), np.full((12, 8), np.nan), np.zeros((8, 12))])
def test_weights_that_are_nan_or_have_another_shape_differ(run, contenders, wrong):
    contenders["planted"] = lambda problem: lambda batches: wrong
    assert "differs: planted" in run(*SMALL, "--only", "planted")[1]


@pytest.mark.slow
def test_a_missing_library_is_reported_and_skipped(run, contenders, monkeypatch):
    monkeypatch.setitem(sys.modules, "equinox", None)
    monkeypatch.setitem(sys.modules, "sklearn.neural_network", None)
    status, out, _ = run(*SMALL, "--only", "equinox", "scikit-learn", "numpy_ref")
    assert status == 0
    assert "skipped: equinox: import of equinox halted; None in sys.modules" in out.splitlines()
    assert "skipped: scikit-learn: import of sklearn.neural_network halted; None in sys.modules" in out.splitlines()
    assert "│ numpy_ref" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "784-50"], "sizes: '784-50', expected such as 784-50-10@100"),
        (["--sizes", "784@10"], "sizes: '784@10', expected such as 784-50-10@100"),
        (["--sizes", "784-0-10@10"], "sizes: '784-0-10@10', expected such as 784-50-10@100"),
        (["--only", "nobody"], "only: 'nobody', expected some of jaxnet.fit, plain-scan, numpy_ref, torch,"),
        (["--rounds", "0"], "rounds: 0, expected a whole number of at least 1"),
        (["--seconds", "nan"], "seconds: nan, expected a finite number > 0"),
        (["--output", "/nowhere/bench.json"], "output: /nowhere/bench.json, expected a file in an existing folder"),
    ],
)
def test_an_invalid_option_prints_one_line_and_exits_with_2(run, arguments, message):
    status, out, err = run(*arguments)
    assert status == 2
    assert out == ""
    assert err.startswith(f"bench.py: {message}")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_a_round_measures_every_contender_once(run, contenders):
    calls = []

    def recorded(name):
        def make(problem):
            train = contenders["numpy_ref"](problem)
            return lambda batches: calls.append((name, len(batches))) or train(batches)

        return make

    contenders |= {"a": recorded("a"), "b": recorded("b")}
    run(*SMALL, "--only", "a", "b", "--rounds", "3")
    names = [name for name, _ in calls[-12:]]
    assert names == ["a", "a", "b", "b"] * 3  # a short and a long run each
    assert {length for _, length in calls[-12::2]} == {1}


def test_the_bound_multiplies_the_matrices_of_a_training_step():
    from jaxnet.cli import bench_bound

    for order in "CF":
        shapes = [(a.shape, b.shape) for a, b in bench_bound.operands((12, 8, 4), 16, True, order)]
        forward, by_weights = [((16, 12), (12, 8)), ((16, 8), (8, 4))], [((12, 16), (16, 8)), ((8, 16), (16, 4))]
        assert shapes == [*forward, *by_weights, ((16, 4), (4, 8))]
