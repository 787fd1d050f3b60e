"""Explains wrong calls of a check itself: an unknown option, or a pair of functions as two arguments."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from jaxnet.crosscheck.inspect.errors import SubjectError, did_you_mean
from jaxnet.crosscheck.inspect.signatures import forward_pass_of, keywords, positional

P = ParamSpec("P")
R = TypeVar("R")


def explaining_wrong_calls(check: Callable[P, R]) -> Callable[P, R]:
    """Makes the errors of a check name what was passed in the wrong way, and how to pass it.

    Args:
        check: `check`, `check_layer`, `check_network` or `check_function`.
    """
    known = inspect.signature(check).parameters

    @functools.wraps(check)
    def run(*args: P.args, **options: P.kwargs) -> R:
        for option in options:
            if option not in known:
                raise SubjectError(f"{check.__name__}: {_unknown(option, args, list(known))}")
        try:
            return check(*args, **options)
        except SubjectError as error:
            if not (len(args) > 1 and all(map(inspect.isroutine, args[:2]))):
                raise
            raise SubjectError(f"{error}; {_two_functions(check.__name__, *args[:2])}") from error

    return run


def _unknown(option: str, args: tuple[Any, ...], known: list[str]) -> str:
    """Returns a message that a check has no such option, and how to pass what may be meant."""
    if option == "gradient":
        return "takes no gradient=; pass check_function(f, ..., gradient=g), or the pair (f, g) as one argument"
    forward = forward_pass_of(args[0]) if args else None
    if callable(forward) and option in {p.name for p in (*positional(forward), *keywords(forward))}:
        return f"has no option {option}; pass an argument of your code by name as named={{{option!r}: ...}}"
    near = did_you_mean(option, known)
    return f"has no option {option}" + (f"; {near}" if near else "")


def _two_functions(check: str, first: Any, second: Any) -> str:
    f, g = (getattr(function, "__name__", "f") for function in (first, second))
    if check == "check_function":
        return f"if {g} is the gradient of {f}, pass gradient={g} after the arguments"
    return f"if {g} is the backward pass of {f}, the pair is one argument: {check}(({f}, {g}), ...)"
