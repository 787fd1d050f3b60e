"""The interface of a framework that differentiates: arrays to its tensors and back, reverse mode and forward mode."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.checkable import DerivedBy
from jaxnet.crosscheck.inspect.convention import Convention
from jaxnet.crosscheck.inspect.trees import Array

Function = Callable[[Sequence[Any]], list[Any]]  # from the leaves to the float outputs, all of them tensors
Pull = Callable[[Sequence[Array]], list[Any]]  # from a gradient for each output to one for each leaf, or None


class Engine(ABC):
    """Differentiates functions of one framework, which the user has loaded already.

    Attributes:
        name: The framework's name, as reports call the source of the gradient.
        computes_in_numpy: Whether its tensors are NumPy arrays, so that Python floats are differentiated too, and that
            arrays which the code captures are its constants.
        signature: The attribute of its callables whose signature names the inputs.
        convention: The convention of its complex gradients; None if complex arrays and outputs are refused.
    """

    name: DerivedBy
    computes_in_numpy = False
    signature = ""
    convention: Convention | None = None

    @abstractmethod
    def is_tensor(self, value: Any) -> bool:
        """Returns whether this is an array of the framework's own, or one that it traces."""

    @abstractmethod
    def tensor(self, array: Array) -> Any:
        """Returns an array as a tensor of the same dtype."""

    @abstractmethod
    def record(self, f: Function, tensors: Sequence[Any]) -> tuple[list[Any], Pull]:
        """Runs a function under reverse mode; returns its outputs and the function that pulls gradients back."""

    @abstractmethod
    def push(self, f: Function, tensors: Sequence[Any], tangents: Sequence[Array]) -> list[Any]:
        """Returns the derivative of each output along tangents, by forward mode; None for one that does not move.

        Raises:
            Exception: If there is no forward mode; see `is_undefined`.
        """

    @abstractmethod
    def pulled(self, f: Function, tensors: Sequence[Any], douts: Sequence[Any]) -> list[Any]:
        """Returns the gradients of each leaf as tensors, which the framework can differentiate by leaves and douts.

        A leaf on which no output depends has a gradient of zeros.
        """

    def renewed(self) -> "Engine":
        """Returns an engine for another function of the same variables."""
        return self

    def run(self, f: Function, tensors: Sequence[Any]) -> list[Any]:
        """Returns the outputs, without differentiation."""
        return f(tensors)

    def array(self, tensor: Any) -> Array:
        """Returns a tensor as a NumPy array."""
        return np.asarray(tensor)

    def joined(self, real: Any, imag: Any) -> Any:
        """Returns the complex tensor with these parts, which is differentiated by both."""
        raise NotImplementedError

    def parts(self, tensor: Any) -> tuple[Any, Any]:
        """Returns the real and the imaginary part of a complex tensor, which may be traced."""
        raise NotImplementedError

    def opened(self, result: Any) -> Any:
        """Returns the result of a function with its outputs in a tuple, if the framework traces several as one."""
        return result

    def variables(self) -> Sequence[tuple[str, Any]]:
        """Returns the variables that the code holds and trains, each with its name, which need not be the only one."""
        return ()

    def value(self, variable: Any) -> Array:
        """Returns the present value of a variable."""
        return self.array(variable)

    def bind(self, variable: Any, tensor: Any) -> None:
        """Lets the code read a tensor in the place of a variable, where the two are not the same."""
        del variable, tensor

    def assigned(self, variable: Any, array: Array) -> Any:
        """Gives a variable a value, until `restored` ends; returns the tensor with respect to which to derive."""
        raise NotImplementedError

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Restores the values of all variables after the block."""
        yield

    def is_undefined(self, error: Exception) -> bool:
        """Returns whether an exception says that the framework has no derivative of an operation."""
        return isinstance(error, NotImplementedError)


def is_float_tensor(value: Any) -> bool:
    """Returns whether the dtype of a tensor is of floats; every framework says so in its name."""
    return "float" in str(getattr(value, "dtype", ""))


def is_complex_tensor(value: Any) -> bool:
    """Returns whether this is a complex number, or a tensor of complex numbers."""
    return isinstance(value, complex) or "complex" in str(getattr(value, "dtype", ""))
