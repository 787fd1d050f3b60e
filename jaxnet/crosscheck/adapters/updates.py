"""Layers whose `backward(dout, learning_rate)` updates the parameters itself, or by an optimizer that they hold."""

import re
from collections.abc import Iterator, MutableMapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, parameters_of, with_methods
from jaxnet.crosscheck.inspect.objects import attributes_of, layers_within
from jaxnet.crosscheck.inspect.trees import is_float

RATES = re.compile(r"(learn(ing)?_?|l_?|training_?)?rates?|lr|alpha|eta|step(_?size)?", re.IGNORECASE)
DICTS = re.compile(r"_?(params?|parameters|weights)")
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
        before = [(layer, held, name, held[name], np.copy(held[name])) for layer, held, name in _arrays(self)]
        dx = kind.backward(self, dout, RATE)
        after = [np.copy(held[name]) for _, held, name, _, _ in before]
        for (layer, held, name, array, old), new in zip(before, after, strict=True):
            if new.shape == old.shape and not np.array_equal(new, old, equal_nan=True):
                array[...] = old
                held[name] = array
                setattr(layer, f"d{name}", (old - new) / RATE)
        return dx

    return style._replace(thing=with_methods(layer, {"backward": backward}), note=NOTE)


def _arrays(whole: Any) -> Iterator[tuple[Any, MutableMapping[str, Any], str]]:
    """Yields the float arrays of a layer and of those within it, in attributes and in dicts of parameters.

    Yields the layer, the mapping that holds the array (its attributes or a dict), and the name in it.
    """
    for _, layer in layers_within(whole):
        for name, value in attributes_of(layer).items():
            if is_float(value):
                yield layer, vars(layer), name
            elif isinstance(value, MutableMapping) and DICTS.fullmatch(name):
                yield from ((layer, value, key) for key, part in value.items() if is_float(part))
