"""Adapts layers that accumulate forward passes until a reset such as `flush_gradients()`.

The backward of such a layer belongs to the first forward pass since then, so a training loop calls the reset in each
step. Without it, a second pass looks as if it used values of an earlier call.
"""

import re
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, called, has_method, required_parameters_of, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.global_state import preserve_global_state
from jaxnet.crosscheck.inspect.inputs import different_inputs
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.trees import is_float

RESET = re.compile(
    r"(flush|reset|clear|zero|forget)(_?(all_?)?(grad(ient)?s?|caches?|states?|memory|buffers?|inputs?))?"
)
GRADIENTS = re.compile(r"d[A-Z_]\w*|d[wbx]|dl_?d\w+|\w*grad\w*")
NOTE = "{reset}() is called before each forward pass, because backward uses the first forward pass after a reset"
Results = list[np.ndarray]


def adapt(style: Style) -> Style | None:
    """Resets a layer before each forward pass, if its second pass is like a first one only then."""
    layer = style.thing
    if (
        "_is_reset" in dir(type(layer))
        or isinstance(layer, tuple | list | type)
        or not (has_method(layer, "forward") and has_method(layer, "backward"))
    ):
        return None
    resets = [name for name in dir(layer) if RESET.fullmatch(name) and has_method(layer, name)]
    resets = [name for name in resets if not required_parameters_of(getattr(layer, name))]
    if not resets or isinstance(others := called(_others, style.inputs), Exception):
        return None
    first = called(lambda *inputs: _passes(layer, inputs, None, None), *style.inputs)
    later = called(lambda *inputs: _passes(layer, inputs, others, None), *style.inputs)
    if isinstance(first, Exception) or _equal(first, later) or not _same_output(first, later):
        return None
    for reset in resets:
        if _equal(first, called(lambda *inputs, name=reset: _passes(layer, inputs, others, name), *style.inputs)):
            return style._replace(thing=_with_reset(layer, reset), note=NOTE.format(reset=reset))
    return None


def _others(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns other inputs of these shapes, in a list of inputs too."""
    moved = different_inputs(inputs)
    return tuple(
        list(different_inputs(tuple(own))) if isinstance(own, list) else other
        for own, other in zip(inputs, moved, strict=True)
    )


def _with_reset(layer: Any, reset: str) -> Any:
    kind: Any = type(layer)

    def forward(self: Any, *inputs: Any) -> Any:
        getattr(self, reset)()
        return kind.forward(self, *inputs)

    forward.__wrapped__ = kind.forward  # type: ignore[attr-defined]
    return with_methods(layer, {"forward": forward, "_is_reset": True})


def _passes(layer: Any, inputs: tuple[Any, ...], others: Any, reset: str | None) -> Results:
    """Returns the output and all gradients of a layer, after a forward pass at other inputs if these are given."""
    with preserve_global_state():  # a first forward may draw the parameters
        np.random.seed(0)  # noqa: NPY002 (the generator that the layer itself draws from)
        return _seeded_passes(duplicate(layer), inputs, others, reset)


def _seeded_passes(used: Any, inputs: tuple[Any, ...], others: Any, reset: str | None) -> Results:
    if others is not None:
        used.forward(*duplicate(others))
    if reset is not None:
        getattr(used, reset)()
    y = np.array(used.forward(*inputs))
    returned = used.backward(np.random.default_rng(0).standard_normal(y.shape))
    stored = {name: value for name, value in sorted(attributes_of(used).items()) if GRADIENTS.fullmatch(name)}
    return [y, *_arrays(returned), *_arrays(stored)]


def _arrays(value: Any) -> Results:
    if isinstance(value, dict):
        return [array for part in value.values() for array in _arrays(part)]
    if isinstance(value, tuple | list):
        return [array for part in value for array in _arrays(part)]
    return [np.array(value)] if is_float(value) else []


def _same_output(first: Results, later: Any) -> bool:
    """Returns whether the output is that of a first pass, unlike that of a layer with a state of its own.

    A pass that raises an error has no output to compare, so it is the reset that shows what is meant.
    """
    return isinstance(later, Exception) or _equal(first[:1], later[:1])


def _equal(first: Results, other: Any) -> bool:
    return (
        not isinstance(other, Exception)
        and len(first) == len(other)
        and all(a.shape == b.shape and np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    )
