"""Adapts layers of one sample whose backward takes the upstream gradient as a row, `(1, n)`, or a column, `(n, 1)`."""

import functools
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, called, has_method, required_parameters_of, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.trees import is_float, map_leaves

NOTE = "backward takes dout as a {}, of shape {}"


def adapt(style: Style) -> Style | None:
    """Gives backward a row or a column, if it raises for a vector and runs for exactly one of the two."""
    layer = style.thing
    if isinstance(layer, tuple | list | type) or not (has_method(layer, "forward") and has_method(layer, "backward")):
        return None
    if len(required_parameters_of(layer.backward)) != 1 or not _raises(style, (-1,)):
        return None
    shapes = [shape for shape in ((1, -1), (-1, 1)) if not _raises(style, shape)]
    if len(shapes) != 1:
        return None
    shape, kind = shapes[0], type(style.thing)
    is_vector = all(np.ndim(value) == 1 for value in style.inputs)

    @functools.wraps(kind.backward)
    def backward(self: Any, dout: Any) -> Any:
        gradients = kind.backward(self, np.reshape(dout, shape))
        return map_leaves(_as_vector, gradients) if is_vector else gradients

    words = ("row", "(1, n)") if shape == (1, -1) else ("column", "(n, 1)")
    note = "; ".join(filter(None, (style.note, NOTE.format(*words))))
    return style._replace(thing=with_methods(layer, {"backward": backward}), note=note)


def _raises(style: Style, shape: tuple[int, ...]) -> bool:
    """Returns whether backward raises for an upstream gradient of a vector in this shape."""
    trial: Any = duplicate(style.thing)
    y = called(trial.forward, *style.inputs)
    if not is_float(y) or np.ndim(y) != 1 or np.size(y) < 2:
        return False
    return isinstance(called(trial.backward, np.reshape(np.ones_like(y), shape)), Exception)


def _as_vector(gradient: Any) -> Any:
    return np.ravel(gradient) if is_float(gradient) and np.ndim(gradient) == 2 and 1 in np.shape(gradient) else gradient
