"""Checks of arguments. Each raises a ValueError that names the argument, its value, and what was expected."""

import math
import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np

CHECKED_NUMBERS = 2**24  # at a time, as samples may be larger than the memory
MAX_NUMBERS = 2**36  # in one array of parameters, which takes 275 GB in float32


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


def check_no_control_characters(name: str, path: object) -> None:
    """Checks that a path has no line breaks or other control characters, which would break the lines that name it."""
    if any(unicodedata.category(character) in {"Cc", "Zl", "Zp"} for character in str(path)):
        raise ValueError(f"{name}: {str(path)!r}, expected a name without line breaks and other control characters")


def native(x: Any) -> Any:
    """Returns an array in this machine's byte order, which JAX requires; anything else as it is."""
    if isinstance(x, np.ndarray) and not x.dtype.isnative:
        return x.astype(x.dtype.newbyteorder("="))
    return x


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


def check_size(**sizes: int) -> None:
    """Checks that an array of these sizes, which are counts, has a number of elements that a machine may hold."""
    numbers = math.prod(map(int, sizes.values()))
    if numbers > MAX_NUMBERS:
        values = ", ".join(map(str, sizes.values()))
        raise ValueError(f"{', '.join(sizes)}: {values}, expected sizes whose product is at most {MAX_NUMBERS:,}")


def check_share(name: str, value: Any) -> None:
    """Checks that a value is a number in [0, 1)."""
    if not _is_finite_number(value) or not 0 <= value < 1:
        raise ValueError(f"{name}: {_shown(value)}, expected a share in [0, 1)")


def as_list(name: str, counts: Any) -> list[Any]:
    """Returns the elements of a list, an array or a generator, NumPy's integers as Python's."""
    if isinstance(counts, str) or not isinstance(counts, Iterable):
        raise ValueError(f"{name}: {counts!r}, expected a list of whole numbers, such as [50]")
    return [int(count) if isinstance(count, np.integer) else count for count in counts]


def check_positive(name: str, value: Any) -> None:
    """Checks that a value is a finite number > 0."""
    if not _is_finite_number(value) or value <= 0:
        raise ValueError(f"{name}: {_shown(value)}, expected a finite number > 0")


def check_not_negative(name: str, value: Any) -> None:
    """Checks that a value is a finite number >= 0."""
    if not _is_finite_number(value) or value < 0:
        raise ValueError(f"{name}: {_shown(value)}, expected a finite number >= 0")


def check_fits_dtype(name: str, value: Any, dtype: Any) -> None:
    """Checks that a number is within the range of a dtype: neither infinite in it, nor 0 without being 0."""
    import jax.numpy as jnp  # knows bfloat16; imported here because checks of NumPy layers do not need JAX

    size, limits = abs(value if isinstance(value, int) else float(value)), jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    if size and not float(limits.tiny) <= size <= float(limits.max):
        within = f"from {limits.tiny:.2g} to {limits.max:.2g}"
        raise ValueError(f"{name}: {value}, expected a number that {np.dtype(dtype)} can hold, {within}")


def check_key(name: str, key: Any) -> None:
    """Checks that a key is one of JAX's: a typed one, or the numbers of one, as from `jax.random.PRNGKey`."""
    import jax  # imported here because checks of NumPy layers do not need JAX
    import jax.numpy as jnp

    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and key.ndim == 0
    if not typed and (dtype != np.uint32 or key.shape not in {(2,), (4,)}):
        raise ValueError(f"{name}: {_shown(key)}, expected a key, such as jax.random.key(0)")


def check_ids(name: str, ids: Any, count: int) -> None:
    """Checks that ids are integers in [0, count)."""
    array = np.asarray(ids)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name}: {array.dtype} of shape {array.shape}, expected integers, the ids of symbols")
    if array.size and not 0 <= array.min() <= array.max() < count:
        raise ValueError(f"{name}: runs from {array.min()} to {array.max()}, expected ids from 0 to {count - 1}")


def check_batches(name: str, batches: Any, samples: int) -> None:
    """Checks that batches are row numbers (S, B) in [0, samples), with S and B at least 1."""
    array = np.asarray(batches)
    if array.ndim != 2 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name}: {array.dtype} of shape {array.shape}, expected integers (steps, batch size)")
    if not 0 <= array.min() <= array.max() < samples:
        raise ValueError(f"{name}: runs from {array.min()} to {array.max()}, expected rows from 0 to {samples - 1}")


def _is_finite_number(value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return False
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # an array of one number, of any library
        value = value.item()
    # An int is finite, even if it is too large for a float.
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _shown(value: Any) -> str:
    """Returns a value as a message has it: an array by its dtype and shape."""
    if getattr(value, "ndim", 0):
        return f"{value.dtype} of shape {value.shape}"
    return repr(value)


def _first(wrong: np.ndarray, array: np.ndarray, start: int = 0) -> str:
    """Returns "[i, j]: value" for the first index where `wrong` is true; rows count from `start`."""
    index = tuple(map(int, np.argwhere(wrong)[0]))
    return f"[{', '.join(map(str, (start + index[0], *index[1:])))}]: {array[index]}"
