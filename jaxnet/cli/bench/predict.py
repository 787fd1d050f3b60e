"""Measures inference: microseconds for the logits of many samples, in batches of each library's choice."""

from functools import partial
from typing import Any

import numpy as np

from jaxnet.cli.bench.bound import multipliers
from jaxnet.cli.bench.contenders import PREDICTORS, Predict
from jaxnet.cli.bench.problem import Problem, Skip, relative_difference
from jaxnet.cli.bench.products import gigaflops
from jaxnet.cli.bench.timing import Run, StepTimer, measure
from jaxnet.cli.progress import track
from jaxnet.common.progress_line import progress_line

IMAGES, TEXTS = 10_000, 1_000
BATCH_SIZES = (100, 1000)
LOGITS_TOLERANCE = 1e-3  # of the norm of all logits: rounding is 1e-6


def compare_predictions(problem: Problem, only: tuple[str, ...], rounds: int, seconds: float) -> dict[str, Any]:
    """Measures the bound of the forward products and all predictors on one network, and returns the results."""
    count = TEXTS if problem.has_text else IMAGES
    x = np.resize(problem.data.x_train, (count, *problem.data.x_train.shape[1:]))
    with progress_line(f"{problem.name}: measuring the bound"):
        products = forward_products(problem, count, seconds)
    predictors, results = prepare(problem, x, only, seconds)
    results |= {"samples": count} | measure(problem.name, products, predictors, rounds)
    results["bound"]["gigaflops"] = gigaflops(problem.products(count), backward=False)
    by_predictor: dict[str, tuple[str, Any]] = {}
    for name, row in results["contenders"].items():
        predictor = name.partition(",")[0]
        by_predictor[predictor] = min(by_predictor.get(predictor, (name, row)), (name, row), key=lambda e: e[1]["min"])
    results["contenders"] = dict(by_predictor.values())
    return results


def forward_products(problem: Problem, count: int, seconds: float) -> dict[str, StepTimer]:
    """Returns timers of the products of this many samples by library, for each batch size; they run single batches."""
    timers = {}
    for size in BATCH_SIZES:
        for library, run in multipliers(problem.products(size), problem.threads, backward=False).items():
            timers[f"{library}, batches of {size}"] = StepTimer(run, seconds, count // size)
    return timers


def prepare(
    problem: Problem, x: np.ndarray, only: tuple[str, ...], seconds: float
) -> tuple[dict[str, StepTimer], dict[str, Any]]:
    """Returns a timer for each predictor and batch size whose logits are right; differences, and reasons to skip."""
    few = x[: BATCH_SIZES[0]]
    reference = PREDICTORS["jaxnet.predict"](problem)(few, len(few))
    timers, differences, skipped = dict[str, StepTimer](), dict[str, float](), dict[str, str]()
    for name in track(only or tuple(PREDICTORS), f"{problem.name}: compiling", str):
        try:
            predict = PREDICTORS[name](problem)
            differences[name] = relative_difference(predict(few, len(few)), reference, np.zeros_like(reference))
            if differences[name] < LOGITS_TOLERANCE:
                timers |= {run: StepTimer(each, seconds) for run, each in runs_of(name, predict, x).items()}
        except (ModuleNotFoundError, Skip) as error:
            skipped[name] = str(error)
    return timers, {"difference": differences, "tolerance": LOGITS_TOLERANCE, "skipped": skipped}


def runs_of(name: str, predict: Predict, x: np.ndarray) -> dict[str, Run]:
    """Returns a run for each batch size; one alone for `jaxnet.predict`, which chooses its batches itself."""

    def run(size: int, times: int) -> None:
        for _ in range(times):
            predict(x, size)

    if name == "jaxnet.predict":
        return {name: partial(run, 0)}
    return {f"{name}, batches of {size}": partial(run, size) for size in BATCH_SIZES}
