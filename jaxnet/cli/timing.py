"""Microseconds a step, by the difference of a long run and a short one."""

import math
import time
from collections.abc import Callable
from statistics import median
from typing import Any

Run = Callable[[int], object]  # of so many steps


def seconds(run: Run, steps: int) -> float:
    """Of one run."""
    started = time.perf_counter()
    run(steps)
    return time.perf_counter() - started


class Measured:
    """One contender's times. What a run costs whatever its length is the least that a run of one step took.

    The least, and not that of the same round: what disturbs the short run must not make the long one look fast.
    """

    def __init__(self, run: Run, length: float) -> None:
        """Compiles, and finds a number of steps that takes about so many seconds, and twice as long as all else."""
        self.run, self.steps, self.short, self.long = run, 2, list[float](), list[float]()
        while True:
            run(1), run(self.steps)
            least = min(seconds(run, 1) for _ in range(3))
            wanted = max(length, 2 * least)
            took = max(1e-9, min(seconds(run, self.steps) for _ in range(2)) - least)
            if took >= wanted / 2:
                break
            self.steps = math.ceil(self.steps * min(16, max(2, wanted / took)))

    def measure(self) -> None:
        """Once more."""
        self.short.append(seconds(self.run, 1))
        self.long.append(seconds(self.run, self.steps))

    @property
    def microseconds(self) -> list[float]:
        """Of one step, in each round."""
        least = min(self.short)
        return [1e6 * (long - least) / (self.steps - 1) for long in self.long]


def summary(measured: Measured, bound: list[float]) -> dict[str, Any]:
    """Microseconds and ratios, of every round and in short; an entry of `bound` a round."""
    times = measured.microseconds
    ratios = [mine / least for mine, least in zip(times, bound, strict=True)]
    return {
        "steps": measured.steps,
        "microseconds": times,
        "ratios": ratios,
        "min": min(times),
        "median": median(times),
        "min_ratio": min(ratios),
        "median_ratio": median(ratios),
    }
