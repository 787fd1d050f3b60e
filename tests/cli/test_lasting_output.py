"""Tests that a command does its work whatever happens to its output."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import mostly_slow, some

from jaxnet.cli.lasting_output import lasting_output

TRAIN = f"{sys.executable} -m jaxnet train --steps 5 --output run"
LAYER = """
class Square:
    def forward(self, x): self.x = x; return x**2
    def backward(self, dout): return 2 * self.x * dout
"""
CHECK = f"{sys.executable} -m jaxnet check mine.py:Square --inputs 3"
HELP = f"{sys.executable} -m jaxnet --help"
NO_READER = "| true; exit ${PIPESTATUS[0]}"


def shell(command, folder, **environment):
    """Returns the status and the errors of a shell command."""

    (folder / "mine.py").write_text(LAYER)
    run = subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, env=os.environ | environment, check=False
    )
    return run.returncode, run.stderr


@pytest.mark.parametrize(
    "command",
    mostly_slow(
        [
            f"{CHECK} {NO_READER}",
            f"{HELP} {NO_READER}",
            f"{CHECK} >&-",
            f"{CHECK} <&- >&- 2>&-",
            f"{CHECK} 2>/dev/full",
        ],
        3,
    ),
)
def test_a_command_whose_output_nobody_reads_ends_as_otherwise(tmp_path, command):
    assert shell(command, tmp_path) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_output_that_is_lost_on_a_full_disk_is_one_line_and_status_2(tmp_path):
    status, errors = shell(f"{CHECK} > /dev/full", tmp_path)
    assert status == 2
    assert errors.splitlines() == ["jaxnet check: the output could not be printed (No space left on device)"]


@pytest.mark.slow
@pytest.mark.parametrize("end", some([NO_READER, ">&-", "> /dev/full"], 3))
def test_a_run_is_saved_whatever_happens_to_its_output(tmp_path, end):
    status, _ = shell(f"{TRAIN} {end}", tmp_path)
    assert status == (2 if "full" in end else 0)
    assert (tmp_path / "run" / "summary.json").exists()


def test_characters_that_the_encoding_lacks_are_printed_by_their_numbers(tmp_path):
    script = "from jaxnet.cli.lasting_output import lasting_output\nwith lasting_output(): print('5 \\u20ac')"
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "latin-1"}, check=True)
    assert run.stdout.strip() == rb"5 \u20ac"


def test_the_streams_are_those_of_before_after_the_block(capsys):
    before = sys.stdout, sys.stderr
    with lasting_output():
        print("printed")
        assert sys.stdout.isatty() is False
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "printed\n"
