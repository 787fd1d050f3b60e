"""What training records: the losses of all steps and the accuracies of all evaluations, beside the state."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from jaxnet.common.outline import outline
from jaxnet.train.step import TrainState


class History(NamedTuple):
    """The losses of S steps and E evaluations: before the first step, every `eval_every` steps, after the last."""

    loss: Float[Array | np.ndarray, " S"]  # of each step's batch before its update, in nats
    eval_step: Int[Array | np.ndarray, " E"]  # steps done at each evaluation
    train_accuracy: Float[Array | np.ndarray, " E"]  # in [0, 1]
    test_accuracy: Float[Array | np.ndarray, " E"]

    def __repr__(self) -> str:
        """Returns the last figures; the shapes of the fields while JAX traces a function."""
        if not all(isinstance(values, np.ndarray) for values in self):
            return outline(self)
        figures = [f"{len(self.loss):,} steps", f"{len(self.eval_step):,} evaluations"]
        figures += [f"loss {loss:.4f}" for loss in self.loss[-1:]]
        figures += [f"train accuracy {accuracy:.2%}" for accuracy in self.train_accuracy[-1:]]
        figures += [f"test accuracy {accuracy:.2%}" for accuracy in self.test_accuracy[-1:]]
        return f"History({', '.join(figures)})"

    def _repr_html_(self) -> str:
        """Returns the curves as a notebook shows them."""
        from jaxnet.train.history_html import history_html  # only a notebook needs it

        return history_html(self)


class Progress(NamedTuple):
    """The state of a run after some of its steps, and its history until then."""

    state: TrainState
    history: History

    def _repr_html_(self) -> str:
        """Returns the history as a notebook shows it."""
        return self.history._repr_html_()


class GrowingHistory:
    """A history in arrays that have their final size, so that nothing is copied when a step is appended."""

    def __init__(self, start: History, steps: int, evaluations: int) -> None:
        """Begins with the history of the first steps of a run.

        Args:
            start: The history until now.
            steps: Losses to come.
            evaluations: Evaluations to come.
        """
        to_come = (steps, evaluations, evaluations, evaluations)
        self._arrays = [np.append(old, np.empty(n, old.dtype)) for old, n in zip(start, to_come, strict=True)]
        self._steps, self._evaluations = len(start.loss), len(start.eval_step)

    def append_losses(self, losses: Float[np.ndarray, " K"]) -> None:
        """Appends the losses of the next steps."""
        self._arrays[0][self._steps : self._steps + len(losses)] = losses
        self._steps += len(losses)

    def append_evaluation(self, train_accuracy: float | Array, test_accuracy: float | Array) -> None:
        """Appends an evaluation after the last step."""
        for array, value in zip(self._arrays[1:], (self._steps, train_accuracy, test_accuracy), strict=True):
            array[self._evaluations] = value
        self._evaluations += 1

    def history(self) -> History:
        """Returns views of what was appended until now; they do not change when more is appended."""
        lengths = (self._steps, self._evaluations, self._evaluations, self._evaluations)
        views = [array[:n] for array, n in zip(self._arrays, lengths, strict=True)]
        for view in views:
            view.flags.writeable = False
        return History(*views)
