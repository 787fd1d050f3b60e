"""Names the float leaves of a function's arguments, and rebuilds the arguments at other values."""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.inputs import reject_nan
from jaxnet.crosscheck.inspect.optional_jax import as_jax, is_jax_array
from jaxnet.crosscheck.inspect.signatures import input_names
from jaxnet.crosscheck.inspect.trees import (
    Array,
    distinct,
    is_array,
    is_complex,
    is_float,
    is_inexact,
    leaves_of,
    with_leaves,
)

REAL, IMAG = ".real", ".imag"
# Frameworks whose arrays convert to NumPy, but that NumPy's and JAX's functions should not get.
OTHER_FRAMEWORKS = ("torch", "tensorflow", "autograd", "pytensor", "mxnet", "paddle", "cupy")


class Arguments:
    """The arguments of a function.

    Floats become 0-d arrays; integers, random keys, strings and None stay as they are.

    Args:
        f: The function, whose parameters name the arguments.
        args: The arguments.
        complex_as_two: Whether a complex array counts as two float leaves, `z.real` and `z.imag`, or is one.

    Attributes:
        names: The names of the arguments.
        leaves: All leaves by name.
        floats: The float leaves by name, and complex ones that do not count as two, as NumPy arrays.
        owner: The argument to which each float leaf belongs.
        single: Whether each argument is a leaf, as opposed to a structure.

    Raises:
        SubjectError: If an array is of objects or has a nan.
    """

    def __init__(self, f: Callable[..., Any], args: tuple[Any, ...], *, complex_as_two: bool) -> None:
        self.names = input_names(f, len(args))
        self.complex_as_two = complex_as_two
        self.args = args
        pairs = [(n, name, leaf) for n, arg in zip(self.names, args, strict=True) for name, leaf in leaves_of(arg, n)]
        places = distinct(name for _, name, _ in pairs)
        common = _common_dtype(leaf for *_, leaf in pairs)
        self.leaves: dict[str, Any] = {}
        self.floats: dict[str, Array] = {}
        self.owner: dict[str, str] = {}
        for place, (owner, _, value) in zip(places, pairs, strict=True):
            self.leaves[place] = leaf = self._checked(place, value, common)
            whole = [(place, np.asarray(leaf))] if is_inexact(leaf) and not complex_as_two else []
            for name, part in float_parts(place, leaf) if complex_as_two else whole:
                self.floats[name], self.owner[name] = part, owner
        self.single = {name: name in self.leaves for name in self.names}

    def filled(self, leaves: Mapping[str, Any], *, for_jax: bool = False) -> tuple[Any, ...]:
        """Returns the arguments with other values of their float leaves.

        Float leaves that are not in `leaves` keep their values, in the dtype to which the others were cast. Arrays of
        other dtypes are copied.

        Args:
            leaves: The values by name.
            for_jax: Whether all arrays become JAX arrays. Defaults to only those that were.
        """
        cast = _cast_like(self.floats, leaves)
        values = iter([self._value(place, leaf, leaves, cast, for_jax) for place, leaf in self.leaves.items()])
        return tuple(with_leaves(arg, values) for arg in self.args)

    def of(self, owner: str) -> list[str]:
        """Returns the names of the float leaves of one argument."""
        return [name for name, argument in self.owner.items() if argument == owner]

    def with_floats(self) -> list[str]:
        """Returns the names of the arguments that have float leaves."""
        return [name for name in self.names if name in set(self.owner.values())]

    def _value(
        self, place: str, leaf: Any, leaves: Mapping[str, Any], cast: Callable[[Array], Array], for_jax: bool
    ) -> Any:
        if is_float(leaf) or (is_complex(leaf) and not self.complex_as_two):
            value = leaves[place] if place in leaves else cast(np.array(leaf))
        elif is_complex(leaf):
            real, imag = (
                leaves[place + part] if place + part in leaves else cast(self.floats[place + part].copy())
                for part in (REAL, IMAG)
            )
            return as_complex(real, imag)
        else:
            value = leaf if is_jax_array(leaf) or not is_array(leaf) else copy.deepcopy(leaf)
            value = copy.deepcopy(value) if not is_jax_array(value) and _is_copyable(value) else value
        return as_jax(value) if isinstance(value, np.ndarray) and (for_jax or is_jax_array(leaf)) else value

    def _checked(self, place: str, leaf: Any, common: Any) -> Any:
        if isinstance(leaf, float) and not isinstance(leaf, np.generic):
            leaf = np.asarray(leaf, common)
        elif isinstance(leaf, complex) and not isinstance(leaf, np.generic):
            leaf = np.asarray(leaf)
        elif isinstance(leaf, np.generic):
            leaf = np.asarray(leaf) if is_inexact(leaf) else leaf
        elif not is_array(leaf):
            return self._other(place, leaf)
        if leaf.dtype == object:
            raise SubjectError(f"{place}: an array of objects, expected numbers")
        if is_inexact(leaf):
            reject_nan(place, np.asarray(leaf))
        return leaf

    def _other(self, place: str, leaf: Any) -> Any:
        """Returns a leaf that is no array and no number, as an array if it can be converted."""
        if type(leaf).__module__.partition(".")[0] in OTHER_FRAMEWORKS and hasattr(leaf, "__array__"):
            raise SubjectError(
                f"{place}: a {type(leaf).__module__.partition('.')[0]}.{type(leaf).__name__}, "
                "which NumPy's and JAX's functions do not accept; pass an array"
            )
        if hasattr(leaf, "__array__") and not is_jax_array(leaf):
            array = np.asarray(leaf)
            return array if array.dtype == object else self._checked(place, array, array.dtype)
        return leaf


