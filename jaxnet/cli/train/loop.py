"""Runs a training loop to its end, to divergence or to a signal, and saves checkpoints on the way."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

from rich.console import Console

import jaxnet
from jaxnet.cli.errors import program
from jaxnet.cli.interrupt import DEFAULTS, HANGUP, acknowledge_interrupt
from jaxnet.cli.progress import training_progress
from jaxnet.cli.train.setup import Setup
from jaxnet.common.progress_line import progress_line
from jaxnet.train import sharding
from jaxnet.train.checkpoints import CheckpointError, Checkpoints

FAILED_TO_SAVE = 3


class Outcome(NamedTuple):
    """The final state and history of a run, and why it diverged or could not be saved."""

    state: jaxnet.TrainState
    history: jaxnet.History
    divergence: str | None
    save_error: str | None


def train(setup: Setup, run: Iterator[jaxnet.Progress], checkpoints: Checkpoints, console: Console) -> Outcome:
    """Runs the steps, shows their progress and saves checkpoints; the run continues if a checkpoint cannot be saved.

    Raises:
        SystemExit: If a signal stopped the run.
    """
    save_error, steps = None, setup.options.steps
    try:
        with training_progress(console, steps, setup.held_out) as show, stop_signals() as signals:
            for progress in run:
                show(progress)
                stopped = sharding.placement(setup.mesh).any(bool(signals)) and len(progress.history.loss) < steps
                try:
                    checkpoints.save(progress) if stopped else checkpoints.offer(progress)
                    save_error = None
                except CheckpointError as error:
                    if save_error is None:
                        warn(console, str(error))
                    save_error = str(error)
                if stopped:
                    break
        with progress_line("saving the last checkpoint"):
            checkpoints.finish()
    except jaxnet.DivergedError as error:
        return Outcome(error.state, error.history, str(error), save_error)
    except CheckpointError as error:
        save_error = str(error)
    if stopped:
        step, folder = len(progress.history.loss), checkpoints.folder.parent
        if save_error:
            print(f"{program()}: stopped after step {step}, which is not saved: {save_error}", file=sys.stderr)
            sys.exit(FAILED_TO_SAVE)
        print(f"{program()}: stopped and saved after step {step}; continue with --resume {folder}", file=sys.stderr)
        sys.exit(128 + (signals or [signal.SIGTERM])[0])  # no signal here if another process received it
    return Outcome(*progress, None, save_error)


def warn(console: Console, message: str) -> None:
    """Prints a message in red."""
    console.print(f"{program()}: {message}", style="red", highlight=False, soft_wrap=True)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yields a list that the first SIGINT, SIGTERM or SIGHUP is appended to, unless it is ignored.

    A second SIGINT or SIGTERM has its usual effect, and SIGHUP has none after any of them.
    """
    received: list[int] = []
    handlers = {number: signal.getsignal(number) for number in DEFAULTS}
    handlers = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

    def restore() -> None:
        for number, handler in handlers.items():
            if number != HANGUP or not received:  # it is ignored once a signal was received
                signal.signal(number, handler)

    def receive(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        acknowledge_interrupt(number)  # before the handlers are restored, which another thread takes for unhandled
        restore()

    for number in handlers:
        signal.signal(number, receive)
    try:
        yield received
    finally:
        if not received:
            restore()
