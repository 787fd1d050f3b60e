"""Checks of arguments. Each raises a ValueError that names the argument, its value, and what was expected."""

import math
from typing import Any

import numpy as np

CHECKED_NUMBERS = 2**24  # at a time, as samples may be larger than the memory


def check_samples(name: str, x: Any, dtype: Any = np.float64) -> None:
    """Checks that samples are (N, ...) with N >= 1: real numbers that are finite in this dtype, or 32-bit integers."""
    array = np.asarray(x)
    numbers = np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)
    if array.ndim < 2 or array.size == 0 or not numbers:
        raise ValueError(
            f"{name}: {array.dtype} of shape {array.shape}, expected numbers (N, D) with N >= 1, one sample a row"
        )
    if np.issubdtype(array.dtype, np.integer):
        if not np.iinfo(np.int32).min <= array.min() <= array.max() <= np.iinfo(np.int32).max:
            raise ValueError(f"{name}: runs from {array.min()} to {array.max()}, expected 32-bit integers")
        return
    rows = max(1, CHECKED_NUMBERS // math.prod(array.shape[1:]))
    for start in range(0, len(array), rows):
        some = array[start : start + rows]
        with np.errstate(over="ignore"):
            finite = np.isfinite(some.astype(dtype) if np.dtype(dtype).itemsize < array.itemsize else some)
        if not finite.all():
            raise ValueError(
                f"{name}{_first(~finite, some, start)}, expected numbers that are finite in {np.dtype(dtype)}; "
                "clean the data first"
            )


def check_labels(name: str, t: Any, shape: tuple[int, ...]) -> None:
    """Checks labels of logits of shape (..., C): class numbers (...) in [0, C), or one-hot rows (..., C)."""
    array = np.asarray(t)
    if array.shape == shape:
        wrong = ((array != 0) & (array != 1)).any(axis=-1) | (array.sum(axis=-1) != 1)
        if wrong.any():
            raise ValueError(f"{name}{_first(wrong, array)}, expected a single 1 among zeros; pass one-hot rows")
        return
    if array.shape != shape[:-1] or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"{name}: {array.dtype} of shape {array.shape}, "
            f"expected integers of shape {shape[:-1]} or one-hot rows of shape {shape}"
        )
    if not 0 <= array.min() <= array.max() < shape[-1]:
        raise ValueError(
            f"{name}: runs from {array.min()} to {array.max()}, expected class numbers from 0 to {shape[-1] - 1}"
        )


def check_counts(at_least: int = 1, /, **counts: int) -> None:
    """Checks that each count is an integer and at least this large."""
    for name, count in counts.items():
        if not isinstance(count, (int, np.integer)) or isinstance(count, bool) or count < at_least:
            raise ValueError(f"{name}: {count!r}, expected a whole number of at least {at_least}")


def check_positive(name: str, value: Any) -> None:
    """Checks that a value is a finite number > 0."""
    if not _is_finite_number(value) or value <= 0:
        raise ValueError(f"{name}: {value!r}, expected a finite number > 0")


def check_not_negative(name: str, value: Any) -> None:
    """Checks that a value is a finite number >= 0."""
    if not _is_finite_number(value) or value < 0:
        raise ValueError(f"{name}: {value!r}, expected a finite number >= 0")


def check_fits_dtype(name: str, value: Any, dtype: Any) -> None:
    """Checks that a number is within the range of a dtype."""
    import jax.numpy as jnp  # knows bfloat16; imported here because checks of NumPy layers do not need JAX

    if (value if isinstance(value, int) else float(value)) > float(jnp.finfo(dtype).max):  # type: ignore[no-untyped-call]
        raise ValueError(f"{name}: {value}, expected a number that {np.dtype(dtype)} can hold")


def check_batches(name: str, batches: Any, samples: int) -> None:
    """Checks that batches are row numbers (S, B) in [0, samples), with S and B at least 1."""
    array = np.asarray(batches)
    if array.ndim != 2 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name}: {array.dtype} of shape {array.shape}, expected integers (steps, batch size)")
    if not 0 <= array.min() <= array.max() < samples:
        raise ValueError(f"{name}: runs from {array.min()} to {array.max()}, expected rows from 0 to {samples - 1}")


def _is_finite_number(value: Any) -> bool:
    # An int is finite, even if it is too large for a float.
    return isinstance(value, int) or (isinstance(value, (float, np.integer, np.floating)) and math.isfinite(value))


def _first(wrong: np.ndarray, array: np.ndarray, start: int = 0) -> str:
    """Returns "[i, j]: value" for the first index where `wrong` is true; rows count from `start`."""
    index = tuple(map(int, np.argwhere(wrong)[0]))
    return f"[{', '.join(map(str, (start + index[0], *index[1:])))}]: {array[index]}"
