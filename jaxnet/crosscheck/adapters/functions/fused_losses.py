"""Rejects layers whose backward takes labels in the place of an upstream gradient, as a softmax with its cross-entropy.

The backward of a softmax that returns `self.output - y` is that of the cross-entropy of its output, and not of forward.
"""

import inspect
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.methods import names_of
from jaxnet.crosscheck.adapters.optimizers.plain_descent import RATES
from jaxnet.crosscheck.adapters.style import Style, called, required_parameters_of
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.role_heuristics import is_label_name
from jaxnet.crosscheck.inspect.trees import is_float

OF_A_COST = (
    "{name}.{backward}: takes the labels {label} and no upstream gradient, so it is the backward of a cost of its "
    "output; write cost(output, {label}), which returns a number, and for layer = {name}(...): "
    "check_function(lambda {x}, {label}: cost(layer.{forward}({x}), {label}), {x}, {label}, "
    "gradient=lambda {x}, {label}: (layer.{forward}({x}), layer.{backward}({takes}))[1])"
)


def reject(style: Style) -> None:
    """Raises a SubjectError for a layer whose backward takes an argument that is named as labels, and is not 0 at 0.

    A gradient is linear in the upstream gradient, and so 0 where that is 0.

    Args:
        style: The object, and the inputs that it is called with.
    """
    layer: Any = style.thing
    if isinstance(layer, tuple | list | type) or len(style.inputs) != 1:
        return
    passes = names_of(layer)
    if not all(passes) or not inspect.ismethod(getattr(layer, passes[1])):
        return
    own, takes = (required_parameters_of(getattr(layer, name)) for name in passes)
    if len(own) != 1 or not takes or not is_label_name(takes[0]) or not all(map(RATES.fullmatch, takes[1:])):
        return
    trial = duplicate(layer)
    y = called(getattr(trial, passes[0]), *style.inputs)
    if not is_float(y):
        return
    returned = called(getattr(trial, passes[1]), np.zeros_like(y), *(1.0 for _ in takes[1:]))
    if is_float(returned) and np.any(returned):
        words = {"name": type(layer).__name__, "forward": passes[0], "backward": passes[1]}
        raise SubjectError(OF_A_COST.format(**words, label=takes[0], x=own[0], takes=", ".join(takes)))
