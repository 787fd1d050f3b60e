"""Says which environment variable or limit of the process is wrong, where libraries name none, end, or wait forever."""

import os
import re
import subprocess
import sys
from functools import cache
from typing import Any

LIBRARIES = ("JAX_", "XLA_", "MPL")  # the beginnings of the names of their variables
MIN_OPEN_FILES = 64  # at a time; a run that writes checkpoints has 16
FATAL = re.compile(r"^F\d{4} .*?\] (.*)", re.M)  # a line of XLA's log


def check_xla_flags() -> None:
    """Raises ValueError if XLA refuses the flags in the environment: it would end this process when JAX starts.

    No library tells which flags there are, so another process starts JAX with them, which takes a second. Without
    `XLA_FLAGS` the function does nothing.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if flags.strip() and (reason := _refusal(flags)):
        raise ValueError(f"XLA_FLAGS: {flags}, which XLA refuses ({reason}); correct it, or unset it")


def allow_open_files() -> None:
    """Raises the soft limit of open files to what a command needs, if it is lower.

    A run whose checkpoints find no free descriptor may wait for its threads forever.

    Raises:
        ValueError: If the hard limit is lower, too.
    """
    try:
        import resource
    except ImportError:  # as on Windows, which has no such limits
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= MIN_OPEN_FILES:
        return
    if hard != resource.RLIM_INFINITY and hard < MIN_OPEN_FILES:
        needed = f"expected at least {MIN_OPEN_FILES}; raise the limit of this shell or user"
        raise ValueError(f"ulimit -n: at most {hard} open files, {needed}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (MIN_OPEN_FILES, hard))


@cache
def _refusal(flags: str) -> str:
    """Returns why XLA ends a process that has these flags, or ""."""
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if not done.returncode:
        return ""
    match = FATAL.search(done.stderr)
    return match[1] if match else f"status {done.returncode}"


def named_variables(message: str) -> str:
    """Returns the variables whose values a message of a library quotes without their names, to be added to it.

    Examples:
        >>> os.environ["MPLBACKEND"] = "pen"
        >>> named_variables("'pen' is not a valid value for backend"), named_variables("no such file")
        ('; the environment has MPLBACKEND=pen', '')
        >>> del os.environ["MPLBACKEND"]
    """
    variables = [
        f"{name}={value}"
        for name, value in os.environ.items()
        if name.startswith(LIBRARIES) and repr(value) in message and name not in message
    ]
    return f"; the environment has {', '.join(variables)}" if variables else ""


def missing_devices() -> str | None:
    """Returns why JAX, if it is imported, can use no device at all, or None if it can."""
    jax: Any = sys.modules.get("jax")
    if jax is None:
        return None
    try:
        jax.devices()
    except Exception as error:  # RuntimeError, or AssertionError without a message for a platform that is not installed
        platforms = jax.config.jax_platforms
        reason = f" ({error})" if str(error) else ""
        return f"JAX_PLATFORMS: {platforms}, but JAX finds no such device{reason}; unset it, or install JAX for it"
    return None