def float_parts(place: str, leaf: Any) -> Iterator[tuple[str, Array]]:
    """Yields the float leaves of an array: the array itself, or its real and imaginary parts."""
    if is_float(leaf):
        yield place, np.asarray(leaf)
    elif is_complex(leaf):
        array = np.asarray(leaf)
        yield place + REAL, np.array(array.real)
        yield place + IMAG, np.array(array.imag)


def as_complex(real: Any, imag: Any) -> Any:
    """Returns the complex array with these real and imaginary parts, traced or not."""
    if isinstance(real, np.ndarray | np.generic) and isinstance(imag, np.ndarray | np.generic):
        joined = np.empty_like(real, np.result_type(real.dtype, np.complex64))
        joined.real, joined.imag = real, imag  # a product with 1j would make an infinite part a nan
        return joined
    import jax

    return jax.lax.complex(real, imag)


def _cast_like(floats: Mapping[str, Array], leaves: Mapping[str, Any]) -> Callable[[Array], Array]:
    """Returns the cast for the other float leaves: to the new dtype of leaves that had the same one, or of all."""
    dtypes = {floats[name].dtype: value.dtype for name, value in leaves.items() if name in floats}
    single = next(iter(dtypes.values())) if len(set(dtypes.values())) == 1 else None

    def cast(array: Array) -> Array:
        dtype = dtypes.get(array.dtype, single)
        if dtype is None:
            return array
        real = np.zeros((), dtype).real.dtype if dtype.kind == "c" else dtype  # complex leaves may be cast beside it
        return array.astype(np.result_type(real, np.complex64) if is_complex(array) else real, copy=False)

    return cast


def _common_dtype(leaves: Iterator[Any]) -> Any:
    """Returns the dtype of a Python number among arrays, which takes theirs, as in NumPy and JAX."""
    dtypes = {np.dtype(leaf.dtype) for leaf in leaves if is_float(leaf) and np.ndim(leaf)}
    return dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float64)


def _is_copyable(value: Any) -> bool:
    """Returns whether a leaf that is no array is mutable and can be copied."""
    if value is None or isinstance(value, str | bytes | bool | int | np.ndarray) or callable(value):
        return False
    try:
        copy.deepcopy(value)
    except Exception:
        return False
    return True
