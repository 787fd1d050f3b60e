"""Pairs of a method and a function: `(norm.forward, norm_backward)`, where backward returns `(dx, dgamma, dbeta)`.

The object that forward belongs to holds the parameters, and its cache goes from one to the other as in other pairs.
"""

import functools
from types import MethodType
from typing import Any

from jaxnet.crosscheck.adapters.style import Style, called, with_methods


def adapt(style: Style) -> Style | None:
    """Turns a method that returns a cache, and a function that takes it, into a layer."""
    thing = style.thing
    if not isinstance(thing, tuple | list) or len(thing) != 2 or not all(map(callable, thing)):
        return None
    method, backward = thing
    if not isinstance(method, MethodType) or isinstance(method.__self__, type) or isinstance(backward, MethodType):
        return None
    result = called(method, *style.inputs)
    if not isinstance(result, tuple | list) or len(result) != 2:
        return None
    function: Any = method.__func__

    @functools.wraps(function)
    def forward(self: Any, *inputs: Any) -> Any:
        y, cache = function(self, *inputs)
        self.__dict__["_recall_cache"] = lambda: cache
        return y

    @functools.wraps(backward)
    def backward_of_layer(self: Any, dout: Any) -> Any:
        return backward(dout, self.__dict__["_recall_cache"]())

    del backward_of_layer.__wrapped__  # whose signature has the cache
    return style._replace(thing=with_methods(method.__self__, {"forward": forward, "backward": backward_of_layer}))
