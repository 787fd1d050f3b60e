"""Adapts layers that pass dicts to each other: `forward({"data": x, "height": 1}) -> {"data": y, ...}`.

Each dict has one float array, and its other entries describe it. Backward takes the upstream gradient in such a dict,
under the key that it reads, `{"grad": dout}` or `{**output, "diff": dout}`, or alone. It returns the gradient of the
input in a dict or alone, and may return those of a dict of parameters beside it. A pair of functions takes its inputs
again by their names, as `backward(output, input, param)`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.adapters.style import (
    Style,
    called,
    gradients_by_argument,
    has_method,
    parameters_of,
    required_parameters_of,
    with_methods,
)
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import floats_in
from jaxnet.crosscheck.inspect.trees import is_float

NOTE = "{} takes and returns dicts: {!r} of the first is checked through {!r} of the second, with dout as {}"
ALONE = "an array"


class _Dicts(NamedTuple):
    """A dict among the inputs, its place, and the keys of the arrays in it, in the output and in the dict of dout."""

    given: Mapping[str, Any]
    place: int
    of_input: str
    of_output: str
    of_dout: str | None  # None if backward takes it alone

    def of_arrays(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the inputs with the dict around its array."""
        return tuple({**self.given, self.of_input: v} if i == self.place else v for i, v in enumerate(inputs))

    def without(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the inputs with the array in place of its dict."""
        return tuple(v[self.of_input] if i == self.place else v for i, v in enumerate(inputs))

    def with_dout(self, output: Mapping[str, Any], dout: Any) -> Any:
        """Returns what backward takes as the upstream gradient."""
        return dout if self.of_dout is None else {**output, self.of_dout: dout}

    def note(self, name: str) -> str:
        where = ALONE if self.of_dout is None else f"its entry {self.of_dout!r}"
        return NOTE.format(name, self.of_input, self.of_output, where)


def adapt(style: Style) -> Style | None:
    """Turns a layer or a pair of functions of dicts into one of arrays."""
    found = [i for i, value in enumerate(style.inputs) if _array_of(value)]
    if not found:
        return None
    if isinstance(style.thing, tuple | list):
        return _adapted_pair(style, found) if len(style.thing) == 2 and all(map(callable, style.thing)) else None
    layer: Any = style.thing
    if isinstance(layer, type) or not (has_method(layer, "forward") and has_method(layer, "backward")):
        return None
    return (
        _adapted_layer(style) if len(style.inputs) == 1 and len(required_parameters_of(layer.backward)) == 1 else None
    )


def _adapted_layer(style: Style) -> Style | None:
    layer: Any = style.thing
    kind: Any = type(layer)
    trial = duplicate(layer)
    output = called(trial.forward, *style.inputs)
    dicts = _dicts(0, style.inputs[0], output, lambda dout: called(duplicate(trial).backward, dout))
    if dicts is None:
        return None

    @functools.wraps(kind.forward)
    def forward(self: Any, x: Any) -> Any:
        output = kind.forward(self, *dicts.of_arrays((x,)))
        self.__dict__["_recall_arguments"] = lambda: output
        return output[dicts.of_output]

    @functools.wraps(kind.backward)
    def backward(self: Any, dout: Any) -> Any:
        output = self.__dict__["_recall_arguments"]()
        result = kind.backward(self, dicts.with_dout(output, dout))
        return result if (key := _array_of(result)) is None else result[key]

    adapted = with_methods(layer, {"forward": forward, "backward": backward})
    return style._replace(
        thing=adapted, inputs=dicts.without(style.inputs), note=dicts.note(f"{kind.__name__}.forward")
    )


def _adapted_pair(style: Style, found: list[int]) -> Style | None:
    forward, backward = style.thing
    names, takes = parameters_of(forward), required_parameters_of(backward)
    rest = [name for name in takes if name not in names]
    output = called(forward, *style.inputs) if len(rest) == 1 and len(names) >= len(style.inputs) else None

    def run_back(dout: Any, inputs: tuple[Any, ...]) -> Any:
        known = dict(zip(names, inputs, strict=False)) | {rest[0]: dout}
        return backward(**{name: known[name] for name in takes})

    index = found[0]
    dicts = _dicts(index, style.inputs[index], output, lambda dout: called(run_back, dout, style.inputs))
    if dicts is None:
        return None

    @functools.wraps(forward)
    def forward_of_array(*inputs: Any) -> tuple[Any, Any]:
        output = forward(*dicts.of_arrays(inputs))
        return output[dicts.of_output], (output, inputs)

    def backward_of_array(dout: Any, cache: Any) -> Any:
        output, inputs = cache
        result = run_back(dicts.with_dout(output, dout), dicts.of_arrays(inputs))
        return _by_argument(result, names, inputs, index)

    inputs = dicts.without(style.inputs)
    note = dicts.note(getattr(forward, "__name__", "forward"))
    return style._replace(thing=(forward_of_array, backward_of_array), inputs=inputs, note=note)


def _dicts(index: int, given: Any, output: Any, run_back: Callable[[Any], Any]) -> _Dicts | None:
    """Returns the keys of the arrays; None if the output is no such dict, or backward is not linear in dout."""
    of_input, of_output = _array_of(given), _array_of(output)
    if of_input is None or of_output is None:
        return None
    start, keys = _Dicts(given, index, of_input, of_output, of_output), [of_output]
    error = run_back(start.with_dout(output, np.ones_like(output[of_output])))
    if isinstance(error, KeyError) and isinstance(error.args[0], str):
        keys = [error.args[0]]
    for key in (*keys, None):
        dicts, dout = start._replace(of_dout=key), np.cos(output[of_output])
        once, twice = (list(floats_in(run_back(dicts.with_dout(output, factor * dout)))) for factor in (1, 2))
        if once and len(once) == len(twice) and all(np.allclose(2 * a, b) for a, b in zip(once, twice, strict=True)):
            return dicts
    return None


def _array_of(value: Any) -> str | None:
    """Returns the key of the only float array in a dict; None for other values."""
    keys = [key for key, part in value.items() if is_float(part)] if isinstance(value, Mapping) else []
    return keys[0] if len(keys) == 1 and isinstance(keys[0], str) else None


def _by_argument(result: Any, names: list[str], inputs: tuple[Any, ...], index: int) -> Any:
    """Returns gradients by the names of arguments: of a dict those in a dict with its keys, of the array the other."""
    parts = result if isinstance(result, tuple | list) else (result,)
    named: dict[str, Any] = {}
    for part in parts:
        places = [n for n, arg in zip(names, inputs, strict=False) if isinstance(arg, Mapping)]
        owners = (
            gradients_by_argument(part, places, tuple(inputs[names.index(n)] for n in places))
            if isinstance(part, Mapping)
            else None
        )
        if owners is not None:
            named |= owners
        elif (array := part[key] if (key := _array_of(part)) is not None else part) is not None:
            named[names[index]] = array
    return named if len(named) == len(parts) else result
