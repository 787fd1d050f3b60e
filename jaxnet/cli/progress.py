"""Progress bars on a terminal, and plain lines or nothing elsewhere."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import rich.progress
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import jaxnet

T = TypeVar("T")
LINES = 10  # printed by a run whose output is not a terminal


def track(items: Iterable[T], description: str) -> Iterable[T]:
    """Returns the items, with a progress bar if stderr is a terminal."""
    console = Console(stderr=True)
    return rich.progress.track(items, description, console=console) if console.is_terminal else items


@contextmanager
def step_bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function of the number of steps done, which moves a progress bar if stderr is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _steps: None
        return
    with Progress(console=console) as bar:
        task = bar.add_task(description, total=total)
        yield lambda steps: bar.update(task, completed=steps)


@contextmanager
def training_progress(console: Console, steps: int, held_out: str) -> Iterator[Callable[[jaxnet.Progress], None]]:
    """Yields a function that shows the progress of a run: a bar on a terminal, about ten lines elsewhere."""
    if console.is_terminal:
        columns = [BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("compiling", total=steps)

            def update(progress: jaxnet.Progress) -> None:
                if step := len(progress.history.loss):
                    bar.update(task, completed=step, description=_latest_figures(progress, held_out))

            yield update
        return

    interval, last_printed = max(1, steps // LINES), -1

    def print_line(progress: jaxnet.Progress) -> None:
        nonlocal last_printed
        step = len(progress.history.loss)
        if step == progress.history.eval_step[-1] and (step // interval > last_printed or step == steps):
            if step and last_printed >= 0:
                console.print(f"step {step:>6}  {_latest_figures(progress, held_out)}", highlight=False, soft_wrap=True)
            last_printed = step // interval

    yield print_line


def _latest_figures(progress: jaxnet.Progress, held_out: str) -> str:
    loss, _, train, test = progress.history
    return f"loss {loss[-1]:.4f}  train {train[-1]:.4f}  {held_out} {test[-1]:.4f}"
