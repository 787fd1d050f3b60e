"""Trees of arrays, {"Affine1": {"W": ..., "b": ...}, ...}, nested as a network's layers are."""

from collections.abc import Callable, Mapping
from typing import Any

from numpy_ref.layers import Array, Tree


def leaves_by_path(tree: Tree, prefix: str = "") -> dict[str, Array]:
    """Returns every leaf by its dotted path, {"Affine1.W": ...}, in the tree's order."""
    flat: dict[str, Array] = {}
    for name, branch in tree.items():
        flat |= leaves_by_path(branch, f"{prefix}{name}.") if isinstance(branch, Mapping) else {prefix + name: branch}
    return flat


def map_leaves(function: Callable[..., Any], tree: Tree, *others: Tree) -> dict[str, Any]:
    """Returns the tree of function(last name, leaf, the leaves of the other trees in the same place)."""
    return {
        name: map_leaves(function, branch, *(other[name] for other in others))
        if isinstance(branch, Mapping)
        else function(name, branch, *(other[name] for other in others))
        for name, branch in tree.items()
    }
