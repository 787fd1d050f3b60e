"""Adapts pairs whose backward returns gradients in another order than the inputs: `(grads, dh, dx)` for `(x, h, p)`."""

import functools
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, called, parameters_of
from jaxnet.crosscheck.inspect.returned_names import owners_of_returned
from jaxnet.crosscheck.inspect.returned_order import order_by_structure
from jaxnet.crosscheck.inspect.trees import is_float, leaves_of

NOTE = "{} returns gradients in the order {}, inferred from their shapes"


def adapt(style: Style) -> Style | None:
    """Gives the gradients of such a backward the names of the inputs that they belong to."""
    thing = style.thing
    if not isinstance(thing, tuple | list) or len(thing) != 2 or not all(map(callable, thing)):
        return None
    forward, backward = thing
    names = parameters_of(forward)[: len(style.inputs)]
    result = called(forward, *style.inputs)
    if not isinstance(result, tuple) or len(result) != 2 or not is_float(result[0]) or len(names) != len(style.inputs):
        return None
    gradients = called(backward, np.ones_like(result[0]), result[1])
    if not isinstance(gradients, tuple | list) or owners_of_returned(backward, len(gradients), names):
        return None
    held = {name: value for name, value in zip(names, style.inputs, strict=True) if _has_floats(value)}
    order = order_by_structure(gradients, list(held.values()))
    if order is None:
        return None
    owners = [list(held)[place] for place in order]

    @functools.wraps(backward)
    def backward_by_name(dout: Any, cache: Any) -> dict[str, Any]:
        return dict(zip(owners, backward(dout, cache), strict=True))

    words = NOTE.format(getattr(backward, "__name__", "backward"), ", ".join(owners))
    note = f"{style.note}; {words}" if style.note else words
    return style._replace(thing=(forward, backward_by_name), note=note)


def _has_floats(value: Any) -> bool:
    return any(is_float(part) for _, part in leaves_of(value, ""))
