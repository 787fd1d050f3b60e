"""Ends a command with one line on stderr and an exit status, instead of a traceback."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

USAGE_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, the status of a program that Ctrl-C ended


def program() -> str:
    """Returns the name of the running command, such as `train.py` or `jaxnet train`."""
    return os.path.basename(sys.argv[0])


@contextmanager
def one_line_errors(*errors: type[Exception]) -> Iterator[None]:
    """Exits with one line instead of a traceback on ValueError, OSError, one of `errors`, Ctrl-C or exhausted memory.

    Raises:
        SystemExit: In place of the error.
    """
    expected: tuple[type[Exception], ...] = (ValueError, OSError, *errors)
    try:
        yield
    except KeyboardInterrupt:
        _exit("interrupted", INTERRUPTED)
    except expected as error:
        _exit(str(error))
    except MemoryError as error:
        _exit(f"not enough memory ({error}); choose smaller sizes")
    except Exception as error:
        jax = sys.modules.get("jax")  # a check of NumPy code does not import it
        if jax is None or not isinstance(error, jax.errors.JaxRuntimeError) or "RESOURCE_EXHAUSTED" not in str(error):
            raise
        _exit(f"not enough memory ({error}); choose smaller sizes or batches")


def _exit(message: str, status: int = USAGE_ERROR) -> None:
    print(f"{program()}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
