"""Progress for who watches: nothing that moves is shown where the output is not a terminal."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, track

import jaxnet

T = TypeVar("T")
LINES = 10  # of a run, where it cannot be shown live


def counted(items: Iterable[T], what: str, total: int) -> Iterable[T]:
    """The items, and a bar that moves with them."""
    console = Console(stderr=True)
    return track(items, what, total=total, console=console) if console.is_terminal else items


@contextmanager
def steps_of(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """What is to be told how many steps are done."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _steps: None
        return
    with Progress(console=console) as bar:
        task = bar.add_task(what, total=total)
        yield lambda steps: bar.update(task, completed=steps)


@contextmanager
def training(console: Console, steps: int) -> Iterator[Callable[[jaxnet.Progress], None]]:
    """Yields a function that shows the progress of a run: a live bar on a terminal, some ten lines elsewhere."""
    if not console.is_terminal:
        every, printed = max(1, steps // LINES), -1

        def line(run: jaxnet.Progress) -> None:
            nonlocal printed
            step = len(run.history.loss)
            if step == run.history.eval_step[-1] and (step // every > printed or step == steps):
                if step and printed >= 0:
                    console.print(f"step {step:>6}  {said(run)}", highlight=False, soft_wrap=True)
                printed = step // every

        yield line
        return

    columns = [BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("compiling", total=steps)

        def update(run: jaxnet.Progress) -> None:
            if len(run.history.loss):
                bar.update(task, completed=len(run.history.loss), description=said(run))

        yield update


def said(run: jaxnet.Progress) -> str:
    """The latest figures."""
    loss, _, train, test = run.history
    return f"loss {loss[-1]:.4f}  train {train[-1]:.4f}  test {test[-1]:.4f}"
