"""Wraps layers of tensors with a hand-written backward as layers of NumPy arrays."""

import copy
import functools
from types import SimpleNamespace
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.objects import ARRAY_ATTRIBUTES
from jaxnet.crosscheck.inspect.torch_copying import tensors_in
from jaxnet.crosscheck.inspect.torch_tensors import (
    arrays_from,
    is_float_tensor,
    is_tensor,
    tensors_from,
    to_numpy,
    to_tensor,
    torch_module,
)


def is_tensor_layer(thing: Any) -> bool:
    """Returns whether an object has a forward and a backward, and is no torch.autograd.Function."""
    torch = torch_module()
    if isinstance(thing, type | torch.autograd.Function):
        return False
    return all(callable(getattr(thing, method, None)) for method in ("forward", "backward"))


def layer_in_numpy(layer: Any, inputs: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Returns a layer of NumPy arrays around a copy of a layer of tensors, and its inputs as NumPy arrays.

    Float inputs are cast to the dtype of the layer's tensors, if those have one dtype.

    Raises:
        SubjectError: If float tensors are nested in its attributes.
    """
    owners = [layer, *_parameter_objects(layer).values()]
    direct = {id(value) for owner in owners for value in _tensors_of(owner).values()}
    deeper = [place for place, part in tensors_in(layer) if is_float_tensor(part) and id(part) not in direct]
    if deeper:
        raise SubjectError(
            f"{type(layer).__name__}: {deeper[0]} is a tensor in one of its parts, and its gradient is not "
            "looked for there; check each part on its own, or pass it as check_function(f, x, gradient=g)"
        )
    passes = {
        name: _with_signature_of(getattr(type(layer), name), getattr(TensorLayer, name))
        for name in ("forward", "backward")
    }
    arrays = arrays_from(inputs)
    tensors = [value for owner in owners for value in _tensors_of(owner).values() if is_float_tensor(value)]
    dtypes = {to_numpy(tensor).dtype for tensor in tensors}
    if len(dtypes) == 1:
        (dtype,) = dtypes
        arrays = tuple(a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in arrays)
    return type(type(layer).__name__, (TensorLayer,), passes)(layer), arrays


def _with_signature_of(original: Any, method: Any) -> Any:
    """Returns a new function that calls a method and has the name and the signature of another."""

    @functools.wraps(original)
    def run(self: Any, *args: Any) -> Any:
        return method(self, *args)

    return run


def _tensors_of(layer: Any) -> dict[str, Any]:
    """Returns the tensors among a layer's attributes, a module's parameters and buffers included."""
    own = dict(vars(layer)) | getattr(layer, "_parameters", {}) | getattr(layer, "_buffers", {})
    return {name: value for name, value in own.items() if is_tensor(value)}


def _parameter_objects(layer: Any) -> dict[str, Any]:
    """Returns the attributes of a layer that are plain objects with a tensor as their `value` and its `grad`."""
    plain = {n: part for n, part in vars(layer).items() if hasattr(part, "__dict__") and not is_tensor(part)}
    held = {n: vars(part) for n, part in plain.items() if not isinstance(part, torch_module().nn.Module | type)}
    return {
        name: plain[name]
        for name, attributes in held.items()
        if any(is_float_tensor(attributes.get(array)) for array in ARRAY_ATTRIBUTES) and "grad" in attributes
    }


class TensorLayer:
    """A layer of NumPy arrays around a layer of tensors, which are synchronized before and after each pass.

    Objects of a value and its gradient are such objects of arrays.

    Args:
        layer: The object; it is copied.
    """

    def __init__(self, layer: Any) -> None:
        parts = _parameter_objects(layer)
        tensors = [value for owner in (layer, *parts.values()) for value in _tensors_of(owner).values()]
        memo = {id(value): value.detach().clone() for value in tensors if not value.is_leaf}
        self._layer = copy.deepcopy(layer, memo)
        self._pushed: dict[tuple[str, str], Any] = {}
        self._parts = list(parts)
        vars(self).update({name: SimpleNamespace(grad=None) for name in parts})
        self._names = {
            part: [name for name, value in _tensors_of(owner).items() if value.is_floating_point()]
            for part, owner, _ in self._owners()
        }
        self._numbers = {n: v for n, v in vars(layer).items() if isinstance(v, int | float) and n != "training"}
        vars(self).update(self._numbers)
        self._pull()

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state for a copy, whose tensors share no memory with its arrays yet."""
        return vars(self) | {"_pushed": {}}

    def _owners(self) -> list[tuple[str, Any, Any]]:
        """Returns the objects that hold tensors, each with its name and the object that holds its arrays."""
        return [("", self._layer, self), *((n, getattr(self._layer, n), getattr(self, n)) for n in self._parts)]

    def _push(self) -> None:
        for name, old in self._numbers.items():
            if (new := getattr(self, name)) is not old:  # such as a learning rate, of which another one is tried
                setattr(self._layer, name, new)
                self._numbers = self._numbers | {name: new}
        for part, owner, arrays in self._owners():
            for name in self._names[part]:
                array = getattr(arrays, name)
                if not isinstance(array, np.ndarray) or self._pushed.get((part, name)) is array:
                    continue  # the tensor shares the array's memory already
                _replace(owner, name, to_tensor(array))
                self._pushed[part, name] = array

    def _pull(self) -> None:
        for _, owner, arrays in self._owners():
            for name, tensor in _tensors_of(owner).items():
                array = getattr(arrays, name, None)
                value = to_numpy(tensor)
                if array is None or array.dtype != value.dtype or not np.array_equal(array, value, equal_nan=True):
                    setattr(arrays, name, value)
                if tensor.is_leaf and is_float_tensor(tensor.grad):
                    setattr(arrays, f"d{name}", to_numpy(tensor.grad))

    def forward(self, *inputs: Any) -> Any:
        """Returns the output for NumPy inputs."""
        return self._call(self._layer.forward, inputs)

    def backward(self, *douts: Any) -> Any:
        """Returns the gradients of the inputs."""
        return self._call(self._layer.backward, douts)

    def _call(self, method: Any, args: tuple[Any, ...]) -> Any:
        with torch_module().enable_grad():  # a backward may use autograd for a part
            self._push()
            result = arrays_from(method(*map(tensors_from, args)))
            self._pull()
        return result


def _replace(owner: Any, name: str, tensor: Any) -> None:
    """Puts a tensor in the place of another one that is an attribute, a parameter or a buffer of an object."""
    old = _tensors_of(owner)[name]
    tensor.requires_grad_(old.requires_grad)
    if isinstance(old, torch_module().nn.Parameter):
        tensor = torch_module().nn.Parameter(tensor, old.requires_grad)
    for where in ("_parameters", "_buffers", "__dict__"):
        if name in (attributes := getattr(owner, where, {})):
            attributes[name] = tensor
