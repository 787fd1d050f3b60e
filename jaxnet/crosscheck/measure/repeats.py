"""Differences from call to call: of a rounding's size, of random numbers that no seed decides, of a second draw."""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array
from jaxnet.crosscheck.measure.base_call import ROUNDING_LEVEL, BaseCall, distance
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.form import as_double, effective_unit

TIMES = 3


def call_to_call(base: BaseCall) -> list[Finding]:
    """Calls fresh instances at the same inputs again, and compares them with each other.

    What differs at the level of rounding, as sums in another order do, widens the base's tolerances. Anything larger
    ends the base: where no two calls are alike, comparing them shows nothing.

    Returns:
        NOT_REPEATABLE where outputs differ, DRAWS_AGAIN where gradients alone do, ROUNDS_DIFFERENTLY where either
        differs at the level of rounding; nothing where all are alike.
    """
    calls = [base.call(base.open()) for _ in range(TIMES - 1 if base.by_jax else TIMES)]
    output = max(distance(call.output, base.output) for call in calls)
    if output > _rounding(base.output, base.terms + base.output.size):
        return [Finding(Behaviour.NOT_REPEATABLE, Level.WARNING, size=output)]
    base.output_spread = max(base.output_spread, output)
    spread = {n: max(distance(call.gradient.get(n), base.gradient[n]) for call in calls) for n in base.names}
    for name, gap in spread.items():
        rounding = _rounding(base.gradient[name], base.terms + base.output.size)
        if gap > max(rounding, _amplified(base, name, output) if output else 0.0):
            return [Finding(Behaviour.DRAWS_AGAIN, Level.FAULT, name, gap)]
    base.spread = spread
    if output == 0 and not any(spread.values()):
        return []
    relative = [_relative(gap, base.gradient[name]) for name, gap in spread.items()]
    return [Finding(Behaviour.ROUNDS_DIFFERENTLY, Level.NOTE, size=max([_relative(output, base.output), *relative]))]


@contextmanager
def generators_restored() -> Iterator[None]:
    """The global generators of NumPy and Python are found afterwards as they were: what comes next draws the same."""
    before = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before[0])  # noqa: NPY002
        random.setstate(before[1])


def _rounding(values: Array, terms: int) -> float:
    """What sums of so many terms in another order may differ by: half of the digits, where terms cancel."""
    size, unit = float(np.abs(as_double(values)).max(initial=0)), effective_unit(values)
    return max(ROUNDING_LEVEL * math.sqrt(terms) * unit, math.sqrt(unit)) * size


def _amplified(base: BaseCall, name: str, output: float) -> float:
    """What an output's differences may become in a gradient that is computed from that output."""
    return 1e3 * _relative(output, base.output) * float(np.abs(as_double(base.gradient[name])).max(initial=0))


def _relative(gap: float, values: Array) -> float:
    size = float(np.abs(as_double(values)).max(initial=0))
    return gap / size if size else gap
