"""A function of another framework's tensors, and the gradient that the framework derives for it."""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxnet.crosscheck.frameworks.engine import Engine, Function, is_complex_tensor, is_float_tensor
from jaxnet.crosscheck.frameworks.gradient_program import FrameworkGradient
from jaxnet.crosscheck.frameworks.tensor_program import TensorProgram
from jaxnet.crosscheck.inspect.arguments import IMAG, REAL, float_parts
from jaxnet.crosscheck.inspect.closures import CapturedArrays
from jaxnet.crosscheck.inspect.errors import SubjectError, as_subject_error, describe, kind_of
from jaxnet.crosscheck.inspect.inputs import clearly_moved, integers_in, numbers_in, reject_nan
from jaxnet.crosscheck.inspect.signatures import input_names
from jaxnet.crosscheck.inspect.trees import (
    Array,
    Leaves,
    distinct,
    is_array,
    is_complex,
    is_inexact,
    leaves_of,
    with_leaves,
)


class FrameworkProgram(TensorProgram):
    """A function of tensors, and its gradient.

    The leaves are the floats among the arguments, and the variables that the code holds and trains. Where the framework
    has a convention for complex gradients, a complex array is two leaves, and a complex output two outputs.

    Args:
        engine: The framework.
        f: The function.
        args: Its arguments: tensors or NumPy arrays, structures of them, and anything else.

    Raises:
        SubjectError: If it cannot be called so, or the framework cannot differentiate it.
    """

    def __init__(self, engine: Engine, f: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.engine, self.f, self.args, self.derived_by = engine, f, args, engine.name
        self.convention = engine.convention
        named = f.func if isinstance(f, functools.partial) and not f.args else f
        self.name = str(getattr(named, "__name__", None) or type(named).__name__).replace("<lambda>", "f")
        if not callable(f):
            raise SubjectError(f"f: {kind_of(f)}, expected a function of tensors of {engine.name}")
        names = input_names(getattr(named, engine.signature, named), len(args))
        pairs = [pair for name, arg in zip(names, args, strict=True) for pair in leaves_of(arg, name)]
        self._places = distinct(name for name, _ in pairs)
        arrays = {place: self._as_array(place, leaf) for place, (_, leaf) in zip(self._places, pairs, strict=True)}
        self._complex = {place: array for place, array in arrays.items() if is_complex(array)}
        self.leaves = dict(part for place, array in arrays.items() for part in float_parts(place, array))
        self._is_imaginary = np.zeros(0, bool)
        self.integers, self.numbers = integers_in(arrays), numbers_in(dict(zip(names, args, strict=True)))
        self.captured = CapturedArrays((f,), tuple(self._places)) if engine.computes_in_numpy else None
        self.accepts_double = True
        self._variables: dict[str, Any] = {}
        self._find_variables()
        if not self.leaves:
            raise SubjectError(f"{self.name}: no argument or variable has floats; pass arrays or tensors of floats")
        self._choose_dtype()
        self._differentiate_once()

    def _as_array(self, place: str, leaf: Any) -> Any:
        """Returns a leaf of the arguments as a NumPy array, if it is one of numbers."""
        if is_complex_tensor(leaf) and self.engine.convention is None:
            raise SubjectError(
                f"{place}: complex numbers, expected floats; pass the real and the imaginary part, and join them in f"
            )
        if isinstance(leaf, float | complex) and not is_array(leaf) and self.engine.computes_in_numpy:
            return np.asarray(leaf)
        if not self.engine.is_tensor(leaf) and not is_array(leaf):
            return leaf
        array = np.array(self.engine.array(leaf) if self.engine.is_tensor(leaf) else leaf)
        if is_inexact(array):
            reject_nan(place, array)
        return array

    def _find_variables(self) -> None:
        """Adds the variables of the code to the leaves. Some exist only after a call."""
        with as_subject_error(self.name), self.engine.restored():
            self.engine.run(self.function(list(self.leaves)), self.tensors(self.leaves, list(self.leaves)))
        held = self.engine.variables()
        names = distinct([*self._places, *(name for name, _ in held)])[len(self._places) :]
        self._variables = dict(zip(names, (variable for _, variable in held), strict=True))
        self.leaves |= {name: self.engine.value(variable).copy() for name, variable in self._variables.items()}
        self.captured_leaves = frozenset(self._variables)

    def _choose_dtype(self) -> None:
        """Finds out whether the code runs in float64, and not only in the dtypes of its leaves."""
        if all(leaf.dtype == np.float64 for leaf in self.leaves.values()):
            return
        try:
            self.forward({name: leaf.astype(np.float64) for name, leaf in self.leaves.items()})
        except Exception:  # raised by the user's code for tensors of mixed dtypes
            self.accepts_double = False

    def _differentiate_once(self) -> None:
        """Differentiates the code; records an exception of its rule as a fault, and what has no gradient."""
        names = list(self.leaves)
        y = self.forward(self.leaves)
        with self.engine.restored():
            try:
                outputs, pull = self.engine.record(self.function(names), self.tensors(self.leaves, names))
            except SubjectError:
                raise
            except Exception as error:
                raise self._underivable(error) from error
            above = [np.ones(shape, dtype) for shape, dtype in map(self.form_of, outputs)]
            try:
                gradients = pull(above)
            except Exception as error:
                if self.engine.is_undefined(error):
                    raise self._underivable(error) from error
                self.fault, self.leaves = f"its gradient by {self.engine.name} raises {describe(error)}", {}
                return
        if all(gradient is None for gradient in gradients):
            raise SubjectError(
                f"{self.name}: {self.engine.name} returns no gradient for any input; its trace ends where tensors "
                "become arrays or integers, or at an operation without a derivative: write it without these, or pass "
                "gradient="
            )
        without = [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]
        self.others = {name: self.leaves.pop(name) for name in without if not self._affects_output(name, y)}
        if self.captured is not None:
            captured = self.captured.arrays
            self._complex |= {name: array for name, array in captured.items() if is_complex(array)}
            floats = dict(part for name, array in captured.items() for part in float_parts(name, array))
            self.others, self.constants = self.others | floats, frozenset(floats)

    def _underivable(self, error: Exception) -> SubjectError:
        return SubjectError(
            f"{self.name}: {self.engine.name} cannot trace or differentiate it: {describe(error)}; use operations of "
            f"{self.engine.name}, write a rule for your own, or pass gradient="
        )

    def _affects_output(self, name: str, y: Array) -> bool:
        try:
            moved = self.forward(self.leaves | {name: clearly_moved(self.leaves[name])})
        except Exception:  # the user's code rejects these values
            return True
        return not np.array_equal(moved, y, equal_nan=True)

    def gradient_checkable(self, dout: Array) -> FrameworkGradient:
        return FrameworkGradient(self, dout)

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        """Returns the arguments as NumPy arrays."""
        return self._filled({**self.leaves, **self.others, **leaves}, arrays=True)

    def array_names(self) -> list[str]:
        return [*super().array_names(), *self._places]

    def tensors(self, leaves: Leaves, names: Sequence[str]) -> list[Any]:
        known = {**self.others, **self.leaves, **leaves}
        tensors = []
        for name in names:
            array = known[name]
            if not self.accepts_double and name in self.leaves:
                array = array.astype(self.leaves[name].dtype)
            variable = self._variables.get(name)
            tensors.append(self.engine.tensor(array) if variable is None else self.engine.assigned(variable, array))
        return tensors

    def function(self, names: Sequence[str]) -> Function:
        def function(tensors: Sequence[Any]) -> list[Any]:
            values = dict(zip(names, tensors, strict=True))
            for name in self._variables.keys() & values.keys():
                self.engine.bind(self._variables[name], values[name])
            result = self.engine.opened(self._rebuilt(values)(*self._filled(values)))
            parts = [part for _, part in leaves_of(result)]
            outputs = [output for part in parts for output in self._real_outputs(part)]
            if not outputs:
                raise SubjectError(f"{self.name}: returned {kind_of(result)}, expected tensors of {self.engine.name}")
            if self.engine.convention is not None:
                self._is_imaginary = np.concatenate([np.full(_shape(y), imag).ravel() for y, imag in outputs])
            return [output for output, _ in outputs]

        return function

    def _real_outputs(self, part: Any) -> list[tuple[Any, bool]]:
        """Returns an output of floats, or both parts of a complex one, each with whether it is imaginary."""
        if is_complex_tensor(part):
            if self.engine.convention is None:
                raise SubjectError(f"{self.name}: returns complex numbers, expected floats; return both parts")
            real, imag = self.engine.parts(part)
            return [(real, False), (imag, True)]
        return [(part, False)] if self.engine.is_tensor(part) and is_float_tensor(part) else []

    @property
    def complex_leaves(self) -> list[str]:
        return [name for name in self._complex if {name + REAL, name + IMAG} <= self.leaves.keys()]

    def imaginary_outputs(self, output: Array) -> Array | None:
        return self._is_imaginary.reshape(output.shape) if self._is_imaginary.any() else None

    def _rebuilt(self, values: Mapping[str, Any]) -> Callable[..., Any]:
        """Returns the code with other values for arrays that it captures, if there are any."""
        if self.captured is None:
            return self.f
        arrays = self.captured.arrays
        named = {name: self._value(values, name) for name in self.captured.replaceable if self._is_in(values, name)}
        return self.captured.rebuild({n: v for n, v in named.items() if v is not arrays[n]})[0]

    def _is_in(self, values: Mapping[str, Any], place: str) -> bool:
        return place in values or not values.keys().isdisjoint({place + REAL, place + IMAG})

    def _value(self, values: Mapping[str, Any], place: str) -> Any:
        """Returns the value of an array, a complex one joined of the values of its parts."""
        if place in values:
            return values[place]
        own = self._complex[place]
        return self.engine.joined(values.get(place + REAL, own.real), values.get(place + IMAG, own.imag))

    def _filled(self, values: dict[str, Any], *, arrays: bool = False) -> tuple[Any, ...]:
        """Returns the arguments with these values for their float leaves; other arrays are copied."""
        places = iter(self._places)

        def value(leaf: Any) -> Any:
            place = next(places)
            if self._is_in(values, place):
                return self._value(values, place)
            if arrays and self.engine.is_tensor(leaf):
                return self.engine.array(leaf)
            return copy.copy(leaf) if isinstance(leaf, np.ndarray) else leaf

        return tuple(with_leaves(arg, [value(leaf) for _, leaf in leaves_of(arg)]) for arg in self.args)


def _shape(tensor: Any) -> tuple[int, ...]:
    """Returns the shape of an array, traced or not; a Python number has none."""
    return tuple(getattr(tensor, "shape", ()))
