"""Converts the inputs of a check to a dtype, and refuses parameters of another one."""

import sys
from typing import Any


def inputs_in(dtype: str, thing: Any, inputs: tuple[Any, ...], seed: int) -> tuple[Any, ...]:
    """Returns the inputs of a check with all floats in a dtype.

    Args:
        dtype: The name of the dtype.
        thing: What is checked, which shows where integers belong among inputs for which only a shape is given.
        inputs: The inputs, which are not changed. Arrays of JAX become arrays of NumPy, which JAX takes in any dtype.
        seed: The seed of the inputs that are drawn.
    """
    from jaxnet.crosscheck.input_files import read_inputs
    from jaxnet.crosscheck.inspect.random_inputs import draw_inputs

    function = thing[0] if isinstance(thing, tuple | list) and thing else thing
    forward = getattr(function, "forward", function)
    drawn = draw_inputs(forward if callable(forward) else None, read_inputs(thing, inputs)[1], thing, seed)
    return tuple(in_dtype(value, dtype) for value in drawn)


def in_dtype(value: Any, dtype: str) -> Any:
    """Returns floats of NumPy, JAX or PyTorch in a dtype, also within containers; other values as they are."""
    import numpy as np

    from jaxnet.crosscheck.inspect.optional_jax import is_jax_array

    if isinstance(value, dict):
        return {name: in_dtype(part, dtype) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(in_dtype(part, dtype) for part in value)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return value.detach().to(getattr(torch, dtype)) if value.is_floating_point() else value
    if is_jax_array(value) and value.dtype.name.startswith(("float", "bfloat")):
        value = np.asarray(value)
    is_float = isinstance(value, np.ndarray) and "float" in value.dtype.name
    return value.astype(dtype) if is_float else value


def expect_parameters_in(dtype: str, thing: Any, inputs: tuple[Any, ...], seed: int) -> None:
    """Checks that all arrays of a layer or a network are in a dtype: NumPy computes in the widest of them.

    A module of PyTorch that can be converted to float64 is checked in float64, and is accepted there.

    Raises:
        SubjectError: If an array is in another dtype.
    """
    from jaxnet.crosscheck import SubjectError, inspected
    from jaxnet.crosscheck.inspect.global_state import preserve_global_state

    with preserve_global_state():
        checkable = inspected(thing, *inputs, seed=seed)
    others = {n: array.dtype.name for n, array in checkable.leaves.items() if "float" in array.dtype.name}
    others = {name: other for name, other in others.items() if other != dtype}
    if others:
        raise SubjectError(
            f"dtypes: {', '.join(others)} of {checkable.name} in {', '.join(sorted(set(others.values())))}, expected "
            f"{dtype}: make its arrays in the dtype `crosscheck.dtype`"
        )
