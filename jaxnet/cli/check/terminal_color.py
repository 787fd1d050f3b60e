"""Colours the verdicts of a report on a terminal."""

import os
import re
import sys

from jaxnet.crosscheck import Verdict

CODES = {Verdict.PASS: 32, Verdict.FAIL: 31, Verdict.INCONCLUSIVE: 33}  # green, red, yellow
VERDICTS = re.compile(rf"^((?:.*?  )?)({'|'.join(CODES)})\b", re.M)  # at the start of a line, or in a column


def colored(text: str) -> str:
    """Returns a text with its verdicts in colour."""
    return VERDICTS.sub(lambda match: f"{match[1]}\x1b[1;{CODES[Verdict(match[2])]}m{match[2]}\x1b[0m", text)


def has_color() -> bool:
    """Returns whether stdout takes colours: a terminal does. NO_COLOR and FORCE_COLOR override this if not empty."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (sys.stdout.isatty() and os.environ.get("TERM") != "dumb")
