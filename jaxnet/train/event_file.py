"""Writes the history of a run as an event file, which TensorBoard shows while the run trains and afterwards.

tensorboardX, of the extra `tensorboard`, encodes the events. Its `RecordWriter` writes them at once; its
`SummaryWriter` leaves that to a thread, which dies on a full disk, and then the run would wait for it forever.
"""

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from jaxnet import DISTRIBUTION
from jaxnet.train.history import History, Progress

PATTERN = "events.out.tfevents.*"  # the names by which TensorBoard knows event files
FILE_VERSION = "brain.Event:2"  # with which every event file begins
LOSS, ACCURACY = "loss", "accuracy"  # TensorBoard draws accuracy/train and accuracy/test in one group


def require_tensorboardx(what: str) -> None:
    """Raises ValueError, which says what to install, unless event files can be written.

    Args:
        what: What needs them, the beginning of the message.
    """
    try:
        import tensorboardX  # noqa: F401
    except ModuleNotFoundError:
        raise ValueError(f'{what}: needs tensorboardX: pip install "{DISTRIBUTION}[tensorboard]"') from None


def has_event_file(folder: Path) -> bool:
    """Returns whether the folder of a run has an event file."""
    return any(folder.glob(PATTERN))


class EventFile:
    """The event file of one run: its options, the loss of each step, and the accuracies of each evaluation.

    The steps are those of `history.csv`. The first write empties other event files in the folder: those of an
    interrupted run may be ahead of its last checkpoint. So a resumed run writes its whole history again, in which each
    point is there once, for every reader. The points before the resume get its time.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any], held_out: str = "test") -> None:
        """Opens nothing yet.

        Args:
            folder: The folder of the run.
            options: The options of the run, as JSON represents them; TensorBoard compares runs by them.
            held_out: The name of the data that `history.test_accuracy` was evaluated on.
        """
        self.folder, self.options, self.held_out = folder, options, held_out
        self._writer: Any = None
        self._steps = self._evaluations = 0  # written so far

    def follow(self, run: Iterator[Progress], warn: Callable[[str], object]) -> Iterator[Progress]:
        """Yields the progress of a run, as `jaxnet.iter_fit` does, and writes it.

        If it cannot be written, the run continues, and the next write begins anew.

        Args:
            run: The progress of the run.
            warn: Called with a message at the first failure.
        """
        warned = False
        for progress in run:
            try:
                self.write(progress.history)
            except OSError as error:
                if not warned:
                    warn(f"{self.folder}: the event file could not be written ({error.strerror or error})")
                warned = True
            yield progress

    def write(self, history: History) -> None:
        """Writes the points that were added to the history since the last write.

        Raises:
            OSError: If they cannot be written. The next write then begins a new file, with the whole history.
        """
        try:
            if self._writer is None:
                self._open()
            for step, loss in enumerate(history.loss[self._steps :], self._steps + 1):
                self._add_scalar(LOSS, loss, step)
            new = slice(self._evaluations, None)
            accuracies = {"train": history.train_accuracy[new], self.held_out: history.test_accuracy[new]}
            for data, values in accuracies.items():
                for step, accuracy in zip(history.eval_step[new], values, strict=True):
                    self._add_scalar(f"{ACCURACY}/{data}", accuracy, step)
            self._writer.flush()
        except OSError:
            self.close()
            raise
        self._steps, self._evaluations = len(history.loss), len(history.eval_step)

    def finish(self, history: History, *, test_accuracy: float | None = None, trained: bool = True) -> None:
        """Writes the rest of the history and marks the run as a success, unless it diverged.

        Args:
            history: The complete history.
            test_accuracy: The accuracy on the test data after the last step. It is written if other data are held out.
            trained: Whether the run ended as it should.

        Raises:
            OSError: If it cannot be written.
        """
        from tensorboardX.proto.event_pb2 import Event

        self.write(history)
        if test_accuracy is not None and self.held_out != "test":
            self._add_scalar(f"{ACCURACY}/test", test_accuracy, len(history.loss))
        if trained:
            self._write_event(Event(step=len(history.loss), summary=self._summaries()[-1]))
        self._writer.flush()

    def close(self) -> None:
        """Closes the file, which was flushed by every write."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError):  # a full disk, which the write before has reported
                writer.close()

    def _open(self) -> None:
        from tensorboardX import RecordWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        old = list(self.folder.glob(PATTERN))
        path = self.folder / PATTERN.replace("*", f"{time.time():.6f}.{platform.node()}")  # sorts after older ones
        self._writer, self._steps, self._evaluations = RecordWriter(str(path)), 0, 0
        for file in old:
            if file.stat().st_size:
                os.truncate(file, 0)  # a running TensorBoard would wait at a deleted file forever
            else:
                file.unlink()  # of the run before the last
        self._write_event(Event(file_version=FILE_VERSION))
        # Makes a running TensorBoard forget what it has read from the files that were replaced.
        self._write_event(Event(session_log=SessionLog(status=SessionLog.START)))
        experiment, start, _ = self._summaries()
        self._write_event(Event(summary=experiment))
        self._write_event(Event(summary=start))

    def _summaries(self) -> tuple[Any, Any, Any]:
        """Returns the table's description, the run's options, and the mark of its success, for TensorBoard's table."""
        from tensorboardX.summary import hparams

        values = {
            name: " ".join(map(str, value)) if isinstance(value, list) else value
            for name, value in self.options.items()
        }
        accuracies = dict.fromkeys(["train", self.held_out, "test"])
        return hparams(values, dict.fromkeys([*(f"{ACCURACY}/{data}" for data in accuracies), LOSS], 0.0))

    def _add_scalar(self, tag: str, value: float, step: int) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        scalar = Summary.Value(tag=tag, simple_value=float(value))
        self._write_event(Event(step=int(step), summary=Summary(value=[scalar])))

    def _write_event(self, event: Any) -> None:
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())
