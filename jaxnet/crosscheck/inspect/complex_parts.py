"""Splits the complex arrays of hand-written code into their real and imaginary parts, which are checked as two leaves.

The complex gradient of a real loss L has two readings, one the conjugate of the other, and a complex upstream gradient
has the same two. Code follows one of them throughout.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.arguments import IMAG, REAL, as_complex, float_parts
from jaxnet.crosscheck.inspect.checkable import Checkable, Instance
from jaxnet.crosscheck.inspect.convention import Convention
from jaxnet.crosscheck.inspect.outputs import Outputs
from jaxnet.crosscheck.inspect.trees import Array, Leaves, is_complex


class ComplexParts(Checkable):
    """A subject with complex arrays, as a function of their real and imaginary parts.

    Args:
        of: The subject, whose leaves may be complex.
        convention: The convention by which its gradients are read, and by which it is given its upstream gradient.
    """

    def __init__(self, of: Checkable, convention: Convention = Convention.PYTORCH) -> None:
        self.of, self._by, self.convention = of, convention, convention
        for name in ("name", "captured_leaves", "takes_dout", "derived_by", "notes", "fault", "numbers", "integers"):
            setattr(self, name, getattr(of, name))
        self._whole = {n: np.asarray(a) for n, a in {**of.others, **of.leaves}.items() if is_complex(a)}
        self.leaves, self.others = self._split(of.leaves), self._split(of.others)
        self.constants = {part for name in of.constants for part in self._names(name)}
        self.accumulating = [part for name in of.accumulating for part in self._names(name)]
        self.batch, self._outputs = of.batch, Outputs()

    @property
    def complex_leaves(self) -> list[str]:
        return [name for name in self.of.leaves if name in self._whole]

    @property
    def owner(self) -> Any:
        return self.of.owner

    def array_names(self) -> list[str]:
        return [*super().array_names(), *self.of.array_names()]

    def conventions(self) -> Iterator[Checkable]:
        """Yields the same subject, read by the other convention."""
        yield from (ComplexParts(self.of, other) for other in Convention if other is not self.convention)

    def readings(self) -> Iterator[Checkable]:
        for reading in self.of.readings():
            yield ComplexParts(reading, self._by)

    def open(self, leaves: Leaves) -> Instance:
        opened = self.of.open(self._joined(leaves))
        opened.arrays = self._split(opened.arrays)
        opened.outputs.conjugated = self.convention is Convention.JAX
        given = opened.backward_as_given

        def backward_as_given(*douts: Any) -> dict[str, Any]:
            return self._split_gradients(given(*douts))

        opened.backward_as_given = backward_as_given  # type: ignore[method-assign]
        self._outputs = opened.outputs
        return opened

    def imaginary_outputs(self, output: Array) -> Array | None:
        is_imaginary = self._outputs.imaginary()
        return is_imaginary.reshape(output.shape) if is_imaginary.any() else None

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        return self.of.arguments(self._joined(leaves))

    def consistent(self, leaves: Leaves) -> Leaves:
        return self._split(self.of.consistent(self._joined(leaves)))

    def shared_memory_gradient(self, name: str, gradients: Mapping[str, Any]) -> Array | None:
        place = next((whole for whole in self._whole if name in self._names(whole)), name)
        shared = self.of.shared_memory_gradient(place, self._joined({n: np.asarray(g) for n, g in gradients.items()}))
        return None if shared is None else self._split({place: shared})[name]

    def with_integers(self, integers: Mapping[str, Array]) -> Checkable | None:
        other = self.of.with_integers(integers)
        return None if other is None else ComplexParts(other, self._by)

    def _names(self, name: str) -> tuple[str, ...]:
        return (name + REAL, name + IMAG) if name in self._whole else (name,)

    def _split(self, arrays: Mapping[str, Any]) -> Leaves:
        """Returns the real arrays, and the parts of complex ones as views."""
        parts: Leaves = {}
        for name, array in arrays.items():
            if isinstance(array, np.ndarray) and is_complex(array):
                parts |= {name + REAL: array.real, name + IMAG: array.imag}
            else:
                parts |= dict(float_parts(name, array)) if is_complex(array) else {name: array}
        return parts

    def _joined(self, leaves: Leaves) -> Leaves:
        """Returns the arrays of the subject with the values of these parts."""
        joined = {name: value for name, value in leaves.items() if name not in self._parts_of_whole}
        for name, own in self._whole.items():
            real, imag = self._names(name)
            if real in leaves or imag in leaves:
                joined[name] = as_complex(leaves.get(real, own.real), leaves.get(imag, own.imag))
        return joined

    @property
    def _parts_of_whole(self) -> set[str]:
        return {part for name in self._whole for part in self._names(name)}

    def _split_gradients(self, gradients: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the gradients of the parts. A real gradient for a complex array has no imaginary part."""
        split: dict[str, Any] = {}
        for name, gradient in gradients.items():
            if name not in self._whole:
                split[name] = gradient
                continue
            real, imag = self._names(name)
            array = None if gradient is None else np.asarray(gradient)
            if array is None or array.dtype.kind not in "fciu":
                split |= {real: gradient, imag: gradient}
            elif is_complex(array):
                split |= {real: array.real, imag: -array.imag if self.convention is Convention.JAX else array.imag}
            else:
                split |= {real: array, imag: np.zeros_like(array)}
        return split


def in_parts(checkable: Checkable) -> Checkable:
    """Returns a subject with complex arrays or outputs as a function of their parts, and any other as it is."""
    if checkable.fault:
        return checkable
    held = {**checkable.others, **checkable.leaves}
    is_split = checkable.has_complex_output or any(map(is_complex, held.values()))
    return ComplexParts(checkable) if is_split else checkable
