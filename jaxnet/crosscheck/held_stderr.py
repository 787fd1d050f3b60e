"""Holds back what code prints on stderr, such as an option parser's usage, until it is printed or dropped."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from jaxnet.common.progress_line import CLEAR, is_terminal


class HeldStream:
    """Keeps what is written until `drop` is called, and then writes to a stream.

    A handler of `logging` that was made meanwhile keeps this object, and so works afterwards.

    Args:
        stream: The stream to write to in the end. Its other methods and attributes are those of this object.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._held = stream, io.StringIO()
        self._target: TextIO = self._held

    def write(self, text: str) -> int:
        """Keeps or writes a text, and returns its length."""
        return self._target.write(text)

    def drop(self) -> str:
        """Returns what was kept, in place of writing it, and writes everything from now on."""
        self._target = self._stream
        text = self._held.getvalue()
        self._held = io.StringIO()
        return text

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@contextmanager
def held_stderr() -> Iterator[HeldStream]:
    """Holds back what the block prints on stderr until it ends, unless the block has called `drop`."""
    stream = sys.stderr
    held = HeldStream(stream)
    sys.stderr = held
    try:
        yield held
    finally:
        if sys.stderr is held:
            sys.stderr = stream
        if text := held.drop():
            stream.write(CLEAR + text if is_terminal(stream) else text)  # a progress line may be shown
