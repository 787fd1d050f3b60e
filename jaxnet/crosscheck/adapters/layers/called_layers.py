"""Adapts layers whose `__call__` stores what backward needs and calls `forward`, which stores nothing."""

import functools
from typing import Any

from jaxnet.crosscheck.adapters.style import Style, backward_runs_after, has_method, with_methods

NOTE = "{} is called as layer(...), not layer.forward(...), because its backward needs values that the call stores"


def adapt(style: Style) -> Style | None:
    """Replaces the forward of such a layer by its call, if backward can run only after the call."""
    layer = style.thing
    if isinstance(layer, tuple | list | type):
        return None
    if not all(has_method(layer, name) for name in ("forward", "backward", "__call__")):
        return None
    kind: Any = type(layer)
    if backward_runs_after(kind.forward, layer, style.inputs):
        return None
    if not backward_runs_after(kind.__call__, layer, style.inputs):
        return None
    own: Any = kind.forward

    def forward(self: Any, *inputs: Any) -> Any:
        if self.__dict__.get("_is_within_call"):
            return own(self, *inputs)
        self.__dict__["_is_within_call"] = True
        try:
            return kind.__call__(self, *inputs)
        finally:
            del self.__dict__["_is_within_call"]

    note = "; ".join(filter(None, (style.note, NOTE.format(kind.__name__))))
    return style._replace(thing=with_methods(layer, {"forward": functools.wraps(own)(forward)}), note=note)
