"""Layers of tensors whose backward is written by hand, as layers of NumPy arrays."""

import copy
import functools
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.torch_tensors import (
    arrays_from,
    held,
    is_float_tensor,
    is_tensor,
    loaded,
    tensors_from,
    to_numpy,
    to_tensor,
)


def is_tensor_layer(thing: Any) -> bool:
    """Returns whether an object has both passes by hand: a torch.autograd.Function is called by PyTorch instead."""
    torch = loaded()
    if isinstance(thing, type | torch.autograd.Function):
        return False
    return all(callable(getattr(thing, method, None)) for method in ("forward", "backward"))


def layer_in_numpy(layer: Any, inputs: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Returns a layer whose arrays are NumPy's, over a copy of one whose arrays are tensors, and its inputs.

    Float inputs get the dtype of the layer's tensors, where those have one dtype.

    Raises:
        SubjectError: Tensors with `requires_grad` stand within its attributes' own attributes or lists.
    """
    direct = {id(value) for value in _tensors_of(layer).values()}
    deeper = [place for place, part in held(layer) if is_float_tensor(part) and id(part) not in direct]
    if deeper:
        raise SubjectError(
            f"{type(layer).__name__}: {deeper[0]} is a tensor within its parts, where its gradient is not "
            "sought; check each part alone, or bring it as check_function(f, x, gradient=g)"
        )
    passes = {
        name: functools.wraps(getattr(type(layer), name))(getattr(TensorLayer, name))
        for name in ("forward", "backward")
    }
    arrays = arrays_from(inputs)
    dtypes = {array.dtype for array in map(to_numpy, filter(is_float_tensor, _tensors_of(layer).values()))}
    if len(dtypes) == 1:
        (dtype,) = dtypes
        arrays = tuple(a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in arrays)
    return type(type(layer).__name__, (TensorLayer,), passes)(layer), arrays


def _tensors_of(layer: Any) -> dict[str, Any]:
    """The tensors among a layer's attributes, a module's parameters and buffers included."""
    own = dict(vars(layer)) | getattr(layer, "_parameters", {}) | getattr(layer, "_buffers", {})
    return {name: value for name, value in own.items() if is_tensor(value)}


class TensorLayer:
    """A layer of tensors: its own arrays go into the tensors before each pass, and all tensors come back after it.

    Args:
        layer: The object; it is copied.
    """

    def __init__(self, layer: Any) -> None:
        memo = {id(value): value.detach().clone() for value in _tensors_of(layer).values() if not value.is_leaf}
        self._layer = copy.deepcopy(layer, memo)
        self._pushed: dict[str, Any] = {}
        self._given = [name for name, value in _tensors_of(layer).items() if value.is_floating_point()]
        vars(self).update({n: v for n, v in vars(layer).items() if isinstance(v, int | float) and n != "training"})
        self._pull()

    def __getstate__(self) -> dict[str, Any]:
        """Returns what a copy gets: its tensors lie on no array's memory yet."""
        return vars(self) | {"_pushed": {}}

    def _push(self) -> None:
        for name in self._given:
            array = getattr(self, name)
            if not isinstance(array, np.ndarray) or self._pushed.get(name) is array:
                continue  # the tensor lies on the array's memory already
            old, tensor = _tensors_of(self._layer)[name], to_tensor(array)
            tensor.requires_grad_(old.requires_grad)
            for where in ("_parameters", "_buffers", "__dict__"):
                if name in (held_there := getattr(self._layer, where, {})):
                    is_parameter = isinstance(old, loaded().nn.Parameter)
                    held_there[name] = loaded().nn.Parameter(tensor, old.requires_grad) if is_parameter else tensor
            self._pushed[name] = array

    def _pull(self) -> None:
        for name, tensor in _tensors_of(self._layer).items():
            array = getattr(self, name, None)
            value = to_numpy(tensor)
            if array is None or array.dtype != value.dtype or not np.array_equal(array, value, equal_nan=True):
                setattr(self, name, value)
            if tensor.is_leaf and is_float_tensor(tensor.grad):
                setattr(self, f"d{name}", to_numpy(tensor.grad))

    def forward(self, *inputs: Any) -> Any:
        """Returns the output for NumPy inputs."""
        return self._call(self._layer.forward, inputs)

    def backward(self, *douts: Any) -> Any:
        """Returns the gradients by the inputs."""
        return self._call(self._layer.backward, douts)

    def _call(self, method: Any, args: tuple[Any, ...]) -> Any:
        with loaded().enable_grad():  # a backward may call autograd for a part
            self._push()
            result = arrays_from(method(*map(tensors_from, args)))
            self._pull()
        return result
