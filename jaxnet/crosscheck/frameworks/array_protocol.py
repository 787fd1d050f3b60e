"""Takes arrays of NumPy's kind that lie elsewhere, as those of CuPy do, by the protocols that they implement.

An array becomes one of NumPy by `get()`, which copies it from a device, or by `np.asarray`; and an array of NumPy
becomes one of its kind by its `__array_namespace__`, or by `np.asarray(..., like=...)`.
"""

import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.trees import Array, is_array, leaves_of, map_leaves


def foreign_array(values: Any) -> Any:
    """Returns the first array of another kind among some values, if arrays can be converted both ways; None if none."""
    for _, leaf in leaves_of(values):
        if is_array(leaf) or not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            continue
        if not (hasattr(leaf, "__array_function__") or hasattr(leaf, "__array_namespace__")):
            continue
        try:
            if type(_like(_in_numpy(leaf), leaf)) is type(leaf):
                return leaf
        except Exception:  # the array does not convert
            continue
    return None


def with_numpy_arrays(values: Any, example: Any) -> Any:
    """Returns a structure with NumPy arrays in place of those of the example's kind."""
    return map_leaves(lambda leaf: _in_numpy(leaf) if isinstance(leaf, type(example)) else leaf, values)


def on_numpy_arrays(function: Callable[..., Any], example: Any) -> Callable[..., Any]:
    """Returns a function that takes and returns NumPy arrays, from one of arrays of the example's kind."""

    def called(*args: Any) -> Any:
        moved = map_leaves(lambda leaf: _like(leaf, example) if isinstance(leaf, np.ndarray) else leaf, args)
        return with_numpy_arrays(function(*moved), example)

    called.__name__ = str(getattr(function, "__name__", type(function).__name__))
    with suppress(TypeError, ValueError):  # some builtins have no signature
        called.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return called


def _in_numpy(array: Any) -> Array:
    return np.array(array.get() if callable(getattr(array, "get", None)) else array)


def _like(array: Array, example: Any) -> Any:
    if hasattr(example, "__array_namespace__"):
        return example.__array_namespace__().asarray(array)
    return np.asarray(array, like=example)
