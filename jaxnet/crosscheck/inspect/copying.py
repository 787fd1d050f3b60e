"""Copies of somebody's objects, at other values and in other dtypes; memory that is shared stays shared.

`copy.deepcopy` gives each array memory of its own, so that a view no longer follows its base, and raises at the first
lock or module that it meets. Here arrays that overlap in memory are views of one new buffer, and what cannot be copied
is shared with the original.
"""

import copyreg
import sys
import types
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from jaxnet.crosscheck.inspect.objects import attributes_of, is_shared
from jaxnet.crosscheck.inspect.optional_jax import is_jax_array
from jaxnet.crosscheck.inspect.overlap import extent, sharing, views
from jaxnet.crosscheck.inspect.trees import Array

ATOMS = (type(None), bool, int, float, complex, str, bytes, type, type(Ellipsis), type(NotImplemented), range, slice)


class Template:
    """An object to be copied many times: the arrays that share memory are sought once.

    Args:
        value: The object; it must not change as long as it is copied.
    """

    def __init__(self, value: Any) -> None:
        self.value = value
        self._groups = [group for group in sharing(list(arrays_within(value))) if len(group) > 1]

    def copy(self, replaced: Mapping[int, Any] | None = None) -> Any:
        """Returns a deep copy, with other values for the arrays whose ids are in `replaced`."""
        return self.copy_with_memo(replaced)[0]

    def copy_with_memo(self, replaced: Mapping[int, Any] | None = None) -> tuple[Any, dict[int, Any]]:
        """Returns the copy, and what each part became, by the part's id.

        Arrays of one buffer take the dtype of the first among them that is replaced. Where several of them are,
        those elements are written that differ from the original: a view moved alone moves what it is a view of.
        """
        copier = _Copier(replaced or {})
        for group in self._groups:
            copier.memo.update(_copied_group(group, copier.replaced))
        return copier.of(self.value), copier.memo


def duplicate(value: Any, replaced: Mapping[int, Any] | None = None) -> Any:
    """Returns a deep copy in which memory that was shared is shared, and what cannot be copied is the original.

    Args:
        value: Any object, or a tuple of several.
        replaced: Other values for some of its arrays, by id; each array's copy has its values' dtype.

    Examples:
        >>> theta = np.zeros(4)
        >>> copy, view = duplicate((theta, theta[:2]), {id(theta): np.arange(4, dtype=np.float32)})
        >>> view, np.shares_memory(copy, view)
        (array([0., 1.], dtype=float32), True)
    """
    return Template(value).copy(replaced)


def values_by_id(arrays: Mapping[str, Any], values: Mapping[str, Any]) -> dict[int, Any]:
    """Returns values by the ids of the arrays that they replace.

    One array may have several names: those elements count that differ from it, under whichever name.
    """
    found: dict[int, Any] = {}
    for name, array in arrays.items():
        if name not in values:
            continue
        value = values[name]
        if id(array) in found:
            moved = np.asarray(value) != np.asarray(array).astype(value.dtype)
            value = np.where(moved, value, found[id(array)])
        found[id(array)] = value
    return found


def arrays_within(value: Any, known: set[int] | None = None) -> Iterator[Array]:
    """Yields NumPy's arrays in a structure of containers and objects, each once."""
    known = set() if known is None else known
    if isinstance(value, ATOMS) or id(value) in known:
        return
    known.add(id(value))
    if isinstance(value, types.MethodType):
        yield from arrays_within(value.__self__, known)
    elif type(value) is np.ndarray and value.dtype != object:
        yield value
    elif not is_shared(value):
        if isinstance(value, Mapping):
            parts = [*value.keys(), *value.values()]
        else:
            parts = list(value) if isinstance(value, list | tuple | set | frozenset | deque) else []
        for part in [*parts, *attributes_of(value).values()]:
            yield from arrays_within(part, known)


def laid_like(value: Any, array: Any) -> Any:
    """Returns the value itself where it lies in memory as the array does, else a copy that does; JAX's as JAX's."""
    if is_jax_array(array):
        return sys.modules["jax"].numpy.asarray(value)
    value = np.asarray(value)
    like = np.empty_like(array, dtype=value.dtype)
    if value.shape != like.shape or value.strides == like.strides:
        return value
    like[...] = value
    return like


def _copied_group(arrays: list[Array], replaced: Mapping[int, Any]) -> dict[int, Array]:
    """Returns the copies of arrays that overlap, by their originals' ids: views of one buffer."""
    values = {id(a): np.asarray(replaced[id(a)]) for a in arrays if id(a) in replaced}
    dtype = next((value.dtype for value in values.values()), arrays[0].dtype)
    copies = views(arrays, np.zeros(extent(arrays), dtype))
    if copies is None:  # bytes seen as several dtypes: they keep them
        start = min(byte_bounds(array)[0] for array in arrays)
        whole = np.zeros(max(byte_bounds(array)[1] for array in arrays) - start, np.uint8)
        places = [array.__array_interface__["data"][0] - start for array in arrays]
        copies = [
            np.ndarray(a.shape, a.dtype, whole, place, a.strides) for a, place in zip(arrays, places, strict=True)
        ]
    for array, copied in zip(arrays, copies, strict=True):
        copied[...] = array
    for array, copied in zip(arrays, copies, strict=True):
        if id(array) in values:
            value = values[id(array)]
            moved = value != array.astype(value.dtype)
            copied[moved] = value[moved]
    return {id(array): copied for array, copied in zip(arrays, copies, strict=True)}


