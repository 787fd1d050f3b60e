"""How a script ends that cannot do what it is asked: one line, and exit status 2."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CANNOT = 2
UNREAD = 141  # as a shell says of a program that was ended by SIGPIPE


def program() -> str:
    """Returns what the running command is called: `train.py`, or `jaxnet train`."""
    return Path(sys.argv[0]).name


@contextmanager
def one_line(*errors: type[Exception]) -> Iterator[None]:
    """Where one of these is raised, or what is asked does not fit into memory or onto the disk, no traceback.

    Raises:
        SystemExit: Instead of the error.
    """
    one_liners: tuple[type[Exception], ...] = (ValueError, OSError, *errors)
    try:
        yield
    except BrokenPipeError:  # nobody reads any more, as behind `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python says so at its end
        sys.exit(UNREAD)
    except one_liners as error:
        _end(str(error))
    except MemoryError as error:
        _end(f"there is not enough memory ({error}); take smaller sizes")
    except Exception as error:
        jax = sys.modules.get("jax")  # which may not have been needed
        if jax is None or not isinstance(error, jax.errors.JaxRuntimeError) or "RESOURCE_EXHAUSTED" not in str(error):
            raise
        _end(f"there is not enough memory ({error}); take smaller sizes or batches")


def check_writable(option: str, path: Path | None) -> None:
    """A file that is to be written at the end must have a folder now.

    Raises:
        ValueError: It has none.
    """
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise ValueError(f"{option}: {path}, expected a file, in a folder that is there")


def _end(message: str) -> None:
    print(f"{program()}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(CANNOT)
