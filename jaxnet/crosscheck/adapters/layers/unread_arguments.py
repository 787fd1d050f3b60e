"""Adapts layers whose backward has arguments that it never reads, as in `backward(dout, _)`."""

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, called, has_method, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.signatures import positional, reads


def adapt(style: Style) -> Style | None:
    """Removes such arguments after the first, which is the upstream gradient."""
    layer: Any = style.thing
    backward = getattr(layer, "backward", None)
    if isinstance(layer, tuple | list | type) or not inspect.ismethod(backward):
        return None
    required = [p.name for p in positional(backward) if p.default is p.empty]
    unread = [name for name in required if not reads(backward.__func__, name)]
    left = [name for name in required if name not in unread]
    if not unread or required[0] in unread:
        return None
    kind = type(layer)

    def without_unread(self: Any, *args: Any, **others: Any) -> Any:
        return kind.backward(self, **dict(zip(left, args, strict=False)), **dict.fromkeys(unread), **others)

    signature = inspect.signature(kind.backward)
    remaining = [p for name, p in signature.parameters.items() if name not in unread]
    without_unread.__signature__ = signature.replace(parameters=remaining)  # type: ignore[attr-defined]
    return style._replace(thing=with_methods(layer, {"backward": without_unread}))


def without_unread(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function without the required arguments, after the first, that it never reads.

    Example:
        >>> slope = without_unread(lambda dout, z, action: dout * (z > 0))
        >>> slope(2.0, 1.0)
        2.0
    """
    takes = positional(function) if isinstance(function, FunctionType) else []
    unread = [p.name for p in takes[1:] if p.default is p.empty and not reads(function, p.name)]
    if not unread:
        return function
    left = [p for p in takes if p.name not in unread]

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        return function(**dict(zip([p.name for p in left], args, strict=False)), **dict.fromkeys(unread))

    run.__signature__ = inspect.Signature(left)  # type: ignore[attr-defined]
    return run


def adapt_unread_dout(style: Style) -> Style | None:
    """Removes the only argument of the backward of a loss, which has a default and is never read.

    A loss is a single number, whose gradient such a backward returns: `loss.backward(grad=None)`.
    """
    layer: Any = style.thing
    backward = getattr(layer, "backward", None)
    if isinstance(layer, tuple | list | type) or not inspect.ismethod(backward) or not has_method(layer, "forward"):
        return None
    takes = positional(backward)
    if len(takes) != 1 or takes[0].default is takes[0].empty or reads(backward.__func__, takes[0].name):
        return None
    if np.ndim(value := called(duplicate(layer).forward, *style.inputs)) or not isinstance(value, float | np.ndarray):
        return None
    kind = type(layer)

    def without_dout(self: Any) -> Any:
        return kind.backward(self)

    return style._replace(thing=with_methods(layer, {"backward": without_dout}))
