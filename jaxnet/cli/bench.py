"""Every training loop that can be had here, side by side: microseconds a step, and how many times the least possible.

The least possible, the bound, is the step's matrix products alone, by whichever BLAS at hand was fastest. In each
round every contender has its turn, the bound among them, so that what slows the machine slows all; each ratio is to
the bound of the same round. All train the same network from the same parameters on the same rows, in float32, and use
as many threads as the process may (`taskset -c 0,1` allows two); one that ends up with other weights is not timed.
"""

import json
import math
import os
import platform
import re
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Literal

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import jaxnet
from jaxnet.cli.bounds import multipliers
from jaxnet.cli.ending import check_writable, one_line, program
from jaxnet.cli.option_types import File
from jaxnet.cli.peers import CONTENDERS, LEARNING_RATE, PACKAGES, Problem, Skip, Train
from jaxnet.cli.progress import counted
from jaxnet.cli.timing import Measured, Run, seconds, summary
from jaxnet.data import Dataset, DatasetError, mnist

SIZES = ("784-50-10@32", "784-50-10@100", "784-50-10@1000", "784-512-512-10@128", "784-1024-1024-10@1024")
COMPARED = 10  # steps, after which all must have the same weights
ALIKE = 1e-2  # of how far the weights have come: a step too few is 1e-1, one ReLU that rounding switches is 1e-3
WORK = 2 * 10**9  # rows times parameters: `fit` looks at all rows before and after, which must not drown the steps
WHOLE = (784, 50, 10), 100, 10_000, 100  # sizes, batch size, steps, steps between evaluations
EVALUATED_AT_ONCE = 1000  # rows, in the bound of an evaluation


@dataclass(frozen=True)
class Options:
    """Compare training loops."""

    sizes: tuple[str, ...] = SIZES
    """Sizes of the layers, and samples a step."""
    only: tuple[str, ...] = ()
    """These contenders; all unless given. The bound is always measured."""
    rounds: int = 5
    """In each, everybody is measured once."""
    seconds: float = 0.3
    """About so long is each measurement."""
    dataset: Literal["mnist", "random"] = "mnist"
    """mnist: as for `jaxnet train`. random: pixels and classes drawn at random, of any number."""
    whole_run: bool = False
    """Instead of steps: 10,000 of them on MNIST, 784-50-10@100, with 101 evaluations of all 70,000 images."""
    output: File = None
    """Write everything measured as JSON here, too."""


def parse_size(text: str) -> tuple[tuple[int, ...], int]:
    """784-50-10@100: sizes of the layers, and of a batch.

    Raises:
        ValueError: It is no such text.
    """
    if not re.fullmatch(r"[1-9]\d*(-[1-9]\d*)+@[1-9]\d*", text, flags=re.ASCII):
        raise ValueError(f"sizes: {text!r}, expected such as 784-50-10@100")
    layers, batch_size = text.split("@")
    return tuple(map(int, layers.split("-"))), int(batch_size)


