"""Puts a report into the message of a failing test: one sentence that says what is wrong, then the report."""

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxnet.crosscheck import Report

WIDTH = 72  # of 80 columns; pytest puts "E" and the indentation of the test before each line


def message(report: "Report", seed: str) -> str:
    """Returns the message for a report that is no PASS.

    Args:
        report: The report.
        seed: The last line, which says how to repeat the check.
    """
    subject, finding = decisive_finding(report)
    lines = str(report).splitlines()
    repeated = next((i for i, line in enumerate(lines) if line.strip() == finding), len(lines))
    body = [*lines[:repeated], *lines[repeated + 1 :]]
    undecided = "undecided: " if report.verdict == "INCONCLUSIVE" else ""
    return "\n".join([f"{subject}: {undecided}{finding}", "", *_wrapped(body), seed])


def decisive_finding(report: "Report") -> tuple[str, str]:
    """Returns the name of the part that decides the verdict, and the finding about it that helps most."""
    from jaxnet.crosscheck.explain.report_lines import findings

    same = [leaf for leaf in report.leaves if leaf.verdict is report.verdict]
    undecided = report.undecided if report.verdict == "INCONCLUSIVE" else ()
    lines = [line.strip() for line in findings(replace(report, leaves=tuple(same), undecided=undecided))]
    if lines:
        # "Affine1 is wrong on its own:" announces the next line
        return report.subject, next((line for line in lines if not line.endswith(":")), lines[0])
    part = next((p for p in (*report.points, *report.derivatives) if p.verdict is report.verdict), None)
    return (report.subject, "nothing was compared") if part is None else decisive_finding(part)


def _wrapped(lines: Sequence[str]) -> list[str]:
    """Returns the lines with those that are too long broken, and indented further than their first part."""
    wrapped: list[str] = []
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        parts = textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        wrapped += [line] if len(line) <= WIDTH else parts
    return wrapped
