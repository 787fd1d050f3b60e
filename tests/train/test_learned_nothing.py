"""Tests that a run that learned nothing is recognized, and that one on its way is not accused."""

import numpy as np
import pytest

from jaxnet import History
from jaxnet.train.learned_nothing import learned_nothing, loss_rose

T = np.repeat(np.arange(10), 100)  # 1,000 samples: guessing has 10 %, a standard deviation of 0.95 %
NOISE = np.random.default_rng(0).normal(0, 0.05, 600)


def history(loss, accuracy):
    loss, ends = np.asarray(loss), np.array([0, len(loss)])
    return History(loss, ends, np.array([0.1, accuracy]), np.array([0.1, accuracy]))


FLAT, FALLING = 2.303 + NOISE, np.linspace(2.5, 2.2, 600) + NOISE
CASES = {
    "dead after a fall": (np.append([9.0, 5.0], FLAT), 0.1, 10, None, "train accuracy 10.00%, no more than 10.00%"),
    "falls back from far above": (np.append([2.4, 1e12], FALLING + 0.1), 0.1, 10, None, "train accuracy 10.00%"),
    "falls below guessing from far above": (np.append([2.4, 1e12], FALLING - 0.1), 0.1, 10, None, None),
    "loss rose": (np.append([2.4], 80 + NOISE), 0.1, 10, None, "the loss rose from 2.4 to 80"),
    "loss rose, but learned": (np.append([2.4], 80 + NOISE), 0.4, 10, None, None),
    "a text whose loss rose": (np.append([2.4], 80 + NOISE), 0.4, 10, 80.0, "the loss rose from 2.4 to 80"),
    "learned": (FLAT, 0.14, 10, None, None),
    "slow, but falling": (FALLING, 0.1, 10, None, None),
    "one step": (FLAT[:1], 0.1, 0.1, None, None),
    "no steps": (FLAT[:0], 0.1, 0, None, None),
    "less than one pass": (FLAT, 0.1, 0.9, None, None),
    "a text": (FLAT, 0.1, 10, 2.31, "2.31 nats per character, hardly less than 2.30"),
    "a text learned": (FLAT - 0.5, 0.1, 10, 1.8, None),
    "a text learned by heart": (FLAT - 2, 0.9, 10, 5.0, None),
}


@pytest.mark.parametrize("name", CASES)
def test_only_a_run_that_learned_nothing_is_reported(name):
    loss, accuracy, passes, held_out_loss, expected = CASES[name]
    fault = learned_nothing(history(loss, accuracy), T, passes, held_out_loss)
    assert (fault is None) == (expected is None)
    assert expected is None or fault.startswith(expected)


@pytest.mark.parametrize(("loss", "expected"), [(80 + NOISE, "the loss rose from 2.4 to 80"), (FLAT, None), ([], None)])
def test_a_loss_that_ends_far_above_its_start_is_told(loss, expected):
    assert loss_rose(history(np.append([2.4], loss), 0.4), T) == expected
