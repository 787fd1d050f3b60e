"""Packs the outputs of a forward pass, one array or a structure of several, into one flat array."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.inspect.errors import SubjectError, kind_of
from jaxnet.crosscheck.inspect.trees import Array, is_complex, is_inexact, leaves_of, map_leaves, node_of


class Part(NamedTuple):
    """One array of floats or of complex numbers among the outputs."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    kind: type  # float for a Python number, a scalar type for a NumPy scalar

    @property
    def is_complex(self) -> bool:
        """Whether it counts twice, by its real and its imaginary part."""
        return self.dtype.kind == "c"

    @property
    def size(self) -> int:
        """The number of floats."""
        return int(np.prod(self.shape)) * (1 + self.is_complex)


class Outputs:
    """Packs the outputs of a forward pass into one array, and unpacks `dout` into their structure.

    One array stays as it is; several are concatenated. A complex output becomes its real and its imaginary part, along
    a new last axis. Outputs that are neither are dropped, and their `dout` is None.
    """

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.result: Any = None  # the structure, with True for each float and None for the rest
        self.dtype: np.dtype[Any] = np.dtype(np.float64)
        self.dropped: list[str] = []  # the names of the outputs that are not floats
        self.arrays: list[Array] = []  # the float outputs, unpacked
        self.conjugated = False  # whether a complex `dout` is dL/dx - i dL/dy, as in JAX, not dL/dx + i dL/dy

    def pack(self, result: Any) -> Array:
        """Returns the outputs as one array.

        Raises:
            SubjectError: If no output is an array of floats or complex numbers.
        """
        if node_of(result) is None:
            return self._pack_single(result)
        leaves = list(leaves_of(result))
        floats = [_is_inexact(leaf) for _, leaf in leaves]
        if not any(floats):
            raise SubjectError(f"forward: returned {kind_of(result)} without an array of floats")
        arrays = [(name, leaf, np.asarray(leaf)) for (name, leaf), real in zip(leaves, floats, strict=True) if real]
        self.arrays = [array for *_, array in arrays]
        self.parts = [Part(name, array.shape, array.dtype, type(leaf)) for name, leaf, array in arrays]
        self.dropped = [name for (name, _), real in zip(leaves, floats, strict=True) if not real]
        self.result = map_leaves(lambda leaf: True if _is_inexact(leaf) else None, result)
        packed = np.concatenate([_in_floats(array).ravel() for *_, array in arrays])
        self.dtype = packed.dtype
        return packed

    def _pack_single(self, result: Any) -> Array:
        if (
            result is None
            or isinstance(result, str | bytes)
            or (not hasattr(result, "__array__") and not isinstance(result, float | int | complex))
        ):
            raise SubjectError(f"forward: returned {kind_of(result)}, expected an array of floats")
        array = np.asarray(result)
        self.parts, self.result, self.dropped = [Part("", array.shape, array.dtype, type(result))], True, []
        packed = _in_floats(array)
        self.dtype, self.arrays = packed.dtype, [array]
        return packed

    def imaginary(self) -> Array:
        """Returns whether each element of the packed outputs belongs to an imaginary part."""
        halves = [np.arange(part.size) % (1 + part.is_complex) == 1 for part in self.parts]
        return np.concatenate(halves) if halves else np.zeros(0, bool)

    @property
    def has_complex(self) -> bool:
        """Whether one of the outputs is complex."""
        return any(part.is_complex for part in self.parts)

    def regrouped(self, douts: tuple[Any, ...]) -> Any:
        """Returns the result of `unpack` in the structure of the outputs."""
        node = node_of(self.result)
        if node is None or not isinstance(self.result, tuple | list):
            return douts[0]
        remaining = iter(douts)
        with_floats = [any(leaf is not None for _, leaf in leaves_of(part)) for _, part in node.parts]
        return node.rebuild([next(remaining) if has_floats else None for has_floats in with_floats])

    def unpack(self, dout: Array) -> tuple[Any, ...]:
        """Returns the upstream gradients: one for each entry of a tuple or list that has floats."""
        structured = self._structured(dout)
        if not isinstance(structured, tuple | list):
            return (structured,)
        return tuple(part for part in structured if any(leaf is not None for _, leaf in leaves_of(part)))

    def _structured(self, dout: Array) -> Any:
        if len(self.parts) == 1 and self.result is True:
            return _as_scalar(self._joined(dout, self.parts[0]), self.parts[0])
        ends = np.cumsum([part.size for part in self.parts])
        cast = dout.dtype == self.dtype  # then each part is cast to its own dtype
        split = []
        for part, piece in zip(self.parts, np.split(dout.ravel(), ends[:-1]), strict=True):
            piece = self._joined(piece, part).reshape(part.shape)
            split.append(_as_scalar(piece.astype(part.dtype, copy=False) if cast else piece, part))
        remaining = iter(split)
        return map_leaves(lambda leaf: next(remaining) if leaf else None, self.result)

    def _joined(self, dout: Array, part: Part) -> Array:
        """Returns the upstream gradient of one output, complex if that is."""
        if not part.is_complex:
            return dout
        # A view, so that code which writes to the complex array is found to write to `dout`.
        joined = np.ascontiguousarray(dout).reshape(-1).view(np.result_type(dout.dtype, np.complex64))
        joined = joined.reshape(part.shape)
        return np.conj(joined) if self.conjugated else joined

    @property
    def count(self) -> int:
        """The number of upstream gradients that `unpack` returns."""
        return len(self.unpack(np.zeros(sum(part.size for part in self.parts), self.dtype)))

    @property
    def has_number_first(self) -> bool:
        """Whether a tuple or list of outputs starts with a single number, as a value and its gradients do."""
        return isinstance(self.result, tuple | list) and len(self.parts) > 1 and self.parts[0].shape == ()


def _as_scalar(dout: Array, part: Part) -> Any:
    """Returns a NumPy scalar, which is immutable, for a number, and an array for an array."""
    if part.shape != ():
        return dout if dout.shape == part.shape else dout.reshape(part.shape)
    if issubclass(part.kind, float | complex | np.generic):
        return np.reshape(dout, ())[()]
    return np.reshape(dout, ())


def _is_inexact(value: Any) -> bool:
    return is_inexact(value) or (isinstance(value, float | complex) and not isinstance(value, np.generic))


def _in_floats(array: Array) -> Array:
    """Returns an array of floats, or both parts of a complex one."""
    return np.stack([array.real, array.imag], axis=-1) if is_complex(array) else array


def flat_parts(result: Any) -> Sequence[tuple[str, Any]]:
    """Returns the float and complex leaves among the outputs of a JAX function, by name."""
    return [(name, leaf) for name, leaf in leaves_of(result) if _is_inexact(leaf)]
