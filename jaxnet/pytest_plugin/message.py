"""Puts a report into the message of a failing test: one sentence that says what is wrong, then the report."""

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxnet.crosscheck import Report

WIDTH = 72  # of 80 columns; pytest puts "E" and the indentation of the test before each line


def message(report: "Report", end: str) -> str:
    """Returns the message for a report that is no PASS.

    Args:
        report: The report.
        end: The last lines, which say where the gradient is computed and how to repeat the check.
    """
    from jaxnet.crosscheck.explain.printed_report import wrapped  # only a failing test needs it

    subject, finding = decisive_finding(report)
    lines = report.text(width=None).splitlines()
    repeated = next((i for i, line in enumerate(lines) if line.strip() == finding), len(lines))
    body = [part for i, line in enumerate(lines) if i != repeated for part in wrapped(line, WIDTH)]
    undecided = "undecided: " if report.verdict == "INCONCLUSIVE" else ""
    return "\n".join([f"{subject}: {undecided}{finding}", "", *body, end])


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
