"""Prints tuples of arrays as the shapes of their fields, instead of as hundreds of lines of numbers."""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, NamedTuple, cast

import numpy as np


def outline(values: tuple[Any, ...]) -> str:
    """Returns a named tuple in one line: an array as its dtype and shape, a tree of arrays as their number.

    Args:
        values: A `NamedTuple`. Its arrays may be those of NumPy or JAX, also while JAX traces a function.

    Examples:
        >>> from typing import NamedTuple
        >>> Point = NamedTuple("Point", [("x", object), ("params", dict), ("step", object)])
        >>> outline(Point(np.zeros((2, 3)), {"W": np.zeros((4, 5)), "b": np.zeros(5)}, np.int32(7)))
        'Point(x=float64[2, 3], params=2 arrays of 25 numbers, step=7)'
    """
    fields = cast("NamedTuple", values)._asdict()
    return f"{type(values).__name__}({', '.join(f'{name}={_field(value)}' for name, value in fields.items())})"


def number_count(tree: Any) -> int:
    """Returns how many numbers the arrays of a tree have in all."""
    return sum(prod(leaf.shape) for leaf in _arrays(tree))


def _field(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple):
        count = len(list(_arrays(value)))
        return f"{count} array{'s'[: count - 1]} of {number_count(value):,} numbers" if count else "no arrays"
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        return repr(value)
    if value.shape == () and isinstance(value.dtype, np.dtype):  # a key of JAX has a dtype of its own
        try:
            return str(value)
        except RuntimeError:  # JAX gave its memory to the result of a compiled program
            return "deleted"
    return f"{value.dtype}{list(value.shape)}"


def _arrays(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Mapping | list | tuple):
        for branch in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _arrays(branch)
    elif hasattr(tree, "shape"):
        yield tree
