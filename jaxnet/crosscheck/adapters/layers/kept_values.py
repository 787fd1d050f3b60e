"""Adapts layers whose forward stores values for backward only if an option says so: `forward(x, keep=False)`."""

import functools
import inspect
from typing import Any

from jaxnet.crosscheck.adapters.style import Style, backward_runs_after, has_method, with_methods
from jaxnet.crosscheck.inspect.signatures import positional

NOTE = "forward is called with {}=True, because backward needs the values that it stores then"


def adapt(style: Style) -> Style | None:
    """Sets the option of forward, of those that are False, without which backward raises an error."""
    layer = style.thing
    if isinstance(layer, tuple | list | type) or not (has_method(layer, "forward") and has_method(layer, "backward")):
        return None
    kind: Any = type(layer)
    options = [p.name for p in positional(layer.forward)[len(style.inputs) :] if p.default is False]
    if not options or backward_runs_after(kind.forward, layer, style.inputs):
        return None
    told_to = {name: functools.partial(kind.forward, **{name: True}) for name in options}
    working = [name for name, forward in told_to.items() if backward_runs_after(forward, layer, style.inputs)]
    if len(working) != 1:
        return None

    @functools.wraps(kind.forward)
    def forward(self: Any, *inputs: Any) -> Any:
        return kind.forward(self, *inputs, **{working[0]: True})

    own = [p for p in inspect.signature(kind.forward).parameters.values() if p.name != working[0]]
    forward.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
    note = "; ".join(filter(None, (style.note, NOTE.format(working[0]))))
    return style._replace(thing=with_methods(layer, {"forward": forward}), note=note)
