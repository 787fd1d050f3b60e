"""Tests of the command `jaxnet` and of options that are derived from tables."""

import dataclasses
import importlib
import re
import subprocess
import sys

import pytest

import jaxnet
from jaxnet import DISTRIBUTION
from jaxnet.cli import errors, main
from jaxnet.cli.parse_options import OTHER_NAMES, unknown_option
from jaxnet.data.datasets import DatasetError


def test_the_version_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxnet", "--version"])
    main.main()
    assert capsys.readouterr().out == f"jaxnet {jaxnet.__version__}\n"


def test_a_missing_package_is_reported_with_the_command_that_installs_it(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxnet", "sweep"])
    monkeypatch.setitem(sys.modules, "jaxnet.cli.sweep", None)
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 2
    assert f'pip install "{DISTRIBUTION}[train]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "near"), [("chekc", "did you mean check?"), ("trian", "did you mean train?"), ("x", "")]
)
def test_an_unknown_command_is_an_error_that_names_the_near_one(monkeypatch, capsys, name, near):
    monkeypatch.setattr(sys, "argv", ["jaxnet", name])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"jaxnet: {name}, expected one of train, check,")
    assert line.endswith(near or "scaling")


NEW_ACTIVATION = """
import tyro
from jaxnet.nn import layers

@layers.activation
def softsign():
    return layers.relu()

from jaxnet.cli.train import options as train_options

options = train_options.resolve(tyro.cli(train_options.Options, args=["--activation", "softsign"]))
print(options.activation)
recorded = {name: value for name, value in vars(options).items() if name not in train_options.LAUNCH} | {"hidden": [50]}
launch = {name: getattr(options, name) for name in train_options.LAUNCH}
print(train_options.from_record(recorded, launch).activation)
tyro.cli(train_options.Options, args=["--help"])
"""


@pytest.mark.slow
def test_a_new_activation_is_an_option_of_train_without_further_edits():
    done = subprocess.run([sys.executable, "-c", NEW_ACTIVATION], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["softsign", "softsign"]
    assert ",gelu,softsign}" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", main.COMMANDS)
def test_the_help_has_no_noise_around_options(monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", ["jaxnet", name, "--help"])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert not stopped.value.code
    assert f"usage: jaxnet {name}" in out
    assert not re.search(r"\[\[|\(default: (False|None|\[\])?\)|--no-", out)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("two\nlines"), 2, "jaxnet sweep: two lines\n"),
        (FileNotFoundError(2, "No such file", "x.txt"), 2, "jaxnet sweep: [Errno 2] No such file: 'x.txt'\n"),
        (MemoryError("2 GiB"), 2, "jaxnet sweep: not enough memory (2 GiB); choose smaller sizes\n"),
        (DatasetError("no data"), 2, "jaxnet sweep: no data\n"),
        (KeyboardInterrupt(), 130, "jaxnet sweep: interrupted\n"),
        (
            FloatingPointError("invalid value (nan) encountered in step\n---"),
            2,
            "jaxnet sweep: invalid value (nan) encountered in step; unset JAX_DEBUG_NANS and JAX_DEBUG_INFS, and the "
            "first bad value is named\n",
        ),
    ],
)
def test_an_expected_error_prints_one_line_and_sets_the_exit_status(monkeypatch, capsys, error, status, message):
    monkeypatch.setattr(sys, "argv", ["jaxnet sweep"])
    with pytest.raises(SystemExit) as stopped, errors.one_line_errors(DatasetError):
        raise error
    assert stopped.value.code == status
    assert capsys.readouterr().err == message


def test_an_unexpected_error_keeps_its_traceback():
    with pytest.raises(TypeError, match="a bug"), errors.one_line_errors():
        raise TypeError("a bug")


