"""Adapts layers whose backward appends gradients to lists, of which an update takes the mean: `self.dWs.append(dW)`.

`dWs` stands for a name of the gradient of the parameter W, as `weight_gradients` of `weights`.
"""

import functools
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters import methods
from jaxnet.crosscheck.adapters.style import Style, called, parameters_of, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES
from jaxnet.crosscheck.inspect.stored_gradients import loose_names
from jaxnet.crosscheck.inspect.trees import is_float

NOTE = "backward appends a gradient to {} at each call; only the last one appended is checked"


def adapt(style: Style) -> Style | None:
    """Stores the gradient that backward appends beside its parameter, and takes it off the list."""
    if isinstance(style.thing, tuple | list | type) or not _lists_beside(style.thing, []):
        return None
    style = methods.adapt(style) or style
    layer: Any = style.thing
    if not all(callable(getattr(layer, name, None)) for name in ("forward", "backward")):
        return None
    kind: Any = type(layer)
    places = _lists_beside(layer, parameters_of(layer.forward))
    trial = duplicate(layer)
    y = called(trial.forward, *style.inputs)
    before = {place: len(getattr(trial, place)) for place in places.values()}
    if not is_float(y) or isinstance(called(trial.backward, np.ones_like(y)), Exception):
        return None
    grown = {name: place for name, place in places.items() if _appended(trial, name, place, before[place])}
    if not grown:
        return None

    @functools.wraps(kind.backward)
    def backward(self: Any, *douts: Any) -> Any:
        dx = kind.backward(self, *douts)
        for name, place in grown.items():
            setattr(self, f"d{name}", getattr(self, place).pop())
        return dx

    note = "; ".join(filter(None, (style.note, NOTE.format(" and ".join(grown.values())))))
    return style._replace(thing=with_methods(layer, {"backward": backward}), note=note)


def _lists_beside(layer: Any, inputs: list[str]) -> dict[str, str]:
    """Returns the names of the lists that have the name of the gradient of an array, by that of the array."""
    attributes = attributes_of(layer)
    lists = [name for name, value in attributes.items() if isinstance(value, list)]
    found = {}
    for name in [name for name, value in attributes.items() if is_float(value)] if lists else []:
        strict = [form.format(name) for form in GRADIENT_NAMES]
        forms = (*strict, *loose_names(name, frozenset(attributes), frozenset(inputs)))
        named = [place for place in lists if place in forms]
        if len(named) == 1:
            found[name] = named[0]
    return found


def _appended(layer: Any, name: str, place: str, count: int) -> bool:
    """Returns whether a list has one entry more than before, of the shape of the array."""
    entries = getattr(layer, place)
    return len(entries) == count + 1 and np.shape(entries[-1]) == np.shape(getattr(layer, name))
