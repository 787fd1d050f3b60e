"""Takes problems as SciPy's solvers take them: a function `fun` and its derivative `jac` in one object."""

import functools
from collections.abc import Callable, Mapping
from typing import Any


def as_problem(thing: Any) -> tuple[Callable[..., Any], Callable[..., Any] | None] | None:
    """Returns the function and its derivative of a problem: a dict, or an object such as a `NonlinearConstraint`.

    The derivative is None where `jac=True` says that `fun` returns its value and its gradient. Further arguments, in
    the dict's `args`, follow those that are checked.

    Returns:
        None if this is no problem with a derivative of its own.
    """
    entries = thing if isinstance(thing, Mapping) else {name: getattr(thing, name, None) for name in ("fun", "jac")}
    fun, jac, rest = entries.get("fun"), entries.get("jac"), entries.get("args", ())
    if not callable(fun) or callable(thing) or not (callable(jac) or jac is True):
        return None
    fun, jac = _followed_by(fun, rest), None if jac is True else _followed_by(jac, rest)
    return fun, jac


def _followed_by(function: Callable[..., Any], rest: Any) -> Callable[..., Any]:
    more = rest if isinstance(rest, tuple) else (rest,)
    if not more:
        return function

    @functools.wraps(function)
    def followed(x: Any) -> Any:
        return function(x, *more)

    del followed.__wrapped__  # its signature has the further arguments
    return followed
