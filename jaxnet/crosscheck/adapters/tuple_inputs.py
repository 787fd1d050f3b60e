"""Layers that take their inputs in one tuple or list: `forward((a, b))`, and `backward` returns as many gradients."""

import inspect
from typing import Any

from jaxnet.crosscheck.adapters.style import Style, called, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.trees import is_float


def adapt(style: Style) -> Style | None:
    """Spreads the parts of a single input over several inputs, if backward returns a gradient for each part."""
    thing, inputs = style.thing, style.inputs
    if not callable(getattr(thing, "backward", None)) or len(inputs) != 1 or not isinstance(inputs[0], tuple | list):
        return None
    parts, together = tuple(inputs[0]), type(inputs[0])
    if len(parts) < 2 or not all(map(is_float, parts)):
        return None
    trial = duplicate(thing)
    y = called(trial.forward, together(parts))
    returned = called(trial.backward, y)
    if not isinstance(returned, tuple | list) or len(returned) != len(parts):
        return None
    kind: Any = type(thing)

    def forward(self: Any, *parts: Any) -> Any:
        return kind.forward(self, together(parts))

    names = [f"inputs{i}" for i in range(len(parts))]
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ["self", *names]]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return style._replace(thing=with_methods(thing, {"forward": forward}), inputs=parts)
