"""Progress for who watches: nothing is shown where stderr is not a terminal."""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def counted(items: Iterable[T], what: str, total: int) -> Iterable[T]:
    """The items, and a bar that moves with them."""
    console = Console(stderr=True)
    return track(items, what, total=total, console=console) if console.is_terminal else items


def awaited(items: Iterable[T], what: str) -> Iterator[T]:
    """The items, and a sign of life while each is made, where nobody knows how long that takes."""
    console, coming, end = Console(stderr=True), iter(items), object()
    while True:
        with console.status(what) if console.is_terminal else nullcontext():
            item = next(coming, end)
        if item is end:
            return
        yield item  # type: ignore[misc]  # what is not the end is an item
