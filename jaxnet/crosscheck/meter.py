"""Counts the forward passes and seconds of a check, stops it in time, and shows its progress on a terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

SECONDS_BEFORE_PROGRESS = 2.0
SECONDS_BETWEEN_UPDATES = 0.2


class OutOfTime(BaseException):
    """Raised when a check has used up its seconds. No `except Exception` in the user's code may catch it."""


class Meter:
    """The cost of one check.

    Args:
        title: The name of the code that is checked.
        max_seconds: Seconds after which the next forward pass raises OutOfTime; None for no limit.
    """

    def __init__(self, title: str, max_seconds: float | None) -> None:
        self.title, self.max_seconds = title, max_seconds
        self.calls, self.start = 0, time.perf_counter()
        self.leaf, self._shown = "", 0.0
        self._terminal = sys.stderr is not None and sys.stderr.isatty()

    @property
    def seconds(self) -> float:
        """Seconds since the check began."""
        return time.perf_counter() - self.start

    def count(self) -> None:
        """Counts a forward pass.

        Raises:
            OutOfTime: If the time is used up.
        """
        self.calls += 1
        seconds = self.seconds
        if self.max_seconds is not None and seconds > self.max_seconds:
            raise OutOfTime
        if self._terminal and seconds > max(SECONDS_BEFORE_PROGRESS, self._shown + SECONDS_BETWEEN_UPDATES):
            self._shown = seconds
            leaf = f" {self.leaf}" if self.leaf else ""
            print(
                f"\r\033[Kchecking {self.title}{leaf}: {self.calls:,} forward passes, {seconds:.0f} s",
                end="",
                file=sys.stderr,
                flush=True,
            )

    def clear(self) -> None:
        """Removes the progress line."""
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


_ACTIVE: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered(title: str, max_seconds: float | None) -> Iterator[Meter]:
    """Counts forward passes within the block; nested blocks share the meter of the outermost one."""
    outer = _ACTIVE.get()
    meter = outer or Meter(title, max_seconds)
    token = _ACTIVE.set(meter)
    try:
        yield meter
    finally:
        _ACTIVE.reset(token)
        if outer is None:
            meter.clear()


def count_forward() -> None:
    """Counts a forward pass of the running check, if there is one."""
    if (meter := _ACTIVE.get()) is not None:
        meter.count()