class _Copier:
    """One deep copy: `memo` holds what each part became, by id."""

    def __init__(self, replaced: Mapping[int, Any]) -> None:
        self.replaced = replaced
        self.memo: dict[int, Any] = {}
        self._alive: list[Any] = []  # no id may be given to another object in the meantime

    def of(self, value: Any) -> Any:
        if isinstance(value, ATOMS):
            return value
        if id(value) not in self.memo:
            copied = self._copied(value)
            self.memo.setdefault(id(value), copied)
        return self.memo[id(value)]

    def _copied(self, value: Any) -> Any:
        kind = type(value)
        if kind is np.ndarray or is_jax_array(value):
            return self._array(value)
        if kind in (list, dict, tuple, set, frozenset):
            return self._container(value)
        if kind is types.MethodType:
            return types.MethodType(value.__func__, self.of(value.__self__))
        if isinstance(value, tuple) and hasattr(kind, "_make"):
            return kind._make([self.of(part) for part in value])
        if is_shared(value):
            return value
        if hasattr(kind, "__deepcopy__"):
            return self._by_its_own(value)
        return self._object(value)

    def _array(self, value: Any) -> Any:
        if id(value) in self.replaced:
            return laid_like(self.replaced[id(value)], value)
        if is_jax_array(value):
            return value
        if value.dtype != object:
            return np.array(value, order="K")
        copied = self.memo[id(value)] = np.empty_like(value)
        for index in np.ndindex(value.shape):
            copied[index] = self.of(value[index])
        return copied

    def _container(self, value: Any) -> Any:
        if isinstance(value, list):
            items: list[Any] = []
            self.memo[id(value)] = items
            items.extend(self.of(part) for part in value)
            return items
        if isinstance(value, dict):
            entries: dict[Any, Any] = {}
            self.memo[id(value)] = entries
            for key, part in value.items():
                entries[self.of(key)] = self.of(part)
            return entries
        parts = [self.of(part) for part in value]
        if all(part is old for part, old in zip(parts, value, strict=True)):
            return value
        return self.memo.get(id(value), type(value)(parts))

    def _by_its_own(self, value: Any) -> Any:
        """Calls its `__deepcopy__`; arrays that this copied without asking the memo are put right afterwards."""
        for array in arrays_within(value):
            self.of(array)
        try:
            copied = type(value).__deepcopy__(value, self.memo)
        except Exception:
            return self._object(value)
        if copied is not value:
            its = attributes_of(copied)
            for name, part in attributes_of(value).items():
                if id(part) in self.replaced and name in its and its[name] is not self.of(part):
                    object.__setattr__(copied, name, self.of(part))
        return copied

    def _object(self, value: Any) -> Any:
        if hasattr(type(value), "__del__") and not _matters(value):
            return value  # the copy's end must not close what the original holds
        try:
            return self._reconstructed(value)
        except Exception:
            self.memo.pop(id(value), None)
        try:
            return self._by_attributes(value) if _matters(value) else value
        except Exception:
            self.memo.pop(id(value), None)
            return value

    def _reconstructed(self, value: Any) -> Any:
        """Copies as `copy.deepcopy` does, by what the object says of itself for pickling."""
        reducer = copyreg.dispatch_table.get(type(value))
        reduced: Any = reducer(value) if reducer else value.__reduce_ex__(4)
        if isinstance(reduced, str):
            return value
        parts: list[Any] = [*reduced, *[None] * (6 - len(reduced))]
        make, args, state, items, entries, setter = parts
        self._alive.append((reduced, state))
        copied = self.memo[id(value)] = make(*[self.of(part) for part in args])
        if state is not None:
            (setter or _set_state)(copied, self.of(state))
        for part in items or ():
            self._alive.append(part)
            copied.append(self.of(part))
        for key, part in entries or ():
            copied[self.of(key)] = self.of(part)
        return copied

    def _by_attributes(self, value: Any) -> Any:
        copied = self.memo[id(value)] = object.__new__(type(value))
        for name, part in attributes_of(value).items():
            object.__setattr__(copied, name, self.of(part))
        return copied


def _set_state(copied: Any, state: Any) -> None:
    if hasattr(copied, "__setstate__"):
        copied.__setstate__(state)
        return
    attributes, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    if attributes:
        copied.__dict__.update(attributes)
    for name, part in (slots or {}).items():
        object.__setattr__(copied, name, part)


def _matters(value: Any) -> bool:
    """Returns whether an object must be copied at any price: a layer, or one that holds arrays of floats."""
    return hasattr(value, "forward") or any(array.dtype.kind == "f" for array in arrays_within(value))