WRONG_OPTIONS = {
    "check --intputs 3": "--intputs: no such option; did you mean --inputs?",
    "sweep --no_such=3": "--no_such: no such option; --help lists them",
    "train --hidden 20 x": "--hidden: 'x', expected a whole number",
    "train --seed x": "--seed: 'x', expected a whole number",
    "check --no-json": "--no-json: no such option; did you mean --json?",
    "train --steps many": "--steps: 'many', expected a whole number",
    "train --steps": "Missing value for argument '--steps'",
    "sweep --learning-rates a b": "--learning-rates: 'a', expected a number",
    "sweep --optimizer sdg": "--optimizer: 'sdg', expected one of sgd, momentum, nesterov",
    "bench --dataset rndom": "--dataset: 'rndom', expected one of mnist, random; did you mean random?",
    "chapter6 extra": "Unrecognized options: extra",
    "train --lr 0.1": "--lr: no such option; did you mean --learning-rate?",
    "train --lr=0.1": "--lr: no such option; did you mean --learning-rate?",
    "sweep --lr 0.1": "--lr: no such option; did you mean --learning-rates?",
    "train --epochs 3": "--epochs: no such option; did you mean --steps? A step is one batch",
    "train --batch 3": "--batch: no such option; did you mean --batch-size?",
    "train --bs 3": "--bs: no such option; did you mean --batch-size?",
    "train --hidden_size 3": "--hidden_size: no such option; did you mean --hidden?",
    "train -n 3": "-n: no such option; did you mean --steps?",
    "train -o x": "-o: no such option; did you mean --output?",
    "train --folder x": "--folder: no such option; did you mean --output?",
    "train --hlp": "--hlp: no such option; did you mean --help?",
    "train --zz 3": "--zz: no such option; --help lists them",
    "predict --folder x": "--folder: no such option; write its value without --folder",
    "predict runs/x --prompt x": "--prompt: no such option; did you mean --text?",
    "predict": "FOLDER: missing, expected the folder of a finished run of jaxnet train",
}


WRONG_VALUES = {  # that only the command itself can judge
    "check mine.py:f --reference ": "reference: '', expected a NAME or FILE.py:NAME",
    "check mine.py:f --gradient ": "gradient: '', expected a NAME or FILE.py:NAME",
    "train --devices 100000": "devices: 100000, expected at most 4,096",
    "sweep --devices 100000": "devices: 100000, expected at most 4,096",
    "scaling --devices 100000": "devices: 100000, expected at most 4,096",
    "train --output a\nb": r"output: 'a\nb', expected a name without line breaks",
    "sweep --output a\rb": r"output: 'a\rb', expected a name without line breaks",
    "bench --output a\x1bb": r"output: 'a\x1bb', expected a name without line breaks",
    "check mine.py:f --plot a\u2028.png": r"plot: 'a\u2028.png', expected a name without line breaks",
    "train --seed -1": "seed: -1, expected a whole number from 0",
    "train --hidden 99999999999999999999999 --output run": "in_size, out_size: 64, 99999999999999999999999, ",
    "train --processes 3 --process 7 --output run": "process: 7, expected 0 to 2",
}


@pytest.mark.parametrize("command", WRONG_VALUES)
def test_a_wrong_value_is_one_line(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["jaxnet", *command.split(" ")])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"jaxnet {command.split()[0]}: {WRONG_VALUES[command]}")
    assert (stopped.value.code, list(tmp_path.iterdir())) == (2, [])


def test_an_unknown_command_with_a_line_break_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxnet", "no\nsuch"])
    with pytest.raises(SystemExit):
        main.main()
    assert capsys.readouterr().err.startswith("jaxnet: no such, expected one of train")


@pytest.mark.parametrize("command", WRONG_OPTIONS)
def test_a_wrong_option_is_one_line_that_names_the_near_one(monkeypatch, capsys, command):
    monkeypatch.setattr(sys, "argv", ["jaxnet", *command.split()])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"jaxnet {command.split()[0]}: {WRONG_OPTIONS[command]}")
    assert not set("─│╭╮╯╰") & set(line)


def test_the_names_of_other_programs_lead_to_options_of_some_command():
    commands = [importlib.import_module(f"jaxnet.cli.{name}").Options for name in main.COMMANDS]
    options = {field.name.replace("_", "-") for command in commands for field in dataclasses.fields(command)}
    for option in OTHER_NAMES:
        assert {option, f"{option}s"} & options, option


POSITIONAL = {
    "check": {"target"}, "predict": {"folder", "images"}, "show": {"folders"}, "bench": {"networks"},
    "scaling": {"network"},
}  # fmt: skip


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_option_of_a_command_is_known(name):
    options = importlib.import_module(f"jaxnet.cli.{name}").Options
    for field in dataclasses.fields(options):
        is_positional = field.name in POSITIONAL.get(name, ())
        expected = f"--{field.name}: no such option; write its value without --{field.name}" if is_positional else ""
        assert unknown_option(options, [f"--{field.name}", "3"]) == expected
    assert unknown_option(options, ["-3", "-1e-3", "-inf", "-h"]) == ""
    assert "no such option" in unknown_option(options, ["--x"])
