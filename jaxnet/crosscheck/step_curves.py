"""Measures the errors of a report's difference quotients by step size, once they are asked for.

They cost as much as a check, so a check does not measure them. The report keeps the code for this if it is small.
"""

import io
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import numpy as np

from jaxnet.crosscheck.dtypes import in_float64
from jaxnet.crosscheck.inspect.checkable import Array, Checkable
from jaxnet.crosscheck.measure.step_sweep import StepErrors, step_errors
from jaxnet.crosscheck.meter import OutOfTime, metered

MAX_NUMBERS = 2**16  # in the arrays of the code that a report keeps: half a megabyte
MAX_SECONDS = 2.0
MAX_CHANGE = 1e-2  # of the output, relative to its size: as much as rounding in 16 bits may cause


class StepCurves:
    """The curves of a checked code, measured when they are first asked for.

    The code is kept only until then, only if its arrays are small, and neither copied nor pickled.

    Args:
        checkable: The code.
        output: Its output in the check, float64. Curves of code that returns another output later are not shown.
        seed: The seed of the check.
    """

    def __init__(self, checkable: Checkable, output: Array, seed: int) -> None:
        arrays = [
            output, *checkable.leaves.values(), *checkable.others.values(), *checkable.integers.values(),
            *checkable.batch.values(),
        ]  # fmt: skip
        is_small = sum(int(np.size(array)) for array in arrays) <= MAX_NUMBERS
        self._code: tuple[Checkable, Array, int] | None = (checkable, output, seed) if is_small else None
        self._curves: dict[str, StepErrors] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_code": None, "_curves": self._curves}

    def curves(self) -> dict[str, StepErrors]:
        """Returns the curves by leaf; none if the code was not kept, takes too long, raises, or has changed."""
        code, self._code = self._code, None
        if code is not None:
            self._curves = _measured(*code)
        return self._curves


def _measured(checkable: Checkable, output: Array, seed: int) -> dict[str, StepErrors]:
    silent = io.StringIO()
    with (
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
        redirect_stdout(silent),
        redirect_stderr(silent),
        metered(checkable.name, MAX_SECONDS),
    ):
        warnings.simplefilter("ignore")
        try:
            leaves = {name: in_float64(array) for name, array in checkable.leaves.items()}
            if not np.allclose(
                checkable.forward(leaves), output, rtol=MAX_CHANGE, atol=MAX_CHANGE * np.abs(output).max()
            ):
                return {}
            return step_errors(checkable, seed)
        except (Exception, OutOfTime):  # the user's code: a figure that is missing is better than a report that raises
            return {}
