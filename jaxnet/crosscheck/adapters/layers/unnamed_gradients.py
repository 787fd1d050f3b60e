"""Adapts layers whose backward stores a gradient under a name that does not tell whose it is: `self.step = x.T @ dout`.

It is taken as that of a parameter if its numbers agree with difference quotients, and only then.
"""

import dis
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.networks.found_costs import agreement, directions_along, slopes_along
from jaxnet.crosscheck.adapters.style import Style, called, has_method, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.signatures import input_names
from jaxnet.crosscheck.inspect.stored_gradients import gradients_by_place, names_of_gradient
from jaxnet.crosscheck.inspect.trees import is_float

NOTE = "{} is the gradient of {}: it has its shape, and agrees with it"


def adapt(style: Style) -> Style | None:
    """Stores such gradients under names that tell."""
    layer: Any = style.thing
    if isinstance(layer, tuple | list | type) or not all(has_method(layer, name) for name in ("forward", "backward")):
        return None
    lacking = _without_names(layer, len(style.inputs))
    pairs = called(lambda: dict(_pairs(style, lacking))) if lacking else {}
    if isinstance(pairs, Exception) or not pairs:
        return None
    kind: Any = type(layer)

    def backward(self: Any, *dout: Any) -> Any:
        dx = kind.backward(self, *dout)
        for name, place in pairs.items():
            setattr(self, f"d{name}", getattr(self, place))
        return dx

    note = "; ".join(NOTE.format(place, name) for name, place in pairs.items())
    return style._replace(thing=with_methods(layer, {"backward": backward}), note=note)


def _without_names(layer: Any, count: int) -> list[str]:
    """Returns the float arrays of which backward stores no gradient by name, if it stores something else."""
    attributes = attributes_of(layer)
    parameters = [name for name, value in attributes.items() if is_float(value)]
    inputs = frozenset(input_names(layer.forward, count))
    stored = {s.argval for s in dis.get_instructions(type(layer).backward) if s.opname == "STORE_ATTR"}
    named = {name: set(names_of_gradient(name, attributes, inputs)) & stored for name in parameters}
    others = stored - set(parameters) - set().union(*named.values())
    return [name for name in parameters if not named[name] and name not in stored] if others else []


def _pairs(style: Style, lacking: list[str]) -> Iterator[tuple[str, str]]:
    """Yields the arrays with the attributes that backward writes and that are their gradients."""
    trial: Any = duplicate(style.thing)
    y = np.asarray(trial.forward(*style.inputs), float)
    before = dict(attributes_of(trial))
    dout = np.random.default_rng(0).standard_normal(y.shape)
    trial.backward(dout.copy())
    named = gradients_by_place(trial, input_names(trial.forward, len(style.inputs)))
    written = {n: v for n, v in attributes_of(trial).items() if is_float(v) and v is not before.get(n)}
    for name in lacking:
        array = getattr(style.thing, name)
        alike = [n for n, v in written.items() if np.shape(v) == np.shape(array)]
        if named.get(name) is None and (found := [n for n in alike if _agrees(style, name, written[n], dout)]):
            yield name, found[0]


def _agrees(style: Style, name: str, gradient: Any, dout: Any) -> bool:
    """Returns whether an array is the gradient of another one, along itself and in random directions."""
    array = getattr(style.thing, name)
    if (directions := directions_along(gradient, array)) is None:
        return False

    def value(moved: Any) -> float:
        trial: Any = duplicate(style.thing, {id(array): moved})
        return float(np.vdot(dout, np.asarray(trial.forward(*style.inputs), float)))

    return agreement(gradient, array, directions, slopes_along(value, array, directions)) is True
