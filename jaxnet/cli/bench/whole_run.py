"""Measures a whole run of `jaxnet.fit`, from the call to the history, with all evaluations."""

import math
import time
from typing import Any

import jax
from rich.console import Console

import jaxnet
from jaxnet.cli.bench.bound import multipliers
from jaxnet.cli.bench.problem import LEARNING_RATE, draw_rows, make_problem
from jaxnet.cli.bench.tables import make_table
from jaxnet.cli.bench.timing import fastest, make_timers, summarize, time_run
from jaxnet.cli.datasets import load_dataset
from jaxnet.cli.progress import track
from jaxnet.common.progress_line import progress_line

NETWORK, STEPS, INTERVAL = "784-50-10@100", 10_000, 100
EVALUATION_BATCH = 1000  # rows of a product in the bound of an evaluation


def whole_run(rounds: int, duration: float, console: Console) -> dict[str, Any]:
    """Measures a run and its matrix products alone, each about this many seconds, and prints a table."""
    data, problem = load_dataset("mnist"), make_problem(NETWORK, "mnist")
    on_device, batches = jax.device_put((data, draw_rows(problem._replace(data=data), STEPS)))
    settings: dict[str, Any] = {"learning_rate": LEARNING_RATE, "eval_every": INTERVAL}

    def run(_steps: int) -> Any:
        return jaxnet.fit(problem.net, problem.params, on_device, batches, **settings)[1]

    started = time.perf_counter()
    with progress_line("whole run: compiling"):
        evaluations = len(run(STEPS).eval_step)
    first = time.perf_counter() - started
    images = len(data.x_train) + len(data.x_test)
    counts = {"steps": STEPS, "evaluations": evaluations * math.ceil(images / EVALUATION_BATCH)}
    with progress_line("whole run: measuring the bound"):
        step = multipliers(problem.products(problem.batch_size), problem.threads)
        evaluation = multipliers(problem.products(EVALUATION_BATCH), problem.threads, backward=False)
        products = {"steps": make_timers(step, duration), "evaluations": make_timers(evaluation, duration)}
    seconds = []
    for _ in track(range(rounds), "whole run"):
        for timer in [*products["steps"].values(), *products["evaluations"].values()]:
            timer.measure()
        seconds.append(time_run(run, STEPS))
    times = {}
    for kind, timers in products.items():
        library, microseconds = fastest(timers)
        times[f"{kind}: {library}"] = [1e-6 * counts[kind] * each for each in microseconds]
    least = [sum(durations) for durations in zip(*times.values(), strict=True)]
    times |= {"bound": least, "jaxnet.fit": seconds}
    results = {name: summarize(durations, least) for name, durations in times.items()}
    title = f"{NETWORK}, {STEPS:,} steps, {evaluations} evaluations of {images:,} images: seconds"
    console.print(make_table(title, results, digits=2))
    console.print(f"jaxnet.fit with compilation: {first:.2f} s")
    return {"seconds_with_compilation": first, "evaluations": evaluations, "rows": results}
