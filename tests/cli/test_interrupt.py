"""Tests signals in processes of their own: one line, a status and nothing half-written, at any moment."""

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import exhaustive

from jaxnet.cli.main import COMMANDS
from jaxnet.cli.train import what_is_saved
from jaxnet.cli.train.loop import stop_signals

ROOT = Path(__file__).parents[2]

# Sends a signal to its own process when a module is imported, or when a function is called: at once, in a callback of
# the garbage collector, where Python ignores exceptions, or in a call that does not return to Python, such as a
# compilation.
DRIVER = """
import gc, hashlib, importlib, os, signal, sys, threading, time

moment, place, *sys.argv = sys.argv[1:]

def interrupt(*_):
    os.kill(os.getpid(), int(os.environ["SIGNAL"]))

def in_callback():
    gc.callbacks.append(interrupt)
    gc.collect()

def in_long_call(times=1):
    def send():
        for _ in range(times):
            time.sleep(0.5)
            interrupt()
    threading.Thread(target=send, daemon=True).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes without the interpreter

ACTIONS = {"now": interrupt, "callback": in_callback, "long call": in_long_call, "twice": lambda: in_long_call(2)}

class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name == place:
            interrupt()

def at_call():
    module, name = place.split(":")
    *owner, name = name.split(".")
    owner = getattr(importlib.import_module(module), owner[0]) if owner else importlib.import_module(module)
    original = getattr(owner, name)
    def replaced(*args, **kwargs):
        ACTIONS[moment]()
        return original(*args, **kwargs)
    setattr(owner, name, replaced)

sys.meta_path.insert(0, AtImport())
from jaxnet.cli import main

def import_and_prepare(name, load=main.import_module):
    command = load(name)
    if moment != "import":
        at_call()
    return command

main.import_module = import_and_prepare
main.main()
"""
ARGUMENTS = {"predict": "no-folder"}  # of commands that need some
OTHERS = [name for name in COMMANDS if name not in ("check", "train")]
MOMENTS = {
    "import of a library": ("import", "tyro"),
    "import of the command": ("import", "jaxnet.cli.NAME"),
    "call": ("now", "jaxnet.cli.NAME:main"),
    "callback": ("callback", "jaxnet.cli.NAME:main"),
    "long call": ("long call", "jaxnet.cli.NAME:main"),
}
SWEEP = "sweep --learning-rates 0.1 --init-stds 0.1 --hidden 2 --steps 2 --validation 0"
BENCH = "bench 4-3-2@5 --dataset random --only jaxnet.fit --rounds 1 --seconds 0.001 --output b.json"
WRITING = {
    "sweep": (SWEEP, "matplotlib.figure:Figure.savefig"),
    "bench": (BENCH, "pathlib:Path.replace"),
    "train": ("train --steps 5", "matplotlib.figure:Figure.savefig"),
}


def interrupted(moment, place, arguments, folder, number=signal.SIGINT):
    """Returns status, stderr, and the files that are left in a folder."""
    command = [sys.executable, "-c", DRIVER, moment, place, "jaxnet", *arguments.split()]
    environment = os.environ | {"SIGNAL": str(int(number))}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=100, env=environment)
    return (
        done.returncode,
        done.stderr,
        sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()),
    )


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", ["check", pytest.param("train", marks=pytest.mark.slow), *map(exhaustive, OTHERS)])
def test_ctrl_c_is_one_line(tmp_path, name, moment):
    kind, place = MOMENTS[moment]
    result = interrupted(kind, place.replace("NAME", name), f"{name} {ARGUMENTS.get(name, '')}", tmp_path)
    assert result == (130, f"jaxnet {name}: interrupted\n", [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["import of the command", "call", "long call"])
def test_sigterm_is_one_line(tmp_path, moment):
    kind, place = MOMENTS[moment]
    result = interrupted(kind, place.replace("NAME", "check"), "check", tmp_path, signal.SIGTERM)
    assert result == (143, "jaxnet check: interrupted\n", [])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", exhaustive("sweep"), exhaustive("bench")])
def test_ctrl_c_while_files_are_written_leaves_none_half_written(tmp_path, name):
    arguments, place = WRITING[name]
    status, stderr, files = interrupted("now", place, arguments, tmp_path)
    assert (status, stderr.startswith(f"jaxnet {name}: interrupted")) == (130, True)
    assert [file for file in files if not file.endswith("options.json")] == []


@pytest.mark.slow
def test_the_first_ctrl_c_of_a_training_run_saves_it(tmp_path):
    place = "jaxnet.train.checkpoints:Checkpoints.offer"
    status, stderr, _ = interrupted("now", place, "train --output run", tmp_path)
    assert (status, stderr) == (130, "jaxnet train: stopped and saved after step 10; continue with --resume run\n")


@pytest.fixture
def own_hangups():
    """Restores what SIGHUP does in this process."""
    handler = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, handler)


