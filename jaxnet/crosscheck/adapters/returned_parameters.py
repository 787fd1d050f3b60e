"""Layers whose backward returns the gradients of its parameters: `(dx, dW, db)` or `(dx, [dW, db])`."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, called, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.trees import is_float


def adapt(style: Style) -> Style | None:
    """Stores the gradients that follow those of the inputs beside the parameters of their shapes."""
    layer, inputs = style.thing, style.inputs
    if isinstance(layer, tuple | list | type) or not all(
        callable(getattr(layer, name, None)) for name in ("forward", "backward")
    ):
        return None
    count = sum(map(is_float, inputs))
    trial = duplicate(layer)
    y = called(trial.forward, *inputs)
    returned = called(trial.backward, y)
    parts = list(_parts(returned))
    names = _owners(layer, parts[count:]) if count and len(parts) >= count else None
    if names is None or (not names and not _has_empty_part(returned)):
        return None
    kind: Any = type(layer)

    def backward(self: Any, dout: Any) -> Any:
        parts = list(_parts(kind.backward(self, dout)))
        for name, gradient in zip(names, parts[count:], strict=True):
            shape = np.shape(getattr(self, name))
            setattr(self, f"d{name}", np.reshape(gradient, shape) if _broadcasts(gradient, shape) else gradient)
        return parts[0] if count == 1 else tuple(parts[:count])

    return style._replace(thing=with_methods(layer, {"backward": backward}))


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
    """Returns the parameter of each gradient: the first in order of definition of its shape that is not taken yet."""
    arrays = {name: np.shape(value) for name, value in attributes_of(layer).items() if is_float(value)}
    names: list[str] = []
    for gradient in gradients:
        name = next((n for n in arrays if n not in names and _fits(gradient, arrays[n])), None)
        if name is None:
            return None
        names.append(name)
    return names


def _fits(gradient: Any, shape: tuple[int, ...]) -> bool:
    return np.shape(gradient) == shape or _broadcasts(gradient, shape)
