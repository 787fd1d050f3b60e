"""Tests of the command `jaxnet` and of options that are derived from tables."""

import subprocess
import sys

import pytest

import jaxnet
from jaxnet.cli import main
from jaxnet.data.datasets import DISTRIBUTION


def test_the_version_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxnet", "--version"])
    main.main()
    assert capsys.readouterr().out == f"jaxnet {jaxnet.__version__}\n"


def test_a_missing_package_is_reported_with_the_name_of_the_distribution(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxnet", "sweep"])
    monkeypatch.setitem(sys.modules, "jaxnet.cli.sweep", None)
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 2
    assert f'pip install "{DISTRIBUTION}[train]"' in capsys.readouterr().err


NEW_ACTIVATION = """
import tyro
from jaxnet.nn import layers

@layers.activation
def softsign():
    return layers.relu()

from jaxnet.cli import train_options

options = train_options.resolve(tyro.cli(train_options.Options, args=["--activation", "softsign"]))
print(options.activation)
recorded = {name: value for name, value in vars(options).items() if name not in train_options.LAUNCH} | {"hidden": [50]}
launch = {name: getattr(options, name) for name in train_options.LAUNCH}
print(train_options.from_record(recorded, launch).activation)
tyro.cli(train_options.Options, args=["--help"])
"""


def test_a_new_activation_is_a_choice_of_train():
    done = subprocess.run([sys.executable, "-c", NEW_ACTIVATION], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["softsign", "softsign"]
    assert ",gelu,softsign}" in done.stdout
