"""Finds the arguments to which gradients belong that are returned in another order, by their shapes and keys."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.trees import is_float

Structure = tuple[Any, ...]


def order_by_structure(gradients: Sequence[Any], values: Sequence[Any]) -> list[int] | None:
    """Returns the place of the value that each gradient belongs to, if that is not the order of the values.

    A gradient has the shape of its value, or that of its transpose, and one of a dict has as many entries of the same
    shapes. Gradients of values of the same shape keep the order of these.

    Args:
        gradients: The gradients, in the order in which they are returned.
        values: The arguments with floats, in their order.

    Returns:
        A place in `values` for each gradient. None if the first values fit in their order, or if shapes do not tell.

    Examples:
        >>> order_by_structure([np.zeros(3), np.zeros((4, 3))], [np.zeros((4, 3)), np.zeros(3)])
        [1, 0]
    """
    if any(_structure(part, _shape) is None for part in gradients) or len(gradients) > len(values):
        return None
    order: dict[int, int] = {}  # from gradients to values
    for shape in (_shape, _sizes):
        returned = {i: _structure(part, shape) for i, part in enumerate(gradients) if i not in order}
        owned = {i: _structure(part, shape) for i, part in enumerate(values) if i not in order.values()}
        counts = Counter(owned.values())
        told = [structure for structure, count in Counter(returned.values()).items() if counts[structure] == count]
        for structure in told:
            places = ([i for i, own in of.items() if own == structure] for of in (returned, owned))
            order |= dict(zip(*places, strict=True))
    found = [order[i] for i in sorted(order)]
    return found if len(found) == len(gradients) and found != list(range(len(found))) else None


def _shape(array: Any) -> Structure:
    return np.shape(array)


def _sizes(array: Any) -> Structure:
    """Returns the lengths of the axes of an array, the same for its transpose."""
    return tuple(sorted(np.shape(array)))


def _structure(value: Any, shape: Callable[[Any], Structure]) -> Structure | None:
    """Returns the shapes in an array, a number, a dict or a list; None for other values."""
    if is_float(value) or isinstance(value, float):
        return shape(value)
    if not isinstance(value, Mapping | tuple | list) or not value:
        return None
    parts = [_structure(part, shape) for part in (value.values() if isinstance(value, Mapping) else value)]
    if any(part is None for part in parts):
        return None
    return ("dict", *sorted(map(repr, parts))) if isinstance(value, Mapping) else ("list", *parts)
