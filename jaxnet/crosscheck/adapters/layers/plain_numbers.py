"""Adapts code that takes a plain number and rejects an array: `isinstance(rate, float)` for `layer(x, 0.1)`."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, called, has_method, with_methods
from jaxnet.crosscheck.inspect.signatures import input_names, positional


def adapt(style: Style) -> Style | None:
    """Passes the plain numbers among the inputs as such to a forward that rejects arrays."""
    thing, inputs = style.thing, style.inputs
    is_pair = isinstance(thing, tuple | list) and len(thing) == 2 and all(map(callable, thing))
    if not is_pair and (isinstance(thing, type | tuple | list) or not has_method(thing, "forward")):
        return None
    forward: Any = thing[0] if is_pair else thing.forward
    if not rejects_arrays(forward, inputs):
        return None
    if is_pair:
        return style._replace(thing=(with_plain_numbers(forward, forward, inputs), thing[1]))
    method: Any = type(thing).forward
    return style._replace(thing=with_methods(thing, {"forward": with_plain_numbers(method, forward, inputs)}))


def rejects_arrays(f: Callable[..., Any], inputs: tuple[Any, ...]) -> bool:
    """Returns whether a function raises for arrays in place of the plain floats among its arguments, and only then."""
    if not any(map(_is_plain, inputs)):
        return False
    arrays = tuple(np.asarray(value) if _is_plain(value) else value for value in inputs)
    return isinstance(called(f, *arrays), Exception) and not isinstance(called(f, *inputs), Exception)


def with_plain_numbers(function: Any, f: Callable[..., Any], inputs: tuple[Any, ...]) -> Any:
    """Returns a function that gets floats for the arguments that were passed as plain floats.

    Args:
        function: The function that is wrapped: f, or its gradient, which takes them by the same names or places.
        f: The function whose arguments were passed.
        inputs: The arguments.
    """
    names = input_names(f, len(inputs))
    plain = {name for name, value in zip(names, inputs, strict=True) if _is_plain(value)}
    takes = [p.name for p in positional(function)]

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        values = [_plain(arg) if i < len(takes) and takes[i] in plain else arg for i, arg in enumerate(args)]
        return function(*values, **named)

    return call


def _is_plain(value: Any) -> bool:
    return isinstance(value, float) and not isinstance(value, np.generic)


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, np.ndarray | np.generic) and np.ndim(value) == 0 else value
