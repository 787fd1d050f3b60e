"""Compare training loops: microseconds per step, and the ratio to a lower bound.

The bound is the time of a step's matrix products alone. Each round measures the bound and all contenders once; a ratio
is that of two times of the same round, because a busy machine slows all of them. All train the same float32 network
from the same parameters on the same rows, with as many threads as the process may use (`taskset -c 0,1` allows two).
"""

import json
import os
import platform
import sys
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from jaxnet.cli.bench.bound import multipliers
from jaxnet.cli.bench.check import compare_checkers, parse_cases
from jaxnet.cli.bench.check_layers import LAYERS
from jaxnet.cli.bench.checkers import FRAMEWORKS
from jaxnet.cli.bench.contenders import CONTENDERS, PREDICTORS, Train
from jaxnet.cli.bench.hand import check_folders, compare_by_hand
from jaxnet.cli.bench.predict import compare_predictions
from jaxnet.cli.bench.problem import (
    Problem,
    Skip,
    draw_rows,
    make_problem,
    parse_network,
    relative_difference,
    without_dropout,
)
from jaxnet.cli.bench.products import gigaflops
from jaxnet.cli.bench.tables import show
from jaxnet.cli.bench.timing import StepTimer, make_timers, measure
from jaxnet.cli.bench.whole_run import whole_run
from jaxnet.cli.common_options import OptionalPath, Strings, Switch, check_writable
from jaxnet.cli.errors import program
from jaxnet.cli.progress import track
from jaxnet.cli.train.options import DEFAULTS
from jaxnet.common.cleanup import cleanup
from jaxnet.common.progress_line import progress_line
from jaxnet.common.validation import check_positive
from jaxnet.data import DatasetError
from jaxnet.train.execution import available_cores

ERRORS = (DatasetError,)
ONLY_HELP = (
    f"Contenders to measure, besides the bound, of {', '.join(CONTENDERS)}; with --predict, of "
    f"{', '.join(PREDICTORS)}; with --check, of {', '.join(FRAMEWORKS)}. Defaults to all."
)
NETWORKS_HELP = (
    f"Sizes of the layers, and the batch size after @, such as 784-50-10@100; or {', '.join(DEFAULTS)}, as `jaxnet "
    "train` has them (deep with BatchNorm and Dropout), with @ and a batch size if wanted. With --check, layers of "
    f"{', '.join(LAYERS)}, with @ and a number of elements if wanted. Defaults to all."
)
NETWORKS = (
    "784-50-10@32", "784-50-10@100", "784-50-10@1000", "784-512-512-10@128", "784-1024-1024-10@1024",
    "deep", "simple-conv", "deep-conv", "transformer",
)  # fmt: skip
NETWORKS_ARGUMENT = tyro.conf.arg(metavar="[NETWORK ...]", help=NETWORKS_HELP, help_behavior_hint="")
NETWORKS_BY_HAND = "simple-conv", "deep-conv"
MODES = "predict", "whole_run", "check", "hand"
COMPARED_STEPS = 10
WEIGHT_TOLERANCE = 1e-2  # of the change of the weights: a missing step is 1e-1, a ReLU that rounding flips 1e-3


@dataclass(frozen=True)
class Options:
    """Compare training loops."""

    networks: Annotated[tuple[str, ...], tyro.conf.Positional, NETWORKS_ARGUMENT] = ()
    only: Annotated[Strings, tyro.conf.arg(help=ONLY_HELP)] = ()
    rounds: int = 5
    """Number of rounds, in each of which everything is measured once."""
    seconds: float = 0.3
    """Approximate duration of each measurement."""
    dataset: Literal["mnist", "random"] = "mnist"
    """mnist: as for `jaxnet train`. random: random pixels and classes, for any sizes. Texts are random in both."""
    predict: Switch = False
    """Measure inference instead: the logits of 10,000 images, or of 1,000 texts."""
    whole_run: Switch = False
    """Measure a run of `jaxnet.fit` instead: 10,000 steps of 784-50-10@100 on MNIST, with 101 evaluations."""
    check: Switch = False
    """Compare checkers of gradients instead: seconds and calls of the check, and of PyTorch's, JAX's and SciPy's."""
    hand: Switch = False
    """Compare networks written by hand in NumPy instead: `numpy_ref`, and those of --book and --numpy-ml."""
    book: OptionalPath = None
    """With --hand, a clone of github.com/oreilly-japan/deep-learning-from-scratch."""
    numpy_ml: OptionalPath = None
    """With --hand, a clone of github.com/ddbourgin/numpy-ml, whose pooling takes seconds for a batch of 100 images."""
    output: OptionalPath = None
    """JSON file for all measurements."""


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


