"""Pairs of a method and a function: `(norm.forward, norm_backward)`, where backward returns `(dx, dgamma, dbeta)`.

The object that forward belongs to holds the parameters, and its cache goes from one to the other as in other pairs.
Both may be methods of one object, `(cell.step_forward, cell.step_backward)`, if there are more gradients than inputs.
"""

import functools
import inspect
from types import MethodType
from typing import Any

from jaxnet.crosscheck.adapters.style import Style, called, with_methods


def adapt(style: Style) -> Style | None:
    """Turns a method that returns a cache, and a function that takes it, into a layer."""
    thing = style.thing
    if not isinstance(thing, tuple | list) or len(thing) != 2 or not all(map(callable, thing)):
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


def _has_more_gradients(style: Style, result: Any) -> bool:
    """Returns whether backward, given the output and the cache, returns more gradients than there are inputs."""
    gradients = called(style.thing[1], *result)
    return isinstance(gradients, tuple | list) and len(gradients) > len(style.inputs)
