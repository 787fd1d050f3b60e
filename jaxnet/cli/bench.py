"""Compare training loops: microseconds per step, and the ratio to a lower bound.

The bound is the time of a step's matrix products alone. Each round measures the bound and all contenders once; a ratio
is that of two times of the same round, because a busy machine slows all of them. All train the same float32 network
from the same parameters on the same rows, with as many threads as the process may use (`taskset -c 0,1` allows two).
"""

import json
import math
import os
import platform
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import jaxnet
from jaxnet.cli.bench_bound import multipliers
from jaxnet.cli.bench_contenders import CONTENDERS, LEARNING_RATE, Problem, Skip, Train
from jaxnet.cli.bench_timing import StepTimer, fastest, make_timers, summarize, time_run
from jaxnet.cli.common_options import OptionalPath, Strings, Switch, check_writable
from jaxnet.cli.datasets import load_dataset
from jaxnet.cli.errors import program
from jaxnet.cli.progress import track
from jaxnet.common.cleanup import cleanup
from jaxnet.common.progress_line import progress_line
from jaxnet.common.validation import check_positive
from jaxnet.data import Dataset, DatasetError

ERRORS = (DatasetError,)
ONLY_HELP = f"Contenders to measure, besides the bound, of {', '.join(CONTENDERS)}. Defaults to all."
SIZES = ("784-50-10@32", "784-50-10@100", "784-50-10@1000", "784-512-512-10@128", "784-1024-1024-10@1024")
COMPARED_STEPS = 10
WEIGHT_TOLERANCE = 1e-2  # of the change of the weights: a missing step is 1e-1, a ReLU that rounding flips 1e-3
MAX_WORK = 2 * 10**9  # rows times parameters: the two evaluations of `fit` must not take longer than its steps
WHOLE_RUN_SIZE, WHOLE_RUN_STEPS, WHOLE_RUN_INTERVAL = "784-50-10@100", 10_000, 100
EVALUATION_BATCH = 1000  # rows of a product in the bound of an evaluation


@dataclass(frozen=True)
class Options:
    """Compare training loops."""

    sizes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="STR [STR ...]")] = SIZES
    """Sizes of the layers, and the batch size after @."""
    only: Annotated[Strings, tyro.conf.arg(help=ONLY_HELP)] = ()
    rounds: int = 5
    """Number of rounds, in each of which everything is measured once."""
    seconds: float = 0.3
    """Approximate duration of each measurement."""
    dataset: Literal["mnist", "random"] = "mnist"
    """mnist: as for `jaxnet train`. random: random pixels and classes, for any sizes."""
    whole_run: Switch = False
    """Measure a run of `jaxnet.fit` instead: 10,000 steps of 784-50-10@100 on MNIST, with 101 evaluations."""
    output: OptionalPath = None
    """JSON file for all measurements."""


def parse_size(text: str) -> tuple[tuple[int, ...], int]:
    """Returns the sizes of the layers and the batch size in a text such as 784-50-10@100.

    Raises:
        ValueError: If the text has another form.
    """
    if not re.fullmatch(r"[1-9]\d*(-[1-9]\d*)+@[1-9]\d*", text, flags=re.ASCII):
        raise ValueError(f"sizes: {text!r}, expected such as 784-50-10@100")
    layers, batch_size = text.split("@")
    return tuple(map(int, layers.split("-"))), int(batch_size)


