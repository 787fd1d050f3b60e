"""Layers whose backward returns the gradients of its parameters: `(dx, dW, db)`, `(dx, [dW, db])`, or `(dW, db)` alone.

A gradient belongs to the parameter that its name in the source of backward tells, `dW` of `return dx, dW, db`, or else
to the first parameter of its shape that has none yet.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, called, returned_names, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES
from jaxnet.crosscheck.inspect.signatures import input_names
from jaxnet.crosscheck.inspect.trees import is_float

PARAMETERS_ALONE = "{}.backward returns the gradients of its parameters alone, so {} is not checked"
MOST_INPUTS = 4  # whose gradients come before those of the parameters


def adapt(style: Style) -> Style | None:
    """Stores the gradients that follow those of the inputs beside the parameters of their shapes."""
    layer, inputs = style.thing, style.inputs
    if isinstance(layer, tuple | list | type) or not all(
        callable(getattr(layer, name, None)) for name in ("forward", "backward")
    ):
        return None
    shapes = [np.shape(value) for value in inputs if is_float(value)]
    trial = duplicate(layer)
    y = called(trial.forward, *inputs)
    returned = called(trial.backward, y)
    parts = list(_parts(returned))
    count = len(shapes)
    if count and [np.shape(part) for part in parts[:count]] != shapes and _owners(layer, parts) is not None:
        count = 0
    names = _owners(layer, parts[count:]) if shapes and len(parts) >= count else None
    if names is None or (not names and not _has_empty_part(returned)):
        return None
    kind: Any = type(layer)

    def backward(self: Any, dout: Any) -> Any:
        parts = list(_parts(kind.backward(self, dout)))
        for name, gradient in zip(names, parts[count:], strict=True):
            shape = np.shape(getattr(self, name))
            setattr(self, f"d{name}", np.reshape(gradient, shape) if _broadcasts(gradient, shape) else gradient)
        return parts[0] if count == 1 else tuple(parts[:count])

    thing = with_methods(layer, {"backward": backward})
    if count:
        return style._replace(thing=thing)
    data = input_names(layer.forward, len(inputs))
    note = PARAMETERS_ALONE.format(
        kind.__name__, " and ".join(n for n, x in zip(data, inputs, strict=True) if is_float(x))
    )
    return style._replace(thing=thing, note=note, data=tuple(data))


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


def _owners(layer: Any, gradients: list[Any]) -> list[str] | None:
    """Returns the parameter of each gradient: by their names, or the first of its shape that is not taken yet."""
    arrays = {name: np.shape(value) for name, value in attributes_of(layer).items() if is_float(value)}
    names: list[str] = _owners_by_name(layer, gradients, arrays)
    if names:
        return names
    for gradient in gradients:
        name = next((n for n in arrays if n not in names and _fits(gradient, arrays[n])), None)
        if name is None:
            return None
        names.append(name)
    return names


def _owners_by_name(layer: Any, gradients: list[Any], arrays: dict[str, tuple[int, ...]]) -> list[str]:
    """Returns the parameters that the source of backward names, `W` for `return dx, dW`; none if it does not."""
    forms = {form.format(name): name for name in arrays for form in GRADIENT_NAMES}
    for count in range(len(gradients), len(gradients) + MOST_INPUTS + 1):
        returned = returned_names(getattr(type(layer), "backward", None), count)
        names = [forms.get(name, "") for name in returned[count - len(gradients) :]]
        if names and all(n in arrays and _fits(g, arrays[n]) for n, g in zip(names, gradients, strict=True)):
            return names
    return []


def _fits(gradient: Any, shape: tuple[int, ...]) -> bool:
    return np.shape(gradient) == shape or _broadcasts(gradient, shape)
