"""Adapts layers of Python numbers in nested lists, without NumPy: `self.weights[i][j]`, and `forward([0.1, 0.2])`.

Lists stand where the code reads them, and arrays everywhere else: the arguments and the attributes of the layer are
lists of numbers while one of its passes runs.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, called, has_method, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.trees import is_float

NOTE = "{} is given lists of numbers, and what it returns and stores in lists is read as arrays"


def adapt(style: Style) -> Style | None:
    """Gives such a layer lists in place of arrays, and turns its own lists into arrays."""
    layer: Any = style.thing
    if isinstance(layer, tuple | list | type) or not all(has_method(layer, name) for name in ("forward", "backward")):
        return None
    if not is_list_of_numbers(called(duplicate(layer).forward, *map(_in_lists, style.inputs))):
        return None
    kind: Any = type(layer)
    methods = {name: _on_lists(getattr(kind, name)) for name in ("forward", "backward")}
    adapted = with_methods(layer, methods)
    _hold_arrays(adapted, {})
    note = "; ".join(filter(None, (style.note, NOTE.format(kind.__name__))))
    return style._replace(thing=adapted, note=note)


def is_list_of_numbers(value: Any) -> bool:
    """Returns whether a value is a list of floats, or a list of such lists of one length, nested to any depth.

    Args:
        value: The value.

    Examples:
        >>> [is_list_of_numbers(value) for value in ([0.5, 1], [[1.0], [2.0]], [[1.0], [2.0, 3.0]], [2, 2])]
        [True, True, False, False]
    """
    if not isinstance(value, list) or not value:
        return False
    if all(isinstance(part, list) for part in value):
        return len(set(map(_shape, value))) == 1 and all(map(is_list_of_numbers, value))
    return any(isinstance(part, float) for part in value) and all(type(part) in (int, float) for part in value)


def _shape(value: Any) -> tuple[int, ...]:
    return (len(value), *_shape(value[0])) if isinstance(value, list) and value else ()


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and is_float(value)


def _on_lists(method: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a method that runs with lists in place of the arrays of its object and of its arguments."""

    @functools.wraps(method)
    def run(self: Any, *args: Any, **named: Any) -> Any:
        arrays = {name: value for name, value in attributes_of(self).items() if _is_array(value) and value.ndim}
        for name, array in arrays.items():
            setattr(self, name, array.tolist())
        try:
            return _in_arrays(method(self, *map(_in_lists, args), **{n: _in_lists(x) for n, x in named.items()}))
        finally:
            _hold_arrays(self, arrays)

    return run


def _in_lists(value: Any) -> Any:
    return value.tolist() if _is_array(value) else value


def _in_arrays(returned: Any) -> Any:
    if is_list_of_numbers(returned):
        return np.array(returned, np.float64)
    return tuple(map(_in_arrays, returned)) if isinstance(returned, tuple) else returned


def _hold_arrays(layer: Any, arrays: dict[str, Any]) -> None:
    """Turns the lists of numbers of a layer into arrays: those that it held before, with the present values."""
    for name, value in attributes_of(layer).items():
        if not is_list_of_numbers(value):
            continue
        new = np.array(value, np.float64)
        if name in arrays and arrays[name].shape == new.shape:
            if not np.array_equal(arrays[name], new, equal_nan=True):
                arrays[name][...] = new
            new = arrays[name]
        setattr(layer, name, new)
