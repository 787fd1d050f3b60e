"""Losses by hand, beside `jaxnet/nn/losses.py`, from logits of N samples and C classes."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from numpy_ref.layers import Array, rows

__all__ = ["MeanSquaredError", "SoftmaxWithLoss", "cross_entropy_error_one_hot", "log_softmax", "one_hot", "softmax"]


class SoftmaxWithLoss:
    """loss = -(1/N) Σₙ log softmax(xₙ)[tₙ]; dx = dout (y - t) / N with y = softmax(x).

    The derivative is Bishop, *Pattern Recognition and Machine Learning*, equation 4.109, averaged over the batch. The
    loss is computed from the logits x, as log(y) may be -inf. Of logits (N, T, C), it is the mean over all N T rows.
    """

    def forward(self, x: Array, t: ArrayLike) -> Any:
        self.t = one_hot(t, x)  # (N, C)
        self.log_y = log_softmax(x)  # (N, C)
        return -(self.t * self.log_y).sum() / len(rows(x))

    def backward(self, dout: Any = 1.0) -> Array:
        return dout * (np.exp(self.log_y) - self.t) / len(rows(self.t))


class MeanSquaredError:
    """loss = (1/N) Σₙ ½ |xₙ - tₙ|²; dx = dout (x - t) / N. Class numbers t stand for their one-hot rows.

    The factor ½ is the book's, and Bishop's (*Pattern Recognition and Machine Learning*, equation 5.11).
    """

    def forward(self, x: Array, t: ArrayLike) -> Any:
        t = np.asarray(t)
        self.error = x - (t.astype(x.dtype) if t.shape == x.shape else one_hot(t, x))  # (N, C)
        return (self.error**2).sum() / (2 * len(rows(x)))

    def backward(self, dout: Any = 1.0) -> Array:
        return dout * self.error / len(rows(self.error))


def softmax(x: Array) -> Array:
    """Returns exp(x) / sum(exp(x)) over the classes of each sample: (N, C) -> (N, C), where every row sums to 1.

    Subtracting a row's maximum changes nothing and keeps exp in (0, 1] (Goodfellow, Bengio, Courville, *Deep
    Learning*, section 4.1). If maximum and sum ran over the batch, (y - t) / N would be no gradient.
    """
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax(x: Array) -> Array:
    """Returns log(softmax(x)), finite where softmax underflows to 0: (N, C) -> (N, C)."""
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def one_hot(t: ArrayLike, y: Array) -> Array:
    """Returns the labels `t` as one-hot rows, in the shape and dtype of the scores `y` that they belong to.

    Args:
        t: Class numbers, () or (N,), in [0, C); or one-hot rows, (C,) or (N, C).
        y: Scores or probabilities, (C,) or (N, C).

    Raises:
        ValueError: If `t` does not fit `y`, or has a number outside [0, C) or a row that is not a single 1 among zeros.
    """
    t, classes = np.asarray(t), y.shape[-1]
    if t.shape == y.shape:
        targets = t.reshape(-1, classes)
        wrong = np.flatnonzero(((targets != 0) & (targets != 1)).any(axis=1) | (targets.sum(axis=1) != 1))
        if wrong.size:
            raise ValueError(
                f"t: row {wrong[0]} is {targets[wrong[0]]}, expected a single 1 among zeros; pass one-hot rows"
            )
        return t.astype(y.dtype)
    if t.shape != y.shape[:-1] or not np.issubdtype(t.dtype, np.integer):
        raise ValueError(
            f"t: {t.dtype} of shape {t.shape} does not label scores of shape {y.shape}; "
            f"expected integers of shape {y.shape[:-1]} or one-hot rows of shape {y.shape}"
        )
    if t.size and not 0 <= t.min() <= t.max() < classes:
        raise ValueError(f"t: labels run from {t.min()} to {t.max()}, expected class numbers from 0 to {classes - 1}")
    return (t[..., None] == np.arange(classes)).astype(y.dtype)


def cross_entropy_error_one_hot(y: Array, t: ArrayLike) -> float:
    """Returns the mean over the samples of -log(y[true class]), from probabilities.

    It is infinite where the probability is 0. To train, use `SoftmaxWithLoss`, which takes logits and stays finite.

    Args:
        y: Probabilities, (C,) or (N, C), in [0, 1].
        t: Class numbers, () or (N,), in [0, C); or one-hot rows, (C,) or (N, C).

    Raises:
        ValueError: If `t` does not fit `y`.
    """
    with np.errstate(divide="ignore"):
        return float(-np.log(y[one_hot(t, y) == 1]).mean())
