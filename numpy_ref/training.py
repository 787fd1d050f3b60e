"""The notebook's training loop in plain NumPy: the oracle that the compiled loop is held against."""

from collections.abc import Iterable
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numpy_ref.functions import Array
from numpy_ref.networks import Network
from numpy_ref.optimizers import Optimizer, clip_by_global_norm, make_optimizer
from numpy_ref.trees import Tree


class History(NamedTuple):
    """S steps, E evaluations: one before the first step, one every `eval_every` steps, one after the last."""

    loss: Array  # (S,): of each step's batch, before its update
    eval_step: NDArray[np.int64]  # (E,): steps done
    train_accuracy: Array  # (E,)
    test_accuracy: Array  # (E,)


def train(
    network: Network,
    x_train: Array,
    t_train: ArrayLike,
    x_test: Array,
    t_test: ArrayLike,
    batches: NDArray[np.integer],
    learning_rate: float | None = None,
    eval_every: int = 100,
    *,
    draws: Iterable[Tree] | None = None,
    optimizer: str | Optimizer = "sgd",
    clip_norm: float | None = None,
) -> History:
    """One update of the network's own arrays for each row of `batches`: plain gradient descent unless told otherwise.

    Args:
        network: Its parameters are changed in place.
        x_train: (N, D); `t_train` its labels, (N,) or (N, C). `x_test` and `t_test` likewise.
        batches: (S, B) row numbers into `x_train`, one row a step: drawn beforehand, so that another loop can be
            given the same.
        learning_rate: > 0; the usual one of the named optimizer unless given.
        eval_every: Steps between evaluations, >= 1.
        draws: What each step draws at random, {"Dropout1": {"mask": ...}, ...}, S trees: for a network with Dropout.
        optimizer: A name in `OPTIMIZERS`, or an optimizer with its own learning rate, which goes on from its state.
        clip_norm: > 0; a gradient whose global norm is larger is scaled down to it. None: never.

    Raises:
        ValueError: An argument does not fit the others or is out of range.
    """
    t_train = np.asarray(t_train)
    if batches.ndim != 2 or batches.size == 0 or batches.min() < 0 or batches.max() >= len(x_train):
        raise ValueError(f"batches: shape {batches.shape}, expected (S, B) row numbers below {len(x_train)}")
    if eval_every < 1:
        raise ValueError(f"eval_every: {eval_every}, expected at least 1")
    if isinstance(optimizer, str):
        optimizer = make_optimizer(optimizer, learning_rate)
    elif learning_rate is not None:
        raise ValueError(f"learning_rate: {learning_rate}, given beside an optimizer that has its own")

    loss, evaluations = [], []

    def evaluate(step: int) -> None:
        evaluations.append((step, network.accuracy(x_train, t_train), network.accuracy(x_test, t_test)))

    evaluate(0)
    every_draw = repeat({}, len(batches)) if draws is None else draws
    for step, (batch, drawn) in enumerate(zip(batches, every_draw, strict=True), start=1):
        network.give(drawn)
        batch_loss, grads = network.value_and_gradient(x_train[batch], t_train[batch])
        if clip_norm is not None:
            grads = clip_by_global_norm(grads, clip_norm)
        optimizer.update(network.params, grads)
        loss.append(batch_loss)
        if step % eval_every == 0 or step == len(batches):
            evaluate(step)
    steps, train_accuracy, test_accuracy = zip(*evaluations, strict=True)
    return History(np.array(loss), np.array(steps), np.array(train_accuracy), np.array(test_accuracy))
