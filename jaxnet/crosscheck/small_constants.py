"""Finds whether a small constant that only the forward pass has, as the eps of log(p + eps), explains a small error.

The constants are the numbers in the source of the functions that the forward pass calls, the defaults of their
arguments, and the globals that they read. The cause is established, not guessed: the gradient passes against the same
forward pass with 0 in place of one of them.
"""

import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import CodeType, FrameType, FunctionType
from typing import Any

from jaxnet.crosscheck.context import Context
from jaxnet.crosscheck.decide import Cause, Verdict
from jaxnet.crosscheck.explain.report_lines import SOLVER
from jaxnet.crosscheck.explain.slips import Slip
from jaxnet.crosscheck.measure.derivation import Derivations
from jaxnet.crosscheck.meter import OutOfTime
from jaxnet.crosscheck.report import Leaf

LARGEST = 1e-4
MAX_CONSTANTS = 3  # that are tried
SENTENCE = "it is right for the forward pass with 0 in place of {:g}, a constant that the gradient leaves out"


def explain_small_errors(context: Context, leaves: list[Leaf]) -> list[Leaf]:
    """Returns the leaves, with a diagnosis for small errors that a constant of the forward pass explains.

    Args:
        context: The check.
        leaves: The leaves that were checked in it.
    """
    wrong = [leaf for leaf in leaves if _is_slightly_wrong(leaf)]
    if not wrong or context.checkable.derived_by != "analytic":
        return leaves
    functions = _functions_of(context)
    constants = sorted({number for f in functions for number in _small_numbers(f)})[:MAX_CONSTANTS]
    for constant in constants:
        explained = {leaf.name for leaf in wrong if _passes_without(context, leaf.name, functions, constant)}
        if explained:
            diagnosis = SENTENCE.format(constant)
            return [
                replace(leaf, slip=Slip.EPSILON, diagnosis=diagnosis) if leaf.name in explained else leaf
                for leaf in leaves
            ]
    return leaves


def _is_slightly_wrong(leaf: Leaf) -> bool:
    return leaf.cause is Cause.ANALYTIC_WRONG and leaf.verdict is Verdict.FAIL and leaf.relative_error <= SOLVER


def _passes_without(context: Context, name: str, functions: list[FunctionType], constant: float) -> bool:
    """Returns whether the gradient of a leaf, as it is, passes if a constant is 0 in the forward pass."""
    claimed = context.analytic.gradient[name]
    try:
        with _as_zero(functions, constant):
            without = context.derivation(context.at, [name]).with_gradient(name, claimed)
            return context.outcome(name, Derivations(without)).verdict is Verdict.PASS
    except OutOfTime:
        raise
    except Exception:  # the constant kept the code from dividing by 0
        return False


def _functions_of(context: Context) -> list[FunctionType]:
    """Returns the Python functions that a forward pass calls and that have a small constant."""
    codes: set[CodeType] = set()

    def record(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            codes.add(frame.f_code)

    instance, before = context.checkable.open(dict(context.at)), sys.getprofile()
    sys.setprofile(record)
    try:
        instance.forward()
    finally:
        sys.setprofile(before)
    own = [code for code in codes if not _is_of_library(code)]
    functions = [f for f in gc.get_referrers(*own) if isinstance(f, FunctionType)] if own else []
    return [f for f in functions if f.__code__ in codes and any(_small_numbers(f))]


def _is_of_library(code: CodeType) -> bool:
    return any(part in code.co_filename for part in ("site-packages", "jaxnet/crosscheck", "<frozen", "lib/python"))


def _small_numbers(function: FunctionType) -> Iterator[float]:
    yield from _small_in_code(function.__code__)
    held = [*(function.__defaults__ or ()), *_globals_of(function).values()]
    yield from (value for value in held if _is_small(value))


def _small_in_code(code: CodeType) -> Iterator[float]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _small_in_code(constant)
        elif _is_small(constant):
            yield constant


def _globals_of(function: FunctionType) -> Mapping[str, Any]:
    names = function.__globals__
    return {name: names[name] for name in function.__code__.co_names if _is_small(names.get(name))}


def _is_small(value: Any) -> bool:
    return isinstance(value, float) and 0 < value <= LARGEST


@contextmanager
def _as_zero(functions: list[FunctionType], constant: float) -> Iterator[None]:
    """Replaces a number by 0 in functions, within the block."""
    globals_of = ({n: v for n, v in _globals_of(f).items() if v == constant} for f in functions)
    held = [(f, f.__code__, f.__defaults__, names) for f, names in zip(functions, globals_of, strict=True)]
    try:
        for function, code, defaults, names in held:
            function.__code__ = _code_with_zero(code, constant)
            if defaults is not None:
                function.__defaults__ = tuple(_zero_for(constant, value) for value in defaults)
            function.__globals__.update(dict.fromkeys(names, 0.0))
        yield
    finally:
        for function, code, defaults, names in held:
            function.__code__, function.__defaults__ = code, defaults
            function.__globals__.update(names)


def _code_with_zero(code: CodeType, constant: float) -> CodeType:
    def replaced(value: Any) -> Any:
        if isinstance(value, CodeType):
            return _code_with_zero(value, constant)
        return _zero_for(constant, value)

    return code.replace(co_consts=tuple(map(replaced, code.co_consts)))


def _zero_for(constant: float, value: Any) -> Any:
    return 0.0 if isinstance(value, float) and value == constant else value
