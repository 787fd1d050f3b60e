"""Imports what runs the commands. If Ctrl-C comes while it is imported, prints one line instead of a traceback."""

import sys

try:
    from jaxnet.cli.main import main, run_command
except KeyboardInterrupt:
    print("jaxnet: interrupted", file=sys.stderr)
    sys.exit(130)  # `INTERRUPTED`, whose module may be what was not imported

__all__ = ["main", "run_command"]
