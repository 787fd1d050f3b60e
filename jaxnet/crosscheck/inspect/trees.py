"""Names the leaves of nested arguments and outputs, and rebuilds the same structure with other leaves.

A structure is a dict, a list, a tuple, a named tuple, a dataclass or, if JAX is loaded, a registered pytree node.
Everything else is a leaf, None included. The leaf `params["Affine1"]["W"]` is called `params.Affine1.W`.
"""

import copy
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxnet.crosscheck.dtypes import is_float_dtype

Array = NDArray[Any]
Leaves = dict[str, Array]  # arrays by name
PLAIN = (np.ndarray, np.generic, str, bytes, bool, int, float, complex, type(None), type)
DEEPEST = 64  # levels of nesting; a structure may contain itself


class Node(NamedTuple):
    """One level of a structure."""

    parts: list[tuple[str, Any]]  # each with its name in the structure
    rebuild: Callable[[list[Any]], Any]  # makes the same kind of structure from other parts


def node_of(value: Any) -> Node | None:
    """Returns one level of a structure, or None for a leaf."""
    if isinstance(value, PLAIN):
        return None
    if isinstance(value, Mapping):
        return Node([(str(key), part) for key, part in value.items()], lambda parts: _mapping_like(value, parts))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return Node(list(zip(value._fields, value, strict=True)), lambda parts: type(value)(*parts))
    if isinstance(value, list | tuple):
        return Node([(str(i), part) for i, part in enumerate(value)], lambda parts: type(value)(parts))
    if (node := _jax_node(value)) is not None:
        return node
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
        return Node(
            [(name, getattr(value, name)) for name in names], lambda parts: with_attributes(value, names, parts)
        )
    return None


def leaves_of(tree: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yields every leaf of a structure with its dotted name.

    Args:
        tree: A structure or a leaf.
        name: The name of the structure.
        depth: Its depth in another structure.

    Examples:
        >>> list(leaves_of({"W": 1.0, "b": (2.0, None)}, "params"))
        [('params.W', 1.0), ('params.b.0', 2.0), ('params.b.1', None)]
    """
    node = node_of(tree) if depth < DEEPEST else None
    if node is None:
        yield name, tree
        return
    for key, part in node.parts:
        yield from leaves_of(part, f"{name}.{key}" if name else key, depth + 1)


def map_leaves(function: Callable[[Any], Any], tree: Any, depth: int = 0) -> Any:
    """Returns the same structure with `function` applied to each leaf, in the order of `leaves_of`."""
    node = node_of(tree) if depth < DEEPEST else None
    if node is None:
        return function(tree)
    return node.rebuild([map_leaves(function, part, depth + 1) for _, part in node.parts])


def with_leaves(tree: Any, leaves: Iterable[Any]) -> Any:
    """Returns the same structure with other leaves, in the order of `leaves_of`."""
    remaining = iter(leaves)
    return map_leaves(lambda _: next(remaining), tree)


def with_attributes(value: Any, names: Iterable[str], parts: Iterable[Any]) -> Any:
    """Returns a shallow copy of an object, frozen or not, with some of its attributes replaced."""
    other = copy.copy(value)
    for name, part in zip(names, parts, strict=True):
        object.__setattr__(other, name, part)
    return other


def distinct(names: Iterable[str]) -> list[str]:
    """Returns the names, each repeated name with a number after it.

    Examples:
        >>> distinct(["x", "w", "x"])
        ['x', 'w', 'x#2']
    """
    used: dict[str, int] = {}
    found = []
    for name in names:
        used[name] = used.get(name, 0) + 1
        found.append(name if used[name] == 1 else f"{name}#{used[name]}")
    return found


def is_array(value: Any) -> bool:
    """Returns whether this is a NumPy array, a NumPy scalar or a JAX array other than a typed random key."""
    if isinstance(value, np.ndarray | np.generic):
        return True
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.Array) and hasattr(value.dtype, "kind")


def is_float(value: Any) -> bool:
    """Returns whether this is an array of floating-point numbers."""
    return is_array(value) and is_float_dtype(value.dtype)


def is_complex(value: Any) -> bool:
    """Returns whether this is an array of complex numbers."""
    return is_array(value) and value.dtype.kind == "c"


def is_inexact(value: Any) -> bool:
    """Returns whether this is an array of floating-point or of complex numbers."""
    return is_array(value) and (value.dtype.kind == "c" or is_float_dtype(value.dtype))


def copied(tree: Any) -> Any:
    """Returns a structure whose NumPy arrays are copies."""
    return map_leaves(lambda leaf: np.array(leaf) if isinstance(leaf, np.ndarray) else leaf, tree)


def _mapping_like(value: Mapping[Any, Any], parts: list[Any]) -> Any:
    filled = dict(zip(value, parts, strict=True))
    if type(value) is dict:
        return filled
    if isinstance(value, dict):
        other = copy.copy(value)  # keeps the factory of a defaultdict
        other.update(filled)
        return other
    try:
        return type(value)(filled)  # type: ignore[call-arg]
    except TypeError:
        return filled


def _jax_node(value: Any) -> Node | None:
    """Returns one level of a structure that is registered as a pytree node with JAX."""
    jax = sys.modules.get("jax")
    if jax is None or isinstance(value, jax.Array):
        return None
    equinox = sys.modules.get("equinox")
    if equinox is not None and isinstance(value, equinox.Module):
        return _equinox_node(value)
    paths, structure = jax.tree_util.tree_flatten_with_path(value, is_leaf=lambda part: part is not value)
    if jax.tree_util.treedef_is_leaf(structure):
        return None
    return Node(_named(paths), lambda others: jax.tree_util.tree_unflatten(structure, others))


def _equinox_node(module: Any) -> Node:
    """Returns all levels of an Equinox module, without its Python numbers, such as the `p` of a dropout.

    `equinox.filter_grad` differentiates arrays alone, `equinox.is_inexact_array`, so that these are settings.
    """
    tree = sys.modules["jax"].tree_util
    paths, structure = tree.tree_flatten_with_path(module)
    is_setting = [isinstance(part, float | complex) and not isinstance(part, np.generic) for _, part in paths]

    def rebuild(others: list[Any]) -> Any:
        remaining = iter(others)
        parts = [part if fixed else next(remaining) for (_, part), fixed in zip(paths, is_setting, strict=True)]
        return tree.tree_unflatten(structure, parts)

    return Node(_named([path for path, fixed in zip(paths, is_setting, strict=True) if not fixed]), rebuild)


def _named(paths: Iterable[tuple[Any, Any]]) -> list[tuple[str, Any]]:
    """Returns the parts of a pytree, each with the name of its path."""
    tree = sys.modules["jax"].tree_util
    return [(tree.keystr(path, simple=True, separator="."), part) for path, part in paths]
