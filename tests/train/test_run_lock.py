"""Tests that a folder has one writer at a time, and that the lock of a process that died is no obstacle."""

import os
import signal
import subprocess
import sys

import pytest

from jaxnet.train.run_folder import remove_leftovers
from jaxnet.train.run_lock import lock_of, locked

pytest.importorskip("fcntl")


def test_the_second_is_told_who_holds_the_folder(tmp_path):
    folder = tmp_path / "run"
    with locked("output", folder):
        message = f"output: .*run is in use by process {os.getpid()} on .*; wait until it ends"
        with pytest.raises(ValueError, match=message), locked("output", folder):
            pass
        assert not folder.exists()
    assert not list(tmp_path.iterdir())  # nothing is left
    with locked("output", folder):
        pass


def test_other_folders_beside_it_are_free(tmp_path):
    with locked("output", tmp_path / "a"), locked("output", tmp_path / "b"):
        pass


def test_an_error_in_the_block_releases_the_lock(tmp_path):
    with pytest.raises(KeyError), locked("output", tmp_path / "run"):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from jaxnet.train.run_lock import locked\n"
        "with locked('resume', Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    message = f"resume: .*run is in use by process {holder.pid} on"
    with pytest.raises(ValueError, match=message), locked("resume", tmp_path / "run"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert list(tmp_path.iterdir()) == [tmp_path / ".run.lock"]
    with locked("resume", tmp_path / "run"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    message = r"output: .*run cannot be written \(.*\); name another folder"
    with pytest.raises(ValueError, match=message), locked("output", tmp_path / "file" / "run"):
        pass


def test_unfinished_folders_of_dead_processes_are_removed_and_no_others(tmp_path):
    ended = [tmp_path / f".sweep-1-{digit * 16}" for digit in "0a"]
    others = [tmp_path / name for name in (f".live-{'0' * 16}", f".unlocked-{'0' * 16}", ".sweep-1-notes")]
    for folder in (*ended, *others, tmp_path / "sweep-1"):
        folder.mkdir()
    (ended[0] / "sweep.csv").touch()
    lock_of(tmp_path / "sweep-1").touch()
    with locked("output", tmp_path / "live"):
        remove_leftovers(tmp_path)
        assert sorted(path for path in tmp_path.iterdir() if path.is_dir()) == sorted(others)
    assert not lock_of(tmp_path / "sweep-1").exists()
