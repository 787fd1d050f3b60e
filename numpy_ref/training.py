"""The notebook's training loop in plain NumPy, which the compiled loop is tested against."""

from collections.abc import Iterable
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numpy_ref.layers import Array, Tree
from numpy_ref.networks import Network
from numpy_ref.optimizers import Optimizer, clip_by_global_norm, make_optimizer

__all__ = ["History", "train"]


class History(NamedTuple):
    """The course of S steps with E evaluations: before the first step, every `eval_every` steps, and after the last."""

    loss: Array  # (S,): the loss of each step's batch, before the update
    eval_step: NDArray[np.int64]  # (E,): the number of steps before each evaluation
    train_accuracy: Array  # (E,)
    test_accuracy: Array  # (E,)


def train(
    network: Network,
    x_train: ArrayLike,
    t_train: ArrayLike,
    x_test: ArrayLike,
    t_test: ArrayLike,
    batches: ArrayLike,
    learning_rate: float | None = None,
    *,
    eval_every: int = 100,
    noise: Iterable[Tree] | None = None,
    optimizer: str | Optimizer = "sgd",
    clip_norm: float | None = None,
) -> History:
    """Trains a network: one update of its own arrays for each row of `batches`.

    Args:
        network: The network, whose parameters are changed in place.
        x_train: Samples (N, D); `t_train` has their labels, (N,) or (N, C). `x_test` and `t_test` likewise.
        batches: (S, B) row numbers into `x_train`, one row for each step.
        learning_rate: A number > 0. Defaults to that of the named optimizer.
        eval_every: Steps between evaluations, >= 1. Defaults to 100.
        noise: S trees of the random arrays of each step, {"Dropout1": {"mask": ...}, ...}, for a network with Dropout.
        optimizer: A name in `OPTIMIZERS`, or an optimizer with its own learning rate and state. Defaults to "sgd".
        clip_norm: The largest global norm of a gradient, > 0; larger ones are scaled down to it. Defaults to none.

    Returns:
        The history of losses and accuracies.

    Raises:
        ValueError: If an argument does not fit the others or is out of range.
    """
    x, t, x_test, rows = (np.asarray(a) for a in (x_train, t_train, x_test, batches))
    if rows.ndim != 2 or rows.size == 0 or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(f"batches: {rows.dtype} of shape {rows.shape}, expected integers (steps, batch size)")
    if not 0 <= rows.min() <= rows.max() < len(x):
        raise ValueError(f"batches: runs from {rows.min()} to {rows.max()}, expected rows from 0 to {len(x) - 1}")
    if not isinstance(eval_every, (int, np.integer)) or isinstance(eval_every, bool) or eval_every < 1:
        raise ValueError(f"eval_every: {eval_every!r}, expected a whole number of at least 1")
    if isinstance(optimizer, str):
        optimizer = make_optimizer(optimizer, learning_rate)
    elif learning_rate is not None:
        raise ValueError(f"learning_rate: {learning_rate}, given beside an optimizer that has its own")

    loss, evaluations = [], []

    def evaluate(step: int) -> None:
        evaluations.append((step, network.accuracy(x, t), network.accuracy(x_test, t_test)))

    evaluate(0)
    noise = repeat({}, len(rows)) if noise is None else noise
    for step, (batch, step_noise) in enumerate(zip(rows, noise, strict=True), start=1):
        network.set_noise(step_noise)
        batch_loss, grads = network.value_and_gradient(x[batch], t[batch])
        if clip_norm is not None:
            grads = clip_by_global_norm(grads, clip_norm)
        optimizer.update(network.params, grads)
        loss.append(batch_loss)
        if step % eval_every == 0 or step == len(rows):
            evaluate(step)
    return History(np.array(loss), *map(np.array, zip(*evaluations, strict=True)))
