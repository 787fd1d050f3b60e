"""Adapts layers whose backward returns parameter gradients: `(dx, dW, db)`, `(dx, [dW, db])`, or `(dW, db)` alone.

A gradient belongs to the parameter that its name in the source of backward tells, `dW` of `return dx, dW, db`, or else
to the first parameter of its shape that has none yet.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.layers.gradient_dicts import PARAMETERS_ALONE
from jaxnet.crosscheck.adapters.style import Style, called, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.returned_names import returned_names
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES
from jaxnet.crosscheck.inspect.signatures import input_names
from jaxnet.crosscheck.inspect.trees import is_float


def adapt(style: Style) -> Style | None:
    """Stores the gradients of parameters beside them, and returns those of the inputs in their order."""
    layer, inputs = style.thing, style.inputs
    if isinstance(layer, tuple | list | type) or not all(
        callable(getattr(layer, name, None)) for name in ("forward", "backward")
    ):
        return None
    names = input_names(layer.forward, len(inputs))
    shapes = {name: np.shape(value) for name, value in zip(names, inputs, strict=True) if is_float(value)}
    trial = duplicate(layer)
    y = called(trial.forward, *inputs)
    returned = called(trial.backward, y)
    owners, count = _owners_of_first(layer, returned, shapes)
    count_of_samples = len(y) if is_float(y) and np.ndim(y) else 0
    owners = owners or _owners_of_samples(layer, list(_parts(returned)), shapes, count_of_samples)
    if owners is None or (set(owners) <= set(shapes) and not _has_empty_part(returned)):
        return None
    checked = [name for name in shapes if name in owners]
    kind: Any = type(layer)

    def backward(self: Any, dout: Any) -> Any:
        gradients = dict(zip(owners, _parts(_first(kind.backward(self, dout), count)), strict=True))
        for name in gradients.keys() - set(shapes):
            shape, gradient = np.shape(getattr(self, name)), gradients[name]
            setattr(self, f"d{name}", np.reshape(gradient, shape) if _broadcasts(gradient, shape) else gradient)
        if len(shapes) == 1 and checked:
            return gradients[checked[0]]
        own = {name: gradients[name] for name in checked}
        return own if len(own) < len(shapes) and own else tuple(own.values())

    thing = with_methods(layer, {"backward": backward})
    if checked:
        return style._replace(thing=thing)
    note = PARAMETERS_ALONE.format(kind.__name__, " and ".join(shapes))
    return style._replace(thing=thing, note=note, data=tuple(names))


def adapt_beside_arrays(style: Style) -> Style | None:
    """Stores gradients that backward returns with their parameters, `dx, [(self.W, dW), (self.b, db)]`."""
    layer = style.thing
    if isinstance(layer, tuple | list | type) or not all(
        callable(getattr(layer, name, None)) for name in ("forward", "backward")
    ):
        return None
    trial = duplicate(layer)
    returned = called(lambda: trial.backward(trial.forward(*duplicate(style.inputs))))
    if not isinstance(returned, tuple) or len(returned) != 2 or not _beside_arrays(trial, returned[1]):
        return None
    kind: Any = type(layer)

    def backward(self: Any, dout: Any) -> Any:
        dx, beside = kind.backward(self, dout)
        for name, gradient in _beside_arrays(self, beside).items():
            setattr(self, f"d{name}", gradient)
        return dx

    return style._replace(thing=with_methods(layer, {"backward": backward}))


def _beside_arrays(layer: Any, pairs: Any) -> dict[str, Any]:
    """Returns the gradients in pairs `(array, gradient)` by the names of the arrays; none if a part is no such pair."""
    names = {id(value): name for name, value in attributes_of(layer).items() if is_float(value)}
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        return {}
    return {names[id(array)]: gradient for array, gradient in pairs} if all(id(a) in names for a, _ in pairs) else {}


def _owners_of_first(
    layer: Any, returned: Any, shapes: dict[str, tuple[int, ...]]
) -> tuple[list[str] | None, int | None]:
    """Returns the owners of all gradients and None, or those of a first few values and their number.

    Behind `(dx, (dW, db), states)` stand values of the backward pass that are no gradients of inputs or parameters.
    """
    owners = _owners(layer, list(_parts(returned)), shapes)
    is_nested = isinstance(returned, tuple) and len(returned) > 2 and isinstance(returned[1], tuple | list)
    if owners is not None or not is_nested or not is_float(returned[0]):
        return owners, None
    return _owners(layer, list(_parts(returned[:2])), shapes), 2


def _owners_of_samples(
    layer: Any, gradients: list[Any], shapes: dict[str, tuple[int, ...]], count: int
) -> list[str] | None:
    """Returns the owners of gradients behind those of the inputs that have one more axis, of the samples."""
    behind = gradients[len(shapes) :]
    if not count or not behind or any(np.shape(gradient)[:1] != (count,) for gradient in behind):
        return None
    return _owners(layer, [*gradients[: len(shapes)], *(gradient[0] for gradient in behind)], shapes)


def _first(returned: Any, count: int | None) -> Any:
    return returned if count is None else returned[:count]


def _parts(returned: Any) -> Iterator[Any]:
    if isinstance(returned, tuple | list):
        for part in returned:
            yield from _parts(part)
    elif is_float(returned):
        yield returned


def _has_empty_part(returned: Any) -> bool:
    """Returns whether a layer without parameters returns an empty list for them: `(dx, [])`."""
    return isinstance(returned, tuple | list) and any(isinstance(part, tuple | list) and not part for part in returned)


def _broadcasts(gradient: Any, shape: tuple[int, ...]) -> bool:
    """Returns whether shapes differ in leading ones alone, as (3,) and (1, 3), so that an update is the same."""
    own = np.shape(gradient)
    return own != shape and own == shape[len(shape) - len(own) :] and set(shape[: len(shape) - len(own)]) <= {1}


def _owners(layer: Any, gradients: list[Any], inputs: dict[str, tuple[int, ...]]) -> list[str] | None:
    """Returns the input or parameter of each gradient: those of all inputs first, or of none, or in any order."""
    attributes = {name: np.shape(value) for name, value in attributes_of(layer).items() if is_float(value)}
    count = len(inputs)
    named = _owners_by_name(layer, gradients, attributes)
    if count and [np.shape(gradient) for gradient in gradients[:count]] != list(inputs.values()):
        if all(named) and named:
            return named
        if (alone := _completed([""] * len(gradients), gradients, attributes)) is not None:
            return alone
        own = {name: shape for name, shape in attributes.items() if name not in inputs}
        return _completed(_owners_by_name(layer, gradients, inputs | own), gradients, inputs | own)
    rest = named[count:] if all(named[count:]) else [""] * len(gradients[count:])
    parameters = _completed(rest, gradients[count:], attributes) if len(gradients) >= count else None
    return None if parameters is None else [*inputs, *parameters]


def _owners_by_name(layer: Any, gradients: list[Any], arrays: dict[str, tuple[int, ...]]) -> list[str]:
    """Returns the arrays that the source of backward names, `W` for `return dx, dW`; empty for other names."""
    forms = {form.format(name): name for name in arrays for form in GRADIENT_NAMES}
    kind = type(layer)
    names = returned_names(getattr(kind, "backward", None), len(gradients), kind)
    owners = [forms.get(name, "") for name in names] or [""] * len(gradients)
    return [n if n and _fits(g, arrays[n]) else "" for n, g in zip(owners, gradients, strict=True)]


def _completed(owners: list[str], gradients: list[Any], arrays: dict[str, tuple[int, ...]]) -> list[str] | None:
    """Returns owners with the first array of its shape that is not taken, for each gradient that has none yet."""
    owners = list(owners)
    for i, gradient in enumerate(gradients):
        owners[i] = owners[i] or next((n for n in arrays if n not in owners and _fits(gradient, arrays[n])), "")
    return owners if all(owners) else None


def _fits(gradient: Any, shape: tuple[int, ...]) -> bool:
    return np.shape(gradient) == shape or _broadcasts(gradient, shape)
