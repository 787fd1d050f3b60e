"""Adapts layers that compute gradients of parameters after backward: `backward(dout)`, then `compute_gradients()`."""

import functools
import re
from typing import Any

from jaxnet.crosscheck.adapters.methods import in_snake_case
from jaxnet.crosscheck.adapters.style import Style, has_method, parameters_of, required_parameters_of, with_methods

LATER = re.compile(r"(compute|calc(ulate)?|get|set|update)_(weight_|param(eter)?_)?(grads?|gradients?)")
NOTE = "{} is run after backward"


def adapt(style: Style) -> Style | None:
    """Runs the only method that speaks of gradients and takes nothing after backward."""
    layer: Any = style.thing
    if isinstance(layer, tuple | list | type) or not all(has_method(layer, name) for name in ("forward", "backward")):
        return None
    named = [n for n in dir(type(layer)) if LATER.fullmatch(in_snake_case(n)) and has_method(layer, n)]
    later = [name for name in named if not required_parameters_of(getattr(layer, name))]
    if len(later) != 1 or len(parameters_of(layer.backward)) != 1:
        return None
    kind: Any = type(layer)

    @functools.wraps(kind.backward)
    def backward(self: Any, dout: Any) -> Any:
        dx = kind.backward(self, dout)
        getattr(self, later[0])()
        return dx

    adapted = with_methods(layer, {"backward": backward})
    return style._replace(thing=adapted, note="; ".join(filter(None, (style.note, NOTE.format(later[0])))))
