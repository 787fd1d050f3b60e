"""Tests that a command answers a wrong environment variable or a missing package with one line and status 2."""

import os
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest

from jaxnet.cli import environment
from jaxnet.cli.errors import one_line_errors, silence_closed_loops

TRAIN = "train --steps 2 --output run"
CHECK = "check --network book"
MISSING = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == NAME:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
"""
VARIABLES = {  # the command, the variable, and what the line says
    "JAX_PLATFORMS=cuda": (TRAIN, "JAX_PLATFORMS: cuda, but JAX finds no such device"),
    "JAX_PLATFORMS=nosuch": (CHECK, "JAX_PLATFORMS: nosuch, but JAX finds no such device (Unable to initialize"),
    "JAX_ENABLE_X64=maybe": (TRAIN, "invalid truth value 'maybe' for environment 'JAX_ENABLE_X64'"),
    "MPLBACKEND=nosuch": (TRAIN, "; the environment has MPLBACKEND=nosuch"),
    "XLA_FLAGS=--nosuch": (CHECK, "XLA_FLAGS: --nosuch, which XLA refuses (Unknown flag in XLA_FLAGS: --nosuch)"),
}


def run(command, folder, **variables):
    """Returns the status of a command, its lines on stderr, and the names of the files it leaves."""
    done = subprocess.run(
        [sys.executable, "-m", "jaxnet", *command.split()],
        capture_output=True, text=True, cwd=folder, timeout=100, env=os.environ | variables,
    )  # fmt: skip
    return done.returncode, done.stderr.splitlines(), [path.name for path in folder.rglob("*") if path.is_file()]


@pytest.mark.slow
@pytest.mark.parametrize("variable", VARIABLES)
def test_a_wrong_variable_is_one_line(tmp_path, variable):
    command, said = VARIABLES[variable]
    name, _, value = variable.partition("=")
    status, lines, files = run(command, tmp_path, **{name: value})
    assert (status, len(lines), files) == (2, 1, []), lines
    assert said in lines[0]


def limited(monkeypatch, soft, hard):
    """Returns the limits that are set, where the process has these two."""
    limits = []
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _kind, pair: limits.append(pair))
    return limits


@pytest.mark.parametrize(
    ("soft", "hard", "expected"), [(16, 1024, [(64, 1024)]), (16, -1, [(64, -1)]), (1024, 4096, []), (-1, -1, [])]
)
def test_too_few_open_files_are_allowed_more(monkeypatch, soft, hard, expected):
    limits = limited(monkeypatch, soft, hard)
    environment.allow_open_files()
    assert limits == expected


def test_a_limit_of_open_files_that_cannot_be_raised_is_refused(monkeypatch):
    limited(monkeypatch, 16, 20)
    with pytest.raises(ValueError, match="ulimit -n: at most 20 open files, expected at least 64; raise the limit of"):
        environment.allow_open_files()


@pytest.mark.slow
def test_a_run_with_too_few_open_files_is_refused_in_one_line(tmp_path):
    command = f"ulimit -n 16; {sys.executable} -m jaxnet {TRAIN}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, timeout=100)
    assert (done.returncode, done.stderr.count("\n"), list(tmp_path.iterdir())) == (2, 1, []), done.stderr
    assert "train: ulimit -n: at most 16 open files" in done.stderr


def test_an_event_loop_that_is_closed_prints_no_traceback(monkeypatch):
    """A thread of the storage library does so for each result that arrives after a save failed on a full disk."""
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: printed.append(unraisable.exc_value))
    silence_closed_loops()
    others = [RuntimeError("another"), ValueError("Event loop is closed")]
    for error in (RuntimeError("Event loop is closed"), *others):
        sys.unraisablehook(SimpleNamespace(exc_value=error))
    assert printed == others


@pytest.mark.slow
@pytest.mark.parametrize("package", ["matplotlib", "sklearn", "rich"])
def test_a_missing_package_is_one_line(tmp_path, package):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(MISSING.replace("NAME", repr(package)))
    status, lines, _ = run(TRAIN, tmp_path, PYTHONPATH=str(site))
    assert (status, len(lines)) == (2, 1), lines
    assert 'pip install "jaxnet-crosscheck[train]"' in lines[0]


def test_an_error_that_no_user_can_mend_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="a bug"), one_line_errors():
        raise RuntimeError("a bug")


def test_flags_that_xla_takes_are_no_error(monkeypatch):
    monkeypatch.setattr(environment, "_refusal", lambda _flags: "")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    environment.check_xla_flags()
