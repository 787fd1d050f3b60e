"""Code without a cache: `backward(dout, x, W)` takes inputs of the forward pass again, by their names."""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxnet.crosscheck.adapters.style import (
    Style,
    called,
    named_gradients,
    parameters_of,
    required_parameters_of,
    with_methods,
)
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.pair import CACHE, reject_labels
from jaxnet.crosscheck.inspect.trees import is_float

FIRST_OUTPUT = (
    "{0}.backward takes an upstream gradient for the first output of {0}.forward, so the others are not checked"
)
UPSTREAM = re.compile(r"d[A-Z_].*|d(out|y|z|a|l|loss|values?|top)\w*|grad\w*|\w*_grad\w*|delta\w*|error\w*|upstream\w*")


class _Binding(NamedTuple):
    """How the parameters of a backward are filled: by name from the inputs, and in order from the rest."""

    backward: Callable[..., Any]
    own: list[str]
    rest: list[str]

    def call(self, inputs: dict[str, Any], rest: tuple[Any, ...]) -> Any:
        values = dict(zip(self.rest, rest, strict=True)) | {name: inputs[name] for name in self.own if name in inputs}
        return self.backward(**values)


def adapt(style: Style) -> Style | None:
    """Passes the inputs of the last forward to the parameters of backward that have their names."""
    thing = style.thing
    if isinstance(thing, tuple | list) and len(thing) == 2 and all(map(callable, thing)):
        return _adapted_pair(style)
    if isinstance(thing, type) or not callable(getattr(thing, "forward", None)):
        return None
    return _adapted_layer(style)


def _adapted_pair(style: Style) -> Style | None:
    forward, backward = style.thing
    reject_labels(forward, backward)
    binding = _bind(forward, backward, most=2)
    if binding is None:
        return None
    names, has_cache = parameters_of(forward), len(binding.rest) == 2
    dout_first = not has_cache or UPSTREAM.fullmatch(binding.rest[0]) is not None

    @functools.wraps(forward)
    def forward_with_inputs(*inputs: Any) -> Any:
        result = forward(*inputs)
        y, cache = result if has_cache else (result, None)
        return y, (cache, dict(zip(names, inputs, strict=False)))

    def backward_with_inputs(dout: Any, cache: Any) -> Any:
        own_cache, inputs = cache
        rest = ((dout, own_cache) if dout_first else (own_cache, dout)) if has_cache else (dout,)
        gradients = binding.call(inputs, rest)
        return named_gradients(gradients, names, tuple(inputs.values())) or gradients

    return style._replace(thing=(forward_with_inputs, backward_with_inputs))


def _adapted_layer(style: Style) -> Style | None:
    layer = style.thing
    binding = _bind(layer.forward, getattr(layer, "backward", None), most=1)
    if binding is None:
        return None
    kind, names = type(layer), parameters_of(layer.forward)
    trial = duplicate(layer)
    y = called(trial.forward, *style.inputs)
    inputs = dict(zip(names, style.inputs, strict=False))
    has_states = isinstance(y, tuple | list) and len(y) > 1 and is_float(y[0])  # (y, h), of which backward takes dy
    y = y[0] if has_states else y
    if isinstance(called(lambda: binding._replace(backward=trial.backward).call(inputs, (y,))), Exception):
        return None

    @functools.wraps(kind.forward)
    def forward(self: Any, *inputs: Any) -> Any:
        self.__dict__["_recall_inputs"] = lambda: dict(zip(names, inputs, strict=False))
        result = kind.forward(self, *inputs)
        return result[0] if has_states else result

    def backward(self: Any, dout: Any) -> Any:
        bound = binding._replace(backward=functools.partial(kind.backward, self))
        return bound.call(self.__dict__["_recall_inputs"](), (dout,))

    note = FIRST_OUTPUT.format(kind.__name__) if has_states else style.note
    return style._replace(thing=with_methods(layer, {"forward": forward, "backward": backward}), note=note)


def _bind(forward: Any, backward: Any, most: int) -> _Binding | None:
    """Returns the binding of a backward that takes inputs of the forward, and at most so many values besides."""
    if backward is None:
        return None
    inputs = set(parameters_of(forward)) - set(CACHE)
    own = [name for name in parameters_of(backward) if name in inputs]
    rest = [name for name in required_parameters_of(backward) if name not in inputs]
    return _Binding(backward, own, rest) if own and 1 <= len(rest) <= most else None
