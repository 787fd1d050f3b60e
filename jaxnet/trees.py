"""A leaf of a parameter tree has one name everywhere: tree["Affine1"]["W"] is "Affine1.W"."""

from collections.abc import Mapping
from typing import Any


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"Affine1": {"W": a}} -> {"Affine1.W": a}, in the tree's order."""
    leaves: dict[str, Any] = {}
    for name, branch in tree.items():
        leaves |= flatten(branch, f"{prefix}{name}.") if isinstance(branch, Mapping) else {prefix + name: branch}
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
