"""Ends a command with one line on stderr and an exit status, instead of a traceback."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from jaxnet import DISTRIBUTION

USAGE_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, the status of a program that Ctrl-C ended


def program() -> str:
    """Returns the name of the running command, such as `train.py` or `jaxnet train`."""
    return os.path.basename(sys.argv[0])


@contextmanager
def one_line_errors(*errors: type[Exception]) -> Iterator[None]:
    """Exits with one line instead of a traceback on an error that a user can mend.

    These are ValueError, OSError, ImportError, one of `errors`, Ctrl-C, exhausted memory, a JAX without devices, and
    a number that JAX_DEBUG_NANS or JAX_DEBUG_INFS stops at.

    Raises:
        SystemExit: In place of the error.
    """
    expected: tuple[type[Exception], ...] = (ValueError, OSError, *errors)
    try:
        yield
    except KeyboardInterrupt:
        _exit("interrupted", INTERRUPTED)
    except ImportError as error:
        _exit(f'a package is missing or does not fit ({error}): pip install "{DISTRIBUTION}[train]"')
    except expected as error:
        _exit(str(error))
    except MemoryError as error:
        _exit(f"not enough memory ({error}); choose smaller sizes")
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        _exit(reason)


def silence_closed_loops() -> None:
    """Keeps threads of the storage library of checkpoints from printing a traceback each.

    After a save or a read that failed, as on a full disk, their results arrive at an event loop that is closed. The
    error itself is reported by the command.
    """
    usual = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            usual(unraisable)

    sys.unraisablehook = hook


def _reason(error: Exception) -> str | None:
    """Returns what a user can do about an error of JAX, which a check of NumPy code does not import, or None."""
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
        return f"not enough memory ({error}); choose smaller sizes or batches"
    if jax is not None and isinstance(error, FloatingPointError):
        return f"{_first_line(error)}; unset JAX_DEBUG_NANS and JAX_DEBUG_INFS, and the first bad value is named"
    from jaxnet.cli.environment import missing_devices

    return missing_devices()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _exit(message: str, status: int = USAGE_ERROR) -> None:
    print(f"{program()}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