def prepare(problem: Problem, options: Options) -> tuple[dict[str, StepTimer], dict[str, Any]]:
    """Returns a timer for each contender whose weights are right after ten steps; differences, and reasons to skip.

    Each library draws other masks for Dropout. The weights are therefore compared without it.
    """
    rows, compared = cache(partial(draw_rows, problem)), without_dropout(problem)
    batches = rows(COMPARED_STEPS)
    with progress_line(f"{problem.name}: compiling the reference"):
        reference = CONTENDERS["jaxnet.fit"](compared)(batches)

    def make_timer(train: Train) -> StepTimer:
        return StepTimer(lambda steps: train(rows(steps)), options.seconds)

    timers, differences, skipped = dict[str, StepTimer](), dict[str, float](), dict[str, str]()
    for name in track(options.only or tuple(CONTENDERS), f"{problem.name}: compiling", str):
        try:
            train = CONTENDERS[name](compared)
            differences[name] = relative_difference(train(batches), reference, problem.first_weights)
            if differences[name] < WEIGHT_TOLERANCE:
                timers[name] = make_timer(train if compared.net == problem.net else CONTENDERS[name](problem))
        except (ModuleNotFoundError, Skip) as error:
            skipped[name] = str(error)
    return timers, {"difference": differences, "tolerance": WEIGHT_TOLERANCE, "skipped": skipped}


def compare(problem: Problem, options: Options) -> dict[str, Any]:
    """Measures the bound and all contenders on one problem, and returns the results."""
    batch = problem.products(problem.batch_size)
    with progress_line(f"{problem.name}: measuring the bound"):
        products = make_timers(multipliers(batch, problem.threads), options.seconds)
    contenders, results = prepare(problem, options)
    results |= measure(problem.name, products, contenders, options.rounds)
    results["bound"]["gigaflops"] = gigaflops(batch, backward=True)
    return results


def benchmark(text: str, options: Options, console: Console) -> dict[str, Any]:
    """Measures training or inference of one network, prints a table, and returns the results."""
    with progress_line(f"{text}: drawing the parameters"):
        problem = make_problem(text, options.dataset)
    load = load_average(problem.threads)
    if options.predict:
        results = compare_predictions(problem, options.only, options.rounds, options.seconds)
        samples = f"{results['samples']:,} {'texts' if problem.has_text else 'images'}"
        title, differs = f"{text}: microseconds for predicting {samples}", "its logits are {difference:.1e} off"
    else:
        results, title = compare(problem, options), f"{text}: microseconds per step"
        differs = f"its weights are {{difference:.1e}} off after {COMPARED_STEPS} steps"
    show(title, f"computes something else: {differs}", results, console)
    return results | {"rows": len(problem.data.x_train), "load": load}


def environment(options: Options) -> dict[str, Any]:
    """Returns the options, versions and machine that the results depend on."""
    versions = {"python": platform.python_version()}
    for package in ("jax", "jaxlib", "numpy", "optax", "torch", "equinox", "flax", "keras", "scikit-learn", "scipy"):
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    settings = {key: value for key, value in vars(options).items() if key != "output"}
    return {"options": settings, "threads": available_cores(), "machine": platform.machine(), "versions": versions}


def check_options(options: Options) -> None:
    """Raises ValueError if options exclude each other, or name contenders or networks that do not exist."""
    modes = [mode for mode in MODES if getattr(options, mode)]
    if len(modes) > 1:
        raise ValueError(f"{modes[-1]}: given beside --{modes[0].replace('_', '-')}, expected one of them")
    for name in ("book", "numpy_ml"):
        if getattr(options, name) is not None and not options.hand:
            raise ValueError(f"{name}: given without --hand, which measures it; add --hand")
    if options.hand and options.only:
        raise ValueError("only: given beside --hand, whose contenders are those of --book and --numpy-ml; leave it out")
    known: Collection[str] = FRAMEWORKS if options.check else PREDICTORS if options.predict else CONTENDERS
    for name in options.only:
        if name not in known:
            raise ValueError(f"only: {name!r}, expected some of {', '.join(known)}")
    if options.check:
        parse_cases(options.networks)
    else:
        for text in options.networks:
            parse_network(text)


def main(options: Options) -> None:
    """Measures, prints tables, and writes the results."""
    console = Console(highlight=False, soft_wrap=True)
    check_positive("seconds", options.seconds)
    check_options(options)
    networks = options.networks or (NETWORKS_BY_HAND if options.hand else NETWORKS)
    folders = check_folders({"book": options.book, "numpy-ml": options.numpy_ml})
    check_writable("output", options.output)
    results = environment(options)
    if options.check:
        results["checkers"] = compare_checkers(options.networks, options.only, options.rounds, console)
    elif options.hand:
        results["by_hand"] = {
            text: compare_by_hand(
                make_problem(text, options.dataset), folders, options.rounds, options.seconds, console
            )
            | {"load": load_average(results["threads"])}
            for text in networks
        }
    elif options.whole_run:
        results["whole_run"] = whole_run(options.rounds, options.seconds, console)
    else:
        results["networks"] = {text: benchmark(text, options, console) for text in networks}
    if options.output:
        temporary = options.output.with_name(f"{options.output.name}.part")  # the file is complete or absent
        with cleanup(partial(temporary.unlink, missing_ok=True)):
            temporary.write_text(json.dumps(results, indent=1, default=str) + "\n", encoding="utf-8")
            temporary.replace(options.output)
