"""Adapts code that takes one list, tuple or dict of arrays: `forward([a, b])`, and backward returns gradients alike.

The gradients of a layer's parameters may stand behind: `return [da, db], dW`, or `return [da, db], {"W": dW}`.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.functions import bound_arguments
from jaxnet.crosscheck.adapters.style import Style, called, parameters_of, with_methods, with_parameters
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.returned_names import returned_names
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES
from jaxnet.crosscheck.inspect.trees import is_float, leaves_of, with_leaves

Owners = dict[Any, str]  # the parameters of a layer, by the places or the keys of the gradients behind


def adapt(style: Style) -> Style | None:
    """Spreads the arrays of a single input over several inputs, if backward returns a gradient for each."""
    thing, inputs = style.thing, style.inputs
    if len(inputs) != 1 or not isinstance(inputs[0], tuple | list | Mapping):
        return None
    arrays = [leaf for _, leaf in leaves_of(inputs[0])]
    if len(arrays) < 2 or not all(map(is_float, arrays)):
        return None
    if isinstance(thing, tuple | list) and len(thing) == 2 and all(map(callable, thing)):
        return _adapted_pair(style, arrays)
    is_layer = callable(getattr(thing, "forward", None)) and callable(getattr(thing, "backward", None))
    return _adapted_layer(style, arrays) if is_layer and not isinstance(thing, type) else None


def _adapted_layer(style: Style, arrays: list[Any]) -> Style | None:
    layer: Any = style.thing
    (whole,), kind = style.inputs, type(style.thing)
    trial = duplicate(layer)
    y = called(trial.forward, whole)
    returned = called(trial.backward, y)
    if isinstance(returned, Exception) and isinstance(y, tuple | list):
        returned = called(trial.backward, *y)
    if isinstance(returned, Exception) and (bound := bound_arguments.adapt(style)) is not None:
        return _adapted_layer(bound, arrays)
    if (first := _gradients_first(layer, whole, returned)) is None:
        return None

    def forward(self: Any, *parts: Any) -> Any:
        return kind.forward(self, with_leaves(whole, parts))

    @functools.wraps(kind.backward)
    def backward(self: Any, *douts: Any) -> Any:
        return first(self, kind.backward(self, *douts))

    methods = {"forward": with_parameters(forward, ["self", *_names(whole, len(arrays))]), "backward": backward}
    return style._replace(thing=with_methods(layer, methods), inputs=tuple(arrays))


def _gradients_first(layer: Any, whole: Any, returned: Any) -> Callable[[Any, Any], tuple[Any, ...]] | None:
    """Returns the function of the layer and of what backward returned that stores the gradients of its parameters.

    It returns those of the parts of the input. None if backward returned none for each part.
    """
    if _flat(whole, returned) is not None:
        return lambda _, gradients: tuple(_flat(whole, gradients) or ())
    if not isinstance(returned, tuple | list) or len(returned) < 2 or _flat(whole, returned[0]) is None:
        return None
    owners = _owners(layer, returned)

    def stored(self: Any, gradients: Any) -> tuple[Any, ...]:
        parts = tuple(_flat(whole, gradients[0]) or ())
        if owners is None:
            return (*parts, *gradients[1:])  # `returned_parameters` finds them by their shapes
        behind = gradients[1] if isinstance(gradients[1], Mapping) else dict(enumerate(gradients))
        for key, name in owners.items():
            setattr(self, f"d{name}", behind[key])
        return parts

    return stored


def _owners(layer: Any, returned: Any) -> Owners | None:
    """Returns the parameters to which the gradients behind those of the input belong by name; None if unclear."""
    shapes = {name: np.shape(value) for name, value in attributes_of(layer).items() if is_float(value)}
    forms = {form.format(name): name for name in shapes for form in ("{}", *GRADIENT_NAMES)}
    if len(returned) == 2 and isinstance(returned[1], Mapping):
        named = [(key, key, gradient) for key, gradient in returned[1].items()]
    else:
        names = returned_names(type(layer).backward, len(returned), type(layer), partly=True)
        named = [(place, name, returned[place]) for place, name in enumerate(names) if place]
    owners = {key: forms.get(name, "") for key, name, _ in named}
    fits = all(owners[key] and np.shape(gradient) == shapes[owners[key]] for key, _, gradient in named)
    return owners if named and fits and len(set(owners.values())) == len(owners) else None


def _adapted_pair(style: Style, arrays: list[Any]) -> Style | None:
    (forward, backward), (whole,) = style.thing, style.inputs
    result = called(forward, whole)
    if not isinstance(result, tuple | list) or len(result) != 2 or len(parameters_of(backward)) != 2:
        return None
    calls = (called(backward, *args) for args in (result, result[::-1]))  # the cache may come first
    if all(isinstance(gradients, Exception) or _flat(whole, gradients) is None for gradients in calls):
        return None

    def forward_of_parts(*parts: Any) -> Any:
        return forward(with_leaves(whole, parts))

    @functools.wraps(backward)
    def backward_by_part(*args: Any) -> Any:
        gradients = backward(*args)
        parts = _flat(whole, gradients)
        return gradients if parts is None else tuple(parts)

    named = with_parameters(functools.wraps(forward)(forward_of_parts), _names(whole, len(arrays)))
    return style._replace(thing=(named, backward_by_part), inputs=tuple(arrays))


def _names(whole: Any, count: int) -> list[str]:
    """Returns names for the parts of an input: the keys of a dict, or else `inputs0`, `inputs1`."""
    keys = list(whole) if isinstance(whole, Mapping) else []
    is_named = len(keys) == count and all(isinstance(key, str) and key.isidentifier() for key in keys)
    return keys if is_named else [f"inputs{i}" for i in range(count)]


def _flat(whole: Any, gradients: Any) -> list[Any] | None:
    """Returns the gradients of the arrays in an input, in their order; None if they are in another structure.

    Examples:
        >>> _flat({"a": np.ones(2), "b": [np.ones(1)]}, {"db": [3.0], "da": np.ones(2)})
        [array([1., 1.]), 3.0]
        >>> _flat([np.ones(2), np.ones(1)], [np.ones(2)]) is None
        True
    """
    try:
        return list(_parts(whole, gradients))
    except (LookupError, TypeError):
        return None


def _parts(whole: Any, gradients: Any) -> Iterator[Any]:
    """Yields the gradients in the order of the arrays; raises a LookupError or a TypeError in another structure."""
    if isinstance(whole, Mapping):
        if not isinstance(gradients, Mapping) or len(gradients) != len(whole):
            raise TypeError
        for key, part in whole.items():
            form = next((f.format(key) for f in ("{}", *GRADIENT_NAMES) if f.format(key) in gradients), key)
            yield from _parts(part, gradients[form])
    elif isinstance(whole, tuple | list):
        is_stacked = is_float(gradients) and np.ndim(gradients) > 0
        if not (isinstance(gradients, tuple | list) or is_stacked) or len(gradients) != len(whole):
            raise TypeError
        for part, gradient in zip(whole, gradients, strict=True):
            yield from _parts(part, gradient)
    elif isinstance(gradients, tuple | list | Mapping):
        raise TypeError
    else:
        yield gradients
