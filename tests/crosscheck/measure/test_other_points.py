"""Tests the choice of other points."""

import numpy as np

from jaxnet.crosscheck.measure.other_points import other_integers
from jaxnet.crosscheck.streams import Stream, stream

TABLE = {"table": np.zeros((6, 3))}


def test_newly_drawn_ids_index_the_same_table():
    ids = np.array([[0, 5], [2, 2]])
    drawn = other_integers({"ids": ids}, TABLE, stream(Stream.POINTS, 0))["ids"]
    assert drawn.shape == ids.shape
    assert drawn.dtype == ids.dtype
    assert drawn.min() >= 0
    assert drawn.max() <= 5


def test_other_ids_are_drawn_if_all_ids_are_equal():
    drawn = other_integers({"ids": np.zeros(50, int)}, TABLE, stream(Stream.POINTS, 0))["ids"]
    assert set(drawn) == {0, 1, 2}
