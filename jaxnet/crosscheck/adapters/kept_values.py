"""Layers whose forward keeps the values for its backward only if it is told to: `forward(x, keep=False)`."""

import functools
import inspect
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, called, has_method, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.signatures import positional
from jaxnet.crosscheck.inspect.trees import is_float

NOTE = "forward is called with {}=True, as its backward needs what it keeps then"


def adapt(style: Style) -> Style | None:
    """Sets the option of forward, of those that are False, without which backward raises an error."""
    layer = style.thing
    if isinstance(layer, tuple | list | type) or not (has_method(layer, "forward") and has_method(layer, "backward")):
        return None
    kind: Any = type(layer)
    options = [p.name for p in positional(layer.forward)[len(style.inputs) :] if p.default is False]
    if not options or _runs(style, {}):
        return None
    working = [name for name in options if _runs(style, {name: True})]
    if len(working) != 1:
        return None

    @functools.wraps(kind.forward)
    def forward(self: Any, *inputs: Any) -> Any:
        return kind.forward(self, *inputs, **{working[0]: True})

    own = [p for p in inspect.signature(kind.forward).parameters.values() if p.name != working[0]]
    forward.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
    note = "; ".join(filter(None, (style.note, NOTE.format(working[0]))))
    return style._replace(thing=with_methods(layer, {"forward": forward}), note=note)


def _runs(style: Style, options: dict[str, bool]) -> bool:
    """Returns whether backward runs after a forward pass with these options."""
    trial: Any = duplicate(style.thing)
    y = called(lambda *inputs: trial.forward(*inputs, **options), *style.inputs)
    return is_float(y) and not isinstance(called(trial.backward, np.ones_like(y)), Exception)
