"""Adapts layers whose backward takes forward's input under another name: `backward(input, delta)` for `forward(X)`.

The work may be divided: one method returns the gradient of the input, and another, with the same arguments, stores
those of the parameters. Which argument is the upstream gradient is told by its name, or by the order that can be run.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.functions.bound_arguments import UPSTREAM
from jaxnet.crosscheck.adapters.optimizers.plain_descent import RATES
from jaxnet.crosscheck.adapters.style import Style, called, has_method, required_parameters_of, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.role_heuristics import is_label_name
from jaxnet.crosscheck.inspect.trees import is_float

BACKWARD = re.compile(r"back\w*|\w+_backward")
NO_INPUT = re.compile(r"cache|opt\w*|(mini_?)?batch_?size|loss\w*|kwargs")
NOTE = "{} takes the input of forward again, as {}"


def adapt(style: Style) -> Style | None:
    """Gives such a layer a backward that takes the upstream gradient alone."""
    layer: Any = style.thing
    if isinstance(layer, tuple | list | type) or not has_method(layer, "forward") or len(style.inputs) != 1:
        return None
    own = required_parameters_of(layer.forward)
    names = _passes(layer)
    takes = required_parameters_of(getattr(layer, names[0])) if names else []
    if len(own) != 1 or len(takes) != 2 or own[0] in takes or not is_float(style.inputs[0]):
        return None
    if any(RATES.fullmatch(name) or NO_INPUT.fullmatch(name) or is_label_name(name) for name in takes):
        return None
    kind: Any = type(layer)
    upstream = _upstream(layer, names, takes, style.inputs[0])
    if not upstream:
        return None
    again = next(name for name in takes if name != upstream)

    def forward(self: Any, x: Any) -> Any:
        self.__dict__["_recall_input"] = lambda: x
        return kind.forward(self, x)

    def backward(self: Any, dout: Any) -> Any:
        values = {upstream: dout, again: self.__dict__["_recall_input"]()}
        returned = [getattr(kind, name)(self, **values) for name in names]
        return next((part for part in returned if part is not None), None)

    forward.__wrapped__, backward.__wrapped__ = kind.forward, getattr(kind, names[-1])  # type: ignore[attr-defined]
    forward.__signature__ = inspect.signature(kind.forward)  # type: ignore[attr-defined]
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in ("self", upstream)]
    backward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    adapted = with_methods(layer, {"forward": forward, "backward": backward})
    return style._replace(thing=adapted, note=NOTE.format(" and ".join(names), again))


def _passes(layer: Any) -> list[str]:
    """Returns the names of the methods that make up the backward pass: `backward`, or several with its arguments.

    Those that store gradients come before the one that returns that of the input.
    """
    if has_method(layer, "backward"):
        return ["backward"]
    own = [name for name in dir(type(layer)) if BACKWARD.fullmatch(name) and has_method(layer, name)]
    takes = {tuple(required_parameters_of(getattr(layer, name))) for name in own}
    return sorted(own, key=lambda name: "grad" not in name) if len(own) == 2 and len(takes) == 1 else []


def _upstream(layer: Any, names: list[str], takes: list[str], x: Any) -> str:
    """Returns the name of the argument that is the upstream gradient; empty if nothing tells it."""
    named = [name for name in takes if UPSTREAM.fullmatch(name)]
    if len(named) == 1:
        return named[0] if _runs(layer, names, named[0], takes, x) else ""
    running = [name for name in takes if _runs(layer, names, name, takes, x)]
    return running[0] if len(running) == 1 else ""


def _runs(layer: Any, names: list[str], upstream: str, takes: list[str], x: Any) -> bool:
    """Returns whether the backward pass returns an array of the shape of the input, with this argument upstream."""
    trial = duplicate(layer)
    y = called(trial.forward, x)
    if not is_float(y):
        return False
    values = {name: np.ones_like(y) if name == upstream else x for name in takes}

    def returned() -> list[Any]:
        methods: list[Callable[..., Any]] = [getattr(trial, name) for name in names]
        return [method(**values) for method in methods]

    results = called(returned)
    parts = [] if isinstance(results, Exception) else results
    arrays = [part for result in parts for part in (result if isinstance(result, tuple | list) else [result])]
    return any(np.shape(array) == np.shape(x) for array in arrays if is_float(array))
