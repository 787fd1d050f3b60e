"""Tests the checks of samples that are looked at part by part."""

import re

import numpy as np
import pytest

from jaxnet.common import validation


@pytest.mark.parametrize("index", [(0, 0), (2, 1), (6, 2)])
@pytest.mark.parametrize("numbers", [1, 7, 1000])
def test_the_first_number_that_is_not_finite_is_named_by_its_row(monkeypatch, numbers, index):
    monkeypatch.setattr(validation, "CHECKED_NUMBERS", numbers)
    x = np.ones((7, 3))
    validation.check_samples("x", x)
    x[index] = np.inf
    x[6, 2] = np.inf
    with pytest.raises(ValueError, match=re.escape(f"x[{index[0]}, {index[1]}]: inf, expected numbers")):
        validation.check_samples("x", x)


def test_a_number_that_the_dtype_cannot_hold_is_named():
    with pytest.raises(ValueError, match=re.escape("x[1, 0]: 1e+39, expected numbers that are finite in float32")):
        validation.check_samples("x", np.array([[1.0], [1e39]]), np.float32)
