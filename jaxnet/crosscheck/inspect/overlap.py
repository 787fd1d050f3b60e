"""Finds arrays that overlap in memory, where their elements lie, and the gradients of such arrays."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from jaxnet.crosscheck.inspect.trees import Array, Leaves


def group_by_memory(arrays: list[Array]) -> list[list[Array]]:
    """Returns the arrays in groups whose memory overlaps."""
    groups: list[list[Array]] = []
    end = -1
    for (low, high), array in sorted(((byte_bounds(a), a) for a in arrays if a.size), key=lambda item: item[0]):
        if low < end:
            groups[-1].append(array)
        else:
            groups.append([array])
        end = max(end, high)
    return groups


def views(arrays: list[Array], buffer: Array) -> list[Array] | None:
    """Returns views of a flat buffer with the memory layout of the arrays; None if their item sizes do not fit.

    With `np.arange` as the buffer, the views hold the index of each element; two elements with one index are the same.
    """
    size = arrays[0].itemsize
    start = min(byte_bounds(array)[0] for array in arrays)
    offsets = [array.__array_interface__["data"][0] - start for array in arrays]
    steps = [step for array in arrays for step in array.strides]
    if any(array.dtype != arrays[0].dtype for array in arrays) or any(n % size for n in (*offsets, *steps)):
        return None
    unit = buffer.itemsize
    return [
        np.ndarray(a.shape, buffer.dtype, buffer, offset // size * unit, tuple(s // size * unit for s in a.strides))
        for a, offset in zip(arrays, offsets, strict=True)
    ]


def extent(arrays: list[Array]) -> int:
    """Returns the number of elements from the first to the last byte of the arrays."""
    bounds = [byte_bounds(array) for array in arrays]
    return -(-(max(high for _, high in bounds) - min(low for low, _ in bounds)) // arrays[0].itemsize)


def overlaps(first: Array, second: Array) -> bool:
    """Returns whether two arrays have an element of memory in common."""
    if not np.may_share_memory(first, second) or first is second:
        return first is second
    try:
        return bool(np.shares_memory(first, second, max_work=100_000))  # type: ignore[arg-type]
    except RuntimeError:  # too hard to compute, but their ranges overlap
        return True


def same_memory(first: Any, second: Any) -> bool:
    """Returns whether two values are arrays that overlap, or one object."""
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return overlaps(first, second)
    return first is not None and first is second


def is_covered(array: Any, leaves: Iterable[Any]) -> bool:
    """Returns whether each element of an array is an element of a leaf, as in a view of a leaf or its base."""
    overlapping = [leaf for leaf in leaves if leaf is array or same_memory(array, leaf)]
    if not overlapping or any(leaf is array for leaf in overlapping):
        return bool(overlapping)
    indices = views([array, *overlapping], np.arange(extent([array, *overlapping])))
    return indices is None or bool(np.isin(indices[0], np.concatenate([i.ravel() for i in indices[1:]])).all())


def sum_of_tied_gradients(
    name: str, arrays: Mapping[str, Any], gradients: Mapping[str, Any], shared_gradients: Collection[frozenset[str]]
) -> Array | None:
    """Returns the sum of the gradients of all arrays that share memory with one, in its shape; None if none does.

    Args:
        name: The name of the one array.
        arrays: All arrays by name.
        gradients: Their gradients by name.
        shared_gradients: Groups of names whose gradients are one array. Each such gradient is added once.
    """
    array = arrays.get(name)
    if not isinstance(array, np.ndarray) or gradients.get(name) is None:
        return None
    summed = [name]
    for other_name, other in arrays.items():
        if other_name == name or not isinstance(other, np.ndarray) or not overlaps(array, other):
            continue
        is_added = any(other_name in group and group & set(summed) for group in shared_gradients)
        gradient = gradients.get(other_name)
        if gradient is not None and not is_added and np.shape(gradient) == other.shape:
            summed.append(other_name)
    if len(summed) == 1 or np.shape(gradients[name]) != array.shape:
        return None
    tied = [arrays[n] for n in summed]
    indices = views(tied, np.arange(extent(tied)))
    if indices is None:
        return None
    total = np.zeros(extent(tied), np.result_type(*(gradients[n] for n in summed)))
    for index, n in zip(indices, summed, strict=True):
        np.add.at(total, index, np.asarray(gradients[n]))
    return np.asarray(total[indices[0]])


def consistent(leaves: Leaves, arrays: Mapping[str, Any]) -> Leaves:
    """Returns the leaves, where those whose arrays share memory have the value of the first of them."""
    numpy = [a for n, a in arrays.items() if isinstance(a, np.ndarray) and n in leaves]
    names: dict[int, list[str]] = {}
    for n, a in arrays.items():
        names.setdefault(id(a), []).append(n)
    settled = dict(leaves)
    for group in group_by_memory(list({id(a): a for a in numpy}.values())):
        first = names[id(group[0])][0]
        buffer = np.zeros(extent(group), leaves[first].dtype)
        group_views = views(group, buffer)
        if group_views is None:
            continue
        for array, view in reversed(list(zip(group, group_views, strict=True))):
            view[...] = leaves[names[id(array)][0]]
        for array, view in zip(group, group_views, strict=True):
            settled |= {n: view.astype(leaves[n].dtype) for n in names[id(array)]}
    return settled
