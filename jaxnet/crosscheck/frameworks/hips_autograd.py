"""Differentiates functions of `autograd.numpy`, and primitives with the rules of `defvjp` and `defjvp`.

For f = u + iv, autograd defines the gradient by z = x + iy as du/dx - i du/dy. That is f'(z) for a holomorphic f, and
the convention of JAX; PyTorch's is its conjugate. A complex array is joined of two real leaves, and a complex output
split into two real ones, within the traced function. So rules receive and return complex gradients as autograd defines
them, and what is compared is real.

Reference: the tutorial of autograd, section *Complex numbers*.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnet.crosscheck.frameworks.engine import Engine, Function, Pull
from jaxnet.crosscheck.inspect.convention import Convention
from jaxnet.crosscheck.inspect.trees import Array


class HipsAutograd(Engine):
    """The autograd of HIPS. Its tensors are NumPy arrays, and boxes around them while it traces."""

    name = "autograd"
    signature = "fun"
    computes_in_numpy = True
    convention = Convention.JAX

    def __init__(self) -> None:
        self.core, self.tracer = sys.modules["autograd.core"], sys.modules["autograd.tracer"]

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, float | complex | np.ndarray | np.generic) or self.tracer.isbox(value)

    def tensor(self, array: Array) -> Any:
        return array

    def array(self, tensor: Any) -> Array:
        return np.asarray(self.tracer.getval(tensor))

    def joined(self, real: Any, imag: Any) -> Any:
        return real + 1j * imag

    def parts(self, tensor: Any) -> tuple[Any, Any]:
        numpy = sys.modules["autograd.numpy"]
        return numpy.real(tensor), numpy.imag(tensor)

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
