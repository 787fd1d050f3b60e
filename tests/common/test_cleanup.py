"""Tests that unfinished files are deleted after a block, and when the process ends inside of it."""

import pytest

from jaxnet.common.cleanup import clean_up, cleanup, temporary_folder


def test_a_temporary_folder_is_private_and_deleted_although_the_block_raises(tmp_path):
    def write_half():
        with temporary_folder(".x-", tmp_path) as folder:
            (folder / "file").write_text("half")
            assert folder.name.startswith(".x-")
            assert folder.stat().st_mode & 0o777 == 0o700
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_a_renamed_folder_is_left(tmp_path):
    with temporary_folder(".x-", tmp_path) as folder:
        folder.rename(tmp_path / "complete")
    assert [path.name for path in tmp_path.iterdir()] == ["complete"]


def test_cleaning_up_runs_the_actions_of_open_blocks_from_the_last_one_and_skips_failures():
    ran = []

    def fails():
        ran.append("fails")
        if len(ran) == 1:
            raise OSError

    with cleanup(lambda: ran.append("outer")), cleanup(fails):
        with cleanup(lambda: ran.append("ended")):
            pass
        ran.clear()
        clean_up()
        assert ran == ["fails", "outer"]
    ran.clear()
    clean_up()
    assert ran == []
