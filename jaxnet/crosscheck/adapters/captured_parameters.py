"""Functions that return their value and the gradients of arrays that they read: `return loss, dWxh, dWhh, dby, h`.

The arrays are globals of the module, as in the character RNN that many copy, or attributes of the object of a method.
The gradients belong to them by their names in the source. Other results, as the last state, are left out.
"""

import inspect
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, called, parameters_of
from jaxnet.crosscheck.inspect.closures import CapturedArrays
from jaxnet.crosscheck.inspect.objects import walk
from jaxnet.crosscheck.inspect.returned_names import returned_names
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES, base_name
from jaxnet.crosscheck.inspect.stored_gradients import LOOSE_GRADIENT_NAMES
from jaxnet.crosscheck.inspect.trees import distinct, is_float

NOTE = "{} is checked as a function of {}, which it reads and returns the gradients of"
FIXED = "; it returns no gradient of its arguments, so these are held fixed: {}"


def adapt(style: Style) -> Style | None:
    """Turns such a function into one of a dict of the arrays and of the inputs, with its gradient."""
    f: Any = style.thing
    if isinstance(f, tuple | list | type) or not callable(f):
        return None
    result = called(f, *style.inputs)
    if not isinstance(result, tuple) or len(result) < 2 or not _is_number(result[0]):
        return None
    captured = CapturedArrays((f,), tuple(parameters_of(f)))
    held = {base_name(place): place for place in captured.replaceable if _may_be_read(f, captured.arrays[place])}
    inputs = dict(zip(parameters_of(f), style.inputs, strict=False))
    arrays = {name: captured.arrays[place] for name, place in held.items()} | inputs
    owners = _owners(f, result, arrays)
    params = {name: np.array(captured.arrays[held[name]]) for name in owners if name in held and name not in inputs}
    if not params:
        return None

    def run(values: Mapping[str, Any], args: tuple[Any, ...]) -> Any:
        moved: Callable[..., Any] = captured.rebuild({held[name]: values[name] for name in params})[0]
        return moved(*args)

    def value(params: Any, *args: Any) -> Any:
        return run(params, args)[0]

    def gradient(params: Any, *args: Any) -> Any:
        returned = run(params, args)
        gradients = {name: returned[place] for name, place in owners.items()}
        own = {name: gradient for name, gradient in gradients.items() if name not in params}
        return {"params": {name: gradients[name] for name in params}, **own}

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in distinct(["params", *inputs])])
    value.__signature__ = gradient.__signature__ = signature  # type: ignore[attr-defined]
    value.__name__ = getattr(f, "__name__", "f")
    fixed = [name for name, arg in inputs.items() if is_float(arg)] if not owners.keys() & inputs.keys() else []
    note = NOTE.format(value.__name__, ", ".join(params)) + (FIXED.format(", ".join(fixed)) if fixed else "")
    adapted = style._replace(thing=value, inputs=(params, *style.inputs), gradient=gradient, takes_dout=False)
    return adapted._replace(note=note, data=tuple(fixed))


def _may_be_read(f: Any, array: Any) -> bool:
    """Returns whether a function may read an array; a method only those of its object, not globals of their names."""
    return not isinstance(f, MethodType) or any(part is array for _, part in walk(f.__self__))


def _owners(f: Any, result: tuple[Any, ...], arrays: Mapping[str, Any]) -> dict[str, int]:
    """Returns the places of the gradients among the results, by the array of that shape that the source names."""
    forms = {form.format(name): name for name in arrays for form in (*LOOSE_GRADIENT_NAMES, *GRADIENT_NAMES)}
    names = returned_names(f, len(result), partly=True)
    named = ((forms.get(name, ""), place) for place, name in enumerate(names) if place)
    return {name: place for name, place in named if name and np.shape(result[place]) == np.shape(arrays[name])}


def _is_number(value: Any) -> bool:
    return isinstance(value, float | np.floating) or (is_float(value) and np.size(value) == 1)
