"""Recognizes a run that learned nothing, and leaves alone those that are merely short or slow."""

import math
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Int

from jaxnet.train.history import History

MIN_STEPS = 30  # of a run that can be judged
FAR_ABOVE = 2.0  # times the first loss, and that of guessing
BETTER = 0.98  # of the entropy of single characters, for a text that is predicted better than by their frequencies
DEVIATIONS = 3.0  # that a figure may be above that of guessing, or a loss below an earlier one, by chance


def learned_nothing(
    history: History, t: Int[np.ndarray, "N ..."], passes: float, held_out_loss: float | None = None
) -> str | None:
    """Returns why a finished run learned nothing, or None if it learned, or is too short or still on its way.

    A run that classifies better than by guessing has learned, however large its loss is: see `loss_rose`. One is on its
    way if it saw less than all samples once, or if its loss still falls: its last third is below the
    third before by more than chance. A loss that rose far above its start and falls back to that of guessing is not.

    Args:
        history: The history of the run.
        t: The class numbers of its training samples, or of each position of each text.
        passes: Number of times that the run saw each sample on average.
        held_out_loss: For a text, the loss per character on other text. Defaults to None, for images.
    """
    loss, guessing = np.asarray(history.loss), _Guessing.of(t)
    if len(loss) < MIN_STEPS or passes < 1:
        return None
    end, accuracy = _end(loss), float(history.train_accuracy[-1])
    far_above = FAR_ABOVE * max(loss[0], guessing.entropy)
    if held_out_loss is None and guessing.is_beaten_by(accuracy):
        return None
    if end > far_above:
        return f"the loss rose from {loss[0]:.3g} to {end:.3g}"
    only_recovers = loss.max() > far_above and end >= guessing.entropy
    if _still_falls(loss) and not only_recovers:
        return None
    if held_out_loss is None:
        return f"train accuracy {accuracy:.2%}, no more than {guessing.share:.2%} by always guessing the same class"
    if min(end, held_out_loss) < BETTER * guessing.entropy:
        return None
    nats = f"{held_out_loss:.2f} nats per character"
    return f"{nats}, hardly less than {guessing.entropy:.2f}, the entropy of single characters"


def loss_rose(history: History, t: Int[np.ndarray, "N ..."]) -> str | None:
    """Returns that the loss ends far above its start, as at too high a learning rate; None if it does not.

    Such a run may have learned all the same: accuracy counts the largest outputs, and the loss how large they are.

    Args:
        history: The history of the run.
        t: The class numbers of its training samples.
    """
    loss = np.asarray(history.loss)
    if len(loss) < MIN_STEPS or _end(loss) <= FAR_ABOVE * max(loss[0], _Guessing.of(t).entropy):
        return None
    return f"the loss rose from {loss[0]:.3g} to {_end(loss):.3g}"


class _Guessing(NamedTuple):
    """What is reached without looking at the samples: the share of the most frequent class, and the entropy of all."""

    share: float
    entropy: float
    samples: int

    @classmethod
    def of(cls, t: Int[np.ndarray, "N ..."]) -> Self:
        shares = np.bincount(np.ravel(t)) / np.size(t)
        entropy = float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
        return cls(float(shares.max()), entropy, np.size(t))

    def is_beaten_by(self, accuracy: float) -> bool:
        return accuracy > self.share + DEVIATIONS * math.sqrt(self.share * (1 - self.share) / self.samples)


def _end(loss: np.ndarray) -> float:
    """Returns the mean loss of the last tenth of a run."""
    return float(loss[-(len(loss) // 10) :].mean())


def _still_falls(loss: np.ndarray) -> bool:
    third = len(loss) // 3
    before, last = loss[-2 * third : -third], loss[-third:]
    return bool(before.mean() - last.mean() > DEVIATIONS * math.sqrt((before.var() + last.var()) / third))
