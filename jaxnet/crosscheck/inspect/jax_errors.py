"""Finds the cause of an exception in JAX's differentiation: the function, a derivative rule, or JAX itself."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

import jax
import jaxlib
import numpy as np

from jaxnet.crosscheck.inspect.errors import PACKAGE

NOT_TRACEABLE = (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError,
                 jax.errors.TracerIntegerConversionError)  # fmt: skip
MAX_LENGTH = 200  # characters of JAX's reason


def _folder(path: str) -> str:
    return os.path.dirname(os.path.abspath(path)) + os.sep


RULES = os.path.join("_src", "custom_derivatives.py")
INSIDE = tuple(_folder(path) for path in (str(jax.__file__), str(jaxlib.__file__), str(np.__file__)))
STANDARD = _folder(os.__file__)


class Origin(Enum):
    """The origin of an exception."""

    NOT_TRACEABLE = "JAX cannot trace the function"
    NOT_DIFFERENTIABLE = "JAX has no derivative for it"
    RULE = "a derivative rule that the user wrote"


def origin(error: Exception) -> Origin:
    """Returns the origin of an exception of `jax.vjp` or of the function that it returned.

    The function itself is known to run. So the exception comes from a rule if the traceback goes through a rule into
    the user's code, or ends where JAX checks the result of a rule. Otherwise JAX cannot differentiate the function.
    """
    if isinstance(error, NOT_TRACEABLE):
        return Origin.NOT_TRACEABLE
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, NotImplementedError) and files and is_inside_jax(files[-1]):
        return Origin.NOT_DIFFERENTIABLE
    rules = [i for i, file in enumerate(files) if file.endswith(RULES)]
    if rules and (rules[-1] == len(files) - 1 or any(_is_users(file) for file in files[rules[0] :])):
        return Origin.RULE
    return Origin.NOT_DIFFERENTIABLE if files and is_inside_jax(files[-1]) else Origin.RULE


def reason(error: Exception) -> str:
    """Returns the first sentence of an exception."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    sentence = line.split(". ")[0].rstrip(". ")
    return sentence if len(sentence) <= MAX_LENGTH else sentence[:MAX_LENGTH].rsplit(" ", 1)[0] + " ..."


@contextmanager
def whole_tracebacks() -> Iterator[None]:
    """Keeps JAX's own frames in tracebacks within the block."""
    before = jax.config.jax_traceback_filtering  # type: ignore[attr-defined]
    jax.config.update("jax_traceback_filtering", "off")  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        jax.config.update("jax_traceback_filtering", before)  # type: ignore[no-untyped-call]


def is_inside_jax(file: str) -> bool:
    """Returns whether a file is one of JAX or NumPy."""
    return file.startswith(INSIDE)


def _is_users(file: str) -> bool:
    if file.startswith((*INSIDE, PACKAGE, "<frozen")):
        return False
    return not file.startswith(STANDARD) or "-packages" in file
