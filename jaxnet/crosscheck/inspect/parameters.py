"""Finds the parameters of a layer: the float arrays in its attributes, lists, dicts, objects and sublayers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.inputs import is_numbers
from jaxnet.crosscheck.inspect.objects import (
    attributes_of,
    is_ndarray,
    layers_within,
    parameter_objects,
    safe_getattr,
    walk,
)
from jaxnet.crosscheck.inspect.stored_gradients import gradients_beside
from jaxnet.crosscheck.inspect.trees import is_inexact


def parameters_of(layer: Any) -> dict[str, Any]:
    """Returns the float arrays of a layer and its sublayers, each once: by attribute, or by index in `params`.

    An object that has an array as its `data` or `value` counts as that array, at any depth.
    """
    found: dict[str, Any] = {}
    for prefix, part in layers_within(layer):
        gradients = gradients_beside(part)
        attributes = {name: value for name, value in attributes_of(part).items() if is_inexact(value)}
        listed = {name: value for name, value in _entries("params", part).items() if is_inexact(value)}
        # a name with a gradient beside it is preferred to an index in a list
        for name, value in sorted((attributes | listed).items(), key=lambda item: item[0] not in gradients):
            if is_ndarray(value) and not any(value is other for other in found.values()):
                found[prefix + name] = value
    for place, _, array in parameter_objects(layer):
        if not any(array is other for other in found.values()):
            found[place] = array
    return found


def arrays_by_place(layer: Any) -> dict[str, Any]:
    """Returns the float arrays by every place at which they are held: `W`, `p['W']`, `cell.W`.

    An array with several places has several entries, those with a gradient beside them first.
    """
    found = parameters_of(layer)
    for prefix, part in layers_within(layer):
        places = {name: value for name, value in attributes_of(part).items() if is_ndarray(value) and is_inexact(value)}
        places |= {name: v for name, v in _entries("params", part).items() if is_ndarray(v) and is_inexact(v)}
        for name, value in places.items():
            found.setdefault(prefix + name, value)
    known = {id(array) for array in found.values()}
    for place, value in walk(layer):
        if is_ndarray(value) and is_inexact(value) and id(value) not in known:
            known.add(id(value))
            found[place] = value
    return found


def choose_places(places: Mapping[str, Any], gradients: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the places that become leaves: one for each array, or several if an array is tied.

    An array is tied if several of its places stand at the same depth, are written in the same way, and each have a
    gradient of their own. If a layer and its sublayers hold the same array, as a recurrent layer and its steps do,
    the outermost place with a gradient is chosen.

    Args:
        places: The arrays by place; one array may have several places.
        gradients: The gradients after a backward pass, by place.
    """
    grouped: dict[int, list[str]] = {}
    for place, array in places.items():
        grouped.setdefault(id(array), []).append(place)
    chosen: dict[str, Any] = {}
    for same in grouped.values():
        with_gradient = [place for place in same if gradients.get(place) is not None]
        first = min(with_gradient, key=_depth) if with_gradient else same[0]
        chosen[first] = places[first]
        memory = [gradients.get(first)]
        for place in with_gradient:
            alike = _depth(place) == _depth(first) and place.endswith("]") == first.endswith("]")
            if place != first and alike and not any(_may_share(gradients[place], other) for other in memory):
                chosen[place] = places[place]
                memory.append(gradients[place])
    return chosen


def _depth(place: str) -> int:
    return place.count(".")


def _may_share(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.may_share_memory(first, second)
    return first is second


def wrongly_typed_parameters(layer: Any) -> dict[str, Any]:
    """Returns the values that may be meant as parameters but are not float arrays: lists, integer arrays, floats."""
    return {
        prefix + name: value
        for prefix, part in layers_within(layer)
        for name, value in attributes_of(part).items()
        if _is_wrongly_typed(value)
    }


def _is_wrongly_typed(value: Any) -> bool:
    if is_ndarray(value):
        return np.issubdtype(value.dtype, np.integer)
    if isinstance(value, float | np.floating):  # not an int, which is likely a size: h = 64 beside the gradient dh
        return True
    if not (isinstance(value, list | tuple) and is_numbers(list(value))):
        return False
    try:  # a tuple of integers is likely a shape
        return np.asarray(value).dtype.kind in ("iuf" if isinstance(value, list) else "f")
    except ValueError:
        return False


def declared_constants(layer: Any, arrays: Mapping[str, Any]) -> set[str]:
    """Returns the places of arrays that a layer declares to be no parameters.

    It does so by a list or dict `params` or `parameters` that does not contain them, an empty one included, or by
    `requires_grad = False` in the object that holds the array. One that holds settings alone declares nothing.
    """
    frozen = {place for place, owner, _ in parameter_objects(layer) if getattr(owner, "requires_grad", True) is False}
    lists = [
        value
        for _, part in layers_within(layer)
        for name in ("params", "parameters")
        if isinstance(value := safe_getattr(part, name), list | tuple | Mapping)
    ]
    lists = [value for value in lists if not value or any(is_ndarray(part) for _, part in walk(value))]
    if not lists:
        return frozen
    listed = [part for value in lists for _, part in walk(value) if is_ndarray(part)]
    return frozen | {
        place for place, array in arrays.items() if not any(array is part or _may_share(array, part) for part in listed)
    }


def _entries(attribute: str, layer: Any) -> dict[str, Any]:
    """Returns the entries of a list or dict attribute by place: {"params[0]": W, "params[1]": b}."""
    entries = safe_getattr(layer, attribute)
    if isinstance(entries, Mapping):
        return {f"{attribute}[{key!r}]": value for key, value in entries.items()}
    if isinstance(entries, list | tuple):
        return {f"{attribute}[{i}]": value for i, value in enumerate(entries)}
    return {}
