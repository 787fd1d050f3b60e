"""Shows on a terminal what takes long, in a line on stderr that is removed before anything else is printed.

It needs no library, so that a check of a NumPy layer can use it, and it leaves `sys.stdout` alone, to which the code of
a user may print at the same time. A thread writes the line, so that it also appears while JAX compiles.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

TYPE_CHECKING = False  # typing is imported by type checkers alone, because a command imports this module first
if TYPE_CHECKING:
    from typing import TextIO

DELAY = 2.0  # seconds before the line appears
INTERVAL = 0.2  # seconds between updates
CLEAR = "\r\x1b[K"

_texts: list[Callable[[], str]] = []  # of the blocks that have not ended; the line shows the last one


def is_terminal(stream: TextIO | None) -> bool:
    """Returns whether a stream is a terminal on which a line can be replaced."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def progress_line(text: str | Callable[[], str]) -> Iterator[None]:
    """Shows a text and the seconds since the block began while the block runs, if it takes over `DELAY` seconds.

    A block within another one replaces its text, and the seconds go on. Nothing is shown unless stderr is a terminal.

    Args:
        text: What the block does, such as "importing mine.py", or a function that returns it at each update. It is
            called in another thread.

    Examples:
        >>> with progress_line("multiplying"):
        ...     print(6 * 7)
        42
    """
    current = text if callable(text) else lambda: text
    _texts.append(current)
    try:
        if len(_texts) > 1 or not is_terminal(sys.stderr):
            yield
            return
        ended = threading.Event()
        painter = threading.Thread(target=_paint, args=(sys.stderr, ended), daemon=True)
        painter.start()
        try:
            yield
        finally:
            ended.set()
            painter.join()  # from here on, the thread writes nothing
    finally:
        _texts.remove(current)


def _paint(stream: TextIO, ended: threading.Event) -> None:
    """Writes the line until the block has ended, and then removes it."""
    started, pause = time.perf_counter(), DELAY
    with suppress(OSError, ValueError):  # the terminal is gone, or the stream was closed
        while not ended.wait(pause):
            pause = INTERVAL
            line = f"{_texts[-1]()}, {time.perf_counter() - started:.0f} s"
            columns = os.get_terminal_size(stream.fileno()).columns or 80  # 0 if the terminal does not know
            print(CLEAR + line[: columns - 1], end="", file=stream, flush=True)
        if pause == INTERVAL:
            print(CLEAR, end="", file=stream, flush=True)
