"""Copies objects, with other values and dtypes for some of their arrays. Shared memory stays shared.

`copy.deepcopy` gives each array memory of its own, so that a view no longer follows its base, and raises at the first
lock or module. Here arrays that overlap in memory become views of one new buffer, and a part that cannot be copied is
shared with the original.
"""

import copyreg
import functools
import sys
import types
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from jaxnet.crosscheck.inspect.objects import attributes_of, is_shared, slots_of
from jaxnet.crosscheck.inspect.optional_jax import is_jax_array
from jaxnet.crosscheck.inspect.overlap import extent, group_by_memory, views
from jaxnet.crosscheck.inspect.trees import Array

ATOMS = (type(None), bool, int, float, complex, str, bytes, type, type(Ellipsis), type(NotImplemented), range, slice)
# Attributes of a class that change how its objects are copied, or what copying them does.
COPY_METHODS = frozenset({
    "__copy__", "__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__",
    "__getnewargs_ex__", "__del__", "__getattr__", "__getattribute__",
})  # fmt: skip


class Template:
    """An object that is copied many times. Its arrays that share memory are found once.

    Args:
        value: The object. It must not change between copies.
    """

    def __init__(self, value: Any) -> None:
        self.value = value
        self._groups = [group for group in group_by_memory(list(arrays_within(value))) if len(group) > 1]

    def copy(self, replaced: Mapping[int, Any] | None = None) -> Any:
        """Returns a deep copy, with other values for the arrays whose ids are in `replaced`."""
        return self.copy_with_memo(replaced)[0]

    def copy_with_memo(self, replaced: Mapping[int, Any] | None = None) -> tuple[Any, dict[int, Any]]:
        """Returns the copy, and the copy of each part by the id of its original.

        Arrays of one buffer take the dtype of the first that is replaced. If several are replaced, only elements that
        differ from the original are written, so that a change of one view also changes its base.
        """
        copier = _Copier(replaced or {})
        for group in self._groups:
            copier.memo.update(_copied_group(group, copier.replaced))
        return copier.of(self.value), copier.memo


def duplicate(value: Any, replaced: Mapping[int, Any] | None = None) -> Any:
    """Returns a deep copy that keeps shared memory shared. Parts that cannot be copied are the originals.

    Args:
        value: Any object, or a tuple of several.
        replaced: Other values for some of its arrays, by id. The copy of an array takes the dtype of its value.

    Examples:
        >>> theta = np.zeros(4)
        >>> copy, view = duplicate((theta, theta[:2]), {id(theta): np.arange(4, dtype=np.float32)})
        >>> view, np.shares_memory(copy, view)
        (array([0., 1.], dtype=float32), True)
    """
    return Template(value).copy(replaced)


def values_by_id(arrays: Mapping[str, Any], values: Mapping[str, Any]) -> dict[int, Any]:
    """Returns values by the ids of the arrays that they replace.

    If one array has several names, an element takes the value that differs from the array, under any of the names.
    """
    found: dict[int, Any] = {}
    for name, array in arrays.items():
        if name not in values:
            continue
        value = values[name]
        if id(array) in found:
            changed = np.asarray(value) != np.asarray(array).astype(value.dtype)
            value = np.where(changed, value, found[id(array)])
        found[id(array)] = value
    return found


def arrays_within(value: Any, known: set[int] | None = None) -> Iterator[Array]:
    """Yields the NumPy arrays in a structure of containers and objects, each once."""
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


def with_layout_of(value: Any, array: Any) -> Any:
    """Returns a value with the memory layout of an array, copied only if needed; a JAX array for a JAX array."""
    if is_jax_array(array):
        return sys.modules["jax"].numpy.asarray(value)
    value = np.asarray(value)
    if value.shape == array.shape and value.flags.c_contiguous and array.flags.c_contiguous:
        return value
    like = np.empty_like(array, dtype=value.dtype)
    if value.shape != like.shape or value.strides == like.strides:
        return value
    like[...] = value
    return like