def problem_of(sizes: tuple[int, ...], batch_size: int, dataset: str) -> Problem:
    """The network, where it starts, and rows to train on.

    Raises:
        ValueError: MNIST does not fit these sizes.
        DatasetError: MNIST cannot be had.
    """
    net = jaxnet.multi_layer_net(sizes[0], sizes[1:-1], sizes[-1])
    params = jax.device_get(net.init(jax.random.key(0), "he"))
    rows = min(60_000, WORK // sum(leaf.size for leaf in jax.tree.leaves(params)))
    if dataset == "random":
        rng = np.random.default_rng(0)

        def draw(samples: int) -> tuple[np.ndarray, np.ndarray]:
            pixels, t = rng.integers(0, 256, (samples, sizes[0]), np.uint8), rng.integers(0, sizes[-1], samples)
            return (pixels / np.float32(255)).astype(np.float32), t.astype(np.int32)

        data = Dataset(*draw(rows), *draw(1))
    else:
        data = mnist()
        if sizes[0] != data.x_train.shape[1] or sizes[-1] <= data.t_train.max():
            raise ValueError(f"sizes: {sizes[0]} to {sizes[-1]} is not for MNIST, 784 to 10; use --dataset random")
        data = Dataset(*(np.ascontiguousarray(a[:n]) for a, n in zip(data, (rows, rows, 1, 1), strict=True)))
    return Problem(sizes, batch_size, net, params, data, threads())


def threads() -> int:
    """How many this process may use; NumPy's, PyTorch's and XLA's pools are of this size."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rows_of(problem: Problem, steps: int) -> np.ndarray:
    """(S, B) row numbers, the first ones the same however many there are."""
    rng = np.random.default_rng(1)
    return rng.integers(0, len(problem.data.x_train), (steps, problem.batch_size), dtype=np.int32)


def busy(threads: int) -> float | None:
    """The load average before a measurement, where the system tells, and a warning if others are at work."""
    if not hasattr(os, "getloadavg"):
        return None
    load = os.getloadavg()[0]
    if load > 1.5 * threads:  # what has just been compiled here is part of it
        print(
            f"{program()}: the machine is busy, load {load:.1f} on {threads} threads: those of NumPy's and PyTorch's "
            "BLAS spin while they wait for each other, and their times are not what they could be",
            file=sys.stderr,
        )
    return load


def difference(weights: np.ndarray, reference: np.ndarray, initial: np.ndarray) -> float:
    """How far the weights are from the reference, of how far that one has moved, as norms; nan is infinite."""
    if weights.shape != reference.shape:
        return math.inf
    found = float(np.linalg.norm(weights - reference) / np.linalg.norm(reference - initial))
    return found if math.isfinite(found) else math.inf


def compare(problem: Problem, name: str, options: Options) -> dict[str, Any]:
    """All contenders on one problem: what each took, and who was left out and why."""
    names, rounds = options.only or tuple(CONTENDERS), options.rounds
    batches, initial = rows_of(problem, COMPARED), problem.leaves[0][0]
    reference = CONTENDERS["jaxnet.fit"](problem)(batches)
    bounds = {
        by: Measured(run, options.seconds)
        for by, run in multipliers(problem.sizes, problem.batch_size, problem.threads).items()
    }
    entered: dict[str, tuple[Measured, float]] = {}
    skipped, differing = dict[str, str](), dict[str, float]()
    for contender in counted(names, f"{name}: compiling", total=len(names)):
        try:
            train = CONTENDERS[contender](problem)
            apart = difference(train(batches), reference, initial)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            package = PACKAGES.get(package, package)
            skipped[contender] = f"{package} is not installed (pip install {package})"
            continue
        except Skip as reason:
            skipped[contender] = str(reason)
            continue
        if apart < ALIKE:
            entered[contender] = Measured(runner(problem, train), options.seconds), apart
        else:
            differing[contender] = apart

    load = busy(problem.threads)
    turns = [*bounds.values(), *(measured for measured, _ in entered.values())]
    for turn in counted(turns * rounds, f"{name}: measuring", total=len(turns) * rounds):
        turn.measure()
    least = [min(times) for times in zip(*(measured.microseconds for measured in bounds.values()), strict=True)]
    by = fastest(bounds)
    return {
        "rows": len(problem.data.x_train),
        "load": load,
        "bound": {"by": by, "microseconds": least, "min": min(least), "median": median(least)},
        "products": {other: summary(measured, least) for other, measured in bounds.items()},
        "contenders": {
            contender: summary(measured, least) | {"difference": apart}
            for contender, (measured, apart) in entered.items()
        },
        "skipped": skipped,
        "differing": differing,
    }


def fastest(measured: dict[str, Measured]) -> str:
    """The name of the one with the quickest round."""
    return min(measured, key=lambda name: min(measured[name].microseconds))


def runner(problem: Problem, train: Train) -> Run:
    """By the number of steps; the rows are drawn once for each."""
    drawn: dict[int, np.ndarray] = {}

    def run(steps: int) -> object:
        if steps not in drawn:
            drawn[steps] = rows_of(problem, steps)
        return train(drawn[steps])

    return run


def show(name: str, found: dict[str, Any], console: Console) -> None:
    """A table, the fastest first, and a line for whoever is not in it."""
    table = Table(title=f"{name}, bound by {found['bound']['by']}", title_justify="left")
    table.add_column("", no_wrap=True)
    for heading in ("min, us", "median, us", "min /\nbound", "median /\nbound", "differ-\nence"):
        table.add_column(heading, justify="right", no_wrap=True)
    for contender, row in sorted(
        [("bound", found["bound"]), *found["contenders"].items()], key=lambda pair: pair[1]["median"]
    ):
        row = {"min_ratio": 1.0, "median_ratio": 1.0} | row
        numbers = [
            f"{row['min']:,.0f}",
            f"{row['median']:,.0f}",
            f"{row['min_ratio']:.2f}",
            f"{row['median_ratio']:.2f}",
        ]
        table.add_row(contender, *numbers, f"{row['difference']:.0e}" if "difference" in row else "")
    console.print(table)
    for contender, row in found["contenders"].items():
        if row["min_ratio"] < 1:
            console.print(f"unsteady: {contender} cannot take less than the bound: the machine is busy; measure again")
    for contender, apart in found["differing"].items():
        console.print(f"differs: {contender} trains something else, {apart:.1e} off after {COMPARED} steps; not timed")
    for reason in dict.fromkeys(found["skipped"].values()):
        names = ", ".join(contender for contender, why in found["skipped"].items() if why == reason)
        console.print(f"skipped: {names}: {reason}" if names not in reason else f"skipped: {reason}")


def whole_run(options: Options) -> dict[str, Any]:
    """`jaxnet.fit` from the call to the history, evaluations and all, and the products that it cannot do without.

    Raises:
        DatasetError: MNIST cannot be had.
    """
    sizes, batch_size, steps, every = WHOLE
    data = mnist()
    problem = problem_of(sizes, batch_size, "mnist")._replace(data=data)
    on_device, batches = jax.device_put((data, rows_of(problem, steps)))

    def run(_: int = steps) -> Any:
        return jaxnet.fit(
            problem.net, problem.params, on_device, batches, learning_rate=LEARNING_RATE, eval_every=every
        )[1]

    started = time.perf_counter()
    evaluations = len(run().eval_step)
    first = time.perf_counter() - started
    kinds = {"step": (batch_size, True), "evaluation": (EVALUATED_AT_ONCE, False)}
    bounds = {
        kind: {
            by: Measured(go, options.seconds)
            for by, go in multipliers(sizes, batch, problem.threads, backward=backward).items()
        }
        for kind, (batch, backward) in kinds.items()
    }
    took = []
    for _ in counted(range(options.rounds), "whole run", total=options.rounds):
        for measured in (m for by_name in bounds.values() for m in by_name.values()):
            measured.measure()
        took.append(seconds(run, steps))
    times = {"step": steps, "evaluation": evaluations * -(-(len(data.x_train) + len(data.x_test)) // EVALUATED_AT_ONCE)}
    by = {kind: fastest(found) for kind, found in bounds.items()}
    rounds = {kind: zip(*(m.microseconds for m in found.values()), strict=True) for kind, found in bounds.items()}
    products = {kind: [1e-6 * times[kind] * min(us) for us in rounds[kind]] for kind in kinds}
    bound = [sum(parts) for parts in zip(*products.values(), strict=True)]
    ratios = [mine / least for mine, least in zip(took, bound, strict=True)]
    return {
        "seconds": took,
        "first_seconds": first,
        "bound_seconds": bound,
        "products_seconds": products,
        "by": by,
        "evaluations": evaluations,
        "ratios": ratios,
        "min_ratio": min(ratios),
        "median_ratio": median(ratios),
    }


def show_whole_run(found: dict[str, Any], console: Console) -> None:
    """Seconds of each part of the bound, of the whole of it, and of what ran."""
    sizes, batch_size, steps, _ = WHOLE
    name = "-".join(map(str, sizes))
    table = Table(title=f"{name}@{batch_size}, {steps:,} steps, {found['evaluations']} evaluations of 70,000 images")
    table.add_column("", no_wrap=True)
    for heading in ("min, s", "median, s", "min /\nbound", "median /\nbound"):
        table.add_column(heading, justify="right", no_wrap=True)
    for kind, parts in found["products_seconds"].items():
        table.add_row(f"products, {kind}s: {found['by'][kind]}", f"{min(parts):.2f}", f"{median(parts):.2f}")
    table.add_row(
        "bound", f"{min(found['bound_seconds']):.2f}", f"{median(found['bound_seconds']):.2f}", "1.00", "1.00"
    )
    ratios = [f"{found['min_ratio']:.2f}", f"{found['median_ratio']:.2f}"]
    table.add_row("jaxnet.fit", f"{min(found['seconds']):.2f}", f"{median(found['seconds']):.2f}", *ratios)
    table.add_row("jaxnet.fit, with compilation", f"{found['first_seconds']:.2f}")
    console.print(table)


def circumstances(options: Options) -> dict[str, Any]:
    """What the numbers hang on."""
    versions = {"python": platform.python_version()}
    for package in ("jax", "jaxlib", "numpy", "optax", "torch", "equinox", "flax", "scikit-learn"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    settings = {key: value for key, value in asdict(options).items() if key != "output"}
    return {"options": settings, "threads": threads(), "machine": platform.machine(), "versions": versions}


def write(path: Path, found: dict[str, Any]) -> None:
    """All or nothing: beside it first."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def main(options: Options, console: Console) -> None:
    """Measure, show, and keep.

    Raises:
        ValueError: An option is out of range.
        DatasetError: MNIST cannot be had.
        OSError: The output cannot be written.
    """
    if options.rounds < 1:
        raise ValueError(f"rounds: {options.rounds}, expected at least 1")
    if not 0 < options.seconds < math.inf:
        raise ValueError(f"seconds: {options.seconds}, expected a finite number > 0")
    for name in options.only:
        if name not in CONTENDERS:
            raise ValueError(f"only: {name!r}, expected some of {', '.join(CONTENDERS)}")
    sizes = {text: parse_size(text) for text in options.sizes}
    found = circumstances(options)
    check_writable("output", options.output)
    if options.whole_run:
        found["whole_run"] = whole_run(options)
        show_whole_run(found["whole_run"], console)
    else:
        found["sizes"] = {}
        for text, (layers, batch_size) in sizes.items():
            problem = problem_of(layers, batch_size, options.dataset)
            found["sizes"][text] = compare(problem, text, options)
            show(text, found["sizes"][text], console)
    if options.output:
        write(options.output, found)


def run() -> None:
    """Runs the command with the arguments of this process, and ends it where they cannot be followed."""
    try:
        with one_line(DatasetError):
            main(tyro.cli(Options, description=__doc__), Console(highlight=False, soft_wrap=True))
    except KeyboardInterrupt:
        sys.exit(f"{program()}: interrupted")
