"""A function of another framework's tensors: its output, its gradient by reverse mode, its forward mode."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnet.crosscheck.frameworks.engine import Engine, Function
from jaxnet.crosscheck.inspect.checkable import Checkable, Instance
from jaxnet.crosscheck.inspect.trees import Array, Leaves


class TensorProgram(Checkable):
    """A function of tensors by name, and the gradient that a framework derives for it.

    Attributes:
        engine: The framework.
    """

    engine: Engine

    @abstractmethod
    def tensors(self, leaves: Leaves, names: Sequence[str]) -> list[Any]:
        """Returns the leaves of these names as tensors, and the variables with their values."""

    @abstractmethod
    def function(self, names: Sequence[str]) -> Function:
        """Returns the code as a function of the tensors of these leaves; it returns its float outputs."""

    def unconnected(self, leaf: Array) -> Array | None:
        """Returns the gradient of a leaf for which the framework returns none."""
        del leaf
        return None

    def open(self, leaves: Leaves) -> Instance:
        names = [*self.leaves, *self.others]
        values = {**self.others, **self.leaves, **leaves}
        arrays = {name: values[name] for name in names}

        def forward(*inputs: Array) -> Any:
            with self.engine.restored():
                at = dict(zip(names, inputs, strict=True))
                outputs = self.engine.run(self.function(names), self.tensors(at, names))
                ys = tuple(np.array(self.engine.array(output)) for output in outputs)
            return ys[0] if len(ys) == 1 else ys

        def backward(*douts: Any) -> dict[str, Any]:
            with self.engine.restored():
                _, pull = self.engine.record(self.function(names), self.tensors(arrays, names))
                gradients = pull([np.asarray(dout) for dout in douts])
                found = zip(names, gradients, strict=True)
                return {
                    n: self.unconnected(arrays[n]) if g is None else np.array(self.engine.array(g))
                    for n, g in found
                    if n in self.leaves
                }

        return Instance(forward, backward, tuple(arrays.values()), dict(arrays))

    def value_under_differentiation(self, leaves: Leaves) -> Array | None:
        names = list(self.leaves)
        with self.engine.restored():
            outputs, _ = self.engine.record(self.function(names), self.tensors(leaves, names))
            return _packed([self.engine.array(output) for output in outputs])

    def pushforward(self, leaves: Leaves, tangents: Leaves) -> Array | None:
        names = list(self.leaves)
        with self.engine.restored():
            sources = self.tensors(leaves, names)
            moves = []
            for name, source in zip(names, sources, strict=True):
                shape, dtype = self.form_of(source)
                moves.append(np.asarray(tangents[name], dtype) if name in tangents else np.zeros(shape, dtype))
            try:
                pushed = self.engine.push(self.function(names), sources, moves)
            except Exception as error:
                if self.engine.is_undefined(error):
                    return None
                raise
            outputs = pushed if all(p is not None for p in pushed) else self.engine.run(self.function(names), sources)
            parts = [
                np.zeros(self.form_of(y)[0]) if tangent is None else self.engine.array(tangent)
                for tangent, y in zip(pushed, outputs, strict=True)
            ]
            return _packed(parts)

    def form_of(self, tensor: Any) -> tuple[tuple[int, ...], Any]:
        """Returns the shape and the dtype of a tensor as an array."""
        array = self.engine.array(tensor)
        return array.shape, array.dtype


def _packed(arrays: Sequence[Array]) -> Array:
    """Returns one array as it is, and several in a row, as the outputs of a forward pass."""
    return np.asarray(arrays[0]) if len(arrays) == 1 else np.concatenate([np.ravel(array) for array in arrays])
