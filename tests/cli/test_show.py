"""Tests of `jaxnet show`, with folders that are written here."""

import re
import shutil
import sys

import numpy as np
import pytest

from jaxnet import History
from jaxnet.cli import main
from jaxnet.train import run_folder

HISTORY = History(np.array([2.5, 2.0, 1.5]), np.array([0, 3]), np.array([0.1, 0.7]), np.array([0.125, 0.625]))


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Makes two runs in runs/, the second with validation data, and returns a function that runs the command."""
    monkeypatch.chdir(tmp_path)
    for name, rate, more in (("a", 0.1, {}), ("b", 0.5, {"validation_accuracy": 0.625, "learned_nothing": "why"})):
        (tmp_path / "runs" / name).mkdir(parents=True)
        run_folder.write_history(tmp_path / "runs" / name / "history.csv", HISTORY, "validation" if more else "test")
        summary = {"network": "64-50-10", "dataset": "digits", "parameters": 3760, "steps": 3, "seconds": 1.25}
        options = {"options": {"learning_rate": rate, "seed": 0, "network": "two-layer"}}
        accuracies = {"train_accuracy": 0.7, "test_accuracy": 0.5}
        run_folder.write_summary(tmp_path / "runs" / name / "summary.json", summary | accuracies | options | more)

    def show(*arguments):
        monkeypatch.setattr(sys, "argv", ["jaxnet", "show", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main.main()
        return stopped.value.code or 0

    return show


def test_runs_are_compared_by_the_options_that_differ(runs, capsys):
    assert runs() == 0
    header, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header == [
        "run", "network", "data", "learning_rate", "steps", "train", "valid.", "test", "seconds", "parameters",
    ]  # fmt: skip
    assert rows == [
        ["runs/a", "64-50-10", "digits", "0.1", "3", "70.00%", "50.00%", "1.2", "3,760"],
        [
            "runs/b",
            "64-50-10",
            "digits",
            "0.5",
            "3",
            "70.00%",
            "62.50%",
            "50.00%",
            "1.2",
            "3,760",
            "learned",
            "nothing",
        ],
    ]


@pytest.fixture
def unfinished(runs, tmp_path):
    """Makes a run in runs/c that was saved after 10 and 30 of 2,000 steps, and what orbax leaves while it writes."""
    for name in ("10", "30", "40.orbax-checkpoint-tmp"):
        (tmp_path / "runs" / "c" / "checkpoints" / name).mkdir(parents=True)
    options = {"learning_rate": 0.1, "seed": 0, "network": "two-layer", "dataset": "digits", "steps": 2000}
    (tmp_path / "runs" / "c" / "options.json").write_text(run_folder.options_text(options | {"form": None}))
    return tmp_path / "runs" / "c"


@pytest.mark.parametrize("folders", [[], ["runs/a", "runs/c"]])
def test_an_unfinished_run_has_its_steps_and_the_command_that_continues_it(runs, unfinished, folders, capsys):
    assert runs(*folders) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(
        r"runs/c +two-layer +digits +(0.1 +)?30 of 2,000 +unfinished; continue with jaxnet train --resume runs/c", row
    )


def test_an_unfinished_run_without_a_checkpoint_has_made_no_step(runs, unfinished, capsys):
    shutil.rmtree(unfinished / "checkpoints")
    assert runs() == 0
    assert " 0 of 2,000 " in capsys.readouterr().out


@pytest.mark.slow
def test_curves_are_those_of_finished_runs(runs, unfinished, tmp_path, capsys):
    assert runs("--plot", "curves.png") == 0
    assert (tmp_path / "curves.png").exists()
    assert runs("runs/c", "--plot", "other.png") == 2
    assert "plot: other.png, but no run is finished" in capsys.readouterr().err


def test_damaged_options_of_an_unfinished_run_are_refused_by_name(runs, unfinished, capsys):
    (unfinished / "options.json").write_text('{"a": ')
    assert runs() == 2
    assert "runs/c/options.json: cannot be read" in capsys.readouterr().err


def test_a_history_is_read_as_it_was_written(runs):
    for name in "ab":
        for actual, expected in zip(
            run_folder.read_history(run_folder.Path("runs", name, "history.csv")), HISTORY, strict=True
        ):
            np.testing.assert_array_equal(actual, expected)


@pytest.mark.slow
def test_learning_curves_are_drawn(runs, tmp_path):
    assert runs("runs/a", "runs/b", "--plot", "curves.png") == 0
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: not the folder of a run"),
        (["runs/a", "--plot", "no/x.png"], "plot: no/x.png, expected a file in an existing folder"),
    ],
)
def test_what_cannot_be_shown_prints_one_line_and_exits_with_2(runs, arguments, message, capsys):
    assert runs(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"jaxnet show: {message}")


def test_a_damaged_history_is_refused_by_name(runs, tmp_path, capsys):
    (tmp_path / "runs" / "a" / "history.csv").write_text("step,loss\n0,,x")
    assert runs("--plot", "x.png") == 2
    assert "history.csv: cannot be read" in capsys.readouterr().err
