"""Gradients by central differences: (f(x + h) - f(x - h)) / 2h, one element at a time.

The truncation error h² |f'''| / 6 and the roundoff error of about eps |f| / h balance near h = cbrt(eps), the default:
6e-6 in float64, 5e-3 in float32 (Press et al., *Numerical Recipes*, 3rd ed., section 5.7). x + h and x - h are rounded,
so the difference is divided by their actual distance, as Press et al. advise: with 2h the gradient would have a
relative error of up to eps |x| / 2h, 1.2e-4 at x = 100 in float32.

Each function changes the caller's array in place, as a network's loss reads its own, and restores its exact values.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from numpy_ref.layers import Array

__all__ = ["numerical_gradient", "numerical_gradient_batch", "numerical_gradient_batch_v2"]


def numerical_gradient(f: Callable[[Array], Any], x: Array, h: float | None = None) -> Array:
    """Returns the gradient of the scalar function `f` at `x`, an array of any shape, in the shape of `x`.

    Args:
        f: A function of `x` that returns a scalar. It is called with one element changed.
        x: A float32 or float64 array. It is changed and restored in place.
        h: The step, > 0. Defaults to cbrt(eps) of the dtype of `x`.

    Raises:
        TypeError: If `x` is no floating-point array.
        ValueError: If `h` is not > 0, or so small that x + h and x - h are the same number.

    Example:
        >>> numerical_gradient(lambda x: x @ x, np.array([1.0, 3.0])).round(6)
        array([2., 6.])
    """
    h = _step(x, h)
    grad = np.empty_like(x)
    for i in np.ndindex(x.shape):
        grad[i] = _central_difference(f, x, i, h)
    return grad


def numerical_gradient_batch(f: Callable[[Array], Any], X: Array) -> Array:
    """Returns the gradient (N, D) at each row of X (N, D), where `f` maps one row (D,), or X itself, to a scalar.

    Raises:
        TypeError: If `X` is no floating-point array.
        ValueError: If an element is too large for the step to change it.
    """
    return numerical_gradient(f, X) if np.ndim(X) == 1 else np.stack([numerical_gradient(f, x) for x in X])


def numerical_gradient_batch_v2(f: Callable[[Array], Array], X: Array) -> Array:
    """Returns the gradient (N, D) at all rows of X (N, D) at once, where `f` maps X to one value per row, (N,).

    It changes a whole column at a time, so it is right only if value n depends on row n of X alone.

    Raises:
        TypeError: If `X` is no floating-point array.
        ValueError: If `f(X)` has not the shape (N,), or an element is too large for the step to change it.
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
    """Returns (f(x + h) - f(x - h)) / 2h by x[i], an element or a column, with the actual distance for 2h."""
    saved = np.copy(x[i])
    above, below = (np.asarray(shifted, x.dtype) for shifted in (saved + h, saved - h))
    if (above == below).any():
        unchanged = saved[above == below].flat[0]
        raise ValueError(f"h: {h}, too small for {unchanged} in {x.dtype}, expected a step that changes it")
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
