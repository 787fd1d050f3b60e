"""Adapts code without a cache: `backward(dout, x, W)` takes inputs of the forward pass again, by their names.

A backward of a layer may also take outputs of the forward pass again, in their order: `backward(y, h, x, dout)`, and
that of a pair those after the first, by the names that forward has for them.
"""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

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
from jaxnet.crosscheck.inspect.returned_names import owners_of_returned, returned_names
from jaxnet.crosscheck.inspect.signatures import positional
from jaxnet.crosscheck.inspect.trees import is_float

FIRST_OUTPUT = (
    "{0}.backward takes an upstream gradient for the first output of {0}.forward, so the others are not checked"
)
OUTPUTS_AGAIN = (
    "{0}.backward takes what {0}.forward returns in {1}, and is checked as the gradient of the first output alone"
)
UPSTREAM = re.compile(r"d[A-Z_].*|d(out|y|z|a|l|loss|values?|top)\w*|grad\w*|\w*_grad\w*|delta\w*|error\w*|upstream\w*")


class _Binding(NamedTuple):
    """Maps the parameters of a backward to inputs and outputs by name, and to the rest in order."""

    backward: Callable[..., Any]
    own: list[str]
    rest: list[str]
    outputs: tuple[str, ...] = ()

    def call(self, known: dict[str, Any], rest: tuple[Any, ...]) -> Any:
        by_name = {name: known[name] for name in (*self.own, *self.outputs) if name in known}
        return self.backward(**dict(zip(self.rest, rest, strict=True)), **by_name)

    def named(self, outputs: Any) -> dict[str, Any]:
        """Returns the last outputs of forward under the names used in backward."""
        return dict(zip(self.outputs, outputs[-len(self.outputs) :], strict=True)) if self.outputs else {}


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
    binding = _bind(forward, backward, most=2) or _bind_named_outputs(style)
    if binding is None:
        return None
    names, has_cache = parameters_of(forward), len(binding.rest) == 2
    if has_cache and is_float(called(forward, *style.inputs)):  # an array alone, which has no cache beside it
        return None
    dout_first = not has_cache or _is_cache(binding.rest[1]) or UPSTREAM.fullmatch(binding.rest[0]) is not None

    @functools.wraps(forward)
    def forward_with_inputs(*inputs: Any) -> Any:
        result = forward(*inputs)
        known = dict(zip(names, inputs, strict=False))
        if binding.outputs:
            return result[0], (None, known | _outputs_by_name(forward, result))
        y, cache = result if has_cache else (result, None)
        return y, (cache, known)

    def backward_with_inputs(dout: Any, cache: Any) -> Any:
        own_cache, known = cache
        rest = ((dout, own_cache) if dout_first else (own_cache, dout)) if has_cache else (dout,)
        gradients = binding.call(known, rest)
        inputs = tuple(known[name] for name in names if name in known)
        if isinstance(gradients, tuple | list):
            owners = owners_of_returned(backward, len(gradients), names)
            return dict(zip(owners, gradients, strict=True)) if owners else gradients
        return named_gradients(gradients, names, inputs) or gradients

    return style._replace(thing=(forward_with_inputs, backward_with_inputs))


def _bind_named_outputs(style: Style) -> _Binding | None:
    """Returns the binding of a backward that takes further results of forward under the names used in forward.

    Forward returns `(y, xhat, rstd)`, and backward takes `(dy, xhat, rstd, gamma)`.
    """
    forward, backward = style.thing
    result = called(forward, *style.inputs)
    if not isinstance(result, tuple) or len(result) < 2 or not is_float(result[0]):
        return None
    takes, own = required_parameters_of(backward), parameters_of(forward)
    outputs = [name for name in takes if name in _outputs_by_name(forward, result) and name not in own]
    rest = [name for name in takes if name not in own and name not in outputs]
    if all(map(_is_cache, outputs)) or len(rest) != 1 or _is_cache(rest[0]):
        return None
    return _Binding(backward, [name for name in takes if name in own], rest, tuple(outputs))


def _outputs_by_name(forward: Any, result: tuple[Any, ...]) -> dict[str, Any]:
    """Returns what forward returns after its output, by the names in its source."""
    names = returned_names(forward, len(result), partly=True)
    return {name: value for name, value in list(zip(names, result, strict=False))[1:] if name}


