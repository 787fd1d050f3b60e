"""Directions in which an argument with structure may move: a symmetric matrix stays symmetric, a simplex keeps its sum.

Only the part of a gradient along these directions has a meaning: what is orthogonal to them depends on how the
function is continued off the structure. Each structure is described by the projection of a direction onto its tangent
space at x. Along a tangent of a curved structure, such as rotations, a straight line has the same first derivative.

Reference: Absil, Mahony and Sepulchre, *Optimization Algorithms on Matrix Manifolds* (2008), section 3.5.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.dtypes import in_float64
from jaxnet.crosscheck.inspect.checkable import Array, Leaves
from jaxnet.crosscheck.inspect.errors import describe

CLOSE = 1e-6  # relative error up to which a value has a structure


class Structure(NamedTuple):
    """A structure of an array.

    Attributes:
        name: Its name in options and reports.
        project: Returns the part of a direction d that is tangent at x.
        holds: Returns whether x has the structure, and is not too simple to tell.
        parts: Returns masks of parts of x by name. A tangent keeps the structure if all but one part of it is zero.
    """

    name: str
    project: Callable[[Array, Array], Array]
    holds: Callable[[Array], bool]
    parts: Callable[[Array], dict[str, Array]] = lambda _: {}


def recognized(x: Array) -> list[Structure]:
    """Returns the structures that a value has, except those that are more often due to a simple value than meant."""
    return [structure for name, structure in STRUCTURES.items() if name not in UNLIKELY and structure.holds(x)]


def structures_of(options: Mapping[str, Any], leaves: Leaves) -> dict[str, Structure]:
    """Returns the structures that an option gives to leaves.

    Args:
        options: For each leaf the name of its structure, or the projection of a direction d onto the tangents at x.
        leaves: The leaves.

    Raises:
        ValueError: If there is no such leaf or structure, or the leaf's value does not have it.
    """
    if not isinstance(options, Mapping):
        raise ValueError(f"structure: {options!r}, expected a dict by name, such as {{'x': 'symmetric'}}")
    chosen = {}
    for leaf, structure in options.items():
        if leaf not in leaves:
            raise ValueError(f"structure: no array is called {leaf!r}, expected names among {', '.join(leaves)}")
        if callable(structure):
            _expect_projection(leaf, structure, in_float64(leaves[leaf]))
            chosen[leaf] = Structure(getattr(structure, "__name__", "your own"), structure, lambda _: True)
        elif structure in STRUCTURES:
            chosen[leaf] = STRUCTURES[structure]
        else:
            names = ", ".join(map(repr, STRUCTURES))
            raise ValueError(
                f"structure: {structure!r} for {leaf}, expected one of {names}, or a function project(x, d)"
            )
        if not chosen[leaf].holds(in_float64(leaves[leaf])):
            raise ValueError(f"structure: {leaf} does not have it ({structure}): pass a value that has")
    return chosen


def _expect_projection(name: str, project: Callable[[Array, Array], Array], x: Array) -> None:
    """Raises a ValueError if a function is no linear projection of directions at x, or leaves none of them."""
    first, second = np.random.default_rng(0).standard_normal((2, *x.shape))
    try:
        d, e, both = (np.asarray(project(x, value), np.float64) for value in (first, second, first + second))
        again = np.asarray(project(x, d), np.float64)
    except Exception as error:
        raise ValueError(
            f"structure: the function for {name} raises {describe(error)}, expected project(x, d)"
        ) from error
    if d.shape != x.shape or not d.any() or not (_is_close(both, d + e) and _is_close(d, again)):
        raise ValueError(
            f"structure: the function for {name} is no projection: expected the part of d that is tangent at x, "
            "of the same shape, linear in d, not zero, and the same if it is projected again"
        )


def _is_square(x: Array) -> bool:
    return x.ndim >= 2 and x.shape[-1] == x.shape[-2] > 1 and bool(np.isfinite(x).all())


def _transposed(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def _is_close(x: Array, other: Array) -> bool:
    return bool(np.abs(x - other).max(initial=0.0) <= CLOSE * np.abs(x).max(initial=0.0))


def _is_symmetric(x: Array) -> bool:
    return _is_square(x) and _is_close(x, _transposed(x))


def _is_positive_definite(x: Array) -> bool:
    return _is_symmetric(x) and bool((np.linalg.eigvalsh(x) > 0).all())


def _is_triangular(x: Array, part: Callable[..., Array]) -> bool:
    """Returns whether a triangle is zero, and the rest off the diagonal is not."""
    return _is_square(x) and bool((x == part(x)).all()) and bool((x != _diagonal(x)).any())


def _diagonal(x: Array) -> Array:
    return np.asarray(x * np.eye(x.shape[-1]))


def _has_rows(x: Array, sums: Callable[[Array], Array]) -> bool:
    """Returns whether each row has a sum of 1, and not all rows have a single element that is not 0."""
    several = x.ndim >= 1 and x.shape[-1] > 1 and x.size > 0
    return several and bool((np.abs(sums(x) - 1) <= CLOSE).all()) and bool((np.abs(x) < 1).any(axis=-1).any())


def _is_simplex(x: Array) -> bool:
    return bool((x >= 0).all()) and _has_rows(x, lambda x: x.sum(axis=-1))


def _has_unit_rows(x: Array) -> bool:
    return _has_rows(x, lambda x: (x**2).sum(axis=-1))


def _is_rotation(x: Array) -> bool:
    return _is_square(x) and _is_close(np.eye(x.shape[-1]), x @ _transposed(x)) and bool((x != _diagonal(x)).any())


def _along_rotation(x: Array, d: Array) -> Array:
    turned = _transposed(x) @ d
    return np.asarray(x @ (turned - _transposed(turned)) / 2)


def _by_diagonal(x: Array) -> dict[str, Array]:
    diagonal = np.broadcast_to(np.eye(x.shape[-1], dtype=bool), x.shape)
    return {DIAGONAL: diagonal, OFF_DIAGONAL: ~diagonal}


def _by_row(x: Array) -> dict[str, Array]:
    """Returns the rows, the vectors along the last axis, if there are few and more than one."""
    rows = list(np.ndindex(x.shape[:-1]))
    masks = {}
    for row in rows if 1 < len(rows) <= MOST_ROWS else ():
        mask = np.zeros(x.shape, bool)
        mask[row] = True
        masks[f"row [{', '.join(map(str, row))}]"] = mask
    return masks


DIAGONAL, OFF_DIAGONAL = "the diagonal", "the elements off the diagonal"
MOST_ROWS = 16
_ALL = (
    Structure("symmetric", lambda _, d: (d + _transposed(d)) / 2, _is_symmetric, _by_diagonal),
    Structure("positive definite", lambda _, d: (d + _transposed(d)) / 2, _is_positive_definite, _by_diagonal),
    Structure(
        "skew-symmetric",
        lambda _, d: (d - _transposed(d)) / 2,
        lambda x: _is_square(x) and _is_close(x, -_transposed(x)) and bool(x.any()),
    ),
    Structure("lower triangular", lambda _, d: np.tril(d), lambda x: _is_triangular(x, np.tril), _by_diagonal),
    Structure("upper triangular", lambda _, d: np.triu(d), lambda x: _is_triangular(x, np.triu), _by_diagonal),
    Structure(
        "diagonal",
        lambda _, d: _diagonal(d),
        lambda x: _is_square(x) and bool((x == _diagonal(x)).all()) and bool(x.any()),
    ),
    Structure("simplex", lambda _, d: d - d.mean(axis=-1, keepdims=True), _is_simplex, _by_row),
    Structure("unit rows", lambda x, d: d - x * (x * d).sum(axis=-1, keepdims=True), _has_unit_rows, _by_row),
    Structure("rotation", _along_rotation, _is_rotation),
)
# An identity matrix is a common initial value; a positive definite matrix moves as a symmetric one does.
UNLIKELY = ("diagonal", "positive definite")
STRUCTURES = {structure.name: structure for structure in _ALL}
