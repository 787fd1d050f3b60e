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
    """

    test: str
    subject: str
    outcome: str
    seconds: float


def summary_lines(checks: Sequence[Check], *, short: bool = False) -> list[str]:
    """Returns the lines of the summary.

    Args:
        checks: The checks of the run, at least one.
        short: Whether one line must do.

    Examples:
        >>> summary_lines([Check(test="test_a.py::test_relu", subject="ReLU", outcome="passed", seconds=0.125)])
        ['1 check in 0.1 s: 1 passed', '  slowest: 0.12 s  ReLU  test_a.py::test_relu']
    """
    outcomes = [check["outcome"] for check in checks]
    counts = [f"{outcomes.count(o)} {o}" for o in ("failed", "undecided", "refused", "passed") if o in outcomes]
    checked = "1 check" if len(checks) == 1 else f"{len(checks):,} checks"
    first = f"{checked} in {sum(check['seconds'] for check in checks):.1f} s: {', '.join(counts)}"
    if short:
        return [f"crosscheck: {first}"]
    slowest = sorted(checks, key=lambda check: -check["seconds"])[:SLOWEST]
    lines = [first, *(f"  slowest: {check['seconds']:.2f} s  {_place(check)}" for check in slowest)]
    listed = [(outcome, check) for outcome in LISTED for check in checks if check["outcome"] == outcome]
    return lines + [f"  {outcome}: {_place(check)}" for outcome, check in listed]


def _place(check: Check) -> str:
    return f"{check['subject']}  {check['test']}"
