"""Finds the line of a user's code that computes a gradient, and writes GitHub's annotations for it."""

import inspect
from pathlib import Path
from typing import Any, NamedTuple

from jaxnet.crosscheck import Report, Verdict
from jaxnet.crosscheck.explain.report_lines import findings

BACKWARDS = ("backward", "backward_pass", "backprop", "gradient", "grad", "vjp", "derivative", "bwd", "jacobian")
COMMANDS = {Verdict.FAIL: "error", Verdict.INCONCLUSIVE: "warning"}


class SourceLine(NamedTuple):
    """A line of a file."""

    file: Path
    line: int

    def __str__(self) -> str:
        """Returns FILE:LINE, with the file relative to the working folder if it is below."""
        return f"{_relative(self.file, Path.cwd())}:{self.line}"


def gradient_line(subject: Any, gradient: Any = None) -> SourceLine | None:
    """Returns the first line of the code that computes a gradient, or None if it is not written in Python.

    Args:
        subject: A layer, a network, a pair of functions or a function, as in `check`.
        gradient: The function that returns the gradient of `subject`, if it is another one.
    """
    owner = getattr(subject, "__self__", subject)  # the class of a torch.autograd.Function, whose apply is the subject
    methods = [getattr(owner, name) for name in BACKWARDS if callable(getattr(owner, name, None))]
    last = subject[-1:] if isinstance(subject, tuple) else ()
    for candidate in (gradient, *last, *methods, getattr(subject, "forward", None), subject, type(subject)):
        if candidate is None or (isinstance(candidate, type) and candidate.__module__ == "builtins"):
            continue
        try:
            unwrapped = inspect.unwrap(candidate)
            file = inspect.getsourcefile(unwrapped)
            line = inspect.getsourcelines(unwrapped)[1]
        except (TypeError, OSError, ValueError):
            continue
        if file:
            return SourceLine(Path(file).resolve(), max(line, 1))
    return None


def annotation(report: Report, place: SourceLine | None) -> str:
    """Returns the workflow command by which GitHub shows a report beside a line, or "" for a PASS.

    Args:
        report: The report. A FAIL is an error, and an INCONCLUSIVE one a warning.
        place: The line, whose file is named relative to the repository that has it.

    References:
        GitHub, *Workflow commands for GitHub Actions*: `%`, line ends, and in properties `:` and `,`, are escaped.
    """
    if report.verdict not in COMMANDS:
        return ""
    parts = [report, *report.points]
    wrong = next((part for part in reversed(parts) if part.verdict is report.verdict), report)
    message = "\n".join(line.strip() for line in findings(wrong)) or str(report)
    properties = {"title": f"{report.verdict}: {report.subject}"}
    if place is not None:
        root = next((folder for folder in place.file.parents if (folder / ".git").exists()), Path.cwd())
        properties = {"file": _relative(place.file, root), "line": str(place.line), **properties}
    listed = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items())
    return f"::{COMMANDS[report.verdict]} {listed}::{_escaped(message)}"


def _relative(file: Path, folder: Path) -> str:
    return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()


def _escaped(text: str, further: str = "") -> str:
    """Returns a text with `%`, line ends and further characters as percent codes."""
    for character in "%\r\n" + further:
        text = text.replace(character, f"%{ord(character):02X}")
    return text
