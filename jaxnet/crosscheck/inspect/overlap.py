"""Which arrays overlap in memory, where their elements lie, and what that means for their gradients."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from jaxnet.crosscheck.inspect.trees import Array, Leaves


def sharing(arrays: list[Array]) -> list[list[Array]]:
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
    """Returns views of a flat buffer, laid in it as the arrays lie in their memory; None where units differ.

    With `np.arange` as the buffer, these are the places of the arrays' elements: equal where they are one.
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
    except RuntimeError:  # too hard to tell: their ranges overlap
        return True


def is_covered(array: Any, leaves: Iterable[Any]) -> bool:
    """Returns whether every element of an array is one of a leaf: a view of it, or what they are views of."""
    sharing = [leaf for leaf in leaves if leaf is array or share(array, leaf)]
    if not sharing or any(leaf is array for leaf in sharing):
        return bool(sharing)
    places = views([array, *sharing], np.arange(extent([array, *sharing])))
    return places is None or bool(np.isin(places[0], np.concatenate([p.ravel() for p in places[1:]])).all())


def share(first: Any, second: Any) -> bool:
    """Returns whether two values have memory in common, or are one."""
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return overlaps(first, second)
    return first is not None and first is second


def sum_of_tied_gradients(
    name: str, arrays: Mapping[str, Any], gradients: Mapping[str, Any], shared_gradients: Collection[frozenset[str]]
) -> Array | None:
    """Returns the sum of the gradients of all arrays that share memory with one, in its shape; None if none does.

    Args:
        name: The array whose gradient is asked for.
        arrays: All of them, as they lie in memory.
        gradients: Of each, by name.
        shared_gradients: Groups of names whose gradients are themselves one array: only one of a group is added.
    """
    its = arrays.get(name)
    if not isinstance(its, np.ndarray) or gradients.get(name) is None:
        return None
    summed = [name]
    for other, array in arrays.items():
        if other == name or not isinstance(array, np.ndarray) or not overlaps(its, array):
            continue
        same = any(other in group and group & set(summed) for group in shared_gradients)
        if gradients.get(other) is not None and not same and np.shape(gradients[other]) == array.shape:
            summed.append(other)
    if len(summed) == 1 or np.shape(gradients[name]) != its.shape:
        return None
    places = views([arrays[n] for n in summed], np.arange(extent([arrays[n] for n in summed])))
    if places is None:
        return None
    total = np.zeros(extent([arrays[n] for n in summed]), np.result_type(*(gradients[n] for n in summed)))
    for place, n in zip(places, summed, strict=True):
        np.add.at(total, place, np.asarray(gradients[n]))
    return np.asarray(total[places[0]])


def consistent(leaves: Leaves, arrays: Mapping[str, Any]) -> Leaves:
    """Returns the leaves, with those that share memory set to what the first of them holds."""
    numpy = {id(a): (n, a) for n, a in arrays.items() if isinstance(a, np.ndarray) and n in leaves}
    names: dict[int, list[str]] = {}
    for n, a in arrays.items():
        names.setdefault(id(a), []).append(n)
    settled = dict(leaves)
    for group in sharing([array for _, array in numpy.values()]):
        first = names[id(group[0])][0]
        buffer = np.zeros(extent(group), leaves[first].dtype)
        laid = views(group, buffer)
        if laid is None:
            continue
        for array, view in reversed(list(zip(group, laid, strict=True))):
            view[...] = leaves[names[id(array)][0]]
        for array, view in zip(group, laid, strict=True):
            settled |= {n: view.astype(leaves[n].dtype) for n in names[id(array)]}
    return settled