def test_a_closed_terminal_is_received_once_although_it_sends_sighup_twice(own_hangups):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with stop_signals() as received:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGHUP)  # while the checkpoint is written
    assert received == [signal.SIGHUP]


def test_sighup_that_nohup_ignores_stays_ignored(own_hangups):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_signals() as received:
        signal.raise_signal(signal.SIGHUP)
    assert (received, signal.getsignal(signal.SIGHUP)) == ([], signal.SIG_IGN)


@pytest.mark.slow
def test_a_closed_terminal_saves_a_training_run_at_once_however_long_it_is(tmp_path):
    place = "jaxnet.train.checkpoints:Checkpoints.offer"
    arguments = "train --output run --hidden 2 --steps 10000000 --checkpoint-seconds 3600 --form as-written"
    status, stderr, _ = interrupted("now", place, arguments, tmp_path, signal.SIGHUP)
    assert (status, stderr) == (129, "jaxnet train: stopped and saved after step 10; continue with --resume run\n")


@pytest.mark.slow
def test_the_second_ctrl_c_of_a_training_run_ends_it_although_it_does_not_return_to_python(tmp_path):
    place = "jaxnet.train.checkpoints:Checkpoints.offer"
    status, stderr, files = interrupted("twice", place, "train --output runs", tmp_path)
    line = "interrupted; no step is saved; start again with --resume runs, or remove it"
    assert (status, stderr) == (130, f"jaxnet train: {line}\n")
    assert files == ["runs/options.json"]


SAVED = {  # files in the folder of a run: what its second Ctrl-C says
    "": "interrupted; nothing is saved",
    "options.json": "interrupted; no step is saved; start again with --resume run, or remove it",
    "options.json checkpoints/20/x checkpoints/100/x": (
        "interrupted; saved is the checkpoint after step 100; continue with --resume run"
    ),
    "summary.json checkpoints/20/x": "interrupted; the results are in run",
}


@pytest.mark.parametrize("files", SAVED)
def test_the_line_of_a_run_says_what_is_saved_and_how_to_go_on(tmp_path, monkeypatch, files):
    monkeypatch.chdir(tmp_path)
    for file in files.split():
        Path("run", file).parent.mkdir(parents=True, exist_ok=True)
        Path("run", file).touch()
    assert what_is_saved(Path("run")) == SAVED[files]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("jaxnet:sweep", "nothing is saved, and the command cannot be resumed; start it again"),
        ("jaxnet:fit", "the results are in s"),
    ],
)
def test_the_line_of_a_sweep_says_what_is_saved(tmp_path, place, line):
    arguments = "sweep --learning-rates 0.1 --init-stds 0.1 --hidden 2 --steps 2 --output s"
    status, stderr, files = interrupted("now", place, arguments, tmp_path)
    assert (status, stderr) == (130, f"jaxnet sweep: interrupted; {line}\n")
    assert bool(files) == ("results" in line)


def started(command, import_to_interrupt, folder):
    """Returns status and stderr of a command that is interrupted when a module is imported for the first time."""
    site = """
import os, signal, sys
class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name == PLACE:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, AtImport())
"""
    (folder / "sitecustomize.py").write_text(site.replace("PLACE", repr(import_to_interrupt)))
    paths = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=os.environ | {"PYTHONPATH": paths}, timeout=100
    )
    return done.returncode, done.stderr


STARTS = {
    "module": [sys.executable, "-m", "jaxnet", "check"],
    "console command": [sys.executable, "-c", "from jaxnet.cli.start import main; main()", "check"],
    "script": [sys.executable, str(ROOT / "scripts" / "crosscheck.py")],
}


@pytest.mark.parametrize("place", ["jaxnet.cli.main", "jaxnet.cli.errors", "jaxnet.cli.interrupt"])
@pytest.mark.parametrize("start", STARTS)
def test_ctrl_c_before_it_is_handled_is_one_line(tmp_path, start, place):
    assert started(STARTS[start], place, tmp_path) == (130, "jaxnet: interrupted\n")


def test_the_console_command_starts_where_ctrl_c_is_handled():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"jaxnet": "jaxnet.cli.start:main"}
    assert [path.name for path in (ROOT / "scripts").glob("*.py") if "jaxnet.cli.main" in path.read_text()] == []


def test_few_modules_are_imported_before_ctrl_c_is_handled():
    code = "import sys; before = {*sys.modules}; import jaxnet.cli.interrupt; print(*{*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {"ast", "lazy_loader", "pathlib", "shutil", "typing", "numpy"}  # each takes milliseconds
    assert "jaxnet.cli.interrupt" in done.stdout
    assert slow & set(done.stdout.split()) == set()