def _is_cache(name: str) -> bool:
    return name in CACHE or "cache" in name.lower()


def _adapted_layer(style: Style) -> Style | None:
    layer: Any = style.thing
    kind, names = type(layer), parameters_of(layer.forward)
    trial = duplicate(layer)
    y = called(trial.forward, *style.inputs)
    has_states = isinstance(y, tuple | list) and len(y) > 1 and is_float(y[0])  # (y, h), of which backward takes dy
    binding = _bind(layer.forward, getattr(layer, "backward", None), most=1)
    if binding is None and has_states:
        binding = _bind_outputs(layer.forward, getattr(layer, "backward", None), y) or _bind_first(layer, style.inputs)
    if binding is None:
        return None
    known = dict(zip(names, style.inputs, strict=False)) | binding.named(y)
    rest = (y[0] if has_states else y,)[: len(binding.rest)]
    if isinstance(called(lambda: binding._replace(backward=trial.backward).call(known, rest)), Exception):
        return None

    @functools.wraps(kind.forward)
    def forward(self: Any, *inputs: Any) -> Any:
        result = kind.forward(self, *inputs)
        known = dict(zip(names, inputs, strict=False)) | binding.named(result)
        self.__dict__["_recall_arguments"] = lambda: known
        return result[0] if has_states else result

    options = [p for p in positional(layer.backward) if p.default is not p.empty and p.name not in binding.own]

    def backward(self: Any, *args: Any, **named: Any) -> Any:
        dout, further = args[: len(binding.rest)], args[len(binding.rest) :]
        given = dict(zip([p.name for p in options], further, strict=False)) | named  # such as a learning rate
        bound = binding._replace(backward=functools.partial(kind.backward, self, **given))
        adapted, self.__class__ = type(self), kind  # backward may call forward again, which returns all outputs
        try:
            return bound.call(self.__dict__["_recall_arguments"](), dout)
        finally:
            self.__class__ = adapted

    backward.__wrapped__ = kind.backward  # type: ignore[attr-defined]
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *binding.rest)]
    backward.__signature__ = inspect.Signature([*parameters, *options])  # type: ignore[attr-defined]
    note = FIRST_OUTPUT.format(kind.__name__) if has_states else style.note
    again = [name for name in binding.outputs if name not in CACHE]
    if binding.outputs:
        note = OUTPUTS_AGAIN.format(kind.__name__, ", ".join(again)) if again else style.note
    return style._replace(thing=with_methods(layer, {"forward": forward, "backward": backward}), note=note)


def _bind_outputs(forward: Any, backward: Any, outputs: Any) -> _Binding | None:
    """Returns the binding of a backward that takes all outputs of forward again, or those after the first.

    A backward of a first output that is no single number takes an upstream gradient, which is known by its name.
    """
    if backward is None:
        return None
    own = [name for name in parameters_of(backward) if name in parameters_of(forward)]
    others = [name for name in required_parameters_of(backward) if name not in own]
    upstream = [name for name in others if UPSTREAM.fullmatch(name)]
    again = [name for name in others if name not in upstream]
    if len(upstream) != (np.ndim(outputs[0]) > 0) or not len(outputs) - 1 <= len(again) <= len(outputs):
        return None
    return _Binding(backward, own, upstream, tuple(again))


def _bind_first(layer: Any, inputs: tuple[Any, ...]) -> _Binding | None:
    """Returns the binding of a backward that takes one value, the upstream gradient of the first of several outputs.

    It raises an error if it gets one for each output.
    """
    takes = required_parameters_of(layer.backward) if hasattr(layer, "backward") else []
    if len(takes) != 1 or takes[0] in CACHE:
        return None
    trial = duplicate(layer)
    y = called(trial.forward, *inputs)
    is_of_all = isinstance(y, Exception) or not isinstance(called(duplicate(trial).backward, y), Exception)
    return None if is_of_all else _Binding(layer.backward, [], takes)


def _bind(forward: Any, backward: Any, most: int) -> _Binding | None:
    """Returns the binding of a backward that takes inputs of the forward, and at most so many values besides."""
    if backward is None:
        return None
    inputs = set(parameters_of(forward)) - set(CACHE)
    own = [name for name in parameters_of(backward) if name in inputs]
    rest = [name for name in required_parameters_of(backward) if name not in inputs]
    return _Binding(backward, own, rest) if own and 1 <= len(rest) <= most else None
