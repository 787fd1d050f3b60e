"""Gradients by central differences: (f(x + h) - f(x - h)) / 2h, one element at a time.

The error is h² |f'''| / 6 of truncation and about eps |f| / h of roundoff; they balance near h = cbrt(eps), the
default: 6e-6 in float64, 5e-3 in float32 (Press et al., *Numerical Recipes*, 3rd ed., section 5.7).

As they say there, the step must be one that x can take. x + h and x - h are rounded, so the difference is divided by
how far apart they came to lie: with 2h the gradient would be off by up to eps |x| / 2h of itself, by 1.2e-4 at x = 100
in float32. What is left is that x is up to eps |x| / 2 from their middle, and an error of eps |x f''| / 2.

Each function shifts an element of the caller's array, in place, because a network's loss reads its parameters where
they lie; and puts back exactly what stood there, also when `f` raises.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from numpy_ref.functions import Array


def numerical_gradient(f: Callable[[Array], Any], x: Array, h: float | None = None) -> Array:
    """The gradient of the scalar `f` at `x`, of any shape, in the shape of `x`.

    Args:
        f: Called with `x`, one element shifted; returns a scalar.
        x: float32 or float64; shifted and restored in place.
        h: Step, > 0; by default cbrt(eps) of the dtype of `x`.

    Raises:
        TypeError: `x` is no floating-point array.
        ValueError: `h` is not > 0, or so small that x + h and x - h are the same number.
    """
    h = _step(x, h)
    grad = np.empty_like(x)
    for i in np.ndindex(x.shape):
        grad[i] = _central_difference(f, x, i, h)
    return grad


def _numerical_grad(f: Callable[[Array], Any], x: Array) -> Array:
    """The notebook's name for the gradient at one sample, x (D,)."""
    return numerical_gradient(f, x)


def numerical_gradient_batch(f: Callable[[Array], Any], X: Array) -> Array:
    """Row by row: `f` is called with one row (D,) of X (N, D) and returns a scalar. Returns (N, D).

    `f` may ignore its argument and read the array that `X` is: then this is `numerical_gradient` of a matrix.

    Raises:
        TypeError: `X` is no floating-point array.
        ValueError: An element is too large for the step to move it.
    """
    if np.ndim(X) == 1:
        return _numerical_grad(f, X)
    return np.stack([_numerical_grad(f, x) for x in X])


def numerical_gradient_batch_v2(f: Callable[[Array], Array], X: Array) -> Array:
    """All rows at once: `f` maps X (N, D) to one value per row, (N,). Returns (N, D).

    A whole column is shifted, so this is right only where row n of X moves value n alone. A scalar loss over the
    batch would give every row the column's summed derivative; such an `f` is refused.

    Raises:
        TypeError: `X` is no floating-point array.
        ValueError: `f(X)` is not of shape (N,), or an element is too large for the step to move it.
    """
    h = _step(X, None)
    values = np.asarray(f(X))
    if values.shape != X.shape[:1]:
        raise ValueError(
            f"f: returned shape {values.shape} for X of shape {X.shape}, expected one value per row, {X.shape[:1]}; "
            "for a scalar function of the whole array use numerical_gradient"
        )
    columns = [_central_difference(f, X, (slice(None), j), h) for j in range(X.shape[1])]
    return np.stack(columns, axis=1)  # D times (N,) -> (N, D)


def _central_difference(f: Callable[[Array], Any], x: Array, i: tuple[int | slice, ...], h: float) -> Any:
    """(f(x + h) - f(x - h)) / 2h where only x[i], an element or a column, moves; 2h is the step that was taken."""
    saved = np.copy(x[i])
    above, below = (np.asarray(shifted, x.dtype) for shifted in (saved + h, saved - h))
    if (above == below).any():
        still = saved[above == below].flat[0]
        raise ValueError(f"h: {h}, too small for {still} in {x.dtype}, expected a step that moves it")
    try:
        x[i] = above
        up = f(x)
        x[i] = below
        down = f(x)
    finally:
        x[i] = saved
    return (up - down) / (above - below)


def _step(x: Array, h: float | None) -> float:
    if not (isinstance(x, np.ndarray) and np.issubdtype(x.dtype, np.floating)):
        raise TypeError(f"x: {type(x).__name__} of {getattr(x, 'dtype', 'no dtype')}, expected a floating-point array")
    if h is None:
        return float(np.cbrt(np.finfo(x.dtype).eps))
    if not h > 0:
        raise ValueError(f"h: {h}, expected a step > 0")
    return h
