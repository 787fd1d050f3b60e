"""Converts PyTorch tensors to NumPy arrays and back. Never imports PyTorch."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.trees import Array

HALF_COMPLEX = "{} is a tensor of complex32, expected complex64 or complex128; pass z.to(torch.complex64)"


def torch_module() -> Any:
    """Returns the module torch, which must be loaded."""
    return sys.modules["torch"]


def is_tensor(value: Any) -> bool:
    """Returns whether this is a tensor."""
    return isinstance(value, torch_module().Tensor)


def is_float_tensor(value: Any) -> bool:
    """Returns whether this is a tensor of floats."""
    return is_tensor(value) and bool(value.is_floating_point())


def is_inexact_tensor(value: Any) -> bool:
    """Returns whether this is a tensor of floats or of complex numbers."""
    return is_tensor(value) and bool(value.is_floating_point() or value.is_complex())


def parts_of(tensor: Any) -> tuple[Any, ...]:
    """Returns a tensor of floats, or the real and the imaginary part of a complex one."""
    return (tensor.real, tensor.imag) if tensor.is_complex() else (tensor,)


def in_floats(tensor: Any) -> Any:
    """Returns a tensor of floats, or both parts of a complex one, stacked along a new last axis."""
    return torch_module().stack(parts_of(tensor), -1) if tensor.is_complex() else tensor


def to_numpy(tensor: Any) -> Array:
    """Returns a copy as a NumPy array with the same memory layout; bfloat16 becomes float32."""
    torch = torch_module()
    flat = tensor.detach().cpu()
    if flat.is_floating_point() and flat.dtype not in (torch.float16, torch.float32, torch.float64):
        flat = flat.to(torch.float32)
    return np.array(flat.resolve_conj().resolve_neg().numpy(), order="K")


def to_view(tensor: Any) -> Array:
    """Returns a tensor's memory as a NumPy array, or a copy if it is on another device."""
    return tensor.detach().numpy() if tensor.device.type == "cpu" else to_numpy(tensor)


def to_tensor(array: Array, dtype: Any = None, device: Any = None) -> Any:
    """Returns a tensor that shares the memory of an array, or a copy if PyTorch does not support it as it is."""
    torch = torch_module()
    array = np.asarray(array)
    if array.dtype.kind == "V" and array.dtype.name == "bfloat16":  # of ml_dtypes, which PyTorch does not read
        return to_tensor(array.astype(np.float32), dtype or torch.bfloat16, device)
    if any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = array.copy()
    if array.flags.writeable:
        return torch.from_numpy(array).to(device=device, dtype=dtype)
    spread = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)
    own = torch.from_numpy(np.array(array[spread], order="K")).to(device=device, dtype=dtype)
    return own.expand(array.shape)


def tensors_from(value: Any) -> Any:
    """Returns a value with its NumPy arrays as tensors, in lists, tuples and dicts too."""
    if isinstance(value, np.ndarray | np.floating):
        return to_tensor(np.array(value, order="K"))
    if isinstance(value, dict):
        return {key: tensors_from(part) for key, part in value.items()}
    return type(value)(map(tensors_from, value)) if type(value) in (list, tuple) else value


def arrays_from(value: Any) -> Any:
    """Returns a value with its tensors as NumPy arrays, in lists, tuples and dicts too."""
    if is_tensor(value):
        return to_numpy(value)
    if isinstance(value, dict):
        return {key: arrays_from(part) for key, part in value.items()}
    return type(value)(map(arrays_from, value)) if type(value) in (list, tuple) else value


def in_numpy(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of NumPy arrays that calls a function of tensors."""

    @functools.wraps(function)
    def wrapped(*args: Any, **named: Any) -> Any:
        with torch_module().enable_grad():
            return arrays_from(function(*map(tensors_from, args), **tensors_from(named)))

    return wrapped


def reject_tensor(name: str, tensor: Any) -> None:
    """Raises a SubjectError if a tensor is of complex32, sparse or quantized."""
    if tensor.dtype is torch_module().complex32:  # few operations take it
        raise SubjectError(HALF_COMPLEX.format(name))
    if tensor.layout is not torch_module().strided or tensor.is_quantized:
        raise SubjectError(f"{name} is a sparse or quantized tensor: pass a function of its dense values")
