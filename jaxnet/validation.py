"""What the edges of the library refuse. Every message names the argument, what it was and what was expected."""

from typing import Any

import numpy as np


def check_samples(name: str, x: Any, dtype: Any = np.float64) -> None:
    """`x` must be (N, ...) with N >= 1, of real numbers that are finite in this dtype, or of integers of 32 bits.

    Raises:
        ValueError: It is not.
    """
    array = np.asarray(x)
    numbers = np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)
    if array.ndim < 2 or array.size == 0 or not numbers:
        raise ValueError(
            f"{name}: {array.dtype} of shape {array.shape}, expected numbers (N, D) with N >= 1, one sample a row"
        )
    if np.issubdtype(array.dtype, np.integer):
        if not np.iinfo(np.int32).min <= array.min() <= array.max() <= np.iinfo(np.int32).max:
            raise ValueError(f"{name}: runs from {array.min()} to {array.max()}, expected integers of 32 bits")
        return
    with np.errstate(over="ignore"):
        finite = np.isfinite(array.astype(dtype) if np.dtype(dtype).itemsize < array.itemsize else array)
    if not finite.all():
        i = tuple(map(int, np.argwhere(~finite)[0]))
        raise ValueError(
            f"{name}[{', '.join(map(str, i))}]: {array[i]}, expected numbers that are finite in {np.dtype(dtype)}; "
            "clean the data first"
        )


def check_labels(name: str, t: Any, shape: tuple[int, ...]) -> None:
    """`t` must label logits of this shape, (..., C): class numbers (...) in [0, C), or one-hot rows (..., C).

    Raises:
        ValueError: It does not.
    """
    array = np.asarray(t)
    if array.shape == shape:
        wrong = np.argwhere(((array != 0) & (array != 1)).any(axis=-1) | (array.sum(axis=-1) != 1))
        if wrong.size:
            i = tuple(map(int, wrong[0]))
            raise ValueError(
                f"{name}[{', '.join(map(str, i))}]: {array[i]}, expected a single 1 among zeros; pass one-hot rows"
            )
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
    """Every one must be a whole number, large enough.

    Raises:
        ValueError: One is not.
    """
    for name, count in counts.items():
        if not isinstance(count, (int, np.integer)) or isinstance(count, bool) or count < at_least:
            raise ValueError(f"{name}: {count!r}, expected a whole number of at least {at_least}")


def check_positive(name: str, value: Any) -> None:
    """`value` must be a finite number > 0.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(value, (int, float, np.integer, np.floating)) or not 0 < value < float("inf"):
        raise ValueError(f"{name}: {value!r}, expected a finite number > 0")


def check_holds(name: str, value: Any, dtype: Any) -> None:
    """`value` must be a number that the dtype can hold.

    Raises:
        ValueError: It is too large for it.
    """
    import jax.numpy as jnp  # it knows bfloat16, and is loaded where a dtype is asked for

    if (value if isinstance(value, int) else float(value)) > float(jnp.finfo(dtype).max):  # type: ignore[no-untyped-call]
        raise ValueError(f"{name}: {value}, expected a number that {np.dtype(dtype)} can hold")


def check_not_negative(name: str, value: Any) -> None:
    """`value` must be a finite number >= 0.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(value, (int, float, np.integer, np.floating)) or not 0 <= value < float("inf"):
        raise ValueError(f"{name}: {value!r}, expected a finite number >= 0")


def check_batches(name: str, batches: Any, samples: int) -> None:
    """`batches` must be row numbers (S, B) in [0, samples), S and B at least 1.

    Raises:
        ValueError: It is not.
    """
    array = np.asarray(batches)
    if array.ndim != 2 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name}: {array.dtype} of shape {array.shape}, expected integers (steps, batch size)")
    if not 0 <= array.min() <= array.max() < samples:
        raise ValueError(f"{name}: runs from {array.min()} to {array.max()}, expected rows from 0 to {samples - 1}")
