"""Recognizes a run that learned nothing, and leaves alone those that are merely short or slow."""

import math

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

    A run is on its way if it saw less than all samples once, or if its loss still falls: its last third is below the
    third before by more than chance. A loss that rose far above its start and falls back to that of guessing is not.

    Args:
        history: The history of the run.
        t: The class numbers of its training samples, or of each position of each text.
        passes: Number of times that the run saw each sample on average.
        held_out_loss: For a text, the loss per character on other text. Defaults to None, for images.
    """
    loss, shares = np.asarray(history.loss), np.bincount(np.ravel(t)) / np.size(t)
    if len(loss) < MIN_STEPS or passes < 1:
        return None
    entropy = float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
    end = float(loss[-(len(loss) // 10) :].mean())
    far_above = FAR_ABOVE * max(loss[0], entropy)
    if end > far_above:
        return f"the loss rose from {loss[0]:.3g} to {end:.3g}"
    only_recovers = loss.max() > far_above and end >= entropy
    if _still_falls(loss) and not only_recovers:
        return None
    if held_out_loss is not None:
        if min(end, held_out_loss) < BETTER * entropy:
            return None
        nats = f"{held_out_loss:.2f} nats per character"
        return f"{nats}, hardly less than {entropy:.2f}, the entropy of single characters"
    guessing, accuracy = float(shares.max()), float(history.train_accuracy[-1])
    if accuracy > guessing + DEVIATIONS * math.sqrt(guessing * (1 - guessing) / np.size(t)):
        return None
    return f"train accuracy {accuracy:.2%}, no more than {guessing:.2%} by always guessing the same class"


def _still_falls(loss: np.ndarray) -> bool:
    third = len(loss) // 3
    before, last = loss[-2 * third : -third], loss[-third:]
    return bool(before.mean() - last.mean() > DEVIATIONS * math.sqrt((before.var() + last.var()) / third))
