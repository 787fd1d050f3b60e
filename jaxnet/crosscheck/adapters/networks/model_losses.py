"""Adapts methods that return the loss of a model and the gradients of its parameters: `model.loss_and_grad(batch)`.

The gradients are a dict, or an object with the attributes of the one that holds the parameters.
"""

from collections.abc import Mapping
from types import MethodType
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, called
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of, walk
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES, base_name
from jaxnet.crosscheck.inspect.trees import is_float

NOTE = "{} is checked as a function of the parameters of {}: it returns their gradients"


def adapt(style: Style) -> Style | None:
    """Turns such a method into a function of the parameters and the inputs, and the gradient of that."""
    method = style.thing
    if not isinstance(method, MethodType) or isinstance(method.__self__, type):
        return None
    owner, name = method.__self__, method.__name__
    result = called(getattr(duplicate(owner), name), *style.inputs)
    if not isinstance(result, tuple | list) or len(result) != 2:
        return None
    places = [i for i in (0, 1) if isinstance(result[i], float | np.floating) and _fields(result[1 - i])]
    arrays = _parameters(owner, _fields(result[1 - places[0]])) if places else {}
    if not arrays:
        return None
    value = places[0]

    def run(params: Mapping[str, Any], inputs: tuple[Any, ...]) -> Any:
        copied = duplicate(owner, {id(array): params[key] for key, array in arrays.items()})
        return getattr(copied, name)(*inputs)

    def loss(params: Any, *inputs: Any) -> Any:
        return run(params, inputs)[value]

    def gradient(params: Any, *inputs: Any) -> Any:
        gradients = _fields(run(params, inputs)[1 - value])
        return ({key: gradients[_key(key, gradients)] for key in params}, *(None for _ in inputs))

    loss.__name__ = name
    params = {key: np.array(array) for key, array in arrays.items()}
    note = NOTE.format(name, type(owner).__name__)
    return style._replace(thing=loss, inputs=(params, *style.inputs), gradient=gradient, takes_dout=False, note=note)


def _fields(gradients: Any) -> dict[str, Any]:
    """Returns the arrays in a dict of gradients, or in the attributes of an object."""
    named = gradients if isinstance(gradients, Mapping) else attributes_of(gradients)
    return {str(key): value for key, value in named.items() if is_float(value)}


def _parameters(owner: Any, gradients: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arrays of an object that have the names and shapes of gradients; none if a gradient has no array."""
    arrays = {
        base_name(place): array
        for place, array in walk(owner)
        if isinstance(array, np.ndarray) and is_float(array) and _key(base_name(place), gradients)
    }
    is_complete = len(arrays) == len(gradients)
    fits = all(np.shape(gradients[_key(name, gradients)]) == np.shape(array) for name, array in arrays.items())
    return arrays if is_complete and fits else {}


def _key(name: str, gradients: Mapping[str, Any]) -> str:
    return next((form.format(name) for form in ("{}", *GRADIENT_NAMES) if form.format(name) in gradients), "")
