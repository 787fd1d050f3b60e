"""Adapts code that returns a list or tuple of outputs and takes their upstream gradients in one: `backward([d1, d2])`.

A backward of one argument may also take the upstream gradient of the first output alone. So it is tried with both: the
list is meant if it alone gives gradients of the shapes of the inputs, or if its name is a plural, as `douts`.
"""

import functools
import re
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, called, required_parameters_of, with_methods, with_parameters
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.pair import takes_cache_first
from jaxnet.crosscheck.inspect.trees import is_float, leaves_of

NOTE = "backward takes the upstream gradients of the {} outputs in one {}"
PLURAL = re.compile(r"d\w?s|(d|g|grad|delta|error|upstream)\w*[^s_]s|\w+_list", re.IGNORECASE)


def adapt(style: Style) -> Style | None:
    """Gives backward the upstream gradients in one list or tuple, as forward returned the outputs."""
    thing: Any = style.thing
    if isinstance(thing, tuple | list):
        return _adapted_pair(style) if len(thing) == 2 and all(map(callable, thing)) else None
    if isinstance(thing, type) or not all(callable(getattr(thing, name, None)) for name in ("forward", "backward")):
        return None
    takes = required_parameters_of(thing.backward)
    if len(takes) != 1:
        return None
    trial = duplicate(thing)
    outputs = called(trial.forward, *style.inputs)
    if not _are_several(outputs):
        return None
    of_list, of_first = (called(duplicate(trial).backward, douts) for douts in (outputs, outputs[0]))
    if not _fits(style, of_list) or (_fits(style, of_first) and not PLURAL.fullmatch(takes[0])):
        return None
    kind: Any = type(thing)
    together = type(outputs)

    @functools.wraps(kind.backward)
    def backward(self: Any, *douts: Any) -> Any:
        return kind.backward(self, together(douts))

    named = with_parameters(backward, ["self", *_names(len(outputs))])
    return style._replace(thing=with_methods(thing, {"backward": named}), note=_note(style, outputs))


def _adapted_pair(style: Style) -> Style | None:
    forward, backward = style.thing
    takes = required_parameters_of(backward)
    result = called(forward, *style.inputs) if len(takes) == 2 else None
    if not isinstance(result, tuple | list) or len(result) != 2 or not _are_several(result[0]):
        return None
    outputs, cache = result
    together, cache_first = type(outputs), takes_cache_first(takes)
    if not _fits(style, called(backward, *((cache, outputs) if cache_first else (outputs, cache)))):
        return None

    @functools.wraps(backward)
    def backward_of_list(*args: Any) -> Any:
        return backward(args[0], together(args[1:])) if cache_first else backward(together(args[:-1]), args[-1])

    names = _names(len(outputs))
    named = with_parameters(backward_of_list, ["cache", *names] if cache_first else [*names, "cache"])
    return style._replace(thing=(forward, named), note=_note(style, outputs))


def _are_several(outputs: Any) -> bool:
    is_sequence = type(outputs) in (tuple, list) and len(outputs) > 1
    return is_sequence and all(is_float(leaf) for _, leaf in leaves_of(outputs))


def _fits(style: Style, returned: Any) -> bool:
    """Returns whether backward ran, and what it returned has the shapes of the first float inputs, if it is any."""
    if isinstance(returned, Exception):
        return False
    parts = returned if isinstance(returned, tuple | list) else (returned,)
    inputs = [np.shape(value) for value in style.inputs if is_float(value)]
    gradients = [np.shape(part) for part in parts if is_float(part)]
    return all(own == shape for own, shape in zip(gradients, inputs, strict=False))


def _note(style: Style, outputs: Any) -> str:
    return "; ".join(filter(None, (style.note, NOTE.format(len(outputs), type(outputs).__name__))))


def _names(count: int) -> list[str]:
    return [f"dout{i}" for i in range(count)]
