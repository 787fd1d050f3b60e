"""Engines of differentiable objects, as micrograd: inputs with `data` and `grad`, an output with `backward()`."""

import copy
import functools
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style
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
        return np.asarray(f(*variables(values)).data, float)

    def gradient(*values: Any) -> Any:
        made = variables(values)
        f(*made).backward()
        return tuple(np.asarray(_number(variable.grad), float) for variable in made)

    numbers = tuple(np.asarray(variable.data, float) for variable in inputs)
    note = NOTE.format(type(inputs[0]).__name__)
    if np.ndim(value(*numbers)) != 0:
        return None
    return style._replace(thing=value, inputs=numbers, gradient=gradient, takes_dout=False, note=note)


def _is_variable(value: Any) -> bool:
    if is_float(value) or type(value).__module__.partition(".")[0] in ("torch", "jax", "jaxlib", "numpy"):
        return False
    data = getattr(value, "data", None)
    return (
        hasattr(value, "grad")
        and callable(getattr(value, "backward", None))
        and isinstance(data, int | float | np.ndarray | np.floating)
    )


def _number(gradient: Any) -> Any:
    """Returns the number of a gradient, which some engines keep in an object of their own."""
    return gradient if is_float(gradient) or isinstance(gradient, int | float) else getattr(gradient, "data", gradient)


def _with_data(variable: Any, data: Any) -> Any:
    """Returns a new variable with this value and no gradient."""
    made = copy.copy(variable)
    like = variable.data
    made.data = np.array(data) if isinstance(like, np.ndarray) else float(data)
    made.grad = None if variable.grad is None else np.zeros_like(_number(variable.grad))[()]
    return made
