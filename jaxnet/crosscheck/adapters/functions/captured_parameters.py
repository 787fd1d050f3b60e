"""Adapts functions that return a value and the gradients of arrays that they read: `return loss, dWxh, dWhh, dby, h`.

The arrays are globals of the module, as in the character RNN that many copy, parts of a closure, or attributes of an
object, as in `lambda X, y: net.loss(X, y, reg)`. The gradients belong to them by their names in the source, or by the
keys of a dict. Other results, as the last state, are left out.
"""

import inspect
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, called, parameters_of
from jaxnet.crosscheck.inspect.closures import CapturedArrays
from jaxnet.crosscheck.inspect.objects import walk
from jaxnet.crosscheck.inspect.returned_names import returned_names
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES, base_name
from jaxnet.crosscheck.inspect.stored_gradients import LOOSE_GRADIENT_NAMES
from jaxnet.crosscheck.inspect.trees import distinct, is_float, leaves_of

NOTE = "{} is checked as a function of {}: it reads them and returns their gradients"
FIXED = "; it returns no gradients of its arguments, so these are held fixed: {}"
UNKNOWN = "; not checked, because no array that it reads has their name or shape: {}"


def adapt(style: Style) -> Style | None:
    """Turns such a function into one of a dict of the arrays and of the inputs, with its gradient."""
    f: Any = style.thing
    if isinstance(f, tuple | list | type) or not callable(f):
        return None
    result = called(f, *style.inputs)
    results = _results(f, result)
    if results is None:
        return None
    captured = CapturedArrays((f,), tuple(parameters_of(f)))
    places = [p for p in captured.arrays if p in captured.replaceable and _may_be_read(f, captured.arrays[p])]
    held = {base_name(place): place for place in places}
    if results.in_dict:
        held = _held_by_path(places, results.gradients) or held
    inputs = dict(zip(parameters_of(f), style.inputs, strict=False))
    arrays = {name: captured.arrays[place] for name, place in held.items()} | inputs
    owners = _owners(results, arrays)
    params = {name: np.array(captured.arrays[held[name]]) for name in owners if name in held and name not in inputs}
    if not params:
        return None

    def run(values: Mapping[str, Any], args: tuple[Any, ...]) -> Any:
        moved: Callable[..., Any] = captured.rebuild({held[name]: values[name] for name in params})[0]
        return moved(*args)

    def value(params: Any, *args: Any) -> Any:
        return run(params, args)[results.value]

    def gradient(params: Any, *args: Any) -> Any:
        returned = _results(f, run(params, args))
        gradients = {name: None if returned is None else returned.gradients.get(key) for name, key in owners.items()}
        own = {name: gradient for name, gradient in gradients.items() if name not in params}
        return {"params": {name: gradients[name] for name in params}, **own}

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in distinct(["params", *inputs])])
    value.__signature__ = gradient.__signature__ = signature  # type: ignore[attr-defined]
    value.__name__ = getattr(f, "__name__", "f")
    fixed = [name for name, arg in inputs.items() if is_float(arg)] if not owners.keys() & inputs.keys() else []
    note = NOTE.format(value.__name__, ", ".join(params)) + (FIXED.format(", ".join(fixed)) if fixed else "")
    unknown = [name for name, part in results.gradients.items() if np.ndim(part) and name not in owners.values()]
    note += UNKNOWN.format(", ".join(unknown)) if results.in_dict and unknown else ""
    adapted = style._replace(thing=value, inputs=(params, *style.inputs), gradient=gradient, takes_dout=False)
    return adapted._replace(note=note, data=tuple(fixed))


def _may_be_read(f: Any, array: Any) -> bool:
    """Returns whether a function may read an array; a method only those of its object, not globals of their names."""
    return not isinstance(f, MethodType) or any(part is array for _, part in walk(f.__self__))


class _Results(NamedTuple):
    """What such a function returns.

    Attributes:
        value: The place of its value.
        gradients: The other results by their names in the source, or by their keys.
        in_dict: Whether they are in a dict. Its keys may be the names of the arrays.
    """

    value: int
    gradients: dict[str, Any]
    in_dict: bool = False


def _results(f: Any, result: Any) -> _Results | None:
    """Returns the value and the other results by name; None if there is no value beside others."""
    if not isinstance(result, tuple) or len(result) < 2:
        return None
    value = next((i for i in (0, 1) if _is_number(result[i]) and isinstance(result[1 - i], Mapping)), None)
    if value is not None and len(result) == 2 and not isinstance(f, MethodType):  # `model_losses` takes methods
        return _Results(value, dict(leaves_of(result[1 - value])), in_dict=True)
    if not _is_number(result[0]):
        return None
    names = returned_names(f, len(result), partly=True)
    return _Results(0, {name: result[place] for place, name in enumerate(names) if place and name})


def _held_by_path(places: list[str], gradients: Mapping[str, Any]) -> dict[str, str]:
    """Returns the places of arrays by the path that a gradient has in a dict: `Affine1.W` for `Affine1.dW`."""
    held: dict[str, str] = {}
    for place in places:
        parts = place.split(".")
        paths = (".".join(parts[i:]) for i in range(len(parts)))  # the longest first
        path = next((path for path in paths if not gradients.keys().isdisjoint(_keys(path))), None)
        if path is not None:
            held[path] = place
    return held


def _keys(name: str) -> list[str]:
    """Returns the keys under which the gradient of an array may be in a dict."""
    above, dot, last = name.rpartition(".")
    return [f"{above}{dot}{form.format(last)}" for form in ("{}", *LOOSE_GRADIENT_NAMES, *GRADIENT_NAMES)]


def _owners(results: _Results, arrays: Mapping[str, Any]) -> dict[str, str]:
    """Returns the names of the gradients by the names of the arrays that they belong to and have the shape of."""
    gradients = results.gradients
    forms = {key: name for name in arrays for key in _keys(name) if results.in_dict or key != name}
    named = ((forms.get(key, ""), key) for key in gradients)
    return {name: key for name, key in named if name and np.shape(gradients[key]) == np.shape(arrays[name])}


def _is_number(value: Any) -> bool:
    return isinstance(value, float | np.floating) or (is_float(value) and np.size(value) == 1)
