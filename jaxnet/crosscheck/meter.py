"""Counts the forward passes and seconds of a check, stops it in time, and shows its progress on a terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from jaxnet.common.progress_line import progress_line


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
        self.leaf = ""

    @property
    def seconds(self) -> float:
        """Returns the seconds since the check began."""
        return time.perf_counter() - self.start

    def count(self) -> None:
        """Counts a forward pass.

        Raises:
            OutOfTime: If the time is used up.
        """
        self.calls += 1
        if self.max_seconds is not None and self.seconds > self.max_seconds:
            raise OutOfTime

    def progress(self) -> str:
        """Returns what is being checked, and the number of forward passes so far."""
        leaf = f", {self.leaf}" if self.leaf else ""
        return f"checking {self.title}{leaf}: {self.calls:,} forward passes"


_ACTIVE: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered(title: str, max_seconds: float | None) -> Iterator[Meter]:
    """Counts forward passes within the block; nested blocks share the meter of the outermost one."""
    if (outer := _ACTIVE.get()) is not None:
        yield outer
        return
    meter = Meter(title, max_seconds)
    token = _ACTIVE.set(meter)
    try:
        with progress_line(meter.progress):
            yield meter
    finally:
        _ACTIVE.reset(token)


def name_leaf(name: str) -> None:
    """Names the leaf that the running check examines, for its progress."""
    if (meter := _ACTIVE.get()) is not None:
        meter.leaf = name


def count_forward() -> None:
    """Counts a forward pass of the running check, if there is one."""
    if (meter := _ACTIVE.get()) is not None:
        meter.count()
