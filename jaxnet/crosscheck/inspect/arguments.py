"""The arguments of a function: which of their leaves are floats, and the same arguments at other values."""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.optional_jax import as_jax, is_jax_array
from jaxnet.crosscheck.inspect.signatures import input_names
from jaxnet.crosscheck.inspect.trees import Array, distinct, is_array, is_complex, is_float, leaves_of, with_leaves

REAL, IMAG = ".real", ".imag"
# Frameworks whose arrays have NumPy's interface and are still not to be handed to another's tracers.
FOREIGN = ("torch", "tensorflow", "autograd", "pytensor", "mxnet", "paddle", "cupy")


class Arguments:
    """What a function is called with.

    Numbers become arrays of 0 axes where they are floats; everything else stays as it is: whole numbers, random keys,
    strings, None. A complex array, where it is allowed, counts as two leaves of floats, `z.real` and `z.imag`.

    Args:
        f: The function; its parameters name the arguments.
        args: As the user gave them.
        complex_as_two: Whether complex arrays are allowed.

    Attributes:
        names: Of the arguments.
        floats: The float leaves by name, as NumPy arrays.
        owner: The argument to which each float leaf belongs.

    Raises:
        SubjectError: An array is of objects, or has a nan, or is complex where that is not allowed.
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
        for place, (owner, _, given) in zip(places, pairs, strict=True):
            self.leaves[place] = leaf = self._checked(place, given, common)
            for name, part in float_parts(place, leaf):
                self.floats[name], self.owner[name] = part, owner
        self.single = {name: name in self.leaves for name in self.names}  # whether it is an array or a structure

    def filled(self, leaves: Mapping[str, Any], *, for_jax: bool = False) -> tuple[Any, ...]:
        """Returns the arguments with other values of their float leaves.

        Those that are not among `leaves` keep their values, in the dtype to which the others went. Arrays that are no
        floats are copied.

        Args:
            leaves: The values by name.
            for_jax: Whether all arrays become JAX's; else only those that were.
        """
        follow = _following(self.floats, leaves)
        values = iter([self._value(place, leaf, leaves, follow, for_jax) for place, leaf in self.leaves.items()])
        return tuple(with_leaves(arg, values) for arg in self.args)

    def of(self, owner: str) -> list[str]:
        """Returns the names of the float leaves of one argument."""
        return [name for name, its in self.owner.items() if its == owner]

    def with_floats(self) -> list[str]:
        """Returns the names of the arguments that have float leaves."""
        return [name for name in self.names if name in set(self.owner.values())]

    def named(self) -> dict[str, Any]:
        """Returns all leaves by name."""
        return dict(self.leaves)

    def _value(
        self, place: str, leaf: Any, leaves: Mapping[str, Any], follow: Callable[[Array], Array], for_jax: bool
    ) -> Any:
        if is_float(leaf):
            value = leaves[place] if place in leaves else follow(np.array(leaf))
        elif is_complex(leaf):
            real, imag = (
                leaves[place + part] if place + part in leaves else follow(self.floats[place + part].copy())
                for part in (REAL, IMAG)
            )
            return as_complex(real, imag)
        else:
            value = leaf if is_jax_array(leaf) or not is_array(leaf) else copy.deepcopy(leaf)
            value = copy.deepcopy(value) if not is_jax_array(value) and _is_copyable(value) else value
        return as_jax(value) if isinstance(value, np.ndarray) and (for_jax or is_jax_array(leaf)) else value

    def _checked(self, place: str, given: Any, common: Any) -> Any:
        if isinstance(given, float) and not isinstance(given, np.generic):
            given = np.asarray(given, common)
        elif isinstance(given, complex) and not isinstance(given, np.generic):
            given = np.asarray(given)
        elif isinstance(given, np.generic):
            given = np.asarray(given) if is_float(given) or is_complex(given) else given
        elif not is_array(given):
            return self._other(place, given)
        if given.dtype == object:
            raise SubjectError(f"{place}: an array of objects, expected numbers")
        if is_complex(given) and not self.complex_as_two:
            raise SubjectError(
                f"{place}: an array of {given.dtype}, expected floats; give its real and imaginary parts as two "
                "arguments, f(re, im), with a gradient for each"
            )
        if is_float(given) or is_complex(given):
            _refuse_nan(place, np.asarray(given))
        return given

    def _other(self, place: str, given: Any) -> Any:
        """What is no array and no number; what can be made one is."""
        if type(given).__module__.partition(".")[0] in FOREIGN and hasattr(given, "__array__"):
            raise SubjectError(
                f"{place}: a {type(given).__module__.partition('.')[0]}.{type(given).__name__}, "
                "which is not for NumPy's and JAX's functions; give an array"
            )
        if hasattr(given, "__array__") and not is_jax_array(given):
            array = np.asarray(given)
            return array if array.dtype == object else self._checked(place, array, array.dtype)
        return given


def float_parts(place: str, leaf: Any) -> Iterator[tuple[str, Array]]:
    """Yields the leaves of floats that an array counts as: itself, or its real and imaginary parts."""
    if is_float(leaf):
        yield place, np.asarray(leaf)
    elif is_complex(leaf):
        array = np.asarray(leaf)
        yield place + REAL, np.array(array.real)
        yield place + IMAG, np.array(array.imag)


def as_complex(real: Any, imag: Any) -> Any:
    """Returns the complex array of two parts, traced or not."""
    if isinstance(real, np.ndarray) and isinstance(imag, np.ndarray):
        return real + 1j * imag.astype(real.dtype)
    import jax

    return jax.lax.complex(real, imag)


def _following(floats: Mapping[str, Array], leaves: Mapping[str, Any]) -> Callable[[Array], Array]:
    """The cast for floats that stay: to where leaves of the same dtype went, or to where all of them went."""
    went = {floats[name].dtype: value.dtype for name, value in leaves.items() if name in floats}
    single = next(iter(went.values())) if len(set(went.values())) == 1 else None

    def follow(array: Array) -> Array:
        dtype = went.get(array.dtype, single)
        return array if dtype is None else array.astype(dtype, copy=False)

    return follow


def _common_dtype(leaves: Iterator[Any]) -> Any:
    """The dtype of a number that stands among arrays: it takes theirs, as it does in NumPy and JAX."""
    dtypes = {np.dtype(leaf.dtype) for leaf in leaves if is_float(leaf) and np.ndim(leaf)}
    return dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float64)


def _refuse_nan(place: str, array: Array) -> None:
    bad = np.isnan(array)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise SubjectError(f"{place}{list(where)}: {array[where]}, expected numbers; give it other inputs")


def _is_copyable(value: Any) -> bool:
    """Whether a leaf that is no array may be written to, and can be copied."""
    if value is None or isinstance(value, str | bytes | bool | int | np.ndarray) or callable(value):
        return False
    try:
        copy.deepcopy(value)
    except Exception:
        return False
    return True
