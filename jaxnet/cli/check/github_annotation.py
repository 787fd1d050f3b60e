"""Writes GitHub's annotation for the line of a user's code that computes a gradient."""

from pathlib import Path

from jaxnet.crosscheck import Report, Verdict
from jaxnet.crosscheck.explain.report_lines import findings
from jaxnet.crosscheck.gradient_line import relative

COMMANDS = {Verdict.FAIL: "error", Verdict.INCONCLUSIVE: "warning"}


def annotation(report: Report) -> str:
    """Returns the workflow command by which GitHub shows a report beside a line, or "" for a PASS.

    A FAIL is an error, and an INCONCLUSIVE report a warning, at its first line, whose file is named relative to the
    repository that has it.

    References:
        GitHub, *Workflow commands for GitHub Actions*: `%`, line ends, and in properties `:` and `,`, are escaped.
    """
    if report.verdict not in COMMANDS:
        return ""
    parts = [report, *report.points]
    wrong = next((part for part in reversed(parts) if part.verdict is report.verdict), report)
    message = "\n".join(line.strip() for line in findings(wrong)) or str(report)
    properties = {"title": f"{report.verdict}: {report.subject}"}
    if (place := next(iter(report.lines.values()), None)) is not None:
        root = next((folder for folder in place.file.parents if (folder / ".git").exists()), Path.cwd())
        properties = {"file": relative(place.file, root), "line": str(place.line), **properties}
    listed = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items())
    return f"::{COMMANDS[report.verdict]} {listed}::{_escaped(message)}"


def _escaped(text: str, further: str = "") -> str:
    """Returns a text with `%`, line ends and further characters as percent codes."""
    for character in "%\r\n" + further:
        text = text.replace(character, f"%{ord(character):02X}")
    return text
