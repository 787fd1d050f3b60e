"""Adapts networks with lists of parameters and lists of gradients, which may be arranged differently.

`weights` and `biases` may have their gradients in `return dx, dWs, dbs`, in a dict, in pairs, as `[(dW, db), ...]`, or
one after the other, as `[dW1, db1, dW2, db2]`. The shapes tell which list belongs to which.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.layers.gradient_dicts import PARAMETERS_ALONE
from jaxnet.crosscheck.adapters.style import Style, called, has_method, required_parameters_of, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.signatures import input_names
from jaxnet.crosscheck.inspect.stored_gradients import GRADIENT_LISTS, are_arrays, gradients_beside, have_shapes_of
from jaxnet.crosscheck.inspect.trees import is_float

Lists = dict[str, list[Any]]


def adapt(style: Style) -> Style | None:
    """Stores each list of gradients beside its list of parameters, and returns the gradient of the input."""
    layer, kind = style.thing, type(style.thing)
    if isinstance(layer, tuple | list | type) or not (has_method(layer, "forward") and has_method(layer, "backward")):
        return None
    held = {name: list(value) for name, value in attributes_of(layer).items() if are_arrays(value)}
    if not held or len(style.inputs) != 1 or len(required_parameters_of(layer.backward)) != 1:
        return None
    trial: Any = duplicate(layer)
    y = called(trial.forward, *style.inputs)
    returned = called(trial.backward, np.ones_like(y)) if is_float(y) else None
    if not is_float(y) or isinstance(returned, Exception) or any(f"{n}[0]" in gradients_beside(trial) for n in held):
        return None
    in_result = _by_list(returned, held)
    places = [name for name in GRADIENT_LISTS if _by_list(getattr(trial, name, None), held) is not None]
    if in_result is None and len(places) != 1:
        return None

    def backward(self: Any, dout: Any) -> Any:
        result = kind.backward(self, dout)
        stored = result if in_result is not None else getattr(self, places[0])
        for name, gradients in (_by_list(stored, held) or {}).items():
            setattr(self, f"d{name}", gradients)
        if in_result is None:
            return result
        own = _of_inputs(result)
        return own[0] if len(own) == 1 else ()

    adapted = style._replace(thing=with_methods(layer, {"backward": backward}))
    if in_result is None or _of_inputs(returned):
        return adapted
    names = input_names(layer.forward, 1)
    return adapted._replace(note=PARAMETERS_ALONE.format(kind.__name__, names[0]), data=tuple(names))


def _by_list(value: Any, held: Lists) -> Lists | None:
    """Returns the gradients in a value, by the list of parameters that each belongs to; None if one has none.

    Arrays beside the lists are those of inputs.
    """
    parts = [part for part in _parts(value) if not is_float(part)] if not _is_group(value) else [value]
    if not parts or not all(map(_is_group, parts)):
        return None
    for columns in _arrangements(parts, len(held)):
        owners = [[name for name in held if have_shapes_of(held[name], column)] for column in columns]
        if all(len(names) == 1 for names in owners) and {names[0] for names in owners} == held.keys():
            return {names[0]: column for names, column in zip(owners, columns, strict=True)}
    return None


def _of_inputs(value: Any) -> list[Any]:
    """Returns the gradients of inputs that stand beside lists of gradients."""
    return [] if _is_group(value) else [part for part in _parts(value) if is_float(part)]


def _parts(value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, tuple | list) else [value]


def _is_group(value: Any) -> bool:
    """Returns whether this is a list of arrays, or of tuples of arrays."""
    return are_arrays(value) or (isinstance(value, list) and bool(value) and all(map(are_arrays, value)))


def _arrangements(parts: Sequence[Any], count: int) -> Iterator[list[list[Any]]]:
    """Yields the lists of arrays that groups may be meant as, of which there are `count`."""
    if all(map(are_arrays, parts)):
        yield [list(part) for part in parts]
    if len(parts) == 1 and are_arrays(parts[0]):
        yield [list(parts[0][i::count]) for i in range(count)]
    if len(parts) == 1 and all(map(are_arrays, parts[0])) and len({len(entry) for entry in parts[0]}) == 1:
        yield [list(column) for column in zip(*parts[0], strict=True)]
