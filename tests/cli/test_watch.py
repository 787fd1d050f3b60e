"""Tests `jaxnet check --watch` in a process of its own: saves, errors, modules of the project, and Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxnet.cli.check import watch
from jaxnet.crosscheck.targets import TargetError

LAYER = """
from scaling import scale

class Scaled:
    def forward(self, x):
        return scale * x

    def backward(self, dout):
        return 3 * dout
"""


class Watched:
    """A watching process, and the lines that it has printed so far."""

    def __init__(self, folder):
        command = [sys.executable, "-u", "-m", "jaxnet", "check", "mine.py:Scaled", "--inputs", "2x3", "--watch"]
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": ""},  # as users run it
        )  # fmt: skip
        self.lines = []
        self.is_waiting = threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            with self.is_waiting:
                self.lines.append(line)
                self.is_waiting.notify_all()

    def runs(self, count):
        """Returns the lines of a run, counted from 1, when it has ended."""

        def ends():
            return [i for i, line in enumerate(self.lines) if "Ctrl-C ends" in line]

        with self.is_waiting:
            assert self.is_waiting.wait_for(lambda: len(ends()) >= count, timeout=60), self.lines
            first = ends()[count - 2] + 1 if count > 1 else 0
            return "".join(self.lines[first : ends()[count - 1] + 1])


@pytest.fixture
def watched(tmp_path):
    pytest.importorskip("watchfiles")
    (tmp_path / "scaling.py").write_text("scale = 3")
    (tmp_path / "neighbour.py").write_text("")
    (tmp_path / "mine.py").write_text(LAYER)
    process = Watched(tmp_path)
    yield process
    process.process.kill()
    process.process.wait()
    process.reader.join()
    process.process.stdout.close()


@pytest.mark.slow
def test_every_save_is_checked_until_ctrl_c(watched, tmp_path):
    first = watched.runs(1)
    assert first.startswith("PASS  Scaled (x): ")
    assert re.search(r"\n\d\d:\d\d:\d\d  PASS in \d+\.\d\d s; watching mine.py, scaling.py, Ctrl-C ends\n$", first)
    (tmp_path / "mine.py").write_text(LAYER.replace("3 * dout", "4 * dout"))
    assert "FAIL  Scaled\n" in watched.runs(2)
    (tmp_path / "mine.py").write_text(LAYER.replace("return 3 * dout", "return (3 * dout"))
    assert "SyntaxError" in watched.runs(3)
    assert "not checked in" in watched.runs(3)
    (tmp_path / "mine.py").write_text(LAYER)
    assert watched.runs(4).startswith("PASS  Scaled")
    assert "watching mine.py, scaling.py, Ctrl-C" in watched.runs(4)  # no longer the neighbours of a file that failed
    (tmp_path / "scaling.py").write_text("scale = 5")  # a module that the file imports
    assert "times 0.6" in watched.runs(5)
    (tmp_path / "scaling.py").write_text("raise OSError('broken')")
    assert "raised OSError: broken" in watched.runs(6)
    printed = len(watched.lines)
    watched.process.send_signal(signal.SIGINT)
    assert watched.process.wait(timeout=30) == 130
    watched.reader.join(timeout=30)
    assert watched.lines[printed:] == ["jaxnet check: interrupted\n"]
    assert "\x1b" not in "".join(watched.lines)  # nothing is cleared


@pytest.mark.slow
def test_two_saves_of_an_imported_module_within_a_second_are_told_apart(watched, tmp_path):
    def save(text, fraction):
        (tmp_path / "new.py").write_text(text)
        os.utime(tmp_path / "new.py", ns=(10**18 + fraction, 10**18 + fraction))
        os.replace(tmp_path / "new.py", tmp_path / "scaling.py")

    watched.runs(1)
    save("scale = 6", 0)
    assert "times 0.5" in watched.runs(2)
    save("scale = 3", 500_000_000)  # of the same size and second, as Python's compiled files tell times
    assert watched.runs(3).startswith("PASS  Scaled")


@pytest.mark.slow
def test_ctrl_c_during_a_check_is_one_line(watched, tmp_path):
    watched.runs(1)
    slow = LAYER.replace("return scale", "open('started', 'w').close(); time.sleep(60); return scale")
    (tmp_path / "mine.py").write_text("import time\n" + slow)
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    printed = len(watched.lines)
    os.killpg(watched.process.pid, signal.SIGINT)  # as a terminal does
    assert watched.process.wait(timeout=30) == 130
    watched.reader.join(timeout=30)
    assert watched.lines[printed:] == ["jaxnet check: interrupted\n"]


def test_a_child_returns_its_status_and_does_not_change_this_process(tmp_path, capfd):
    values = []

    def run():
        values.append(1)
        print("in the child")
        return 3

    assert watch.run_in_child(run, [tmp_path / "mine.py"]) == (3, set())
    assert values == []
    assert capfd.readouterr().out == "in the child\n"


def test_a_child_that_raises_prints_the_traceback_and_returns_2(tmp_path, capfd):
    (tmp_path / "mine.py").write_text("")
    status, files = watch.run_in_child(lambda: 1 // 0, [tmp_path / "mine.py"])
    assert (status, files) == (2, {str(tmp_path / "mine.py")})
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_without_watchfiles_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(TargetError, match=r'needs watchfiles: pip install "jaxnet-crosscheck\[watch\]"'):
        watch.watch([], lambda: 0)


def test_the_command_itself_is_not_watched(monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text("")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "jaxnet"), raising=False)
    assert watch.project_files([tmp_path / "mine.py"], is_imported=True) == set()


def test_only_another_content_is_a_change(tmp_path):
    file = tmp_path / "mine.py"
    assert watch.contents([str(file)]) == {str(file): None}
    file.write_text("a")
    before = watch.contents([str(file)])
    os.utime(file, ns=(10**18, 10**18))  # a second save of the same text
    assert watch.contents([str(file)]) == before
    file.write_text("b")
    assert watch.contents([str(file)]) != before
