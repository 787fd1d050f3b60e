"""Compare every gradient with numerical derivatives of its own forward pass, and with autodiff where that is given.

Your own code, as FILE.py:NAME: a layer class, a pair of functions FORWARD,BACKWARD, a network, or a function or module
of JAX or PyTorch.

    jaxnet check mine.py:Affine --init 4x3 3 --inputs 5x4
    jaxnet check mine.py:affine_forward,affine_backward --inputs 5x4 4x3 3
    jaxnet check mine.py:Convolution --init 6x3x3x3 6 stride=2 pad=1 --inputs 2x3x7x7 --plot v.png
    jaxnet check mine.py:Embedding --init weights.npz --inputs '2x3<10'

Without a name: the project's own networks, and every layer on its own. `--network notebook` checks the
notebook's own network, as it was written, and says why it fails.

Exit status: 0 PASS, 1 FAIL, 2 cannot be checked, 3 INCONCLUSIVE.
"""

import inspect
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from jaxnet.cli.ending import check_writable, one_line
from jaxnet.cli.option_types import File, Number, Word, check_seed
from jaxnet.crosscheck import Report, SubjectError, Verdict, check, inspected, targets
from jaxnet.crosscheck.inspect.errors import describe
from jaxnet.crosscheck.measure.step_sweep import step_errors

STATUS = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.INCONCLUSIVE: 3}
OF_TARGETS = ("init", "inputs", "reference", "constants", "dtype", "accuracy", "resolution", "max_seconds", "plot")


@dataclass(frozen=True)
class Options:
    """Cross-check gradients."""

    target: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """FILE.py:NAME, or FILE.py:FORWARD,BACKWARD; several are checked with the same values."""
    init: tuple[str, ...] = ()
    """What a class is made with. 4x3: an array of that shape. 5<10: integers below 10. 0.5, =3: numbers. stride=2,
    W=4x3: by name. FILE.npz, FILE.npy: arrays."""
    inputs: tuple[str, ...] = ()
    """What forward is called with, in the same form."""
    reference: Word = None
    """FILE.py:NAME of the same function in JAX, of (params, *inputs) where there are parameters, else of (*inputs)."""
    constants: tuple[str, ...] = ()
    """Names of arrays that move the output and need no gradient."""
    dtype: Literal["float64", "float32"] = "float64"
    """Of the arrays that the values become."""
    accuracy: Number = None
    """The relative error that the gradient may have by design, as of an iterative solver. Defaults to none."""
    resolution: Number = None
    """The relative error that must be visible, else INCONCLUSIVE. Defaults to half the digits in which the code
    computes."""
    max_seconds: Number = None
    """What is not judged after so long is INCONCLUSIVE. Defaults to no limit."""
    verbose: bool = False
    """Print also the error and tolerance of every pair of derivations, the forward passes and the seconds."""
    json: bool = False
    """Print the reports as JSON."""
    plot: File = None
    """Draw the error against the step size, for every leaf, into this PNG."""
    network: Literal["all", "book", "notebook-order", "notebook"] = "all"
    """Without a name. book: Affine, ReLU, Affine. notebook-order: one more ReLU. all: both, the other networks, and
    every layer on its own. notebook: the notebook's own code, defects and all."""
    seed: int = 0
    """Draws values, weights, images and the directions in which derivatives are taken."""


def of_targets(options: Options) -> Iterator[Report]:
    """Yields a report for every name that was given."""
    reference = targets.load(options.reference) if options.reference else None
    for target in options.target:
        rng = np.random.default_rng(options.seed)
        thing = targets.load(target)
        made = [targets.values(specs, rng) for specs in (options.init, options.inputs)]
        (places, named), (inputs, more) = (
            (
                [targets.in_dtype(v, options.dtype) for v in p],
                {k: targets.in_dtype(v, options.dtype) for k, v in n.items()},
            )
            for p, n in made
        )
        if isinstance(thing, type):
            try:
                thing = thing(*places, **named)
            except Exception as error:
                raise targets.TargetError(
                    f"{target}: making one raised {describe(error)}; say with --init what it is made with"
                ) from error
        inputs = in_place(target, thing, inputs, more)
        name = target.rpartition(":")[2]
        yield check(
            thing,
            *inputs,
            reference=reference,
            constants=options.constants,
            accuracy=options.accuracy,
            resolution=options.resolution,
            max_seconds=options.max_seconds,
            seed=options.seed,
            name=name,
        )
        if options.plot:
            from jaxnet import plots  # matplotlib is loaded where something is drawn

            figure = plots.step_sizes(name, step_errors(inspected(thing, *inputs, seed=options.seed), options.seed))
            plots.save(figure, options.plot)


def in_place(target: str, thing: Any, inputs: list[Any], named: dict[str, Any]) -> list[Any]:
    """Returns the inputs in the order in which forward takes them; named ones go where forward has that name.

    Raises:
        TargetError: If forward has no such name, or one is given twice.
    """
    if not named:
        return inputs
    held = next((getattr(thing, method) for method in ("forward", "loss") if hasattr(thing, method)), thing)
    call = thing[0] if isinstance(thing, tuple) else held
    try:
        bound = inspect.signature(call).bind(*inputs, **named)
    except TypeError as error:
        takes = ", ".join(inspect.signature(call).parameters)
        raise targets.TargetError(f"{target}: inputs: {error}; it takes {takes}") from error
    bound.apply_defaults()
    return [*bound.args, *bound.kwargs.values()]


def of_own_code(options: Options, rng: np.random.Generator) -> Iterator[Report]:
    """Yields the reports of this project's own code that the options ask for."""
    from jaxnet.cli.own_networks import reports  # JAX is loaded where it is needed

    yield from reports(options.network, options.seed, rng)


def main(options: Options) -> int:
    """Checks and prints; returns the exit status.

    Raises:
        ValueError: If an option is out of range, or does not belong to what is checked.
    """
    check_seed(options.seed)
    check_writable("plot", options.plot)
    for name in ("network",) if options.target else OF_TARGETS:
        if getattr(options, name) != getattr(Options(), name):
            owner = "the project's own networks" if options.target else "FILE.py:NAME"
            raise ValueError(f"{name}: an option of {owner}; leave it out here")
    rng = np.random.default_rng(options.seed)
    done = []
    for report in of_targets(options) if options.target else of_own_code(options, rng):
        done.append(report)
        if not options.json:
            print(report.details() if options.verbose else report, end="\n\n", flush=True)
    if options.json:
        print(json.dumps([report.to_dict() for report in done], indent=1))
    elif options.network == "notebook" and not options.target:
        from jaxnet.cli.own_networks import why_the_notebook_fails

        print("Why:")
        for reason in why_the_notebook_fails(rng):
            print(f"  - {reason}")
    verdicts = {report.verdict for report in done}
    return next((STATUS[verdict] for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE) if verdict in verdicts), 0)


def run() -> None:
    """Runs the command with the arguments of this process, and ends it where they cannot be followed."""
    with one_line(SubjectError):
        sys.exit(main(tyro.cli(Options, description=__doc__)))
