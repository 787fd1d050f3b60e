"""Differentiates functions of TensorFlow tensors, `tf.custom_gradient`s, and Keras layers with their variables."""

import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from jaxnet.crosscheck.frameworks.engine import Engine, Function, Pull
from jaxnet.crosscheck.inspect.holders import holders_of
from jaxnet.crosscheck.inspect.trees import Array


class TensorFlow(Engine):
    """TensorFlow, by `tf.GradientTape` and `tf.autodiff.ForwardAccumulator`.

    Args:
        thing: The code, whose variables are given other values while it runs.
    """

    name = "TensorFlow"
    signature = "call"

    def __init__(self, thing: Any) -> None:
        self.tf, self.thing = sys.modules["tensorflow"], thing

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, self.tf.Tensor | self.tf.Variable)

    def tensor(self, array: Array) -> Any:
        return self.tf.constant(array)

    def array(self, tensor: Any) -> Array:
        return np.asarray(self.tf.convert_to_tensor(tensor))  # a gradient may be of slices

    def record(self, f: Function, tensors: Sequence[Any]) -> tuple[list[Any], Pull]:
        outputs, tape = self._taped(f, tensors)
        return outputs, lambda douts: tape.gradient(outputs, list(tensors), self._like(douts, outputs))

    def pulled(self, f: Function, tensors: Sequence[Any], douts: Sequence[Any]) -> list[Any]:
        outputs, tape = self._taped(f, tensors)
        zeros = self.tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(outputs, list(tensors), self._like(douts, outputs), unconnected_gradients=zeros)
        return [self.tf.convert_to_tensor(gradient) for gradient in gradients]  # one of gather is of slices

    def _taped(self, f: Function, tensors: Sequence[Any]) -> tuple[list[Any], Any]:
        with self.tf.GradientTape() as tape:
            for tensor in tensors:
                tape.watch(tensor)
            return f(tensors), tape

    def push(self, f: Function, tensors: Sequence[Any], tangents: Sequence[Array]) -> list[Any]:
        with self.tf.autodiff.ForwardAccumulator(list(tensors), self._like(tangents, tensors)) as accumulator:
            outputs = f(tensors)
        return [accumulator.jvp(output) for output in outputs]

    def variables(self) -> Sequence[tuple[str, Any]]:
        return [(name, v) for name, v in self._all_variables() if v.trainable and v.dtype.is_floating]

    def assigned(self, variable: Any, array: Array) -> Any:
        variable.assign(self.tf.cast(array, variable.dtype))
        return variable

    @contextmanager
    def restored(self) -> Iterator[None]:
        before = [(variable, self.tf.identity(variable)) for _, variable in self._all_variables()]
        try:
            yield
        finally:
            for variable, value in before:
                variable.assign(value)

    def is_undefined(self, error: Exception) -> bool:
        return isinstance(error, LookupError) and "gradient" in str(error)

    def _like(self, arrays: Sequence[Array], tensors: Sequence[Any]) -> list[Any]:
        return [self.tf.cast(array, tensor.dtype) for array, tensor in zip(arrays, tensors, strict=True)]

    def _all_variables(self) -> Iterator[tuple[str, Any]]:
        """Yields the variables of the code by name, each once: those that Keras wraps as what they wrap."""
        known: set[int] = set()
        for name, each in self._variables_held():
            variable = each if isinstance(each, self.tf.Variable) else getattr(each, "value", None)
            if isinstance(variable, self.tf.Variable) and id(variable) not in known:
                known.add(id(variable))
                own = str(each.name).partition(":")[0]
                yield name if own == "Variable" else own, variable

    def _variables_held(self) -> Iterator[tuple[str, Any]]:
        """Yields the variables, modules' and layers' included, with the names of the attributes that hold them."""
        for held in holders_of(self.thing):
            listed = getattr(held, "variables", None)
            if isinstance(held, self.tf.Variable):
                yield "variable", held
            elif isinstance(listed, list | tuple):
                yield from (("variable", each) for each in listed)
            elif not isinstance(held, types.FunctionType | types.ModuleType | type):
                for name, value in getattr(held, "__dict__", {}).items():
                    parts = value if isinstance(value, list | tuple) else [value]
                    for part in parts:
                        inner = getattr(part, "variables", None)
                        yield from ((name, each) for each in (inner if isinstance(inner, list | tuple) else [part]))
