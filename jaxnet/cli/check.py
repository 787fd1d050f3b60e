"""Compare gradients with numerical derivatives of their own forward pass, and with autodiff if there is a reference.

Your own code is named as FILE.py:NAME. It can be a layer class, a pair of functions FORWARD,BACKWARD, a network, or a
function or module of JAX or PyTorch.

    jaxnet check mine.py:Affine --init 4x3 3 --inputs 5x4
    jaxnet check mine.py:affine_forward,affine_backward --inputs 5x4 4x3 3
    jaxnet check mine.py:Convolution --init 6x3x3x3 6 stride=2 pad=1 --inputs 2x3x7x7 --plot v.png
    jaxnet check mine.py:Embedding --init weights.npz --inputs '2x3<10'

Without a name, the networks and layers of this project are checked. `--network notebook` checks the code of the
original notebook and explains why it fails.

Exit status: 0 PASS, 1 FAIL, 2 the code cannot be checked or an option is invalid, 3 INCONCLUSIVE.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from jaxnet.cli.common_options import OptionalFloat, OptionalPath, OptionalStr, Seed, check_writable
from jaxnet.crosscheck import Report, SubjectError, Verdict, check, inspected, targets
from jaxnet.crosscheck.input_files import in_order
from jaxnet.crosscheck.inspect.errors import describe
from jaxnet.crosscheck.measure.step_sweep import step_errors

ERRORS = (SubjectError,)
STATUS = {Verdict.FAIL: 1, Verdict.INCONCLUSIVE: 3, Verdict.PASS: 0}  # the first verdict that occurs counts
TARGET_OPTIONS = ("init", "inputs", "reference", "constants", "dtype", "accuracy", "resolution", "max_seconds", "plot")


@dataclass(frozen=True)
class Options:
    """Cross-check gradients."""

    target: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """FILE.py:NAME or FILE.py:FORWARD,BACKWARD. Several targets are checked with the same values."""
    init: tuple[str, ...] = ()
    """Arguments of the class's constructor. 4x3: float array. 5<10: five integers below 10. 0.5, =3: numbers.
    stride=2, W=4x3: named arguments. FILE.npz, FILE.npy: arrays from a file."""
    inputs: tuple[str, ...] = ()
    """Arguments of the forward pass, in the same form."""
    reference: OptionalStr = None
    """FILE.py:NAME of the same function in JAX, of (params, *inputs), or of (*inputs) if there are no parameters."""
    constants: tuple[str, ...] = ()
    """Names of arrays that affect the output and need no gradient."""
    dtype: Literal["float64", "float32"] = "float64"
    """Dtype of the float arrays."""
    accuracy: OptionalFloat = None
    """Relative error of the gradient that is intended, as in an iterative solver. Defaults to none."""
    resolution: OptionalFloat = None
    """Relative error that must be detectable for a PASS. Defaults to half the digits of the code's dtype."""
    max_seconds: OptionalFloat = None
    """Time limit. A leaf without a verdict by then is INCONCLUSIVE. Defaults to no limit."""
    verbose: bool = False
    """Also print errors and tolerances of each pair of derivations, forward passes and seconds."""
    json: bool = False
    """Print the reports as JSON. What the checked code prints goes to stderr."""
    plot: OptionalPath = None
    """PNG file for a plot of the error of each leaf over the step size."""
    network: Literal["all", "book", "notebook-order", "notebook"] = "all"
    """Network to check without a target. book: Affine, ReLU, Affine. notebook-order: with another ReLU at the end.
    notebook: the original notebook's code. all: book, notebook-order, the other networks, and each layer alone."""
    seed: Seed = 0


def check_targets(options: Options) -> Iterator[Report]:
    """Yields a report for each target."""
    reference = targets.load(options.reference) if options.reference else None
    settings = {name: getattr(options, name) for name in ("constants", "accuracy", "resolution", "max_seconds", "seed")}
    for target in options.target:
        rng = np.random.default_rng(options.seed)
        subject, name = targets.load(target), target.rpartition(":")[2]
        init_args, init_kwargs = parse_values(options.init, options.dtype, rng)
        args, kwargs = parse_values(options.inputs, options.dtype, rng)
        if isinstance(subject, type):
            try:
                subject = subject(*init_args, **init_kwargs)
            except Exception as error:
                raise targets.TargetError(
                    f"{target}: the constructor raised {describe(error)}; pass its arguments with --init"
                ) from error
        inputs = in_order(subject, args, kwargs)
        report = check(subject, *inputs, reference=reference, name=name, **settings)
        yield report
        if options.plot:
            from jaxnet import plots  # imports matplotlib

            errors = step_errors(inspected(subject, *inputs, seed=options.seed), options.seed)
            failed = [leaf.name for leaf in report.leaves if leaf.verdict is Verdict.FAIL]
            plots.save(plots.step_sizes(name, errors, failed), options.plot)


def parse_values(texts: tuple[str, ...], dtype: str, rng: np.random.Generator) -> tuple[list[Any], dict[str, Any]]:
    """Returns positional and named values, with float arrays in this dtype."""
    positional, named = targets.values(texts, rng)
    converted = [targets.in_dtype(value, dtype) for value in positional]
    return converted, {name: targets.in_dtype(value, dtype) for name, value in named.items()}


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Sends to stderr what the block prints, in this process or in another."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()  # text that the block wrote to sys.__stdout__
        os.dup2(stdout, 1)
        os.close(stdout)


def main(options: Options) -> int:
    """Checks the targets or this project's own code, prints the reports, and returns the exit status."""
    check_writable("plot", options.plot)
    for name in ("network",) if options.target else TARGET_OPTIONS:
        if getattr(options, name) != getattr(Options(), name):
            raise ValueError(f"{name}: applies only {'without' if options.target else 'to'} FILE.py:NAME; leave it out")
    rng = np.random.default_rng(options.seed)
    if not options.target:
        from jaxnet.cli import own_networks  # imports JAX
    checks = check_targets(options) if options.target else own_networks.check_own(options.network, options.seed, rng)
    reports = []
    with stdout_to_stderr() if options.json else nullcontext():
        for report in checks:
            reports.append(report)
            if not options.json:
                print(report.details() if options.verbose else report, end="\n\n", flush=True)
    if options.json:
        print(json.dumps([report.to_dict() for report in reports], indent=1))
    elif options.network == "notebook":
        print("Why:", *(f"  - {reason}" for reason in own_networks.explain_notebook(rng)), sep="\n")
    return next(status for verdict, status in STATUS.items() if verdict in {report.verdict for report in reports})
