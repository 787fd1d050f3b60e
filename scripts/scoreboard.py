"""Compares gradient checkers on the planted bugs and the right layers of `tests/mutants`."""

import sys
from pathlib import Path

from jaxnet.cli.start import run_command

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

if __name__ == "__main__":
    run_command("scoreboard", room="mutants")
