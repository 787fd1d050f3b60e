"""Differentiates PyTensor: an `Op`, or a function of symbolic variables, by its pullback and its pushforward."""

import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from jaxnet.crosscheck.frameworks.engine import Engine, Function, Pull
from jaxnet.crosscheck.inspect.trees import Array


class PyTensor(Engine):
    """PyTensor. Arrays stand for tensors here; the symbolic variables live only within a call.

    A graph is compiled, in the mode that is configured, once for each combination of dtypes and dimensions.
    """

    name = "PyTensor"
    signature = "make_node"

    def __init__(self) -> None:
        self.pytensor, self.gradient = sys.modules["pytensor"], sys.modules["pytensor.gradient"]
        self.compiled: dict[Any, Callable[..., list[Array]]] = {}

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, np.ndarray | np.generic | self.pytensor.graph.basic.Variable)

    def tensor(self, array: Array) -> Any:
        return array

    def run(self, f: Function, tensors: Sequence[Any]) -> list[Any]:
        return self._call("forward", lambda inputs, _: f(inputs), tensors, ())

    def record(self, f: Function, tensors: Sequence[Any]) -> tuple[list[Any], Pull]:
        def pulled(inputs: Sequence[Any], above: Sequence[Any]) -> list[Any]:
            return self.pulled(f, inputs, above)

        return self.run(f, tensors), lambda douts: self._call("pull", pulled, tensors, douts)

    def pulled(self, f: Function, tensors: Sequence[Any], douts: Sequence[Any]) -> list[Any]:
        pullback = getattr(self.gradient, "pullback", None) or self.gradient.Lop
        return list(pullback(f(tensors), list(tensors), list(douts), disconnected_inputs="ignore"))

    def renewed(self) -> "PyTensor":
        return PyTensor()

    def push(self, f: Function, tensors: Sequence[Any], tangents: Sequence[Array]) -> list[Any]:
        def pushed(inputs: Sequence[Any], moves: Sequence[Any]) -> list[Any]:
            outputs = f(inputs)
            if hasattr(self.gradient, "pushforward"):
                own, direct = self.gradient.pushforward, "use_op_pushforward"  # not two pullbacks in its place
            else:
                own, direct = self.gradient.Rop, "use_op_rop_implementation"
            return list(own(outputs, list(inputs), list(moves), disconnected_outputs="ignore", **{direct: True}))

        return self._call("push", pushed, tensors, tangents)

    def is_undefined(self, error: Exception) -> bool:
        undefined = (NotImplementedError, self.gradient.NullTypeGradError, self.pytensor.graph.utils.MethodNotDefined)
        return isinstance(error, undefined)

    def _call(self, kind: str, build: Callable[..., list[Any]], first: Sequence[Any], second: Sequence[Any]) -> Any:
        arrays = [[np.asarray(value) for value in values] for values in (first, second)]
        key = kind, tuple((a.dtype.str, tuple(n == 1 for n in a.shape)) for values in arrays for a in values)
        with _without_warnings():
            if key not in self.compiled:
                inputs, others = ([self._symbol(array) for array in values] for values in arrays)
                outputs = build(inputs, others)
                self.compiled[key] = self.pytensor.function([*inputs, *others], outputs, on_unused_input="ignore")
            return self.compiled[key](*arrays[0], *arrays[1])

    def _symbol(self, array: Array) -> Any:
        shape = tuple(1 if n == 1 else None for n in array.shape)  # only a length of 1 that is known is broadcast
        return self.pytensor.tensor.tensor(dtype=str(array.dtype), shape=shape)


@contextmanager
def _without_warnings() -> Any:
    """Silences PyTensor's warnings of methods that it has renamed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
