"""Adapts pairs whose forward returns more outputs than backward takes upstream gradients for.

A cell returns `(h, y, cache)` and its backward takes `(dh, cache)`; a normalization returns `(out, cache, mean, var)`.
Such a backward may return one dict for inputs and for the entries of a dict of parameters: `{"dx": ..., "dW": ...}`.
"""

import functools
from collections.abc import Mapping
from typing import Any

from jaxnet.crosscheck.adapters.style import (
    Style,
    called,
    gradients_by_argument,
    parameters_of,
    required_parameters_of,
    with_parameters,
)
from jaxnet.crosscheck.inspect.trees import is_float

NOTE = "{} takes upstream gradients for {} of {} outputs of {}, so the others are not checked"


def adapt(style: Style) -> Style | None:
    """Drops the outputs without an upstream gradient, and sorts a dict of gradients by argument."""
    thing = style.thing
    if not isinstance(thing, tuple | list) or len(thing) != 2 or not all(map(callable, thing)):
        return None
    forward, backward = thing
    result = called(forward, *style.inputs)
    if not isinstance(result, tuple | list) or len(result) < 2:
        return None
    place = max((i for i in range(1, len(result)) if not is_float(result[i])), default=len(result) - 1)
    count = len(required_parameters_of(backward)) - 1
    if not 1 <= count <= place:
        return None
    if is_float(result[place]) and isinstance(called(backward, *result[:count], result[place]), Exception):
        return None  # the last output may be no cache
    names = parameters_of(forward)

    @functools.wraps(forward)
    def forward_of_paired(*inputs: Any) -> Any:
        returned = forward(*inputs)
        return (*returned[:count], (returned[place], inputs))

    @functools.wraps(backward)
    def backward_by_argument(*args: Any) -> Any:
        *douts, (cache, inputs) = args
        gradients = backward(*douts, cache)
        if not isinstance(gradients, Mapping):
            return gradients
        return gradients_by_argument(gradients, names, inputs) or gradients

    douts = [f"dout{i}" for i in range(count)]
    wrapped = with_parameters(backward_by_argument, [*douts, "cache"])
    dropped = len(result) - 1 - count
    words = (getattr(backward, "__name__", "backward"), count, count + dropped, getattr(forward, "__name__", "forward"))
    return style._replace(thing=(forward_of_paired, wrapped), note=NOTE.format(*words) if dropped else style.note)
