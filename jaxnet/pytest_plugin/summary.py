"""Summarizes the checks of a run in a few lines."""

from collections.abc import Sequence
from typing import TypedDict

SLOWEST = 3
LISTED = ("undecided", "refused")  # outcomes whose tests are named; pytest itself lists those that failed


class Check(TypedDict):
    """What the summary needs of a check, in types that pytest-xdist can send.

    Attributes:
        test: The node id of the test.
        subject: The name of what was checked.
        outcome: "passed", "failed", "undecided", or "refused" if it could not be checked.
        seconds: The time that the check took.
        has_warnings: Whether the report warns of what its inputs cannot show.
    """

    test: str
    subject: str
    outcome: str
    seconds: float
    has_warnings: bool


def summary_lines(checks: Sequence[Check], *, short: bool = False) -> list[str]:
    """Returns the lines of the summary.

    Args:
        checks: The checks of the run, at least one.
        short: Whether one line must do.

    Examples:
        >>> of_relu = Check(test="a.py::test_relu", subject="ReLU", outcome="passed", seconds=0.125, has_warnings=False)
        >>> summary_lines([of_relu])
        ['1 check in 0.1 s: 1 passed', '  slowest: 0.12 s  ReLU  a.py::test_relu']
        >>> summary_lines([of_relu | {"has_warnings": True}], short=True)
        ['crosscheck: 1 check in 0.1 s: 1 passed, 1 of them with warnings, which pytest -rP prints']
    """
    outcomes = [check["outcome"] for check in checks]
    counts = [f"{outcomes.count(o)} {o}" for o in ("failed", "undecided", "refused", "passed") if o in outcomes]
    checked = "1 check" if len(checks) == 1 else f"{len(checks):,} checks"
    first = f"{checked} in {sum(check['seconds'] for check in checks):.1f} s: {', '.join(counts)}"
    warned = sum(check["outcome"] == "passed" and check["has_warnings"] for check in checks)
    if warned:
        first += f", {warned} of them with warnings, which pytest -rP prints"
    if short:
        return [f"crosscheck: {first}"]
    slowest = sorted(checks, key=lambda check: -check["seconds"])[:SLOWEST]
    lines = [first, *(f"  slowest: {check['seconds']:.2f} s  {_place(check)}" for check in slowest)]
    listed = [(outcome, check) for outcome in LISTED for check in checks if check["outcome"] == outcome]
    return lines + [f"  {outcome}: {_place(check)}" for outcome, check in listed]


def _place(check: Check) -> str:
    return f"{check['subject']}  {check['test']}"
