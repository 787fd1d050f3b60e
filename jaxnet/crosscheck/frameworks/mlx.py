"""Differentiates functions of MLX arrays, and `mx.custom_function`s by the rules that they were given."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnet.crosscheck.frameworks.engine import Engine, Function, Pull
from jaxnet.crosscheck.inspect.trees import Array


class Mlx(Engine):
    """MLX, by `mx.vjp` and `mx.jvp`."""

    name = "MLX"

    def __init__(self) -> None:
        self.mx = sys.modules["mlx.core"]

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, self.mx.array)

    def tensor(self, array: Array) -> Any:
        dtype = getattr(self.mx, array.dtype.name)  # without which a float64 becomes a float32
        return self.mx.array(np.array(array, order="C"), dtype=dtype)

    def array(self, tensor: Any) -> Array:
        if tensor.dtype != self.mx.bfloat16:
            return np.array(tensor)
        import ml_dtypes  # which has the bfloat16 that NumPy lacks

        return np.array(tensor.astype(self.mx.float32)).astype(ml_dtypes.bfloat16)

    def record(self, f: Function, tensors: Sequence[Any]) -> tuple[list[Any], Pull]:
        outputs = f(tensors)

        def pull(douts: Sequence[Array]) -> list[Any]:
            above = [self.tensor(dout).astype(y.dtype) for dout, y in zip(douts, outputs, strict=True)]
            return list(self.mx.vjp(lambda *inputs: f(inputs), list(tensors), above)[1])

        return outputs, pull

    def pulled(self, f: Function, tensors: Sequence[Any], douts: Sequence[Any]) -> list[Any]:
        above = [dout.astype(y.dtype) for dout, y in zip(douts, f(tensors), strict=True)]
        return list(self.mx.vjp(lambda *inputs: f(inputs), list(tensors), above)[1])

    def push(self, f: Function, tensors: Sequence[Any], tangents: Sequence[Array]) -> list[Any]:
        moves = [self.tensor(tangent).astype(x.dtype) for tangent, x in zip(tangents, tensors, strict=True)]
        return list(self.mx.jvp(lambda *inputs: f(inputs), list(tensors), moves)[1])

    def is_undefined(self, error: Exception) -> bool:
        return "Not implemented for" in str(error) or "not implemented" in str(error).lower()
