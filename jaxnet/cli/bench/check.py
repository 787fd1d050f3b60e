"""Compares `jaxnet.crosscheck.check` with other checkers: CPU time, and calls of the forward and the backward pass.

In each framework, `check` and its peers are given the very same function, once with a right gradient and once with one
that is 1 % too large in one leaf. A ratio is that of two times of the same round. CPU time, with one BLAS thread,
hardly depends on what else the machine does.
"""

import math
import time
from collections import defaultdict
from collections.abc import Mapping
from statistics import median
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from jaxnet.cli.bench.check_layers import LAYERS
from jaxnet.cli.bench.checkers import FRAMEWORKS, Calls, Check, Subject
from jaxnet.common.progress_line import progress_line

SIZES = tuple(10**power for power in range(2, 8))  # elements of all leaves
LONGEST = 20.0  # seconds of CPU time that a check may take
LONG_ROUND = 5.0  # seconds; longer ones are not repeated
VERDICTS = ("PASS", "FAIL")


class Case(NamedTuple):
    """A layer by name, and about the number of elements that its leaves have in total."""

    layer: str
    size: int

    def __str__(self) -> str:
        """Returns the form in which it is given."""
        return f"{self.layer}@{self.size}"


def parse_cases(texts: tuple[str, ...]) -> list[Case]:
    """Reads layers and numbers of elements, such as Affine@1000; a layer alone stands for all sizes.

    Args:
        texts: The layers. None stands for all.

    Raises:
        ValueError: If a text names no layer or no size.

    Examples:
        >>> parse_cases(("Affine@1000",))
        [Case(layer='Affine', size=1000)]
        >>> len(parse_cases(("LSTM",)))
        6
    """
    cases = []
    for text in texts or tuple(LAYERS):
        layer, at, size = text.partition("@")
        if layer not in LAYERS or (at and not (size.isdecimal() and 10 <= int(size) <= SIZES[-1])):
            raise ValueError(
                f"networks: {text!r}, expected with --check some of {', '.join(LAYERS)}, with a number of elements "
                f"from 10 to 10000000 after @ if wanted, such as Affine@1000"
            )
        cases += [Case(layer, int(size))] if at else [Case(layer, size) for size in SIZES]
    return cases


class Forecast:
    """Seconds that a checker will take at a size, from those at smaller ones.

    Examples:
        >>> forecast = Forecast()
        >>> forecast.add(100, 0.5), forecast.seconds(1000)
        (None, 0.5)
        >>> forecast.add(1000, 2.0), round(forecast.seconds(10_000), 3)
        (None, 8.0)
    """

    def __init__(self) -> None:
        self.measured: list[tuple[int, float]] = []

    def add(self, size: int, seconds: float) -> None:
        """Adds a measurement."""
        self.measured.append((size, seconds))

    def seconds(self, size: int) -> float:
        """Returns the estimate: time grows as it did between the last two sizes; from one alone, it does not."""
        smaller = sorted(each for each in self.measured if each[0] < size)
        if len(smaller) < 2 or math.isinf(smaller[-1][1]):
            return smaller[-1][1] if smaller else 0.0
        (first_size, first), (last_size, last) = smaller[-2:]
        power = math.log(max(1.0, last / first)) / math.log(last_size / first_size)
        return last * (size / last_size) ** power


def compare_checkers(
    texts: tuple[str, ...], frameworks: tuple[str, ...], rounds: int, console: Console
) -> dict[str, dict[str, Any]]:
    """Measures all checkers on each layer at each size, prints a table for each, and returns the results by case.

    Args:
        texts: The layers, as `parse_cases` reads them.
        frameworks: Names of `FRAMEWORKS`. None stands for all.
        rounds: Rounds in which each checker runs once, where a round is short.
        console: Where to print.
    """
    forecasts = defaultdict[tuple[str, ...], Forecast](Forecast)
    results = {}
    for case in parse_cases(texts):
        with threadpool_limits(1):
            results[str(case)] = compare(case, frameworks or tuple(FRAMEWORKS), rounds, forecasts)
        show(f"{case}: seconds of CPU time, passes, and the seconds of check over them", results[str(case)], console)
    return results


