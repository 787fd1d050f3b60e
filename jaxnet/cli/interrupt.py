"""Ends a command on Ctrl-C with one line and status 130, also while it imports, compiles or runs a callback.

The handler does not raise KeyboardInterrupt, because Python ignores exceptions in callbacks, such as those of JAX when
garbage is collected. Python calls a handler only between two instructions of the main thread, which may be compiling
for a minute. A second thread, which the system's own handler wakes at once, ends the process in that case.

A command calls `end_on_interrupt` first of all, so this module imports nothing that takes over a millisecond or two.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from jaxnet.cli.errors import INTERRUPTED, program
from jaxnet.common.cleanup import clean_up

PATIENCE = 0.1  # seconds in which the main thread may end the process itself, between two instructions
CLEAR_LINE = b"\r\x1b[K\x1b[?25h"  # deletes a progress bar and shows the cursor again

_ending = threading.Lock()
_acknowledged: list[int] = []  # the interrupts that a command handles itself
_message: list[Callable[[], str]] = [lambda: "interrupted"]


def end_on_interrupt() -> None:
    """Lets Ctrl-C end this process from now on, unless it is ignored, as in a background job, or is handled already."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    signal.signal(signal.SIGINT, _handle)
    if os.name == "posix":  # elsewhere the system's handler writes to sockets only
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(reader,), daemon=True).start()
        os.register_at_fork(after_in_child=_restore)


@contextmanager
def interrupt_message(message: Callable[[], str]) -> Iterator[None]:
    """Replaces the word "interrupted" in the line that Ctrl-C prints during the block."""
    _message.append(message)
    try:
        yield
    finally:
        _message.pop()


def what_is_written(folder: str) -> str:
    """Returns the line for a command that makes its folder of results at once, at its end."""
    if os.path.isdir(folder) and os.listdir(folder):
        return f"interrupted; the results are in {folder}"
    return "interrupted; nothing is saved, and the command cannot be resumed; start it again"


def acknowledge_interrupt() -> None:
    """Tells that a command handles a Ctrl-C itself, such as by saving its work. Another one ends the process."""
    _acknowledged.append(signal.SIGINT)


def _handle(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends the process at once
    with suppress(Exception):  # a print that was interrupted
        sys.stdout.flush()
    _end()


def _watch(reader: int) -> None:
    """Ends the process if the main thread does not, and on a second Ctrl-C even if a command handles the first."""
    interrupts = 0
    while data := os.read(reader, 64):
        interrupts += data.count(signal.SIGINT)
        if interrupts == 1:
            threading.Event().wait(PATIENCE)
        is_left = interrupts > len(_acknowledged) and signal.getsignal(signal.SIGINT) is _handle
        if is_left or interrupts > 1:
            _end()


def _end() -> None:
    _ending.acquire()  # never released: the other thread waits until the process ends
    try:
        clean_up()
        clear = CLEAR_LINE if os.isatty(2) else b""
        os.write(2, clear + f"{program()}: {_message[-1]()}\n".encode())
    finally:
        os._exit(INTERRUPTED)


def _restore() -> None:
    """Lets Ctrl-C end a forked child without a line: the process that forked it prints one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
