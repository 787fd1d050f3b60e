"""Deletes unfinished files when a block ends, and also when Ctrl-C ends the process without unwinding its blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

TYPE_CHECKING = False  # typing is imported by type checkers alone, because handling Ctrl-C needs this module at once
if TYPE_CHECKING:
    from pathlib import Path

_pending: list[Callable[[], object]] = []


@contextmanager
def cleanup(action: Callable[[], object]) -> Iterator[None]:
    """Runs an action after the block, however it ends.

    Args:
        action: A function without arguments, which may run twice and must not fail the second time.

    Examples:
        >>> with cleanup(lambda: print("deleted")):
        ...     print("written")
        written
        deleted
    """
    _pending.append(action)
    try:
        yield
    finally:
        action()
        _pending.remove(action)


def clean_up() -> None:
    """Runs the actions of all blocks that have not ended, the last one first. An action that fails is skipped."""
    for action in reversed(_pending.copy()):
        try:
            action()
        except OSError:
            continue


@contextmanager
def temporary_folder(prefix: str, parent: Path) -> Iterator[Path]:
    """Yields a new private folder, and deletes it after the block, unless the block has renamed it.

    Args:
        prefix: The beginning of its name.
        parent: The folder that it is made in.

    Raises:
        OSError: If it cannot be made.
    """
    import secrets
    import shutil

    folder = parent / f"{prefix}{secrets.token_hex(8)}"
    with cleanup(lambda: shutil.rmtree(folder, ignore_errors=True)):  # before it exists, so that none is forgotten
        folder.mkdir(mode=0o700)
        yield folder
