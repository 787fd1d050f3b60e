"""Whose fault an exception is that JAX's differentiation raised: the function's, its rule's, or nobody's."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

import jax
import jaxlib
import numpy as np

NOT_TRACEABLE = (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError,
                 jax.errors.TracerIntegerConversionError)  # fmt: skip
LONGEST = 200  # characters of JAX's reason


def _folder(path: str) -> str:
    return os.path.dirname(os.path.abspath(path)) + os.sep


RULES = os.path.join("_src", "custom_derivatives.py")
INSIDE = tuple(_folder(path) for path in (str(jax.__file__), str(jaxlib.__file__), str(np.__file__)))
OURS = os.path.dirname(_folder(__file__).rstrip(os.sep)) + os.sep
STANDARD = _folder(os.__file__)


class Origin(Enum):
    """Where an exception comes from."""

    NOT_TRACEABLE = "JAX cannot trace the function"
    NOT_DIFFERENTIABLE = "JAX has no derivative for it"
    RULE = "a derivative rule that the user wrote"


def origin(error: Exception) -> Origin:
    """Returns where an exception of `jax.vjp`, or of the function that it returned, comes from.

    The function itself is known to run. So it is a rule's fault where JAX calls a rule and the user's code is met
    again within it, or where JAX complains of what a rule returned; all else is JAX's own refusal.
    """
    if isinstance(error, NOT_TRACEABLE):
        return Origin.NOT_TRACEABLE
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, NotImplementedError) and files and _is_inside(files[-1]):
        return Origin.NOT_DIFFERENTIABLE
    rules = [i for i, file in enumerate(files) if file.endswith(RULES)]
    if rules and (rules[-1] == len(files) - 1 or any(_is_users(file) for file in files[rules[0] :])):
        return Origin.RULE
    return Origin.NOT_DIFFERENTIABLE if files and _is_inside(files[-1]) else Origin.RULE


def reason(error: Exception) -> str:
    """Returns the first sentence of an exception."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    sentence = line.split(". ")[0].rstrip(". ")
    return sentence if len(sentence) <= LONGEST else sentence[:LONGEST].rsplit(" ", 1)[0] + " ..."


@contextmanager
def whole_tracebacks() -> Iterator[None]:
    """Keeps JAX's own frames in tracebacks within the block."""
    before = jax.config.jax_traceback_filtering  # type: ignore[attr-defined]
    jax.config.update("jax_traceback_filtering", "off")  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        jax.config.update("jax_traceback_filtering", before)  # type: ignore[no-untyped-call]


def _is_inside(file: str) -> bool:
    return file.startswith(INSIDE)


def _is_users(file: str) -> bool:
    if file.startswith((*INSIDE, OURS, "<frozen")):
        return False
    return not file.startswith(STANDARD) or "-packages" in file
