"""Takes problems as SciPy's solvers take them: a function `fun` and its derivatives in one object."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array

ENTRIES = ("fun", "jac", "hess", "hessp")


class Problem(NamedTuple):
    """A function and its derivatives.

    Attributes:
        fun: The function.
        jac: Its gradient or Jacobian. None if `fun` returns its value and its gradient.
        hess: The Hessian at x of a number, or of (x, v) the Hessian of <v, fun>; or None.
        hessp: The product of the Hessian at x with p, of (x, p); or None.
    """

    fun: Callable[..., Any]
    jac: Callable[..., Any] | None
    hess: Callable[..., Any] | None
    hessp: Callable[..., Any] | None

    @property
    def second(self) -> Callable[..., Any] | None:
        """The second derivative, if it was written by hand."""
        return self.hess or self.hessp

    def gradient(self, dout: Array) -> Callable[..., Any]:
        """Returns the gradient of <dout, fun> as a function of x."""
        weights = dout.tolist()  # not an array, of which the check would ask for a gradient

        def gradient(x: Any) -> Any:
            jacobian = self.fun(x)[1] if self.jac is None else self.jac(x)
            return jacobian.T @ np.asarray(weights) if dout.ndim else jacobian

        return gradient

    def derivative_of_gradient(self, dout: Array) -> Callable[..., Any]:
        """Returns the derivative of `gradient(dout)` as a function of x, or of (x, p) if it is a product."""
        hess = self.hess
        if hess is None or dout.ndim == 0:
            return self.second  # type: ignore[return-value]
        return lambda x: hess(x, dout)


def as_problem(thing: Any) -> Problem | None:
    """Returns the function and the derivatives of a problem: a dict, or an object such as a `NonlinearConstraint`.

    `jac=True` says that `fun` returns its value and its gradient. Further arguments, in the dict's `args`, follow those
    that are checked.

    Returns:
        None if this is no problem with a derivative of its own.
    """
    entries = thing if isinstance(thing, Mapping) else {name: getattr(thing, name, None) for name in ENTRIES}
    fun, jac, rest = entries.get("fun"), entries.get("jac"), entries.get("args", ())
    if not callable(fun) or callable(thing) or not (callable(jac) or jac is True):
        return None
    second = [function if callable(function := entries.get(name)) else None for name in ("hess", "hessp")]
    functions = [fun, None if jac is True else jac, *second]
    return Problem(*(f and _followed_by(f, rest) for f in functions))


def _followed_by(function: Callable[..., Any], rest: Any) -> Callable[..., Any]:
    more = rest if isinstance(rest, tuple) else (rest,)
    if not more:
        return function

    @functools.wraps(function)
    def followed(x: Any) -> Any:
        return function(x, *more)

    del followed.__wrapped__  # its signature has the further arguments
    return followed
