"""Layers whose `backward(dout, learning_rate)` updates the parameters itself."""

import re
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, parameters_of, with_methods
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.trees import is_float

RATES = re.compile(r"(learn(ing)?_?|l_?|training_?)?rates?|lr|alpha|eta|step(_?size)?", re.IGNORECASE)
RATE = 1.0
NOTE = "gradients are computed from the updates that backward makes at a learning rate of 1"


def adapt(style: Style) -> Style | None:
    """Computes the gradients of the parameters from their updates, and undoes the updates."""
    layer = style.thing
    takes = parameters_of(getattr(layer, "backward", None))
    if isinstance(layer, type) or len(takes) != 2 or not RATES.fullmatch(takes[1]):
        return None
    kind: Any = type(layer)

    def backward(self: Any, dout: Any) -> Any:
        held = attributes_of(self)
        before = {name: np.copy(held[name]) for name in held if is_float(held[name])}
        dx = kind.backward(self, dout, RATE)
        after = {name: np.copy(getattr(self, name)) for name in before}
        for name, old in before.items():
            if after[name].shape == old.shape and not np.array_equal(after[name], old, equal_nan=True):
                held[name][...] = old
                setattr(self, name, held[name])
                setattr(self, f"d{name}", (old - after[name]) / RATE)
        return dx

    return style._replace(thing=with_methods(layer, {"backward": backward}), note=NOTE)
