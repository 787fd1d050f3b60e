"""Progress bars on a terminal, and plain lines or nothing elsewhere.

`FORCE_COLOR` makes Rich take every output for a terminal, so streams are asked themselves.
"""

import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

import jaxnet
from jaxnet.common.progress_line import is_terminal

T = TypeVar("T")
LINES = 10  # printed by a run whose output is not a terminal, and more if it is a long one:
FIRST_LINE, LONGEST_PAUSE = 4.0, 10.0  # seconds after which a line is printed


def track(items: Collection[T], description: str, name: Callable[[T], str] = lambda _item: "") -> Iterable[T]:
    """Yields the items, with a progress bar if stderr is a terminal.

    Args:
        items: The items.
        description: What is done with each of them.
        name: Returns the name of an item, for the description. Defaults to none.
    """
    if not is_terminal(sys.stderr):
        yield from items
        return
    with Progress(*_columns(), console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=len(items))
        for item in items:
            bar.update(task, description=f"{description} {name(item)}")
            yield item
            bar.advance(task)
        bar.update(task, description=description)


@contextmanager
def sweep_progress(steps: int) -> Iterator[Callable[[int], None]]:
    """Yields a function of the number of steps done, which moves a progress bar if stderr is a terminal."""
    if not is_terminal(sys.stderr):
        yield lambda _steps: None
        return
    with Progress(*_columns(), console=Console(stderr=True)) as bar:
        task = bar.add_task("compiling", total=steps)

        def update(done: int) -> None:
            bar.update(task, completed=done, description="training" if done < steps else "evaluating")

        yield update
        bar.update(task, description="trained")


@contextmanager
def training_progress(console: Console, steps: int, held_out: str) -> Iterator[Callable[[jaxnet.Progress], None]]:
    """Yields a function that shows the progress of a run: a bar on a terminal, lines elsewhere."""
    if is_terminal(sys.stdout):
        with Progress(*_columns(), console=console) as bar:
            task = bar.add_task("compiling", total=steps)

            def update(progress: jaxnet.Progress) -> None:
                if step := len(progress.history.loss):
                    bar.update(task, completed=step, description=_latest_figures(progress, held_out))

            yield update
        return

    interval, last_printed, due = max(1, steps // LINES), -1, time.perf_counter() + FIRST_LINE

    def print_line(progress: jaxnet.Progress) -> None:
        nonlocal last_printed, due
        step, evaluated = len(progress.history.loss), progress.history.eval_step[-1]
        is_tenth = step == evaluated and (step // interval > last_printed or step == steps)
        if is_tenth or time.perf_counter() >= due:
            if step and last_printed >= 0:
                console.print(f"step {step:>6}  {_latest_figures(progress, held_out)}", highlight=False, soft_wrap=True)
                due = time.perf_counter() + LONGEST_PAUSE
            last_printed = step // interval

    yield print_line


def _columns() -> list[ProgressColumn]:
    return [BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]


def _latest_figures(progress: jaxnet.Progress, held_out: str) -> str:
    loss, _, train, test = progress.history
    return f"loss {loss[-1]:.4f}  train {train[-1]:.4f}  {held_out} {test[-1]:.4f}"
