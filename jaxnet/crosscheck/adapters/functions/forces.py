"""Recognizes forces, which are minus the gradient of an energy, by a function's name, docstring or comment.

A function of a force's name that is documented as `dV/dx`, without a minus, returns the gradient itself.
"""

import dis
import functools
import inspect
import re
from collections.abc import Callable
from types import FunctionType
from typing import Any

FORCE = re.compile(r"(get_|compute_|calc(ulate)?_)?(\w+_)?forces?(_\w+)?")
# Comments and docstrings that speak of a force, and words by which they may mean another value or sign.
FORCE_IN_TEXT = re.compile(
    r"(returns?|comput\w+|calculat\w+|evaluat\w+)\s+(the\s+)?(\w+\s+)?forces?\b"
    r"|\bforce (engine|function)|\benergy and forces?\b",
    re.IGNORECASE,
)
NO_FORCE_IN_TEXT = re.compile(r"grad|minus|negative|constant|field|-\s*(the )?force", re.IGNORECASE)
DERIVATIVE_IN_TEXT = re.compile(r"([-\u2212\u2013]\s*)?\bd[A-Z]\w*(\(\w+\))?\s*/\s*d\w+")  # dV/dx, dE(r)/dr, -dU/dq
MINUS_IN_TEXT = re.compile(r"minus|negative", re.IGNORECASE)
AS_FORCE = "{} is checked as minus the gradient of {}"
BEFORE_CODE = frozenset({"RESUME", "COPY_FREE_VARS", "PUSH_NULL"})


def is_force(function: Any) -> bool:
    """Returns whether a function, or the one that a lambda returns the result of, returns forces."""
    function = _behind_lambda(function)
    name = getattr(function, "__name__", "")
    text = f"{inspect.getdoc(function) or ''} {inspect.getcomments(function) or ''}"
    in_text = FORCE_IN_TEXT.search(f"{name} {text}") is not None and NO_FORCE_IN_TEXT.search(f"{name} {text}") is None
    return (FORCE.fullmatch(name) is not None and not _is_documented_derivative(text)) or in_text


def negative(force: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of the negative of what `force` returns, each part of it if it is a tuple."""

    @functools.wraps(force)
    def gradient(*args: Any) -> Any:
        forces = force(*args)
        return tuple(-part for part in forces) if isinstance(forces, tuple | list) else -forces

    return gradient


def name_of_force(function: Any) -> str:
    """Returns the name of a function that returns forces, or of the one behind a lambda."""
    return str(getattr(_behind_lambda(function), "__name__", "force"))


def _is_documented_derivative(text: str) -> bool:
    signs = [match[1] for match in DERIVATIVE_IN_TEXT.finditer(text)]
    return bool(signs) and not any(signs) and MINUS_IN_TEXT.search(text) is None


def _behind_lambda(function: Any) -> Any:
    """Returns the function whose result a lambda returns as it is, `lambda x: drift_force(x, m)`; else the function."""
    if not isinstance(function, FunctionType) or function.__name__ != "<lambda>":
        return function
    code = [step for step in dis.get_instructions(function) if step.opname not in BEFORE_CODE]
    calls = [i for i, step in enumerate(code) if step.opname.startswith("CALL")]
    if len(calls) != 1 or calls[0] != len(code) - 2:
        return function
    variables = inspect.getclosurevars(function)
    force: Any = {**variables.globals, **variables.nonlocals}.get(str(code[0].argval))
    for step in code[1:]:
        if step.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
            break
        force = getattr(force, str(step.argval), None)
    return force if callable(force) else function
