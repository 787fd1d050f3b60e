"""A leaf of a parameter tree has one name everywhere: tree["Affine1"]["W"] is "Affine1.W"."""

from collections.abc import Iterable, Mapping
from typing import Any


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{"Affine1": {"W": a}} -> {"Affine1.W": a}, in the tree's order; the entries of a list are called 0, 1, ..."""
    leaves: dict[str, Any] = {}
    for name, branch in _entries(tree):
        nested = isinstance(branch, Mapping | list | tuple)
        leaves |= flatten(branch, f"{prefix}{name}.") if nested else {f"{prefix}{name}": branch}
    return leaves


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """{"Affine1.W": a} -> {"Affine1": {"W": a}}."""
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *path, last = name.split(".")
        branch = tree
        for step in path:
            branch = branch.setdefault(step, {})
        branch[last] = leaf
    return tree


def _entries(tree: Any) -> Iterable[tuple[Any, Any]]:
    return tree.items() if isinstance(tree, Mapping) else enumerate(tree)
