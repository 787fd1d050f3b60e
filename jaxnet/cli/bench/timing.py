"""Microseconds per step, from the difference between a long run and a run of one step."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from jaxnet.cli.progress import track

Run = Callable[[int], object]  # makes this number of steps, or the products of as many


def time_run(run: Run, steps: int) -> float:
    """Returns the seconds that a run takes."""
    started = time.perf_counter()
    run(steps)
    return time.perf_counter() - started


class StepTimer:
    """Measures a run in several rounds. Its fixed cost is the least time of all runs of one step, in any round."""

    def __init__(self, run: Run, seconds: float, count: int = 1) -> None:
        """Compiles the run, and finds a number of steps that takes about this long and twice the fixed cost.

        Microseconds are those of `count` steps.
        """
        self.run, self.count, self.steps, self.short, self.long = run, count, 2, list[float](), list[float]()
        while True:
            run(1), run(self.steps)
            fixed = min(time_run(run, 1) for _ in range(3))
            target = max(seconds, 2 * fixed)
            duration = max(1e-9, min(time_run(run, self.steps) for _ in range(2)) - fixed)
            if duration >= target / 2:
                break
            self.steps = math.ceil(self.steps * min(16, max(2, target / duration)))

    def measure(self) -> None:
        """Measures one round."""
        self.short.append(time_run(self.run, 1))
        self.long.append(time_run(self.run, self.steps))

    @property
    def microseconds(self) -> list[float]:
        """Microseconds of `count` steps in each round."""
        fixed = min(self.short)
        return [1e6 * self.count * (long - fixed) / (self.steps - 1) for long in self.long]


def make_timers(runs: Mapping[str, Run], seconds: float) -> dict[str, StepTimer]:
    """Returns a timer for each run, with measurements of about this duration."""
    return {name: StepTimer(run, seconds) for name, run in runs.items()}


def fastest(timers: Mapping[str, StepTimer]) -> tuple[str, list[float]]:
    """Returns the name of the timer with the fastest round, and the least microseconds of all timers in each round."""
    microseconds = {name: timer.microseconds for name, timer in timers.items()}
    name = min(microseconds, key=lambda name: min(microseconds[name]))
    return name, [min(times) for times in zip(*microseconds.values(), strict=True)]


def summarize(times: Sequence[float], bound: Sequence[float]) -> dict[str, Any]:
    """Returns the times and their ratios to the bound, for each round and as minimum and median."""
    ratios = [time / least for time, least in zip(times, bound, strict=True)]
    times_of_rounds = {"times": list(times), "min": min(times), "median": median(times)}
    return times_of_rounds | {"ratios": ratios, "min_ratio": min(ratios), "median_ratio": median(ratios)}


def measure(
    label: str, products: Mapping[str, StepTimer], contenders: Mapping[str, StepTimer], rounds: int
) -> dict[str, Any]:
    """Measures everything once in each round, and returns the bound, and all times beside it."""
    for timer in track([*products.values(), *contenders.values()] * rounds, f"{label}: measuring"):
        timer.measure()
    library, least = fastest(products)
    tables = {"products": products, "contenders": contenders}
    return {"bound": {"by": library} | summarize(least, least)} | {
        kind: {name: summarize(timer.microseconds, least) for name, timer in timers.items()}
        for kind, timers in tables.items()
    }
