"""Checks the same code at many inputs: of several shapes, or made by a function."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.errors import SubjectError, kind_of
from jaxnet.crosscheck.inspect.random_inputs import is_shape
from jaxnet.crosscheck.report import Report
from jaxnet.crosscheck.streams import Stream, stream

Shapes = Sequence[Any] | Callable[[np.random.Generator], Sequence[Any]]
CALLS = 8  # of a function that makes inputs


def check_shapes(title: str, shapes: Shapes, seed: int, check: Callable[[tuple[Any, ...], int], Report]) -> Report:
    """Returns one report of the checks at all inputs.

    Args:
        title: Its name.
        shapes: The inputs of each check: a shape, if there is one input, or a tuple or list of shapes, arrays and other
            values. Or a function that draws inputs from a generator, which is called for eight checks.
        seed: The seed of the first check; each further one has the next.
        check: The check, which takes inputs and a seed.

    Raises:
        SubjectError: If `shapes` is something else, or the code cannot be run at any of the inputs.
    """
    reports: list[Report] = []
    errors: list[SubjectError] = []
    for i, inputs in enumerate(_cases(shapes, seed)):
        label = f"{title} at {', '.join(map(_label, inputs))}"
        try:
            report = check(inputs, seed + i)
        except SubjectError as error:
            errors.append(error)
            report = Report(label, None, (), undecided=(f"it cannot be checked: {error}",), seed=seed + i)
        reports.append(replace(report, subject=label))
    if len(errors) == len(reports):
        raise errors[0]
    return at_points(title, reports)


def at_points(title: str, reports: Sequence[Report]) -> Report:
    """Combines the reports at one or more points into one report."""
    lines = {name: line for report in reports for name, line in report.lines.items()}
    calls, seconds = sum(report.calls for report in reports), sum(report.seconds for report in reports)
    return Report(
        title, None, (), points=tuple(reports), calls=calls, seconds=seconds, seed=reports[0].seed, lines=lines
    )


def _cases(shapes: Shapes, seed: int) -> Iterator[tuple[Any, ...]]:
    if callable(shapes):
        for i in range(CALLS):
            yield as_inputs(shapes(stream(Stream.INPUTS, seed + i)))
        return
    if isinstance(shapes, str) or not isinstance(shapes, Sequence) or not shapes or is_shape(shapes):
        raise SubjectError(
            f"shapes: {shapes!r}, expected a list with the inputs of each check, such as [(5, 4), (1, 4)] for one "
            "input or [((5, 4), (4, 3)), ((1, 4), (4, 3))] for two, or a function that makes inputs"
        )
    for inputs in shapes:
        yield as_inputs(inputs)


def as_inputs(inputs: Any) -> tuple[Any, ...]:
    """Returns the inputs of a check as a tuple; a single input may be passed without one."""
    if is_shape(inputs) or not isinstance(inputs, tuple | list):
        return (inputs,)
    return tuple(inputs)


def _label(value: Any) -> str:
    """Returns the shape of an input, or the input itself if it is short."""
    if is_shape(value):
        return str(value)
    if (shape := getattr(value, "shape", None)) is not None:
        return str(tuple(shape))
    return repr(value) if isinstance(value, str | int | float | type(None)) else kind_of(value)