def make_problem(size: str, dataset: str) -> Problem:
    """Returns a network of this size, its initial parameters, and rows to train on."""
    sizes, batch_size = parse_size(size)
    net = jaxnet.multi_layer_net(sizes[0], sizes[1:-1], sizes[-1])
    params = jax.device_get(net.init(jax.random.key(0), "he"))
    rows = min(60_000, MAX_WORK // sum(leaf.size for leaf in jax.tree.leaves(params)))
    if dataset == "random":
        rng = np.random.default_rng(0)
        x = rng.integers(0, 256, (rows, sizes[0]), np.uint8) / np.float32(255)
        t = rng.integers(0, sizes[-1], rows).astype(np.int32)
    else:
        x, t, *_ = load_dataset("mnist")
        if sizes[0] != x.shape[1] or sizes[-1] <= t.max():
            raise ValueError(f"sizes: {size}, expected 784 inputs and at least 10 classes; or use --dataset random")
    data = Dataset(x[:rows], t[:rows], x[:1], t[:1])
    return Problem(sizes, batch_size, net, params, data, available_threads())


def available_threads() -> int:
    """Returns the number of threads that this process may use, the size of the pools of NumPy, PyTorch and XLA."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def draw_rows(problem: Problem, steps: int) -> np.ndarray:
    """Draws row numbers (S, B). A larger number of steps begins with the same rows."""
    rng = np.random.default_rng(1)
    return rng.integers(0, len(problem.data.x_train), (steps, problem.batch_size), dtype=np.int32)


def load_average(threads: int) -> float | None:
    """Returns the load average, if the system reports it, and warns if other processes use the machine."""
    if not hasattr(os, "getloadavg"):
        return None
    load = os.getloadavg()[0]
    if load > 1.5 * threads:  # this process's own compilation is a part of it
        print(
            f"{program()}: the machine is busy, load {load:.1f} on {threads} threads: the BLAS threads of NumPy and "
            "PyTorch spin while they wait for each other, which makes them slower",
            file=sys.stderr,
        )
    return load


def relative_difference(weights: np.ndarray, reference: np.ndarray, initial: np.ndarray) -> float:
    """Returns the norm of weights - reference over that of reference - initial; infinite if it is nan."""
    if weights.shape != reference.shape:
        return math.inf
    difference = float(np.linalg.norm(weights - reference) / np.linalg.norm(reference - initial))
    return difference if math.isfinite(difference) else math.inf


def prepare(problem: Problem, size: str, options: Options) -> tuple[dict[str, StepTimer], dict[str, Any]]:
    """Returns a timer for each contender whose weights are right after ten steps; differences, and reasons to skip."""
    rows = cache(partial(draw_rows, problem))
    batches, initial = rows(COMPARED_STEPS), problem.leaves[0][0]
    with progress_line(f"{size}: compiling the reference"):
        reference = CONTENDERS["jaxnet.fit"](problem)(batches)

    def make_timer(train: Train) -> StepTimer:
        return StepTimer(lambda steps: train(rows(steps)), options.seconds)

    timers, differences, skipped = dict[str, StepTimer](), dict[str, float](), dict[str, str]()
    for name in track(options.only or tuple(CONTENDERS), f"{size}: compiling", str):
        try:
            train = CONTENDERS[name](problem)
            differences[name] = relative_difference(train(batches), reference, initial)
            if differences[name] < WEIGHT_TOLERANCE:
                timers[name] = make_timer(train)
        except (ModuleNotFoundError, Skip) as error:
            skipped[name] = str(error)
    return timers, {"difference": differences, "skipped": skipped}


def compare(size: str, options: Options) -> dict[str, Any]:
    """Measures the bound and all contenders on one problem, and returns the results."""
    with progress_line(f"{size}: measuring the bound"):
        problem = make_problem(size, options.dataset)
        products = make_timers(multipliers(problem.sizes, problem.batch_size, problem.threads), options.seconds)
    contenders, results = prepare(problem, size, options)
    results |= {"rows": len(problem.data.x_train), "load": load_average(problem.threads)}
    for timer in track([*products.values(), *contenders.values()] * options.rounds, f"{size}: measuring"):
        timer.measure()
    library, least = fastest(products)
    results["bound"] = {"by": library} | summarize(least, least)
    for kind, timers in (("products", products), ("contenders", contenders)):
        results[kind] = {name: summarize(timer.microseconds, least) for name, timer in timers.items()}
    return results


def show(size: str, results: dict[str, Any], console: Console) -> None:
    """Prints a table with the fastest contender first, and a line for each one that differs or was skipped."""
    rows = {f"bound: {results['bound']['by']}": results["bound"]} | results["contenders"]
    by_median = dict(sorted(rows.items(), key=lambda row: row[1]["median"]))
    console.print(make_table(f"{size}: microseconds per step", by_median))
    for name, row in results["contenders"].items():
        if row["min_ratio"] < 1:
            console.print(f"unsteady: {name} took less than the bound: the machine is busy; measure again")
    for name, difference in results["difference"].items():
        if name not in results["contenders"]:
            console.print(
                f"differs: {name} trains something else: its weights are {difference:.1e} off after "
                f"{COMPARED_STEPS} steps; not timed"
            )
    for name, reason in results["skipped"].items():
        console.print(f"skipped: {name}: {reason}")


def make_table(title: str, rows: Mapping[str, Mapping[str, Any]], *, digits: int = 0) -> Table:
    """Returns a table of results of `summarize` by name, with this number of decimals. The title has the unit."""
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for heading in ("min", "median", "min /\nbound", "median /\nbound"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in rows.items():
        times, ratios = (row["min"], row["median"]), (row["min_ratio"], row["median_ratio"])
        table.add_row(name, *(f"{time:,.{digits}f}" for time in times), *(f"{ratio:.2f}" for ratio in ratios))
    return table


def whole_run(options: Options, console: Console) -> dict[str, Any]:
    """Measures `jaxnet.fit` from the call to the history, with all evaluations, and its matrix products alone."""
    steps, data, problem = WHOLE_RUN_STEPS, load_dataset("mnist"), make_problem(WHOLE_RUN_SIZE, "mnist")
    on_device, batches = jax.device_put((data, draw_rows(problem._replace(data=data), steps)))
    settings: dict[str, Any] = {"learning_rate": LEARNING_RATE, "eval_every": WHOLE_RUN_INTERVAL}

    def run(_steps: int) -> Any:
        return jaxnet.fit(problem.net, problem.params, on_device, batches, **settings)[1]

    started = time.perf_counter()
    with progress_line("whole run: compiling"):
        evaluations = len(run(steps).eval_step)
    first = time.perf_counter() - started
    images = len(data.x_train) + len(data.x_test)
    counts = {"steps": steps, "evaluations": evaluations * math.ceil(images / EVALUATION_BATCH)}
    evaluation = multipliers(problem.sizes, EVALUATION_BATCH, problem.threads, backward=False)
    with progress_line("whole run: measuring the bound"):
        products = {
            "steps": make_timers(multipliers(problem.sizes, problem.batch_size, problem.threads), options.seconds),
            "evaluations": make_timers(evaluation, options.seconds),
        }
    seconds = []
    for _ in track(range(options.rounds), "whole run"):
        for timer in [*products["steps"].values(), *products["evaluations"].values()]:
            timer.measure()
        seconds.append(time_run(run, steps))
    times = {}
    for kind, timers in products.items():
        library, microseconds = fastest(timers)
        times[f"{kind}: {library}"] = [1e-6 * counts[kind] * duration for duration in microseconds]
    least = [sum(durations) for durations in zip(*times.values(), strict=True)]
    times |= {"bound": least, "jaxnet.fit": seconds}
    results = {name: summarize(durations, least) for name, durations in times.items()}
    title = f"{WHOLE_RUN_SIZE}, {steps:,} steps, {evaluations} evaluations of {images:,} images: seconds"
    console.print(make_table(title, results, digits=2))
    console.print(f"jaxnet.fit with compilation: {first:.2f} s")
    return {"seconds_with_compilation": first, "evaluations": evaluations, "rows": results}


def environment(options: Options) -> dict[str, Any]:
    """Returns the options, versions and machine that the results depend on."""
    versions = {"python": platform.python_version()}
    for package in ("jax", "jaxlib", "numpy", "optax", "torch", "equinox", "flax", "scikit-learn"):
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    settings = {key: value for key, value in vars(options).items() if key != "output"}
    return {"options": settings, "threads": available_threads(), "machine": platform.machine(), "versions": versions}


def main(options: Options) -> None:
    """Measures, prints tables, and writes the results."""
    console = Console(highlight=False, soft_wrap=True)
    check_positive("seconds", options.seconds)
    for name in options.only:
        if name not in CONTENDERS:
            raise ValueError(f"only: {name!r}, expected some of {', '.join(CONTENDERS)}")
    for size in options.sizes:
        parse_size(size)
    check_writable("output", options.output)
    results = environment(options)
    if options.whole_run:
        results["whole_run"] = whole_run(options, console)
    else:
        results["sizes"] = {}
        for size in options.sizes:
            results["sizes"][size] = compare(size, options)
            show(size, results["sizes"][size], console)
    if options.output:
        temporary = options.output.with_name(f"{options.output.name}.part")  # the file is complete or absent
        with cleanup(partial(temporary.unlink, missing_ok=True)):
            temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            temporary.replace(options.output)
