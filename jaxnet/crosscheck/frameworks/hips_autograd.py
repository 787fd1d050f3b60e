"""Differentiates functions of `autograd.numpy`, and primitives with the rules of `defvjp` and `defjvp`."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnet.crosscheck.frameworks.engine import Engine, Function, Pull
from jaxnet.crosscheck.inspect.trees import Array


class HipsAutograd(Engine):
    """The autograd of HIPS. Its tensors are NumPy arrays, and boxes around them while it traces."""

    name = "autograd"
    signature = "fun"
    computes_in_numpy = True

    def __init__(self) -> None:
        self.core, self.tracer = sys.modules["autograd.core"], sys.modules["autograd.tracer"]

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, float | np.ndarray | np.generic) or self.tracer.isbox(value)

    def tensor(self, array: Array) -> Any:
        return array

    def array(self, tensor: Any) -> Array:
        return np.asarray(self.tracer.getval(tensor))

    def opened(self, result: Any) -> Any:
        if not self.tracer.isbox(result):
            return result
        value = self.tracer.getval(result)
        return tuple(result[i] for i in range(len(value))) if isinstance(value, tuple | list) else result

    def record(self, f: Function, tensors: Sequence[Any]) -> tuple[list[Any], Pull]:
        pull, outputs = self.core.make_vjp(self._joined(f), list(tensors))
        return list(outputs), lambda douts: list(pull(tuple(douts)))

    def pulled(self, f: Function, tensors: Sequence[Any], douts: Sequence[Any]) -> list[Any]:
        pull, _ = self.core.make_vjp(self._joined(f), list(tensors))
        gradients = pull(tuple(douts))
        return [gradients[i] for i in range(len(tensors))]

    def push(self, f: Function, tensors: Sequence[Any], tangents: Sequence[Array]) -> list[Any]:
        return list(self.core.make_jvp(self._joined(f), list(tensors))(list(tangents))[1])

    def _joined(self, f: Function) -> Any:
        """Returns the function of one list that returns one tuple, which autograd traces."""
        joined = sys.modules["autograd.builtins"].tuple
        return lambda tensors: joined(f([tensors[i] for i in range(len(tensors))]))
