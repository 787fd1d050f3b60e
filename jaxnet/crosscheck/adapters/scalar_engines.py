"""Engines of differentiable objects, as micrograd: inputs with `data` and `grad`, an output with `backward()`.

The number may have another name than `data`, if it is the only attribute that holds one beside the gradient. A tensor
may give its values by `numpy()` alone, as in needle, and be made of an array by its class.
"""

import copy
import functools
import inspect
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.trees import is_float

NOTE = "{} objects are checked by their data and the grad that backward() leaves"


def adapt(style: Style) -> Style | None:
    """Turns a function of objects with `data` and `grad` into a function of their numbers, with its gradient."""
    f, inputs = style.thing, style.inputs
    if not callable(f) or not inputs or not all(map(_is_variable, inputs)):
        return None

    def variables(values: tuple[Any, ...]) -> list[Any]:
        return [_with_data(variable, value) for variable, value in zip(inputs, values, strict=True)]

    @functools.wraps(f)
    def value(*values: Any) -> Any:
        return np.sum(np.asarray(_data_of(f(*variables(values))), float))

    def gradient(*values: Any) -> Any:
        made = variables(values)
        f(*made).backward()
        return tuple(np.asarray(_number(variable.grad), float) for variable in made)

    numbers = tuple(np.asarray(_data_of(variable), float) for variable in inputs)
    note = NOTE.format(type(inputs[0]).__name__)
    output = f(*variables(numbers))
    if not _is_number(_data_of(output)):
        return None
    if np.size(_data_of(output)) != 1:
        if not _starts_from_ones(output):
            return None
        note = f"{note}; that of an output with several elements is the gradient of their sum"
    return style._replace(thing=value, inputs=numbers, gradient=gradient, takes_dout=False, note=note)


def _starts_from_ones(output: Any) -> bool:
    """Returns whether `backward()` gives an output of several elements a gradient of ones."""
    try:
        output.backward()
    except Exception:  # engines may take numbers only
        return False
    gradient = _number(getattr(output, "grad", None))
    return np.shape(gradient) == np.shape(_data_of(output)) and bool(np.all(np.asarray(gradient) == 1))


def _is_variable(value: Any) -> bool:
    if is_float(value) or type(value).__module__.partition(".")[0] in ("torch", "jax", "jaxlib", "numpy"):
        return False
    return hasattr(value, "grad") and callable(getattr(value, "backward", None)) and _is_number(_data_of(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.ndarray | np.floating) and not isinstance(value, bool)


def _data_name(variable: Any) -> str:
    """Returns the attribute with the number: `data`, or the only other one that is a number and no gradient."""
    names = [name for name, value in attributes_of(variable).items() if is_float(value) or isinstance(value, float)]
    names = [name for name in names if "grad" not in name]
    return names[0] if len(names) == 1 and not hasattr(variable, "data") else "data"


def _data_of(variable: Any) -> Any:
    data = getattr(variable, _data_name(variable), None)
    return variable.numpy() if not _is_number(data) and callable(getattr(variable, "numpy", None)) else data


def _number(gradient: Any) -> Any:
    """Returns the number of a gradient, which some engines keep in an object of their own."""
    return (
        gradient if gradient is None or is_float(gradient) or isinstance(gradient, int | float) else _data_of(gradient)
    )


def _parameter_names(kind: Any) -> list[str]:
    """Returns the names of the parameters of a class, none if it has no signature."""
    try:
        return list(inspect.signature(kind).parameters)
    except (TypeError, ValueError):
        return []


def _with_data(variable: Any, data: Any) -> Any:
    """Returns a new variable with this value and no gradient."""
    if not _is_number(getattr(variable, _data_name(variable), None)):
        takes_dtype = "dtype" in _parameter_names(type(variable))
        return type(variable)(np.array(data), **({"dtype": str(np.asarray(data).dtype)} if takes_dtype else {}))
    made = copy.copy(variable)
    setattr(made, _data_name(variable), np.array(data) if isinstance(_data_of(variable), np.ndarray) else float(data))
    made.grad = None if variable.grad is None else np.zeros_like(_number(variable.grad))[()]
    return made
