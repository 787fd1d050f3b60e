"""Walks over objects: their attributes, the entries of containers, and the layers among them."""

import functools
import io
import types
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.optional_jax import is_jax_array
from jaxnet.crosscheck.inspect.trees import Array, is_inexact

DEEPEST = 8  # levels of nesting; layers may refer back to each other
ARRAY_ATTRIBUTES = ("data", "value", "params")  # where a parameter object keeps its array, beside its gradient
NUMBERS_AND_TEXTS = (int, float, str, bytes)  # which a walk passes over
STATELESS = (type, types.ModuleType, types.FunctionType, types.MethodType)
SHARED = (
    types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.GeneratorType, types.CodeType, np.ufunc,
    np.dtype, np.generic, io.IOBase, weakref.ref,
)  # fmt: skip
# Objects of these modules stand for something outside: a thread, a process, a file, a library, a device.
SHARED_MODULES = frozenset({
    "_ctypes", "_io", "_queue", "_thread", "asyncio", "concurrent", "ctypes", "io", "logging", "multiprocessing",
    "numba", "pycuda", "queue", "selectors", "socket", "sqlite3", "ssl", "subprocess", "threading",
})  # fmt: skip


def attributes_of(value: Any) -> dict[str, Any]:
    """Returns the attributes of an object, those in `__slots__` included; none of a class, a module or a function."""
    if isinstance(value, STATELESS):
        return {}
    kind: Any = type(value)
    filled = {name: getattr(value, name) for name in slots_of(kind) if hasattr(value, name)}
    own = getattr(value, "__dict__", {})  # which an object may compute, as something else than a dict
    return filled | own if isinstance(own, dict) else filled


@functools.lru_cache(maxsize=4096)  # asked for at each of the many calls of a layer
def slots_of(kind: Any) -> tuple[str, ...]:
    """Returns the names of the attributes in the `__slots__` of a class and its bases, as they are looked up."""
    slots = (getattr(base, "__slots__", ()) for base in kind.__mro__)
    names = [name for some in slots for name in ([some] if isinstance(some, str) else some)]
    names += [f"_{base.__name__.lstrip('_')}{name}" for base in kind.__mro__ for name in names if name[:2] == "__"]
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def is_ndarray(value: Any) -> bool:
    """Returns whether this is an array, NumPy's or JAX's, and not a NumPy scalar."""
    return isinstance(value, np.ndarray) or is_jax_array(value)


def is_shared(value: Any) -> bool:
    """Returns whether an object is never copied: a function, a module, a file, a lock, a pool, a handle."""
    kind: Any = type(value)
    return isinstance(value, SHARED) or _stands_outside(kind)


@functools.lru_cache(maxsize=4096)
def _stands_outside(kind: Any) -> bool:
    return any(base.__module__.partition(".")[0] in SHARED_MODULES for base in kind.__mro__)


def walk(value: Any, place: str = "", depth: int = 0, known: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Yields a value and everything within it, each once, with its place: `p['W'][0]`, `cell.W`.

    Looks into lists, tuples, dicts and the attributes of objects.
    """
    known = set() if known is None else known
    if value is None or isinstance(value, NUMBERS_AND_TEXTS) or depth > DEEPEST or id(value) in known:
        return
    known.add(id(value))
    yield place, value
    if type(value) is np.ndarray:  # most parts are, and the questions below take longer
        if value.dtype.hasobject:
            for i, part in enumerate(value.flat):
                yield from walk(part, f"{place}[{i}]", depth + 1, known)
        return
    if isinstance(value, Mapping):
        parts = [(f"{place}[{key!r}]", part) for key, part in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"{place}[{i}]", part) for i, part in enumerate(value)]
    elif is_ndarray(value) or is_shared(value):
        parts = []
    else:
        parts = [(f"{place}.{name}" if place else name, part) for name, part in attributes_of(value).items()]
    for where, part in parts:
        if part is not None and not isinstance(part, NUMBERS_AND_TEXTS):
            yield from walk(part, where, depth + 1, known)


def floats_in(value: Any) -> Iterator[Array]:
    """Yields the float arrays in a structure of lists, dicts and objects."""
    yield from (part for _, part in walk(value) if is_inexact(part))


def is_layer(value: Any) -> bool:
    """Returns whether an object has a forward and a backward method."""
    if type(value) is np.ndarray or isinstance(value, type):
        return False
    return callable(getattr(value, "forward", None)) and callable(getattr(value, "backward", None))


def sublayers(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the layers in the value of an attribute: itself, or those in its list or dict, each with its place."""
    if isinstance(value, Mapping):
        yield from ((str(key), part) for key, part in value.items() if is_layer(part))
    elif isinstance(value, list | tuple):
        yield from ((f"{name}[{i}]", part) for i, part in enumerate(value) if is_layer(part))
    elif is_layer(value):
        yield name, value


def layers_within(layer: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yields a layer and all layers within it, each with the prefix of its places: `cell.`."""
    if depth < DEEPEST:
        yield prefix, layer
        for name, value in attributes_of(layer).items():
            for place, part in sublayers(name, value):
                yield from layers_within(part, f"{prefix}{place}.", depth + 1)


def innermost(whole: Any) -> Iterator[tuple[str, Any]]:
    """Yields the layers without sublayers, each once, by name. Containers that are no layers add no prefix."""
    known: set[int] = set()
    for name, layer in _innermost(whole, "", 0):
        if id(layer) not in known:
            known.add(id(layer))
            yield name, layer


def _innermost(whole: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for attribute, value in attributes_of(whole).items():
        for place, layer in sublayers(attribute, value):
            name = prefix if place == attribute else f"{prefix}{place}."
            within = list(_innermost(layer, name, depth + 1)) if depth < DEEPEST else []
            yield from within or [(f"{prefix}{place}", layer)]


def parameter_objects(layer: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yields the objects with an array as their `data`, `value` or `params`: place, object and array."""
    for place, part in walk(layer):
        if is_ndarray(part) or is_layer(part):
            continue
        attributes = attributes_of(part)
        arrays = [
            attributes[name]
            for name in ARRAY_ATTRIBUTES
            if is_ndarray(attributes.get(name)) and is_inexact(attributes[name])
        ]
        if arrays:
            yield place, part, arrays[0]


def safe_getattr(value: Any, name: str) -> Any:
    """Returns an attribute; None if it does not exist or if its property raises."""
    try:
        return getattr(value, name, None)
    except Exception:
        return None
