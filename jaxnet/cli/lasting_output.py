"""Keeps a command working when its output cannot be printed: nobody reads it, the disk is full, a character is unknown.

Results are more than what is printed about them, and a long run must not end because of `| head`.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxnet.cli.errors import USAGE_ERROR, program

READER_GONE = (errno.EPIPE, errno.EINVAL)  # the second on Windows


@contextmanager
def lasting_output() -> Iterator[None]:
    """Lets prints to stdout and stderr never raise during the block. What cannot be printed is dropped.

    Characters that the terminal's encoding lacks are printed by their numbers.

    Raises:
        SystemExit: After the block, with status 2, if what was printed to stdout is lost and somebody may miss it: on a
            full disk, but not where its reader has gone.
    """
    _open_closed_streams()
    streams = sys.stdout, sys.stderr
    out = LastingStream(sys.stdout)
    sys.stdout, sys.stderr = out, LastingStream(sys.stderr)
    try:
        yield
    finally:
        out.flush()
        if out.error is not None and out.error.errno not in READER_GONE:
            print(f"{program()}: the output could not be printed ({out.error.strerror})", file=sys.stderr)
        sys.stdout, sys.stderr = streams
    if out.error is not None and out.error.errno not in READER_GONE:
        sys.exit(USAGE_ERROR)


class LastingStream:
    """A text stream that drops what it cannot write. Everything else is that of the stream within.

    Attributes:
        error: The first error, after which nothing is written any more.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: OSError | None = None
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        """Returns an attribute of the stream."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes the text if that is still possible, and returns its length."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes the lines if that is still possible."""
        self._attempt(lambda: self._stream.writelines(lines))

    def flush(self) -> None:
        """Flushes the stream if that is still possible."""
        self._attempt(self._stream.flush)

    def _attempt(self, write: Any) -> None:
        if self.error is not None:
            return
        try:
            write()
        except OSError as error:
            self.error = error
            with open(os.devnull, "wb") as nothing:  # Python flushes what is left in the stream's buffer at the end
                os.dup2(nothing.fileno(), self._stream.fileno())


def _open_closed_streams() -> None:
    """Opens streams that this process was started without, so that no other file gets their numbers."""
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w"))  # noqa: SIM115
