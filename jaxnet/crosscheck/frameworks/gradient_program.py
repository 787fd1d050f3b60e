"""The gradient that a framework derives for a function, as a function itself, so that its own derivative is checked."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnet.crosscheck.frameworks.engine import Function, is_float_tensor
from jaxnet.crosscheck.frameworks.tensor_program import TensorProgram
from jaxnet.crosscheck.inspect.checkable import name_of_dout
from jaxnet.crosscheck.inspect.errors import SubjectError, describe
from jaxnet.crosscheck.inspect.trees import Array, Leaves


class FrameworkGradient(TensorProgram):
    """The gradient of a function by its leaves, as a function of them and of `dout`, one for each output.

    Args:
        of: The function.
        dout: An upstream gradient of all its outputs.

    Raises:
        SubjectError: If the framework cannot differentiate the gradient.
    """

    def __init__(self, of: TensorProgram, dout: Array) -> None:
        self.name, self.of, self.engine, self.derived_by = of.name, of, of.engine.renewed(), of.derived_by
        instance = of.open(of.leaves)
        instance.forward()
        douts = [np.array(part) for part in instance.outputs.unpack(dout)]
        name = name_of_dout(of.leaves)
        self._douts = [name] if len(douts) == 1 else [f"{name}[{i}]" for i in range(len(douts))]
        self.leaves = dict(of.leaves) | dict(zip(self._douts, douts, strict=True))
        self.others, self.constants, self.captured_leaves = of.others, of.constants, of.captured_leaves
        self.gradient_of = () if of.gradient_of else tuple(of.leaves)
        self._differentiate_once()

    def gradient_checkable(self, dout: Array) -> "FrameworkGradient":
        return FrameworkGradient(self, dout)

    def unconnected(self, leaf: Array) -> Array:
        return np.zeros_like(leaf)  # as in an expression that is linear in the leaf

    def tensors(self, leaves: Leaves, names: Sequence[str]) -> list[Any]:
        known = {**self.leaves, **leaves}
        own = dict(zip(names_of := self._own(names), self.of.tensors(leaves, names_of), strict=True))
        return [own[name] if name in own else self.engine.tensor(known[name]) for name in names]

    def function(self, names: Sequence[str]) -> Function:
        own = self._own(names)
        inner = self.of.function(own)

        def function(tensors: Sequence[Any]) -> list[Any]:
            values = dict(zip(names, tensors, strict=True))
            above = [values[name] for name in self._douts]
            pulled = self.engine.pulled(inner, [values[name] for name in own], above)
            gradients = dict(zip(own, pulled, strict=True))
            return [gradients[name] for name in self.of.leaves]

        return function

    def _own(self, names: Sequence[str]) -> list[str]:
        """Returns the names of the leaves of the function itself."""
        return [name for name in names if name not in self._douts]

    def _differentiate_once(self) -> None:
        """Raises a SubjectError if the gradient has no derivative."""
        names = list(self.leaves)
        with self.engine.restored():
            try:
                outputs, pull = self.engine.record(self.function(names), self.tensors(self.leaves, names))
                if not all(self.engine.is_tensor(output) and is_float_tensor(output) for output in outputs):
                    raise TypeError("a rule leaves the trace")
                gradients = pull([np.ones(shape, dtype) for shape, dtype in map(self.form_of, outputs)])
            except Exception as error:
                raise self._underivable(describe(error)) from error
        if all(gradient is None for gradient in gradients):
            raise self._underivable("its trace ends where tensors become arrays")

    def _underivable(self, why: str) -> SubjectError:
        return SubjectError(
            f"order: {self.engine.name} cannot differentiate the gradient of {self.name}: {why}; write its rules in "
            f"operations of {self.engine.name}, or check a second derivative of your own: "
            "check_function(gradient, x, gradient=...)"
        )