def compare(
    case: Case, frameworks: tuple[str, ...], rounds: int, forecasts: Mapping[tuple[str, ...], Forecast]
) -> dict[str, Any]:
    """Measures all checkers on a layer at one size, and returns the results by checker and verdict."""
    layer = LAYERS[case.layer]
    arrays = layer.draw(case.size)
    checkers, skipped = dict[str, dict[str, Any]](), dict[str, str]()
    for framework in frameworks:
        for verdict in VERDICTS:
            calls = Calls()
            subject = Subject(layer, arrays, wrong=verdict == "FAIL", calls=calls)
            try:
                counting = FRAMEWORKS[framework](subject)
            except ModuleNotFoundError as error:
                skipped[framework] = str(error)
                break
            timed = FRAMEWORKS[framework](subject._replace(calls=None))
            known = {name: forecasts[case.layer, framework, verdict, name] for name in timed}
            runnable = {name: run for name, run in timed.items() if known[name].seconds(case.size) <= LONGEST}
            with progress_line(f"{case}, {framework}, {verdict}"):
                rows = {name: count(counting[name], calls) for name in runnable}
                measure(runnable, rows, rounds)
            for name in timed:
                known[name].add(case.size, rows[name]["min"] if name in rows else math.inf)
                checkers.setdefault(f"{framework}: {name}", {})[verdict] = rows.get(name)
    return {"elements": sum(array.size for array in arrays), "checkers": checkers, "skipped": skipped}


def count(run: Check, calls: Calls) -> dict[str, Any]:
    """Runs a checker once, and returns whether it passes the gradient, its calls, and the seconds with counting."""
    calls.forward = calls.backward = 0
    started = time.process_time()
    passes = run()
    seconds = time.process_time() - started
    return {"passes": passes, "forward": calls.forward, "backward": calls.backward, "seconds_counting": seconds}


def measure(runs: Mapping[str, Check], rows: dict[str, dict[str, Any]], rounds: int) -> None:
    """Adds the times of each checker in all rounds, and those of `check` over them, in one round if it is long."""
    is_long = sum(row["seconds_counting"] for row in rows.values()) > LONG_ROUND
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 if is_long else rounds):
        for name, run in runs.items():
            started = time.process_time()
            run()
            times[name].append(time.process_time() - started)
    for name, row in rows.items():
        row |= {"times": times[name], "min": min(times[name]), "median": median(times[name])}
        if "check" in rows:
            ratios = [own / other for own, other in zip(times["check"], times[name], strict=True)]
            row |= {"ratios": ratios, "min_ratio": min(ratios), "median_ratio": median(ratios)}


def show(title: str, results: Mapping[str, Any], console: Console) -> None:
    """Prints a table with a row for each checker, and a line for each that was skipped or is mistaken."""
    table = Table(title=title, title_justify="left")
    for heading in ("", "seconds", "forward", "backward", "ratio,\nmin", "ratio,\nmedian"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for verdict in VERDICTS:
        table.add_row(verdict)
        for name, by_verdict in results["checkers"].items():
            table.add_row(name, *_cells(by_verdict[verdict]))
        table.add_section()
    console.print(table)
    for name, by_verdict in results["checkers"].items():
        for verdict, row in by_verdict.items():
            if row is not None and row["passes"] not in (None, verdict == "PASS"):
                mistake = "passes a wrong gradient" if row["passes"] else "does not pass a right gradient"
                console.print(f"mistaken: {name} {mistake}")
    for name, reason in results["skipped"].items():
        console.print(f"skipped: {name}: {reason}")


def _cells(row: Mapping[str, Any] | None) -> list[str]:
    if row is None:
        return [f">{LONGEST:.0f}"]
    ratios = [f"{row[key]:.3g}" for key in ("min_ratio", "median_ratio") if key in row]
    return [f"{row['min']:.2g}", f"{row['forward']:,}", f"{row['backward']:,}", *ratios]
