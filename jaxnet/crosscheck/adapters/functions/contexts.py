"""Adapts functions with a context, as PyTorch's but on arrays: `forward(ctx, x, w)` and `backward(ctx, dout)`.

The context is an instance of the module's class with `save_for_backward`, or else of `Context`.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, cast

from jaxnet.crosscheck.adapters.style import Style, parameters_of, required_parameters_of

NAMES = ("ctx", "context")


class Context:
    """The object in which a forward saves values for its backward."""

    def __init__(self) -> None:
        self.saved_tensors: tuple[Any, ...] = ()

    def save_for_backward(self, *values: Any) -> None:
        """Saves values."""
        self.saved_tensors = self.saved_values = values

    @property
    def saved_variables(self) -> tuple[Any, ...]:
        """The saved values, under an older name."""
        return self.saved_tensors


def adapt(style: Style) -> Style | None:
    """Turns a class or a pair of functions with a context into a pair whose cache is the context."""
    thing = style.thing
    passes = (
        thing if isinstance(thing, tuple | list) else [getattr(thing, name, None) for name in ("forward", "backward")]
    )
    if len(passes) != 2 or not all(
        callable(f) and parameters_of(f)[:1] and parameters_of(f)[0] in NAMES for f in passes
    ):
        return None
    forward, backward = (cast("Callable[..., Any]", f) for f in passes)

    make = _context_of(forward)

    @functools.wraps(forward)
    def forward_in_context(*inputs: Any) -> Any:
        context = make()
        return forward(context, *inputs), context

    signature = inspect.signature(forward)
    own = list(signature.parameters.values())[1:]
    forward_in_context.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
    forward_in_context.__name__ = getattr(thing, "__name__", type(thing).__name__)
    return style._replace(thing=(forward_in_context, lambda dout, context: backward(context, dout)))


def _context_of(forward: Callable[..., Any]) -> Callable[[], Any]:
    """Returns the class of contexts in the module of a forward pass; `Context` if it has none or several."""
    values = getattr(inspect.unwrap(forward), "__globals__", {}).values()
    kinds = {value for value in values if isinstance(value, type) and hasattr(value, "save_for_backward")}
    own = [kind for kind in kinds if not hasattr(kind, "backward") and not required_parameters_of(kind)]
    return own[0] if len(own) == 1 else Context
