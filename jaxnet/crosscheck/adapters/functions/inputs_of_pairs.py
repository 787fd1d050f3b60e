"""Adapts pairs without a cache whose backward takes an input of forward again under another name, and its options.

`maxpool(image, f, s)` has `maxpool_backward(dpool, orig, f, s)`. Exactly one choice of that input and of
the upstream gradient can be called and returns an array of the shape of that input.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.adapters.functions.bound_arguments import UPSTREAM
from jaxnet.crosscheck.adapters.style import Style, called, parameters_of, required_parameters_of
from jaxnet.crosscheck.inspect.trees import is_float

NOTE = "{} takes {} of {} again, as {}"


class _Call(NamedTuple):
    """Names the arguments of a backward: the upstream gradient, and an input under another name."""

    upstream: str
    again: str
    source: str
    shared: tuple[str, ...]

    def run(self, backward: Callable[..., Any], dout: Any, inputs: dict[str, Any]) -> Any:
        values = {name: inputs[name] for name in self.shared if name in inputs}
        return backward(**values, **{self.upstream: dout, self.again: inputs[self.source]})


def adapt(style: Style) -> Style | None:
    """Passes the input to backward under the name that it has there."""
    thing = style.thing
    if not isinstance(thing, tuple | list) or len(thing) != 2 or not all(map(callable, thing)):
        return None
    forward, backward = thing
    names, takes = parameters_of(forward), required_parameters_of(backward)
    rest = [name for name in takes if name not in names]
    if len(rest) != 2 or len(takes) == 2 or any("cache" in name.lower() or name == "ctx" for name in rest):
        return None
    y = called(forward, *style.inputs)
    if isinstance(y, tuple | list) or not is_float(y):
        return None
    inputs = dict(zip(names, style.inputs, strict=False))
    calls = [call for call in _calls(rest, takes, names, inputs) if _fits(call, backward, y, inputs)]
    named = [call for call in calls if UPSTREAM.fullmatch(call.upstream)]
    calls = calls if len(calls) == 1 else named
    if len(calls) != 1:
        return None
    call = calls[0]

    @functools.wraps(forward)
    def forward_of_inputs(*args: Any) -> Any:
        return forward(*args), dict(zip(names, args, strict=False))

    @functools.wraps(backward)
    def backward_of_inputs(dout: Any, cache: Any) -> Any:
        returned = call.run(backward, dout, cache)
        return returned if isinstance(returned, tuple | list | dict) else {call.source: returned}

    kind = inspect.Parameter.POSITIONAL_ONLY
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in (call.upstream, "cache")])
    backward_of_inputs.__signature__ = signature  # type: ignore[attr-defined]
    of_backward, of_forward = (getattr(f, "__name__", "f") for f in (backward, forward))
    note = NOTE.format(of_backward, call.source, of_forward, call.again)
    return style._replace(thing=(forward_of_inputs, backward_of_inputs), note=note)


def _calls(rest: list[str], takes: list[str], names: list[str], inputs: dict[str, Any]) -> Iterator[_Call]:
    free = [name for name, value in inputs.items() if name not in takes and is_float(value) and np.ndim(value)]
    shared = tuple(name for name in takes if name in names)
    for upstream, again in (rest, rest[::-1]):
        yield from (_Call(upstream, again, source, shared) for source in free)


def _fits(call: _Call, backward: Callable[..., Any], y: Any, inputs: dict[str, Any]) -> bool:
    """Returns whether a call runs, and returns an array of the shape of the input, alone or before others."""
    returned = called(lambda dout: call.run(backward, dout, inputs), np.ones_like(y))
    first = returned[0] if isinstance(returned, tuple | list) and returned else returned
    return is_float(first) and np.shape(first) == np.shape(inputs[call.source])
