"""Prints a report: one line for a PASS, otherwise what is wrong, the table of the leaves, and what to know about it."""

import math
import textwrap
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from jaxnet.crosscheck.decide import Verdict
from jaxnet.crosscheck.explain import report_lines
from jaxnet.crosscheck.inspect.errors import counted

if TYPE_CHECKING:
    from jaxnet.crosscheck.report import Leaf, Report

WIDTH = 80
LONGEST_NAME = 23  # the most characters of a leaf's name in the table
LONGEST_TABLE = 16  # the most leaves that the table of a report without details lists
ROW_WITHOUT_NAME = 2 + 2 + 12 + 2 + 14 + 2 + 9 + 2  # characters of the other columns and of the spaces between them
ELLIPSIS = "..."


def text(report: "Report", *, details: bool, width: int | None) -> str:
    """Returns the whole report.

    Args:
        report: The report.
        details: Whether to list all leaves also of a PASS, the error and tolerance of each pair of derivations, and the
            cost of the check.
        width: The most characters of a line, 40 or more; None leaves sentences on one line each.
    """
    return "\n".join(part for line in lines(report, details=details) for part in wrapped(line, width))


def lines(report: "Report", *, details: bool) -> Iterator[str]:
    """Yields the lines of a report, each sentence on a line of its own."""
    if report.verdict is Verdict.PASS:
        yield headline(report)
    elif not report.points:
        yield f"{report.verdict}  {report.subject}"
        yield from report_lines.findings(report)
    if report.points:
        yield from _points(report, details=details)
        return
    if details or report.verdict is not Verdict.PASS:
        yield from _table(report.leaves, whole=details)
        yield from (f"  {line}" for line in report_lines.measured_in_double(report.leaves))
    whole_certificate = details or not report_lines.certifies_every_element(report)
    yield from (f"  {line}" for line in report_lines.certificate(report) if whole_certificate)
    yield from _remarks(report)
    for derivative in report.derivatives:
        yield from lines(derivative, details=False)
    if details:
        yield from _details(report)


def headline(report: "Report") -> str:
    """Returns the line that says that a report passed, with its leaves, largest error, and the error that it detects.

    The leaves are named if the line has room for them, and otherwise counted; a long subject leaves no room for either.

    Examples:
        >>> import numpy as np
        >>> from jaxnet.crosscheck import check_function
        >>> report = check_function(np.square, np.ones(3), gradient=lambda x, dout: 2 * x * dout)
        >>> headline(report)
        'PASS  square (x): relative error ..., detects ...'
    """
    parts = report.points or (report,)
    leaves = [leaf for part in parts for leaf in part.leaves]
    facts = []
    if errors := [leaf.relative_error for leaf in leaves if not math.isnan(leaf.relative_error)]:
        facts.append(f"relative error {max(errors):.1e}")
    if all(report_lines.certifies_every_element(part) for part in parts):
        facts.append(f"detects {max(leaf.min_detectable_error for leaf in leaves):.0e}")
    names = [leaf.name for leaf in parts[0].leaves]
    count = f"{len(names):,} {'leaf' if len(names) == 1 else 'leaves'}"
    at_inputs = f" at {counted(len(report.points), 'input')}" if report.points else ""
    listings = [f" ({', '.join(names)})"] * bool(names) + [f" ({count})", ""]
    headlines = [
        f"{report.verdict}  {report.subject}{listing}{at_inputs}: {', '.join(facts)}".removesuffix(": ")
        for listing in listings
    ]
    return next((line for line in headlines if len(line) <= WIDTH), headlines[-1])


def wrapped(line: str, width: int | None) -> list[str]:
    """Returns a line as several of at most `width` characters, the further ones indented.

    Examples:
        >>> wrapped("  b: the backward is wrong; it equals the true gradient times 2", 40)
        ['  b: the backward is wrong; it equals', '    the true gradient times 2']
    """
    if width is None or len(line) <= width:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False)


def _table(leaves: "tuple[Leaf, ...]", *, whole: bool) -> Iterator[str]:
    compared = [leaf for leaf in leaves if not math.isnan(leaf.relative_error) or leaf.verdict is Verdict.FAIL]
    is_long = len(compared) > LONGEST_TABLE and not whole
    rows = [leaf for leaf in compared if leaf.verdict is not Verdict.PASS] if is_long else compared
    if not rows:
        return
    indices = [report_lines.brackets(leaf.index) for leaf in rows]
    room = WIDTH - ROW_WITHOUT_NAME - max(map(len, indices))
    width = min(max(len(leaf.name) for leaf in rows), LONGEST_NAME, max(room, len(ELLIPSIS) + 1))
    yield f"  {'':<{width}}  {'':<12}  {'relative error':<14}  {'explained':<9}  worst at"
    for leaf, index in zip(rows, indices, strict=True):
        name = leaf.name if len(leaf.name) <= width else ELLIPSIS + leaf.name[len(ELLIPSIS) - width :]
        numbers = (leaf.relative_error, ".1e"), (leaf.relative_tolerance, ".0e")
        error, explained = ("" if math.isnan(number) else f"{number:{form}}" for number, form in numbers)
        yield f"  {name:<{width}}  {leaf.verdict:<12}  {error:<14}  {explained:<9}  {index}".rstrip()
    if is_long and (hidden := len(compared) - len(rows)):
        yield f"  and {hidden:,} that {'passes' if hidden == 1 else 'pass'}"


def _remarks(report: "Report") -> Iterator[str]:
    for leaf in report.leaves:
        yield from (f"  note: {leaf.name}: {note}" for note in leaf.notes)
    yield from (f"  note: {note}" for note in report.notes)
    yield from (f"  warning: {warning}" for warning in report.warnings)
    for layer in report.layers:
        yield from (f"  note: {layer.subject}: {note}" for note in layer.notes)
        yield from (f"  warning: {layer.subject}: {text}" for text in layer.warnings if text not in report.warnings)


def _points(report: "Report", *, details: bool) -> Iterator[str]:
    """Yields the verdict at each of several inputs, and whole reports.

    With details, these are all reports, otherwise the first one of each verdict but PASS.
    """
    counts = {v: sum(part.verdict is v for part in report.points) for v in (Verdict.FAIL, Verdict.INCONCLUSIVE)}
    if report.verdict is not Verdict.PASS:
        at = f"{report.subject} at {counted(len(report.points), 'input')}"
        yield f"{report.verdict}  {at}: {', '.join(f'{count} {verdict}' for verdict, count in counts.items() if count)}"
    if details or report.verdict is not Verdict.PASS:
        width = max(len(part.subject) for part in report.points)
        yield from (f"  {part.subject:<{width}}  {part.verdict}" for part in report.points)
    warnings = {warning: part for part in reversed(report.points) for warning in part.warnings if part}
    yield from (f"  warning: {part.subject}: {warning}" for warning, part in warnings.items())
    first = [[part for part in report.points if part.verdict is verdict][:1] for verdict in counts]
    for part in report.points if details else chain.from_iterable(first):
        yield from lines(part, details=details)


def _details(report: "Report") -> Iterator[str]:
    for leaf in report.leaves:
        for pair, gap in leaf.gaps.items():
            yield f"  {leaf.name}: {pair}: error {gap.error:.2e}, tolerance {gap.tolerance:.2e}"
    yield f"  {report.calls:,} forward passes, {report.seconds:.2f} s, seed {report.seed}"
    for layer in report.layers:
        yield ""
        yield from lines(layer, details=True)
