"""The functions of the notebook: sigmoid, softmax, cross-entropy, and what counts as a label.

Shapes: N samples, C classes; one sample (C,) may stand wherever a batch (N, C) does. Results keep the dtype of
their floating-point argument.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating[Any]]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), elementwise, without overflow: exp only ever sees -|x|."""
    e = np.exp(-np.abs(x))  # in (0, 1]
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def softmax(x: Array) -> Array:
    """exp(x) / sum(exp(x)) over the classes of each sample: (N, C) -> (N, C), every row sums to 1.

    Shifting a row by its maximum changes nothing and keeps exp in (0, 1] (Goodfellow, Bengio, Courville, *Deep
    Learning*, section 4.1). Maximum and sum belong to one row: taken over a batch, (y - t) / N is no gradient.
    """
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax(x: Array) -> Array:
    """log(softmax(x)), finite where softmax underflows to 0: (N, C) -> (N, C)."""
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def one_hot(t: ArrayLike, y: Array) -> Array:
    """The labels `t` as one-hot rows, in the shape and dtype of the scores `y` that they belong to.

    Args:
        t: Class numbers, () or (N,), in [0, C); or one-hot rows, (C,) or (N, C).
        y: Scores or probabilities, (C,) or (N, C).

    Raises:
        ValueError: `t` does not fit `y`, holds a number outside [0, C), or a row that is not one 1 among zeros.
    """
    t, classes = np.asarray(t), y.shape[-1]
    if t.shape == y.shape:
        rows = t.reshape(-1, classes)
        wrong = np.flatnonzero(((rows != 0) & (rows != 1)).any(axis=1) | (rows.sum(axis=1) != 1))
        if wrong.size:
            raise ValueError(
                f"t: row {wrong[0]} is {rows[wrong[0]]}, expected a single 1 among zeros; pass one-hot rows"
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
    """Mean over the samples of -log(y[true class]), from probabilities.

    Only the true class's probability is looked at, so a 0 elsewhere never makes nan, and a 0 there is the infinity
    that it is. To train, use `layers.SoftmaxWithLoss`: it takes logits and its loss stays finite.

    Args:
        y: Probabilities, (C,) or (N, C), in [0, 1].
        t: Class numbers, () or (N,), in [0, C); or one-hot rows, (C,) or (N, C).

    Raises:
        ValueError: `t` does not fit `y`.
    """
    with np.errstate(divide="ignore"):
        return float(-np.log(y[one_hot(t, y) == 1]).mean())
