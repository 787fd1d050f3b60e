"""Ends a command on Ctrl-C, SIGTERM or SIGHUP with one line, also while it imports, compiles or runs a callback.

The status is 130, 143 or 129, 128 plus the number of the signal. SIGHUP comes from a terminal that is closed.

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

from jaxnet.cli.errors import program
from jaxnet.common.cleanup import clean_up

PATIENCE = 0.1  # seconds in which the main thread may end the process itself, between two instructions
CLEAR_LINE = b"\r\x1b[K\x1b[?25h"  # deletes a progress bar and shows the cursor again

_ending = threading.Lock()
HANGUP: int | None = getattr(signal, "SIGHUP", None)  # Windows has none
DEFAULTS: dict[int, object] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
if HANGUP is not None:
    DEFAULTS[HANGUP] = signal.SIG_DFL
_acknowledged: list[int] = []  # the signals that a command handles itself
_message: list[Callable[[], str]] = [lambda: "interrupted"]


def end_on_interrupt() -> None:
    """Lets Ctrl-C, SIGTERM and SIGHUP end this process from now on.

    One of them that is ignored, as SIGHUP by `nohup`, or is handled already, is left as it is.
    """
    numbers = [number for number, default in DEFAULTS.items() if signal.getsignal(number) == default]
    if threading.current_thread() is not threading.main_thread() or not numbers:
        return
    for number in numbers:
        signal.signal(number, _handle)
    if os.name == "posix":  # elsewhere the system's handler writes to sockets only
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(reader,), daemon=True).start()
        os.register_at_fork(after_in_child=_restore)


@contextmanager
def interrupt_message(message: Callable[[], str]) -> Iterator[None]:
    """Replaces the word "interrupted" in the line that one of the signals prints during the block."""
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


def acknowledge_interrupt(number: int) -> None:
    """Tells that a command handles a signal itself, such as by saving its work. Another one ends the process.

    SIGHUP is ignored from then on, because a closed terminal sends it more than once: by the system and by the shell.
    """
    _acknowledged.append(number)
    if HANGUP is not None:
        signal.signal(HANGUP, signal.SIG_IGN)


def _handle(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN if number == HANGUP else signal.SIG_DFL)  # a second one ends it at once
    with suppress(Exception):  # a print that was interrupted
        sys.stdout.flush()
    _end(number)


def _watch(reader: int) -> None:
    """Ends the process if the main thread does not, and on a second signal even if a command handles the first."""
    received: list[int] = []
    while data := os.read(reader, 64):
        for number in data:
            if number in DEFAULTS and not (number == HANGUP and received):  # one that came before it was ignored
                received.append(number)
        if len(received) == 1:
            threading.Event().wait(PATIENCE)
        is_left = len(received) > len(_acknowledged) and signal.getsignal(received[-1]) is _handle
        if is_left or len(received) > 1:
            _end(received[-1])


def _end(number: int) -> None:
    _ending.acquire()  # never released: the other thread waits until the process ends
    try:
        clean_up()
        clear = CLEAR_LINE if os.isatty(2) else b""
        os.write(2, clear + f"{program()}: {_message[-1]()}\n".encode())
    finally:
        os._exit(128 + number)


def _restore() -> None:
    """Lets the signals end a forked child without a line: the process that forked it prints one."""
    for number in DEFAULTS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
