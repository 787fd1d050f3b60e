"""What a layer holds by its attributes: arrays, the gradients that stand beside them, and the layers within it."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxnet.crosscheck.subjects.base import is_float, is_numbers

BESIDE = ("d{}", "d_{}", "grad_{}", "{}_grad")  # where the gradient by an attribute stands
# These may mean something else, such as gW the weights of a gate: only what backward leaves there is a gradient.
LOOSELY = ("g{}", "g_{}", "grad{}", "{}grad", "delta_{}", "nabla_{}")
DEEPEST = 8  # layers within layers; they may point back at each other


def parameters_of(layer: Any) -> dict[str, Any]:
    """The float arrays that a layer and those within it hold, each once: by attribute, or by its place in `params`."""
    found: dict[str, Any] = {}
    for prefix, one in _within(layer):
        beside = _gradients_beside(one)
        attributes = {name: value for name, value in vars(one).items() if is_float(value)}
        listed = {name: value for name, value in _entries("params", one).items() if is_float(value)}
        # a name that has its gradient beside it goes before a mere place in a list
        for name, value in sorted((attributes | listed).items(), key=lambda item: item[0] not in beside):
            if is_array(value) and not any(value is other for other in found.values()):
                found[prefix + name] = value
    return found


def gradients_of(layer: Any, loosely: Collection[str] | None = None) -> dict[str, Any]:
    """What stands beside each array: `dW` beside `W`, `grads[0]` beside `params[0]`; None where that is empty still.

    With the names of the inputs given, under looser names, too: `gW`, or `dw` beside `W`. But a `dx` is the input's,
    not that of an attribute `X`.
    """
    return {
        prefix + name: value
        for prefix, one in _within(layer)
        for name, value in _gradients_beside(one, loosely).items()
    }


def _gradients_beside(layer: Any, loosely: Collection[str] | None = None) -> dict[str, Any]:
    grads, held = getattr(layer, "grads", None), vars(layer)
    named = grads if isinstance(grads, Mapping) else {}
    found = {}
    for name in held:
        beside = [held[form.format(name)] for form in BESIDE if form.format(name) in held]
        beside += [named[form.format(name)] for form in ("{}", *BESIDE) if form.format(name) in named]
        if loosely is not None:
            beside += [held[place] for place in _loose_places(name, held, loosely) if is_float(held.get(place))]
        if beside:
            found[name] = next((value for value in beside if value is not None), None)
    return found | {name.replace("grads", "params", 1): value for name, value in _entries("grads", layer).items()}


def _loose_places(name: str, held: Collection[str], inputs: Collection[str]) -> Iterator[str]:
    """Where else the gradient by an attribute may stand: `gW`; `dw`, unless that belongs to a `w`."""
    yield from (form.format(name) for form in LOOSELY)
    lower = name.lower()
    if lower not in held and lower not in inputs:
        yield from (form.format(lower) for form in (*BESIDE, *LOOSELY))


def unlike_arrays(layer: Any) -> dict[str, Any]:
    """What may be meant for a parameter and is no array of floats: numbers in a list, an array of integers."""
    return {p + name: value for p, one in _within(layer) for name, value in vars(one).items() if _is_unlike(value)}


def _is_unlike(value: Any) -> bool:
    if is_array(value):
        return np.issubdtype(value.dtype, np.integer)
    if isinstance(value, float | np.floating):  # a whole number is rather a size: h = 64 beside the gradient dh
        return True
    if not (isinstance(value, list | tuple) and is_numbers(list(value))):
        return False
    try:
        return np.asarray(value).dtype.kind in ("iuf" if isinstance(value, list) else "f")  # a tuple is rather a shape
    except ValueError:
        return False


def is_array(value: Any) -> bool:
    """NumPy's or JAX's."""
    return isinstance(value, np.ndarray | jax.Array)


def is_left(gradient: Any, before: Any, copied: Any) -> bool:
    """Whether these are floats that were not there before, or not the same."""
    if not (is_float(gradient) or isinstance(gradient, float)):
        return False
    return gradient is not before or not np.array_equal(gradient, copied, equal_nan=True)


def _entries(attribute: str, layer: Any) -> dict[str, Any]:
    """`params` = [W, b] as {"params[0]": W, "params[1]": b}, and a dict by its keys."""
    entries = getattr(layer, attribute, None)
    if isinstance(entries, Mapping):
        return {f"{attribute}[{key!r}]": value for key, value in entries.items()}
    if isinstance(entries, list | tuple):
        return {f"{attribute}[{i}]": value for i, value in enumerate(entries)}
    return {}


def _within(layer: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """A layer, and the layers that it holds, by attribute, in lists or in dicts, and those within them."""
    if hasattr(layer, "__dict__") and depth < DEEPEST:
        yield prefix, layer
        for name, value in list(vars(layer).items()):
            for place, one in sublayers(name, value):
                yield from _within(one, f"{prefix}{place}.", depth + 1)


def sublayers(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The layers in an attribute's value, each with the place where it stands."""
    if isinstance(value, Mapping):
        yield from ((str(key), part) for key, part in value.items() if is_layer(part))
    elif isinstance(value, list | tuple):
        yield from ((f"{name}[{i}]", part) for i, part in enumerate(value) if is_layer(part))
    elif is_layer(value):
        yield name, value


def is_layer(value: Any) -> bool:
    """Whether it can be asked for both passes."""
    return hasattr(value, "__dict__") and all(callable(getattr(value, m, None)) for m in ("forward", "backward"))
