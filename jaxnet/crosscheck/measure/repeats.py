"""Differences from call to call: of a rounding's size, of random numbers that no seed decides, of a second draw."""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.form import as_double, effective_unit
from jaxnet.crosscheck.measure.trial import ROUNDING_LEVEL, Trial, distance

TIMES = 3


def call_to_call(trial: Trial) -> list[Finding]:
    """Calls fresh instances at the same inputs again, and compares them with each other.

    What differs at the level of rounding, as sums in another order do, widens the trial's tolerances. Anything larger
    ends the trial: where no two calls are alike, comparing them shows nothing.

    Returns:
        NOT_REPEATABLE where outputs differ, DRAWS_AGAIN where gradients alone do, ROUNDS_DIFFERENTLY where either
        differs at the level of rounding; nothing where all are alike.
    """
    calls = [trial.call(trial.open()) for _ in range(TIMES - 1 if trial.by_jax else TIMES)]
    output = max(distance(call.output, trial.output) for call in calls)
    if output > _rounding(trial.output, trial.terms + trial.output.size):
        return [Finding(Behaviour.NOT_REPEATABLE, Level.WARNING, size=output)]
    trial.output_spread = max(trial.output_spread, output)
    spread = {n: max(distance(call.gradient.get(n), trial.gradient[n]) for call in calls) for n in trial.names}
    for name, gap in spread.items():
        rounding = _rounding(trial.gradient[name], trial.terms + trial.output.size)
        if gap > max(rounding, _amplified(trial, name, output) if output else 0.0):
            return [Finding(Behaviour.DRAWS_AGAIN, Level.FAULT, name, gap)]
    trial.spread = spread
    if output == 0 and not any(spread.values()):
        return []
    relative = [_relative(gap, trial.gradient[name]) for name, gap in spread.items()]
    return [Finding(Behaviour.ROUNDS_DIFFERENTLY, Level.NOTE, size=max([_relative(output, trial.output), *relative]))]


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


def _amplified(trial: Trial, name: str, output: float) -> float:
    """What an output's differences may become in a gradient that is computed from that output."""
    return 1e3 * _relative(output, trial.output) * float(np.abs(as_double(trial.gradient[name])).max(initial=0))


def _relative(gap: float, values: Array) -> float:
    size = float(np.abs(as_double(values)).max(initial=0))
    return gap / size if size else gap
