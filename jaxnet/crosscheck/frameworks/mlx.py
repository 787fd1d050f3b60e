"""Differentiates functions of MLX arrays, `mx.custom_function`s, and modules with their parameters."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.frameworks.engine import Engine, Function, Pull, is_float_tensor
from jaxnet.crosscheck.inspect.holders import holders_of
from jaxnet.crosscheck.inspect.trees import Array


class Parameter(NamedTuple):
    """The place of an array in a module: the module, dict or list that holds it, and its key."""

    holder: Any
    key: Any


class Mlx(Engine):
    """MLX, by `mx.vjp` and `mx.jvp`.

    Args:
        thing: The code, whose modules' parameters are given other values while it runs.
    """

    name = "MLX"

    def __init__(self, thing: Any) -> None:
        self.mx, self.thing = sys.modules["mlx.core"], thing

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

    def variables(self) -> Sequence[tuple[str, Any]]:
        return list(self._parameters("trainable_parameters"))

    def value(self, variable: Parameter) -> Array:
        return self.array(variable.holder[variable.key])

    def bind(self, variable: Parameter, tensor: Any) -> None:
        variable.holder[variable.key] = tensor

    def assigned(self, variable: Parameter, array: Array) -> Any:
        del variable  # which is bound to the tensor where the code runs
        return self.tensor(array)

    @contextmanager
    def restored(self) -> Iterator[None]:
        before = [(parameter, parameter.holder[parameter.key]) for _, parameter in self._parameters("parameters")]
        try:
            yield
        finally:
            for parameter, value in before:
                self.bind(parameter, value)

    def _parameters(self, method: str) -> Iterator[tuple[str, Parameter]]:
        """Yields the float arrays of the code's modules by name, each place once: the trainable ones, or all."""
        nn = sys.modules.get("mlx.nn")
        if nn is None:
            return
        known: set[tuple[int, Any]] = set()
        for held in holders_of(self.thing):
            for module in (held, *getattr(held, "__dict__", {}).values()):
                if not isinstance(module, nn.Module):
                    continue
                for name, place in _places(module, getattr(module, method)()):
                    value = place.holder[place.key]
                    if (id(place.holder), place.key) not in known and is_float_tensor(value):
                        known.add((id(place.holder), place.key))
                        yield name, place

    def is_undefined(self, error: Exception) -> bool:
        return "Not implemented for" in str(error) or "not implemented" in str(error).lower()


def _places(holder: Any, tree: Any, path: str = "") -> Iterator[tuple[str, Parameter]]:
    """Yields the name and the place of each array of a tree of parameters, as `mlx.utils.tree_flatten` names them."""
    for key, part in tree.items() if isinstance(tree, dict) else enumerate(tree):
        name = f"{path}.{key}" if path else str(key)
        if isinstance(part, dict | list):
            yield from _places(holder[key], part, name)
        else:
            yield name, Parameter(holder, key)
