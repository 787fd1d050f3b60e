"""Tests that compiled programs are kept between processes, and that no damaged one is used."""

import os
import subprocess
import sys
import zlib

import pytest

from jaxnet.cli import program_cache
from jaxnet.cli.program_cache import folder_of_this_process, is_complete, store_entries

ENTRY = zlib.compress(b"a program" * 1000)


@pytest.fixture
def store(tmp_path):
    """Returns a store with the entries of one process, "a-cache" and "b-cache"."""
    store = tmp_path / "store"
    folder = folder_of_this_process(store)
    (folder / "a-cache").write_bytes(ENTRY)
    (folder / "b-cache").write_bytes(zlib.compress(b"another"))
    store_entries(folder, store)
    return store


def entries(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stored(store, name):
    return next(path for path in store.iterdir() if path.name.startswith(name))


def test_the_next_process_has_the_entries_of_the_one_before(store):
    assert entries(folder_of_this_process(store)) == {"a-cache": ENTRY, "b-cache": zlib.compress(b"another")}


@pytest.mark.parametrize("damage", ["a bit", "cut", "empty", "longer"])
def test_a_damaged_entry_is_removed(store, damage):
    path = stored(store, "a-cache")
    content = bytearray(ENTRY)
    content[len(content) // 2] ^= 1
    path.write_bytes({"a bit": content, "cut": ENTRY[:-1], "empty": b"", "longer": ENTRY + b"0"}[damage])
    assert set(entries(folder_of_this_process(store))) == {"b-cache"}
    assert not path.exists()


def test_entries_that_have_changed_places_are_removed(store):
    first, second = stored(store, "a-cache"), stored(store, "b-cache")
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    assert entries(folder_of_this_process(store)) == {}


@pytest.mark.parametrize("size", [0, 1, len(ENTRY) // 2, len(ENTRY) - 1])
def test_an_entry_that_was_cut_while_it_was_written_is_not_stored(tmp_path, size):
    folder = folder_of_this_process(tmp_path)
    (folder / "a-cache").write_bytes(ENTRY[:size])
    store_entries(folder, tmp_path)
    assert not list(tmp_path.glob("a-cache*"))
    assert not is_complete(ENTRY[:size])
    assert is_complete(ENTRY)


def test_what_zstandard_compressed_is_complete_to_its_last_byte():
    zstandard = pytest.importorskip("zstandard")
    entry = zstandard.ZstdCompressor().compress(b"a program" * 1000)
    assert is_complete(entry)
    assert not is_complete(entry[:-1])


def test_the_folder_of_a_process_that_died_is_removed_and_that_of_a_living_one_is_not(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, living = tmp_path / f"in-use-{ended.pid}-0a", tmp_path / f"in-use-{os.getpid()}-0a"
    dead.mkdir()
    living.mkdir()
    folder_of_this_process(tmp_path)
    assert living.exists()
    assert not dead.exists()


def test_the_oldest_entries_are_removed_where_there_are_too_many(store, monkeypatch):
    old = stored(store, "a-cache")
    os.utime(old, (0, 0))
    monkeypatch.setattr(program_cache, "MAX_BYTES", len(ENTRY))
    folder = folder_of_this_process(store)
    store_entries(folder, store)
    assert not old.exists()
    assert stored(store, "b-cache").exists()


def test_without_a_folder_that_can_be_made_nothing_is_kept(tmp_path):
    (tmp_path / "file").write_text("")
    program_cache.use_program_cache(tmp_path / "file" / "programs")
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.slow
def test_a_run_has_the_same_results_after_every_entry_was_damaged(tmp_path):
    environment = {name: value for name, value in os.environ.items() if "COMPILATION_CACHE" not in name}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}

    def run(name):
        command = [sys.executable, "-m", "jaxnet", "train", "--steps", "30", "--eval-every", "30", "--output", name]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return (tmp_path / name / "history.csv").read_bytes()

    first = run("first")
    (store,) = tmp_path.glob("cache/**/programs")
    assert list(store.iterdir())
    for path in store.iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert run("second") == first
    assert run("third") == first
    assert not list(store.glob("in-use-*"))
