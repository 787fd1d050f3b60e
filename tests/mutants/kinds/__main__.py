"""Prints the kinds that are not as expected: python -m mutants.kinds [part of a name], run in `tests`."""

import sys

from mutants.kinds.scoring import score

sys.exit(score(sys.argv[1] if len(sys.argv) > 1 else "", seeds=int(sys.argv[2]) if len(sys.argv) > 2 else 1))
