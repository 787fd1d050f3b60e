"""The history of a run that grows: what is shown of it stays as it was, and is not copied."""

import numpy as np
import pytest

from jaxnet.train.history import GrowingHistory, History

NONE = History(np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.float32))
START = History(np.array([3.0, 2.0]), np.array([0]), np.array([0.25]), np.array([0.5]))


def test_a_history_grows_by_losses_and_evaluations():
    record = GrowingHistory(NONE, steps=3, evaluations=2)
    record.append_evaluation(0.125, 0.25)
    record.append_losses(np.array([3.0, 2.0]))
    record.append_losses(np.array([1.0]))
    record.append_evaluation(0.5, 0.75)
    expected = History(np.array([3.0, 2.0, 1.0]), np.array([0, 3]), np.array([0.125, 0.5]), np.array([0.25, 0.75]))
    for actual, wanted, empty in zip(record.history(), expected, NONE, strict=True):
        np.testing.assert_array_equal(actual, wanted)
        assert actual.dtype == empty.dtype


def test_a_history_continues_that_of_the_first_steps():
    record = GrowingHistory(START, steps=1, evaluations=1)
    record.append_losses(np.array([1.0]))
    record.append_evaluation(0.5, 1.0)
    expected = History(np.array([3.0, 2.0, 1.0]), np.array([0, 3]), np.array([0.25, 0.5]), np.array([0.5, 1.0]))
    for actual, wanted in zip(record.history(), expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)


def test_what_was_shown_of_a_history_does_not_change_and_nobody_can_change_it():
    record = GrowingHistory(START, steps=2, evaluations=1)
    before = record.history()
    record.append_losses(np.array([9.0, 8.0]))
    record.append_evaluation(0.0, 0.0)
    for actual, wanted in zip(before, START, strict=True):
        np.testing.assert_array_equal(actual, wanted)
        with pytest.raises(ValueError, match="read-only"):
            actual[0] = 7.0


def test_a_history_is_shown_without_a_copy():
    record = GrowingHistory(NONE, steps=1000, evaluations=1)
    record.append_losses(np.ones(10))
    assert np.shares_memory(record.history().loss, record.history().loss)
