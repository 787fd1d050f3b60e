"""Runs JAX functions in single precision, if 64-bit mode changes the dtypes of their own arrays."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Checkable, Instance
from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.optional_jax import is_jax_array, single_precision
from jaxnet.crosscheck.inspect.trees import Array, Leaves, is_float, leaves_of
from jaxnet.crosscheck.number_format import NumberFormat


def has_no_double(args: tuple[Any, ...]) -> bool:
    """Returns whether there are JAX float arrays among the arguments, and no float64."""
    floats = [leaf for arg in args for _, leaf in leaves_of(arg) if is_float(leaf)]
    return any(map(is_jax_array, floats)) and all(leaf.dtype != np.float64 for leaf in floats)


class SinglePrecision(Checkable):
    """A subject that is called only with JAX's 64-bit mode off, as its user calls it.

    `jnp.zeros(n)` and `1 / jnp.arange(n)` are float32 then. In 64-bit mode they are float64, and the carry of a loop
    or the tangent of a rule has the wrong dtype.

    Args:
        checkable: The subject, made in single precision.
    """

    def __init__(self, checkable: Checkable) -> None:
        self.checkable = checkable
        for name in ("name", "leaves", "others", "constants", "captured_leaves", "takes_dout", "derived_by"):
            setattr(self, name, getattr(checkable, name))
        self.notes, self.doubts, self.fault = checkable.notes, checkable.doubts, checkable.fault
        self.rule = checkable.rule
        self.convention = checkable.convention
        self.numbers, self.integers, self.batch = checkable.numbers, checkable.integers, checkable.batch
        self.gradient_of = checkable.gradient_of
        self.transforms, self.cheap_transforms = checkable.transforms, checkable.cheap_transforms
        for method in ("value_under_differentiation", "pushforward", "partial_gradient", "under"):
            setattr(self, method, single_precision()(getattr(checkable, method)))

    def open(self, leaves: Leaves) -> Instance:
        """Returns an instance at these leaves.

        Raises:
            SubjectError: If a leaf is float64.
        """
        if any(leaf.dtype == np.float64 for leaf in leaves.values()):
            raise SubjectError(f"{self.name}: runs in single precision only")
        with single_precision():
            instance = self.checkable.open(leaves)
        for method in ("forward", "forward_at_different_inputs", "backward", "backward_as_given"):
            setattr(instance, method, single_precision()(getattr(instance, method)))
        return instance

    @property
    def complex_leaves(self) -> list[str]:
        return self.checkable.complex_leaves

    def conventions(self) -> Iterator[Checkable]:
        yield from map(SinglePrecision, self.checkable.conventions())

    def imaginary_outputs(self, output: Array) -> Array | None:
        return self.checkable.imaginary_outputs(output)

    def half_format(self, name: str) -> NumberFormat | None:
        return self.checkable.half_format(name)

    def array_names(self) -> list[str]:
        return self.checkable.array_names()

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        """Returns the arguments of a reference."""
        return self.checkable.arguments(leaves)

    def gradient_checkable(self, dout: Array) -> Checkable | None:
        """Returns the gradient as a function, in single precision too."""
        gradient = self.checkable.gradient_checkable(dout)
        return None if gradient is None else SinglePrecision(gradient)
