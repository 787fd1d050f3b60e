"""Tests that validation data are disjoint from training data, and the same for the same seed."""

import numpy as np
import pytest

import jaxnet
from jaxnet.data import text
from jaxnet.data.validation_split import split_validation

DATA = jaxnet.Dataset(np.arange(40.0).reshape(20, 2), np.arange(20), np.full((5, 2), -1.0), np.full(5, -1))


def test_the_parts_are_disjoint_and_complete_without_test_samples():
    split = split_validation(DATA, 0.25, seed=3)
    assert len(split.x_test) == 5
    assert sorted([*split.t_train, *split.t_test]) == list(range(20))
    np.testing.assert_array_equal(split.x_train[:, 0], 2 * split.t_train)
    np.testing.assert_array_equal(split.x_test[:, 0], 2 * split.t_test)


def test_the_seed_determines_the_samples():
    first, again, other = (split_validation(DATA, 0.25, seed).t_test.tolist() for seed in (3, 3, 4))
    assert first == again != other


def test_windows_of_training_and_validation_share_no_character():
    characters = "".join(map(chr, range(200, 400)))  # each occurs once
    windows = text.windows(characters, text.vocabulary_of(characters), length=5)
    split = split_validation(windows, 0.2, seed=0, ordered=True)
    assert split.t_train.max() < split.x_test.min()
    assert len(split.x_test) == round(0.2 * len(windows.x_train))


@pytest.mark.parametrize(("share", "ordered"), [(0.01, False), (0.99, False), (0.95, True)])
def test_a_part_without_samples_is_refused(share, ordered):
    with pytest.raises(ValueError, match=r"validation: .* of 20 training samples, expected at least one in each part"):
        split_validation(DATA, share, seed=0, ordered=ordered)
