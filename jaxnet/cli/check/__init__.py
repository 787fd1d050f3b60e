"""Compare gradients with numerical derivatives of their own forward pass, and with autodiff if there is a reference.

Your own code is named as FILE.py:NAME or module.name:NAME. It can be a layer class, a pair of functions
FORWARD,BACKWARD, a network, or a function or module of JAX or PyTorch.

    jaxnet check mine.py:Affine --init 4x3 3 --inputs 5x4
    jaxnet check mine.py:affine_forward,affine_backward --inputs 5x4 4x3 3
    jaxnet check mine.py:loss --gradient gradient_of_loss --inputs 5x4 '5<3'
    jaxnet check mine.py:Convolution --init 6x3x3x3 6 stride=2 pad=1 --inputs 2x3x7x7 --plot v.png
    jaxnet check mine.py:Affine --init weights.npz --inputs 5x4 --watch

Without a name, the networks and layers of this project are checked. `--network notebook` checks the code of the
original notebook and explains why it fails. docs/shell.md describes values, projects and JSON.

Exit status: 0 PASS, 1 FAIL, 2 the code cannot be checked or an option is invalid, 3 INCONCLUSIVE.
"""

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from jaxnet.cli.check.candidates import arguments, candidates, forward_of_torch, incomplete, is_function_of_torch
from jaxnet.cli.check.errors import in_file_of, in_words_of_the_shell
from jaxnet.cli.check.github_annotation import annotation
from jaxnet.cli.check.option_spelling import in_shell, respelled
from jaxnet.cli.check.terminal_color import colored, has_color
from jaxnet.cli.check.training_networks import LABEL_FORMS, training_of
from jaxnet.cli.common_options import (
    OptionalFloat,
    OptionalPath,
    OptionalStr,
    Seed,
    Switch,
    check_writable,
    computed_default,
)
from jaxnet.cli.environment import check_xla_flags
from jaxnet.cli.errors import INTERRUPTED, USAGE_ERROR, one_line_errors, program
from jaxnet.common.progress_line import progress_line
from jaxnet.common.validation import check_counts
from jaxnet.crosscheck import Report, SubjectError, Verdict, check, check_function, inspected, shell_values, targets
from jaxnet.crosscheck.explain.printed_report import WIDTH, wrapped
from jaxnet.crosscheck.gradient_line import computed_at
from jaxnet.crosscheck.input_files import in_order
from jaxnet.crosscheck.inspect.errors import MissingInputError, describe
from jaxnet.crosscheck.inspect.signatures import missing_arguments, wrong_call
from jaxnet.crosscheck.inspect.torch_tensors import tensors_from
from jaxnet.crosscheck.many_points import at_points
from jaxnet.crosscheck.measure.step_sweep import step_errors

