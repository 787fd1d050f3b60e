"""The notebook's training loop in plain NumPy: the oracle that the compiled loop is held against."""

from collections.abc import Iterable
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numpy_ref.functions import Array
from numpy_ref.networks import Network
from numpy_ref.trees import Tree, leaves


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
    learning_rate: float = 0.1,
    eval_every: int = 100,
    draws: Iterable[Tree] | None = None,
) -> History:
    """Stochastic gradient descent, W ← W - learning_rate ∂loss/∂W, on the network's own arrays.

    Args:
        network: Its parameters are changed in place.
        x_train: (N, D); `t_train` its labels, (N,) or (N, C). `x_test` and `t_test` likewise.
        batches: (S, B) row numbers into `x_train`, one row a step: drawn beforehand, so that another loop can be
            given the same.
        learning_rate: > 0.
        eval_every: Steps between evaluations, >= 1.
        draws: What each step draws at random, {"Dropout1": {"mask": ...}, ...}, S trees: for a network with Dropout.

    Raises:
        ValueError: An argument does not fit the others or is out of range.
    """
    t_train = np.asarray(t_train)
    if batches.ndim != 2 or batches.size == 0 or batches.min() < 0 or batches.max() >= len(x_train):
        raise ValueError(f"batches: shape {batches.shape}, expected (S, B) row numbers below {len(x_train)}")
    if not learning_rate > 0 or eval_every < 1:
        raise ValueError(f"learning_rate, eval_every: {learning_rate}, {eval_every}, expected > 0 and >= 1")

    loss, evaluations = [], []

    def evaluate(step: int) -> None:
        evaluations.append((step, network.accuracy(x_train, t_train), network.accuracy(x_test, t_test)))

    evaluate(0)
    every_draw = repeat({}, len(batches)) if draws is None else draws
    for step, (batch, drawn) in enumerate(zip(batches, every_draw, strict=True), start=1):
        network.give(drawn)
        batch_loss, grads = network.value_and_gradient(x_train[batch], t_train[batch])
        for (_, array), (_, grad) in zip(leaves(network.params), leaves(grads), strict=True):
            array -= learning_rate * grad
        loss.append(batch_loss)
        if step % eval_every == 0 or step == len(batches):
            evaluate(step)
    steps, train_accuracy, test_accuracy = zip(*evaluations, strict=True)
    return History(np.array(loss), np.array(steps), np.array(train_accuracy), np.array(test_accuracy))
