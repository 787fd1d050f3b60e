"""Adapts networks whose `loss(X, y)` computes the gradients too: it returns them, or stores them in `grads`.

The parameters are in a dict `params`, or attributes, such as the `W` of a linear classifier. A network with a method
for the gradients alone, `compute_grads(X, y)`, is taken as well.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from types import MethodType
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.functions.loss_and_gradients import MIN_CORRELATION, correlation, places_of
from jaxnet.crosscheck.adapters.style import Style, called, has_method, required_parameters_of, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.errors import SubjectError, describe
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.returned_names import returned_names
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES, is_parameter_name
from jaxnet.crosscheck.inspect.signatures import input_names, keywords, positional
from jaxnet.crosscheck.inspect.trees import is_float

GRADIENT_METHODS = ("grad", "gradients", "compute_gradient", "compute_gradients", "compute_grads", "get_gradients")
NAME_OF_GRADIENT = re.compile(r"d[A-Z_]\w*|dw|grads?|gradients?|grad_\w+|\w+_grad")
MOVE = 0.5  # of a number that an object holds, to see whether its loss depends on it
RETURNED = "{0}.{1} returned the loss and the gradients of {2}"
STORED = "{0}.{1} returned the loss, and stored the gradients of {2} in grads"
SEPARATE = "{0}.{1} returned the loss, and {0}.{3} the gradients of {2}"


def adapt(style: Style) -> Style | None:
    """Gives such a network a `gradient`, and a `loss` that returns the loss alone."""
    net: Any = style.thing
    if isinstance(net, MethodType) and net.__name__ == "loss" and not isinstance(net.__self__, type):
        net = net.__self__
        style = style._replace(thing=net)
    if isinstance(net, tuple | list | type) or hasattr(net, "gradient") or len(style.inputs) < 2:
        return None
    if hasattr(net, "backward") and not _has_passes_of_its_own(net):
        return None
    if not callable(getattr(net, "loss", None)):
        return _read(style, "forward", "params") if _forward_returns_both(style) else None
    if hasattr(net, "params"):
        return _read(style, "loss", "params")
    if not (params := _parameters_in_attributes(style)):
        return None
    others = [name for name in _arrays(net) if name not in params and is_parameter_name(name)]
    style = style._replace(thing=_with_params(net, params), lacking=tuple(others))
    return _read(style, "loss", ", ".join(params))


def _read(style: Style, method: str, params: str) -> Style | None:
    """Returns the network with a `loss` and a `gradient` made of one of its methods, or of two.

    Args:
        style: The network, which has `params`.
        method: The name of the method that returns the loss.
        params: What its parameters are called.
    """
    kind: Any = type(style.thing)
    run = getattr(kind, method)
    own = next((name for name in GRADIENT_METHODS if has_method(style.thing, name)), None)
    if own is not None and 2 <= len(required_parameters_of(getattr(style.thing, own))) <= len(style.inputs):
        words = SEPARATE.format(kind.__name__, method, params, own)
        return _adapted(style, method, {"gradient": getattr(kind, own)}, words)
    trial = duplicate(style.thing)
    result = called(getattr(trial, method), *style.inputs)
    if isinstance(result, Exception):
        raise SubjectError(f"{kind.__name__}.{method}: raised {describe(result)}")
    if (places := places_of(result)) is not None and _are_gradients(result[places[1]], trial.params):
        value, rest = places

        def loss(self: Any, *args: Any, **options: Any) -> Any:
            return run(self, *args, **options)[value]

        def gradient(self: Any, *args: Any, **options: Any) -> Any:
            gradients = run(self, *args, **options)[rest]
            return gradients if isinstance(gradients, Mapping) else dict.fromkeys(self.params, gradients)

        methods = {"loss": functools.wraps(run)(loss), "gradient": functools.wraps(run)(gradient)}
        return _adapted(style, method, methods, RETURNED.format(kind.__name__, method, params))
    if np.ndim(result) == 0 and isinstance(getattr(trial, "grads", None), Mapping) and trial.grads:

        @functools.wraps(run)
        def stored(self: Any, *args: Any, **options: Any) -> Any:
            run(self, *args, **options)
            return self.grads

        return _adapted(style, method, {"gradient": stored}, STORED.format(kind.__name__, method, params))
    return None


def _adapted(style: Style, method: str, methods: dict[str, Any], words: str) -> Style:
    label = input_names(getattr(style.thing, method), len(style.inputs))[1]
    labels = f"drawn labels {label}" if 1 in style.drawn else f"the labels {label} as passed"
    numbers = [*_numbers_passed(style, method), *_numbers_held(style, method)]
    note = " and ".join([f"{words} for {labels}", *numbers])
    return style._replace(thing=with_methods(style.thing, methods), note=note)


def _numbers_passed(style: Style, method: str) -> Iterator[str]:
    """Yields the floats that the loss takes beside samples and labels, as the strength of a weight decay."""
    parameters = [*positional(getattr(style.thing, method))[2:], *keywords(getattr(style.thing, method))]
    passed = dict(zip([p.name for p in parameters], style.inputs[2:], strict=False))
    for parameter in parameters:
        value = passed.get(parameter.name, parameter.default)
        if _is_number(value):
            yield f"{parameter.name} = {value:g}{'' if parameter.name in passed else ' by default'}"


def _numbers_held(style: Style, method: str) -> Iterator[str]:
    """Yields the floats that the network holds and its loss depends on."""
    held = {name: value for name, value in attributes_of(style.thing).items() if _is_number(value)}
    value = _value(style.thing, method, style.inputs) if held else None
    for name, number in held.items():
        moved = duplicate(style.thing)
        setattr(moved, name, number + MOVE)
        other = _value(moved, method, style.inputs)
        if value is not None and other is not None and value != other:
            yield f"{name} = {number:g} of the object"


def _value(net: Any, method: str, inputs: tuple[Any, ...]) -> float | None:
    """Returns the loss of a copy of a network; None if it cannot be computed."""
    result = called(getattr(duplicate(net), method), *inputs)
    places = places_of(result)
    value = result if places is None else result[places[0]]
    return float(value) if np.ndim(value) == 0 and is_float(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, float | np.floating)


def _are_gradients(gradients: Any, params: Any) -> bool:
    """Returns whether these are gradients by name, or that of the only parameter."""
    if isinstance(gradients, Mapping):
        return bool(gradients)
    return isinstance(params, Mapping) and len(params) == 1 and is_float(gradients)


def _has_passes_of_its_own(net: Any) -> bool:
    """Returns whether `loss(X, y)` of a network runs its passes, of which neither takes the labels."""
    passes = [required_parameters_of(getattr(net, name, None)) for name in ("forward", "backward", "loss")]
    return hasattr(net, "params") and len(passes[0]) == 1 and len(passes[2]) == 2 and passes[2][1] not in passes[1]


def _forward_returns_both(style: Style) -> bool:
    """Returns whether the forward pass of a network without a backward returns its loss and a dict of gradients."""
    net: Any = style.thing
    if (
        len(style.inputs) != 2
        or not has_method(net, "forward")
        or not isinstance(getattr(net, "params", None), Mapping)
    ):
        return False
    result = called(duplicate(net).forward, *style.inputs)
    return (places := places_of(result)) is not None and isinstance(result[places[1]], Mapping)


def _arrays(net: Any) -> dict[str, Any]:
    return {name: a for name, a in attributes_of(net).items() if isinstance(a, np.ndarray) and is_float(a)}


def _with_params(net: Any, params: dict[str, Any]) -> Any:
    """Returns a shallow copy of a network with its parameters in `params`, too."""
    adapted = with_methods(net, {})
    adapted.params = params
    return adapted


def _parameters_in_attributes(style: Style) -> dict[str, Any]:
    """Returns the arrays that a network has as attributes whose gradients it returns with its loss; none if unclear.

    They are named by a dict of gradients. A single gradient is that of the only array of its shape, if the source calls
    it a gradient, or the loss changes as it says.
    """
    net: Any = style.thing
    if not has_method(net, "loss"):
        return {}
    result = called(duplicate(net).loss, *style.inputs)
    if (places := places_of(result)) is None:
        return {}
    value, rest = places
    if isinstance(rest, slice):
        return {}
    gradients = result[rest]
    arrays = _arrays(net)
    if isinstance(gradients, Mapping):
        named = {n: a for n, a in arrays.items() if any(f.format(n) in gradients for f in ("{}", *GRADIENT_NAMES))}
        return named if len(named) == len(gradients) else {}
    alike = {name: array for name, array in arrays.items() if array.shape == np.shape(gradients)}
    if len(alike) != 1 or any(np.shape(x) == np.shape(gradients) for x in style.inputs):
        return {}
    ((name, array),) = alike.items()
    names = returned_names(type(net).loss, 2, partly=True)
    if names and NAME_OF_GRADIENT.fullmatch(names[rest]):
        return alike

    def loss_at(values: Any) -> Any:
        moved: Any = duplicate(net)
        setattr(moved, name, values)
        return moved.loss(*duplicate(style.inputs))[value]

    return alike if correlation(loss_at, gradients, (array,), 0) > MIN_CORRELATION else {}