ERRORS = (SubjectError,)
STATUS = {Verdict.FAIL: 1, Verdict.INCONCLUSIVE: 3, Verdict.PASS: 0}  # the first verdict that occurs counts
TARGET_OPTIONS = (
    "init", "inputs", "gradient", "reference", "constants", "dtype", "float32", "accuracy", "resolution", "order",
    "points", "max_seconds", "plot", "watch",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Cross-check gradients."""

    target: Annotated[tuple[str, ...], tyro.conf.Positional, computed_default("[TARGET ...]")] = ()
    """FILE.py:NAME, FILE.py:FORWARD,BACKWARD or module.name:NAME. Several are checked with the same values."""
    init: Annotated[tuple[str, ...], computed_default("[VALUE ...]")] = ()
    """Arguments of the class's constructor. 4x3: float array. '5<10': five integers below 10. 0.5, =3: numbers.
    stride=2 (a number), W=4x3, b=shape:3, p.W=4x3 (an item of a dict): named arguments. array:0.5: a 0-d array.
    FILE.npz, FILE.npy, FILE.pt: arrays from a file. None, True, str:TEXT, (2,2), [..], {W:4x3}, py:EXPRESSION: other
    values."""
    inputs: Annotated[tuple[str, ...], computed_default("[VALUE ...]")] = ()
    """Arguments of the forward pass, in the same form, but (5,6) is the shape 5x6, as in Python."""
    gradient: OptionalStr = None
    """Function that returns the gradient of the target, a function: a NAME of the same file, or FILE.py:NAME."""
    reference: OptionalStr = None
    """FILE.py:NAME of the same function in JAX, of (params, *inputs), or of (*inputs) if there are no parameters."""
    constants: Annotated[tuple[str, ...], computed_default("[NAME ...]")] = ()
    """Names of arrays that affect the output and need no gradient."""
    dtype: Literal["float64", "float32", "float16", "bfloat16"] = "float64"
    """Dtype of the float arrays."""
    float32: Switch = False
    """The same as --dtype float32."""
    accuracy: OptionalFloat = None
    """Relative error of the gradient that is intended, as in an iterative solver. Defaults to none."""
    resolution: OptionalFloat = None
    """Relative error that must be detectable for a PASS. Defaults to half the digits of the code's dtype."""
    order: int = 1
    """Highest derivative to check, for code that JAX or PyTorch differentiates."""
    points: int = 1
    """Number of random inputs at which the target is checked. The worst verdict counts."""
    max_seconds: OptionalFloat = None
    """Time limit. A leaf without a verdict by then is INCONCLUSIVE. Defaults to no limit."""
    verbose: Switch = False
    """Also print all leaves, errors and tolerances of each pair of derivations, forward passes and seconds."""
    json: Switch = False
    """Print the reports as one JSON object. What the checked code prints goes to stderr."""
    github: Switch = False
    """Also print annotations that GitHub shows at the line of the gradient, for FAIL and INCONCLUSIVE."""
    watch: Switch = False
    """Check again whenever the file, or a module of its project, changes. Ctrl-C ends it."""
    plot: OptionalPath = None
    """PNG file for a plot of the error of each leaf over the step size."""
    network: Literal["all", "book", "notebook-order", "notebook"] = "all"
    """Network to check without a target. book: Affine, ReLU, Affine. notebook-order: with another ReLU at the end.
    notebook: the original notebook's code. all: book, notebook-order, the other networks, and each layer alone."""
    seed: Seed = 0


def check_targets(options: Options) -> Iterator[Report]:
    """Yields a report for each target."""
    with progress_line(f"importing {options.reference}"):
        reference = targets.load(options.reference) if options.reference else None
    for target in options.target:
        with progress_line(f"importing {target.rpartition(':')[0]}"):
            subject, gradient = load_subject(target), None
            if options.gradient:
                gradient = targets.load(in_file_of(target, options.gradient))
        name = target.rpartition(":")[2]
        run: Callable[..., Report] = partial(check_function, gradient=gradient) if gradient else check
        run = partial(
            run, reference=reference, constants=options.constants, accuracy=options.accuracy,
            resolution=options.resolution, order=options.order, max_seconds=options.max_seconds,
        )  # fmt: skip
        reports = []
        for seed in range(options.seed, options.seed + options.points):
            title = name if options.points == 1 else f"{name} with seed {seed}"
            with in_words_of_the_shell(target, subject, options.init, options.inputs):
                with progress_line(f"drawing the arguments of {title}"):
                    instance, inputs, named = draw_arguments(target, subject, options, seed)
                run_at = partial(run, instance, seed=seed, name=title)
                reports.append(check_arrays_or_tensors(run_at, inputs, named, options.dtype))
        yield reports[0] if options.points == 1 else at_points(name, reports)
        if options.plot:
            with progress_line(f"drawing {options.plot}"):
                from jaxnet import plots  # imports matplotlib

                bound, ordered = in_order(instance, inputs, named)
                errors = step_errors(inspected(bound, *ordered, seed=options.seed), options.seed)
                failed = [leaf.name for leaf in reports[-1].leaves if leaf.verdict is Verdict.FAIL]
                plots.save(plots.step_sizes(name, errors, failed), options.plot)
            print(options.plot, flush=True)


def load_subject(target: str) -> Any:
    """Returns what a target names; of a `torch.autograd.Function` the function that PyTorch calls."""
    subject = targets.load(target)
    owner = target.rpartition(".")[0]
    first = [*inspect.signature(subject).parameters][:1] if inspect.isfunction(subject) and ":" in owner else []
    if first in (["self"], ["ctx"]):  # of a class, or of a torch.autograd.Function
        raise targets.TargetError(f"{target}: is a method, expected its class: check {owner}")
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(subject, type) and issubclass(subject, torch.autograd.Function):
        return subject.apply  # type: ignore[attr-defined]
    return subject


def draw_arguments(target: str, subject: Any, options: Options, seed: int) -> tuple[Any, list[Any], dict[str, Any]]:
    """Returns an instance, if the subject is a class, and the inputs by position and by name, drawn with a seed."""
    rng = np.random.default_rng(seed)
    init_args, init_kwargs = parse_values(options.init, options.dtype, rng)
    args, kwargs = parse_values(options.inputs, options.dtype, rng, tuples_are_shapes=True)
    if isinstance(subject, type):
        training = training_of(subject)
        if training and not args and set(kwargs) == {training.samples, training.labels}:
            args, kwargs = [kwargs[training.samples], kwargs[training.labels]], {}
        try:
            subject = subject(*init_args, **init_kwargs)
        except Exception as error:
            if not (wrong := wrong_call(subject, init_args, init_kwargs)):
                raise targets.TargetError(f"{target}: the constructor raised {describe(error)}") from error
            pass_ = (
                f"; pass{arguments('--init', subject)}" if missing_arguments(subject, init_args, init_kwargs) else ""
            )
            raise targets.TargetError(f"{target}: the constructor {wrong}{pass_}") from error
    elif options.init:
        raise targets.TargetError(f"init: {target} is no class, expected its arguments in --inputs")
    else:
        owner: Any = getattr(subject, "__self__", None)
        if is_function_of_torch(owner) and (missing := missing_arguments(forward_of_torch(owner), args, kwargs)):
            reason = f"{owner.__name__}.forward {wrong_call(forward_of_torch(owner), args, kwargs)}"
            raise MissingInputError(reason, missing)
    return subject, args, kwargs


def check_arrays_or_tensors(run: Callable[..., Report], inputs: list[Any], named: dict[str, Any], dtype: str) -> Report:
    """Returns the report of a check with these arrays; with tensors if the code uses PyTorch and refuses arrays.

    Code that refuses them beside Python floats, as an `apply` that saves all its inputs, gets tensors for these too.
    """
    try:
        return run(*inputs, named=named)
    except SubjectError as error:
        if "torch" not in sys.modules:
            raise
        of_all_numbers = shell_values.in_dtype(floats_as_arrays([inputs, named]), dtype)
        for positional, by_name in ([inputs, named], of_all_numbers):
            try:
                return run(*tensors_from(positional), named=tensors_from(by_name))
            except SubjectError:
                continue
        raise error from error.__cause__


def floats_as_arrays(value: Any) -> Any:
    """Returns a value with its Python floats as arrays without axes, in lists, tuples and dicts too."""
    if isinstance(value, dict):
        return {key: floats_as_arrays(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(floats_as_arrays, value))
    return np.asarray(value) if isinstance(value, float) else value


def parse_values(
    texts: tuple[str, ...], dtype: str, rng: np.random.Generator, *, tuples_are_shapes: bool = False
) -> tuple[list[Any], dict[str, Any]]:
    """Returns positional and named values, with float arrays in this dtype."""
    positional, named = shell_values.values(texts, rng, tuples_are_shapes=tuples_are_shapes)
    return shell_values.in_dtype(positional, dtype), shell_values.in_dtype(named, dtype)


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


def print_report(options: Options, report: Report) -> None:
    """Prints a report, for a FAIL with the lines that compute the gradients, and the annotation for GitHub."""
    text = in_shell(report.details() if options.verbose else report.text(), options.target)
    if report.verdict is Verdict.FAIL and report.lines:
        text += f"\n  {computed_at(report.lines)}"
    text = "\n".join(part for line in text.splitlines() for part in wrapped(line, WIDTH))
    end = "\n\n" if "\n" in text else "\n"
    print(colored(text) if has_color() else text, end=end, flush=True)
    if options.github and (command := annotation(report)):
        print(in_shell(command, options.target), flush=True)


def run_checks(options: Options) -> int:
    """Checks the targets or this project's own code, prints the reports, and returns the exit status."""
    rng = np.random.default_rng(options.seed)
    checks: Iterator[Report]
    if options.target:
        checks = check_targets(options)
    else:
        with progress_line("importing JAX"):
            from jaxnet.cli import own_networks

            check_xla_flags()
        checks = own_networks.check_own(options.network, options.seed, rng)
    reports = []
    with stdout_to_stderr() if options.json else nullcontext():
        for report in checks:
            reports.append(report)
            if not options.json:
                print_report(options, report)
    verdict = next(verdict for verdict in STATUS if verdict in {report.verdict for report in reports})
    if options.json:
        from jaxnet.cli.check.document import document

        print(document(reports, verdict, options.seed))
    elif options.network == "notebook":
        with progress_line("measuring the defects of the notebook"):
            reasons = [f"  - {reason}" for reason in own_networks.explain_notebook(rng)]
        print("Why:", *(line for reason in reasons for line in wrapped(reason, WIDTH)), sep="\n")
    return STATUS[verdict]


def list_candidates(file: str) -> None:
    """Prints a command for everything in a file that could be checked.

    Raises:
        TargetError: If there is nothing, or the file cannot be imported.
    """
    with progress_line(f"importing {file}"):
        module = targets.load_module(file)
        commands, lacking = list(candidates(file, module)), "; ".join(incomplete(module))
    if not commands:
        reason = lacking or f"nothing in it looks as if it had a gradient; if something has one, name it as {file}:NAME"
        raise targets.TargetError(f"{file}: {reason}")
    print(*commands, sep="\n")
    if lacking:
        print(f"{program()}: {file}: not listed: {lacking}", file=sys.stderr)
    fillings = {
        ":SIZES": "sizes such as 4x3 or 4 for SIZES", "=VALUE": "numbers for VALUE",
        "=LABELS": f"labels such as {LABEL_FORMS} for LABELS",
    }  # fmt: skip
    texts = [text for mark, text in fillings.items() if mark in "".join(commands)]
    needed = " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))
    end = f", with {needed}" if needed else ""
    print(f"{program()}: {file}: name one of these, {file}:NAME{end}", file=sys.stderr)


def list_all_candidates(files: Sequence[str]) -> int:
    """Prints the candidates of each file, or why it has none, and returns the status of an invalid target."""
    for file in files:
        try:
            list_candidates(file)
        except targets.TargetError as error:
            print(f"{program()}: {' '.join(str(error).split())}", file=sys.stderr)
    return USAGE_ERROR


def check_options(options: Options) -> None:
    """Raises ValueError if an option is out of range, or does not go with the others."""
    check_writable("plot", options.plot, ".png")
    check_counts(points=options.points)
    for name in ("gradient", "reference"):
        if getattr(options, name) == "":
            raise ValueError(f"{name}: '', expected a NAME or FILE.py:NAME; leave --{name} out if there is none")
    for name in ("network",) if options.target else TARGET_OPTIONS:
        if getattr(options, name) != getattr(Options(), name):
            raise ValueError(f"{name}: applies only {'without' if options.target else 'to'} FILE.py:NAME; leave it out")
    if options.json and (options.watch or options.github):
        raise ValueError(f"--json: given beside {'--watch' if options.watch else '--github'}, expected one of them")
    if options.plot and options.gradient:
        raise ValueError("--plot: given beside --gradient, expected one of them: it draws what has its own gradient")


def main(options: Options) -> int:
    """Checks the targets once, or whenever they change, and returns the exit status."""
    check_options(options)
    if options.float32:
        options = replace(options, dtype="float32")
    misspelled, meant = respelled(options.target)
    if meant:
        raise targets.TargetError(f"{misspelled}: expected FILE.py:NAME, or module.name:NAME; did you mean {meant}?")
    if files := [target for target in options.target if target.endswith(".py")]:
        return list_all_candidates(files)
    if options.watch:
        from jaxnet.cli.check.watch import watch

        def run() -> int:
            with one_line_errors(*ERRORS):
                try:
                    return run_checks(options)
                except KeyboardInterrupt:  # the watching process tells it
                    sys.exit(INTERRUPTED)

        watch([targets.file_of(target) for target in options.target], run)
    return run_checks(options)
