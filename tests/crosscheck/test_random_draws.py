"""Tests random draws of correct code that an earlier checker reported as wrong.

`cd tests; python -m fuzz GROUP SEED 1 --show` prints the report of one.
"""

import numpy as np
import pytest
from conftest import mostly_slow
from fuzz.__main__ import outcome

from jaxnet.crosscheck.dtypes import effective_unit

ONCE_FALSE_ALARMS = {
    "a table that its gradient describes only within its range": ("kind", 400135),
    "a series that is chosen by the size of dout": ("kind", 600308),
    "a softmax whose elements lost nearly all digits": ("planted", 600242),
    "a large loss in float32": ("float32", 701025),
    "equal elements at kinks of their own, which are no tie": ("kinks", 701217),
    "an output that rounding keeps constant": ("pointwise", 700623),
}


@pytest.mark.parametrize("name", mostly_slow(ONCE_FALSE_ALARMS, 3))
def test_correct_code_is_not_reported_as_wrong(name):
    drawn = outcome(*ONCE_FALSE_ALARMS[name], show=False)
    assert drawn["right"]
    assert drawn["verdict"] in ("PASS", "INCONCLUSIVE")


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([84016.7109375, 84016.75], 2.0**-24),  # float32 has steps of 1/128 there
        ([0.25, 3.5, 17.0], 2.0**-53),  # typed-in numbers
        ([3.0, 40000.0], 2.0**-53),  # counts
        ([np.float32(0.1), np.float32(0.7)], 2.0**-24),
        ([0.1, 0.7], 2.0**-53),
    ],
)
def test_effective_unit_is_that_of_the_coarsest_dtype_that_fits(values, unit):
    assert effective_unit(np.array(values, np.float64)) == unit
