"""Layers whose backward has arguments that it never reads, as `backward(dout, _)` of a layer without parameters."""

import dis
import inspect
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, called, has_method, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.signatures import positional


def adapt(style: Style) -> Style | None:
    """Removes such arguments after the first, which is the upstream gradient."""
    layer: Any = style.thing
    backward = getattr(layer, "backward", None)
    if isinstance(layer, tuple | list | type) or not inspect.ismethod(backward):
        return None
    required = [p.name for p in positional(backward) if p.default is p.empty]
    unread = [name for name in required if not _reads(backward, name)]
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


def adapt_unread_dout(style: Style) -> Style | None:
    """Removes the only argument of the backward of a loss, which has a default and is never read.

    A loss is a single number, whose gradient such a backward returns: `loss.backward(grad=None)`.
    """
    layer: Any = style.thing
    backward = getattr(layer, "backward", None)
    if isinstance(layer, tuple | list | type) or not inspect.ismethod(backward) or not has_method(layer, "forward"):
        return None
    takes = positional(backward)
    if len(takes) != 1 or takes[0].default is takes[0].empty or _reads(backward, takes[0].name):
        return None
    if np.ndim(value := called(duplicate(layer).forward, *style.inputs)) or not isinstance(value, float | np.ndarray):
        return None
    kind = type(layer)

    def without_dout(self: Any) -> Any:
        return kind.backward(self)

    return style._replace(thing=with_methods(layer, {"backward": without_dout}))


def _reads(method: Any, name: str) -> bool:
    """Returns whether the code of a method, or a function within it, loads a variable."""
    steps = [step for step in dis.get_instructions(method.__func__) if step.opname.startswith("LOAD_")]
    within = {free for constant in method.__func__.__code__.co_consts for free in getattr(constant, "co_freevars", ())}
    return name in within or any(name == step.argval or name in _several(step.argval) for step in steps)


def _several(value: Any) -> tuple[Any, ...]:
    """Returns the names that one instruction loads, where it loads two."""
    return value if isinstance(value, tuple) else ()
