"""Dotted paths of the leaves of a tree: tree["Affine1"]["W"] is "Affine1.W" everywhere."""

from collections.abc import Mapping
from typing import Any


def leaves_by_path(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Returns the leaves by path, {"Affine1": {"W": a}} -> {"Affine1.W": a}; entries of lists are called 0, 1, ..."""
    leaves: dict[str, Any] = {}
    for name, branch in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
        nested = isinstance(branch, Mapping | list | tuple)
        leaves |= leaves_by_path(branch, f"{prefix}{name}.") if nested else {f"{prefix}{name}": branch}
    return leaves


def tree_from_paths(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tree of leaves by path, {"Affine1.W": a} -> {"Affine1": {"W": a}}."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[name] = leaf
    return tree
