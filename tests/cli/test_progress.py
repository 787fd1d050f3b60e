"""Tests what commands show on a terminal while they work, and that they show nothing of it elsewhere."""

import io
import os
import pty
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from rich.console import Console

import jaxnet
from jaxnet.cli import progress
from jaxnet.cli.chapter6 import FIGURES
from jaxnet.common import progress_line as module
from jaxnet.common.progress_line import progress_line

# Runs a command whose progress lines appear at once.
DRIVER = """
import sys
from jaxnet.common import progress_line
progress_line.DELAY, progress_line.INTERVAL = 0, 0.001
from jaxnet.cli.start import main
sys.argv[0] = "jaxnet"
main()
"""
SLOW_IMPORT = """
import sys, time
import numpy as np
print("a warning", file=sys.stderr)
time.sleep(0.3)

def f(x):
    time.sleep(0.01)
    return np.sin(x)
"""
COMMANDS = {
    "check slow.py:f --gradient numpy:cos --inputs 3": ["importing,", "importing slow.py,", "checking f, x: "],
    "check slow.py": ["importing slow.py,"],
}
SLOW_COMMANDS = {
    "train --steps 20 --output run": [
        "importing,", "drawing the initial weights and the batches,", "checking 64-50-10: ",
        "compiling", "saving the last checkpoint,", "drawing the learning curves,", "drawing weights and mistakes,",
    ],
    "sweep --learning-rates 0.1 --init-stds 0.1 --steps 200": [
        "loading digits,", "drawing batches,", "compiling", "evaluating", "trained", "drawing sweep.png,",
        "training the best again, for the test data,",
    ],
    "chapter6 --steps 5 --hidden 4": [f"drawing {name}" for name in FIGURES],
    "bench 4-3-2@5 --dataset random --only jaxnet.fit --rounds 1 --seconds 0.001": [
        "4-3-2@5: measuring the bound,", "4-3-2@5: compiling the reference,", "4-3-2@5: compiling jaxnet.fit",
    ],
    "scaling 784-4-10@8 --devices 1 --steps 2": ["measuring 1 device,"],
    "check --network notebook": ["importing JAX,", "checking the notebook as written", "measuring the defects"],
}  # fmt: skip


def on_terminal(command, folder):
    """Returns the status and the text that a command writes to a terminal of 100 columns."""
    reader, writer = pty.openpty()
    os.set_inheritable(writer, True)
    run = subprocess.Popen(
        command, cwd=folder, stdin=writer, stdout=writer, stderr=writer,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(writer)
    text = b""
    while True:
        try:
            data = os.read(reader, 65536)
        except OSError:  # how Linux tells that the terminal was closed
            break
        if not data:
            break
        text += data
    os.close(reader)
    return run.wait(), text.decode()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW_IMPORT)
    return tmp_path


TABLE = [
    *COMMANDS.items(),
    *(
        pytest.param(*item, marks=pytest.mark.slow if item[0].startswith("train") else pytest.mark.exhaustive)
        for item in SLOW_COMMANDS.items()
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "texts"), TABLE)
def test_a_command_shows_on_a_terminal_what_it_does(folder, arguments, texts):
    _, text = on_terminal([sys.executable, "-c", DRIVER, *arguments.split()], folder)
    plain = re.sub(r"\x1b\[[\d;?]*\w", "", text)
    assert [part for part in texts if part not in plain] == []


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "texts"), TABLE)
def test_a_command_shows_no_progress_elsewhere_even_if_colours_are_forced(folder, arguments, texts):
    command = [sys.executable, "-c", DRIVER, *arguments.split()]
    done = subprocess.run(command, capture_output=True, cwd=folder, env=os.environ | {"FORCE_COLOR": "1"})
    text = done.stdout.decode() + done.stderr.decode()
    assert [part for part in texts if part.endswith((",", ": ")) and part in text] == []
    assert [control for control in ("\r", "\x1b[K", "\x1b[?25") if control in text] == []
    assert not re.search(r"━ *\d+/\d", re.sub(r"\x1b\[[\d;?]*\w", "", text))  # a bar, and the steps done


@pytest.mark.slow
def test_what_a_file_prints_while_it_is_imported_is_not_lost(folder):
    _, text = on_terminal([sys.executable, "-c", DRIVER, "check", "slow.py"], folder)
    assert "\r\x1b[Ka warning\r\n" in text  # in a line of its own


class Terminal:
    """A terminal in place of stderr, and what was written to it."""

    def __init__(self, monkeypatch, columns=20, **seconds):
        self.reader, writer = pty.openpty()
        self.stream = os.fdopen(writer, "w")
        monkeypatch.setattr(sys, "stderr", self.stream)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((columns, 5)))
        for name, value in seconds.items():
            monkeypatch.setattr(module, name, value)

    def text(self):
        """Returns what was written. A mark at the end tells that nothing follows."""
        self.stream.write("|")
        self.stream.close()
        text = b""
        while not text.endswith(b"|"):
            text += os.read(self.reader, 1000)
        os.close(self.reader)
        return text.decode().removesuffix("|")


@pytest.mark.parametrize(("columns", "line"), [(20, "doing what has a lo"), (0, "doing what has a long name, 0 s")])
def test_a_long_block_shows_a_line_that_fits_and_is_removed_after_it(monkeypatch, columns, line):
    terminal = Terminal(monkeypatch, columns, DELAY=0.05, INTERVAL=10)
    with progress_line("doing what has a long name"):
        time.sleep(0.5)
    assert terminal.text() == f"\r\x1b[K{line}\r\x1b[K"


def test_a_short_block_shows_nothing(monkeypatch):
    terminal, threads = Terminal(monkeypatch, DELAY=10), threading.active_count()
    with progress_line("short"):
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads
    assert terminal.text() == ""


def test_an_inner_block_replaces_the_text_and_an_exception_removes_the_line(monkeypatch):
    terminal = Terminal(monkeypatch, DELAY=0.2, INTERVAL=10)

    def fail():
        with progress_line("outer"), progress_line("inner"):
            time.sleep(0.5)
            raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        fail()
    assert terminal.text() == "\r\x1b[Kinner, 0 s\r\x1b[K"


def test_a_terminal_that_cannot_replace_lines_shows_nothing(monkeypatch):
    terminal = Terminal(monkeypatch, DELAY=0)
    monkeypatch.setenv("TERM", "dumb")
    with progress_line("text"):
        time.sleep(0.1)
    assert terminal.text() == ""


def test_a_long_run_without_a_terminal_prints_a_line_each_ten_seconds(monkeypatch):
    clock = iter([0, 1, 3, 5, 6, 14, 15, 16, 26])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(progress, "is_terminal", lambda _: False)
    printed = io.StringIO()
    with progress.training_progress(Console(file=printed), 100_000, "test") as show:
        for step in (0, 100, 200, 300, 400, 500, 600):
            history = jaxnet.History(np.ones(step), np.array([step]), np.ones(1), np.ones(1))
            if step:
                show(jaxnet.Progress(None, history))
            else:
                show(jaxnet.Progress(None, history._replace(loss=np.ones(0))))
    assert [line.split()[1] for line in printed.getvalue().splitlines()] == [
        "300",
        "600",
    ]  # after 5 s, and 10 s after 6