def _copied_group(arrays: list[Array], replaced: Mapping[int, Any]) -> dict[int, Array]:
    """Returns copies of overlapping arrays, as views of one buffer, by the ids of the originals."""
    values = {id(a): np.asarray(replaced[id(a)]) for a in arrays if id(a) in replaced}
    dtype = next((value.dtype for value in values.values()), arrays[0].dtype)
    copies = views(arrays, np.zeros(extent(arrays), dtype))
    if copies is None:  # views of several dtypes, which they keep
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
            changed = value != array.astype(value.dtype)
            copied[changed] = value[changed]
    return {id(array): copied for array, copied in zip(arrays, copies, strict=True)}


class _Copier:
    """Makes one deep copy; `memo` maps the id of each part to its copy."""

    def __init__(self, replaced: Mapping[int, Any]) -> None:
        self.replaced = replaced
        self.memo: dict[int, Any] = {}
        self._alive: list[Any] = []  # kept alive, so that no id is reused

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
            return self._by_deepcopy_method(value)
        return self._object(value)

    def _array(self, value: Any) -> Any:
        if id(value) in self.replaced:
            return with_layout_of(self.replaced[id(value)], value)
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

    def _by_deepcopy_method(self, value: Any) -> Any:
        """Calls the object's `__deepcopy__`, then replaces arrays that it copied without regard to the memo."""
        for array in arrays_within(value):
            self.of(array)
        try:
            copied = type(value).__deepcopy__(value, self.memo)
        except Exception:
            return self._object(value)
        if copied is not value:
            attributes = attributes_of(copied)
            for name, part in attributes_of(value).items():
                if id(part) in self.replaced and name in attributes and attributes[name] is not self.of(part):
                    object.__setattr__(copied, name, self.of(part))
        return copied

    def _object(self, value: Any) -> Any:
        kind: Any = type(value)
        if is_plain(kind):
            return self._plain(value)
        if hasattr(kind, "__del__") and not _must_be_copied(value):
            return value  # the finalizer of a copy could close a resource of the original
        try:
            return self._reconstructed(value)
        except Exception:
            self.memo.pop(id(value), None)
        try:
            return self._by_attributes(value) if _must_be_copied(value) else value
        except Exception:
            self.memo.pop(id(value), None)
            return value

    def _plain(self, value: Any) -> Any:
        """Copies an object that is its `__dict__` alone, as `_reconstructed` does, but faster."""
        copied = self.memo[id(value)] = object.__new__(type(value))
        own, other = value.__dict__, copied.__dict__
        self.memo[id(own)] = other
        for name, part in own.items():
            other[name] = self.of(part)
        return copied

    def _reconstructed(self, value: Any) -> Any:
        """Copies as `copy.deepcopy` does, by the object's pickle protocol."""
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


@functools.lru_cache(maxsize=4096)
def is_plain(kind: Any) -> bool:
    """Returns whether objects of a class are their `__dict__` alone, and no method says how to copy them.

    Examples:
        >>> is_plain(type("Affine", (), {})), is_plain(type("Slotted", (), {"__slots__": ("W",)})), is_plain(dict)
        (True, False, False)
    """
    if kind.__new__ is not object.__new__ or kind.__basicsize__ != _Empty.__basicsize__ or slots_of(kind):
        return False
    own = {name for base in kind.__mro__[:-1] for name in vars(base)}
    return bool(kind.__dictoffset__) and own.isdisjoint(COPY_METHODS) and kind not in copyreg.dispatch_table


class _Empty:
    """A class whose objects have nothing but a `__dict__`."""


def _set_state(copied: Any, state: Any) -> None:
    if hasattr(copied, "__setstate__"):
        copied.__setstate__(state)
        return
    attributes, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    if attributes:
        copied.__dict__.update(attributes)
    for name, part in (slots or {}).items():
        object.__setattr__(copied, name, part)


def _must_be_copied(value: Any) -> bool:
    """Returns whether an object must be copied even if pickling fails: a layer, or one that holds float arrays."""
    return hasattr(value, "forward") or any(array.dtype.kind == "f" for array in arrays_within(value))
