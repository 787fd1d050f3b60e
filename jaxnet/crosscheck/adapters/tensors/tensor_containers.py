"""Adapts layers whose inputs and outputs only hold an array: `layer.forward(Tensor(x))` returns a `Tensor`.

Such objects record nothing: the layer has the backward pass, of arrays. It is checked as a layer of arrays.
"""

import copy
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, called, has_method, parameters_of, with_methods, with_parameters
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.trees import is_float

NOTE = "{} objects only hold an array in {}, so {} is checked as a layer of arrays"
FOREIGN = ("torch", "jax", "jaxlib", "numpy", "tensorflow", "keras", "mlx", "autograd")


def adapt(style: Style) -> Style | None:
    """Gives such a layer the arrays within its inputs, and takes the array out of its output."""
    layer: Any = style.thing
    holders = [i for i, x in enumerate(style.inputs) if _held(x)]
    if not holders or isinstance(layer, tuple | list | type) or not has_method(layer, "backward"):
        return None
    names = [name for name in ("forward", "__call__") if has_method(layer, name)]
    if not names:
        return None
    kind: Any = type(layer)
    run = getattr(kind, names[0])
    first = style.inputs[holders[0]]
    attribute = _held(first)
    trial: Any = duplicate(layer)
    given = duplicate(style.inputs)
    output = called(lambda: run(trial, *given))
    if (
        isinstance(output, Exception)
        or type(output) is not type(first)
        or _records(output, [given[i] for i in holders])
    ):
        return None

    def forward(self: Any, *arrays: Any) -> Any:
        made = [_holding(style.inputs[i], array) if i in holders else array for i, array in enumerate(arrays)]
        y = getattr(run(self, *made), attribute)
        return y[()] if np.ndim(y) == 0 else y

    inputs = tuple(getattr(x, attribute) if i in holders else x for i, x in enumerate(style.inputs))
    note = NOTE.format(type(first).__name__, attribute, kind.__name__)
    of_arrays = with_parameters(forward, parameters_of(run))
    methods = {names[0]: of_arrays, "forward": of_arrays, "backward": kind.backward}
    return style._replace(thing=with_methods(layer, methods), inputs=inputs, note=note)


def _held(value: Any) -> str:
    """Returns the name of the only float array that an object holds beside its gradient; empty for other values."""
    if is_float(value) or type(value).__module__.partition(".")[0] in FOREIGN or not hasattr(value, "__dict__"):
        return ""
    names = [n for n, part in attributes_of(value).items() if isinstance(part, np.ndarray) and is_float(part)]
    names = [name for name in names if "grad" not in name]
    return names[0] if len(names) == 1 else ""


def _records(output: Any, inputs: list[Any]) -> bool:
    """Returns whether `backward()` of an output leaves a gradient in an input, as that of an engine does."""
    if not callable(getattr(output, "backward", None)):
        return False
    for x in inputs:
        if isinstance(getattr(x, "requires_grad", None), bool):
            x.requires_grad = True
    called(output.backward)
    gradients = [getattr(x, "grad", None) for x in inputs]
    return any(gradient is not None and not (is_float(gradient) and not gradient.any()) for gradient in gradients)


def _holding(value: Any, array: Any) -> Any:
    made = copy.copy(value)
    setattr(made, _held(value), np.array(array))
    return made
