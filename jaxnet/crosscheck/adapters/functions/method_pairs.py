"""Adapts pairs of a method and a function: `(norm.forward, norm_backward)`, which returns `(dx, dgamma, dbeta)`.

The object that forward belongs to holds the parameters, and its cache goes from one to the other as in other pairs.
Both may be methods of one object, `(cell.step_forward, cell.step_backward)`, if there are more gradients than inputs.
An object itself may return its cache after one or more outputs, `h, c, cache`, of which backward takes `(dh, dc,
cache)`. A dict of gradients by the names of its arrays, in the last place, is that of its parameters.
"""

import functools
import inspect
from collections.abc import Mapping
from types import MethodType
from typing import Any

from jaxnet.crosscheck.adapters.style import Style, called, has_method, required_parameters_of, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.trees import is_float


def adapt(style: Style) -> Style | None:
    """Turns a method that returns a cache, and a function that takes it, into a layer."""
    thing = style.thing
    if not isinstance(thing, tuple | list):
        return _adapted_object(style)
    if len(thing) != 2 or not all(map(callable, thing)):
        return None
    method, backward = thing
    if not isinstance(method, MethodType) or isinstance(method.__self__, type):
        return None
    result = called(method, *style.inputs)
    if not isinstance(result, tuple | list) or len(result) != 2:
        return None
    of_same_object = isinstance(backward, MethodType) and backward.__self__ is method.__self__
    if isinstance(backward, MethodType) and not (of_same_object and _has_more_gradients(style, result)):
        return None
    function: Any = method.__func__

    @functools.wraps(function)
    def forward(self: Any, *inputs: Any) -> Any:
        y, cache = function(self, *inputs)
        self.__dict__["_recall_cache"] = lambda: cache
        return y

    @functools.wraps(backward)
    def backward_of_layer(self: Any, dout: Any) -> Any:
        own: Any = functools.partial(backward.__func__, self) if of_same_object else backward
        return own(dout, self.__dict__["_recall_cache"]())

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD  # the signature of `backward` has the cache
    parameters = [inspect.Parameter(name, kind) for name in ("self", "dout")]
    backward_of_layer.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return style._replace(thing=with_methods(method.__self__, {"forward": forward, "backward": backward_of_layer}))


def _adapted_object(style: Style) -> Style | None:
    """Keeps the cache that the forward of an object returns, for its backward, which takes it after the gradients."""
    layer: Any = style.thing
    if isinstance(layer, type) or not (has_method(layer, "forward") and has_method(layer, "backward")):
        return None
    kind: Any = type(layer)
    takes, result = required_parameters_of(layer.backward), called(duplicate(layer).forward, *style.inputs)
    if not isinstance(result, tuple) or len(result) < 2 or len(takes) != len(result):
        return None
    if "cache" not in takes[-1].lower() or not all(map(is_float, result[:-1])):
        return None

    @functools.wraps(kind.forward)
    def forward(self: Any, *inputs: Any) -> Any:
        *outputs, cache = kind.forward(self, *inputs)
        self.__dict__["_recall_cache"] = lambda: cache
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    @functools.wraps(kind.backward)
    def backward(self: Any, *douts: Any) -> Any:
        returned = kind.backward(self, *douts, self.__dict__["_recall_cache"]())
        if not isinstance(returned, tuple) or not isinstance(returned[-1], Mapping):
            return returned
        for name, gradient in returned[-1].items():
            setattr(self, str(name), gradient)
        return returned[:-1] if len(returned) > 2 else returned[0]

    by_position = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, by_position) for name in ("self", *takes[:-1])]
    backward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return style._replace(thing=with_methods(layer, {"forward": forward, "backward": backward}))


def _has_more_gradients(style: Style, result: Any) -> bool:
    """Returns whether backward, given the output and the cache, returns more gradients than there are inputs."""
    gradients = called(style.thing[1], *result)
    return isinstance(gradients, tuple | list) and len(gradients) > len(style.inputs)
