"""Adapts layers whose constructor takes the inputs: `MatMul(x, W)`, then `forward()` and `backward(dout)`.

The class becomes a pair of functions: forward makes a layer of the inputs, which is the cache of backward.
"""

import inspect
from typing import Any

from jaxnet.crosscheck.adapters.style import Style, parameters_of, required_parameters_of
from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.returned_names import owners_of_returned
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES
from jaxnet.crosscheck.inspect.stored_gradients import LOOSE_GRADIENT_NAMES
from jaxnet.crosscheck.inspect.trees import is_float


def adapt(style: Style) -> Style | None:
    """Turns a class whose constructor takes the inputs, and whose forward takes none, into a pair of functions."""
    kind: Any = style.thing
    inputs = style.inputs
    if not isinstance(style.thing, type) or not all(
        callable(getattr(kind, name, None)) for name in ("forward", "backward")
    ):
        return None
    takes_none = len(required_parameters_of(kind.forward)) == 1  # self
    names = parameters_of(kind)
    if not inputs or not takes_none or len(required_parameters_of(kind)) > len(inputs) or len(inputs) > len(names):
        return None
    names = names[: len(inputs)]
    floats = [name for name, value in zip(names, inputs, strict=True) if is_float(value)]

    def forward(*values: Any) -> Any:
        layer = kind(*values)
        return layer.forward(), layer

    def backward(dout: Any, layer: Any) -> Any:
        returned = layer.backward(dout) if len(parameters_of(layer.backward)) else layer.backward()
        if returned is None:
            return {name: _stored(layer, name) for name in floats}
        parts = tuple(returned) if isinstance(returned, tuple | list) else (returned,)
        owners = owners_of_returned(kind.backward, len(parts), names, kind)
        return dict(zip(owners, parts, strict=True)) if owners else returned

    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    forward.__name__, backward.__name__ = kind.__name__, f"{kind.__name__}.backward"
    return style._replace(thing=(forward, backward))


def _stored(layer: Any, name: str) -> Any:
    """Returns the gradient of an input that backward left in the layer."""
    attributes = [form.format(name) for form in (*GRADIENT_NAMES, *LOOSE_GRADIENT_NAMES)]
    place = next((attribute for attribute in attributes if hasattr(layer, attribute)), None)
    if place is None:
        kind = type(layer).__name__
        raise SubjectError(
            f"{kind}.backward: returned None and stored no {attributes[0]}, expected a gradient for each input; "
            f"end it with `return {attributes[0]}`"
        )
    return getattr(layer, place)
