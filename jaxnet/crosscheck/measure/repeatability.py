"""Compares repeated calls at the same inputs: do they differ by rounding, by random numbers, or not at all?"""

import math

import numpy as np

from jaxnet.crosscheck.dtypes import as_double, effective_unit
from jaxnet.crosscheck.inspect.checkable import Array
from jaxnet.crosscheck.measure.base_call import SUM_ROUNDING, BaseCall, distance
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level

REPEATED_CALLS = 3


def compare_repeated_calls(base: BaseCall) -> list[Finding]:
    """Calls fresh instances at the same inputs, and compares them with the base call.

    Differences due to rounding, such as those of sums in another order, widen the tolerances of the base call.

    Returns:
        NOT_REPEATABLE if outputs differ, DRAWS_AGAIN if only gradients differ, ROUNDS_DIFFERENTLY if the differences
        are due to rounding, or an empty list if all calls are equal.
    """
    calls = [base.call(base.open()) for _ in range(REPEATED_CALLS - 1 if base.by_jax else REPEATED_CALLS)]
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


def _rounding(values: Array, terms: int) -> float:
    """Returns the largest difference of sums in another order; it is half of the digits, because terms may cancel."""
    size, unit = float(np.abs(as_double(values)).max(initial=0)), effective_unit(values)
    return max(SUM_ROUNDING * math.sqrt(terms) * unit, math.sqrt(unit)) * size


def _amplified(base: BaseCall, name: str, output: float) -> float:
    """Returns the largest difference of a gradient that is computed from outputs that differ."""
    return 1e3 * _relative(output, base.output) * float(np.abs(as_double(base.gradient[name])).max(initial=0))


def _relative(gap: float, values: Array) -> float:
    size = float(np.abs(as_double(values)).max(initial=0))
    return gap / size if size else gap
