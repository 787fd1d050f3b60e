"""What a layer holds by its attributes: arrays, the gradients that stand beside them, and the layers within it."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.checkable import BESIDE, attributes_of, is_float, is_numbers
from jaxnet.crosscheck.inspect.copying import is_jax, is_shared

# These may mean something else, such as gW the weights of a gate: only what backward leaves there is a gradient.
LOOSELY = ("g{}", "g_{}", "grad{}", "{}grad", "delta_{}", "nabla_{}")
# Attributes that hold parameters, and those that hold their gradients, by place or by name.
COLLECTIONS = tuple(
    (parameters, gradients)
    for parameters in ("params", "parameters", "_params", "_parameters")
    for gradients in ("grads", "gradients", "_grads", "_gradients")
)
HOLDS = ("data", "value")  # what an object calls its array, with the gradient in `grad`
DEEPEST = 8  # layers within layers; they may point back at each other


def parameters_of(layer: Any) -> dict[str, Any]:
    """The float arrays that a layer and those within it hold, each once: by attribute, or by its place in `params`.

    An object that has an array as its `data` or `value` counts as that array, wherever it stands.
    """
    found: dict[str, Any] = {}
    for prefix, part in _within(layer):
        beside = _gradients_beside(part)
        attributes = {name: value for name, value in attributes_of(part).items() if is_float(value)}
        listed = {name: value for name, value in _entries("params", part).items() if is_float(value)}
        # a name that has its gradient beside it goes before a mere place in a list
        for name, value in sorted((attributes | listed).items(), key=lambda item: item[0] not in beside):
            if is_array(value) and not any(value is other for other in found.values()):
                found[prefix + name] = value
    for place, _, array in _holders(layer):
        if not any(array is other for other in found.values()):
            found[place] = array
    return found


def places_of(layer: Any) -> dict[str, Any]:
    """Returns every place where a float array is held, those in dicts, lists and objects too: `W`, `p['W']`, `cell.W`.

    An array that is held at several places has as many entries, those next to a gradient first.
    """
    found = parameters_of(layer)
    for prefix, part in _within(layer):
        places = {name: value for name, value in attributes_of(part).items() if is_array(value) and is_float(value)}
        places |= {name: v for name, v in _entries("params", part).items() if is_array(v) and is_float(v)}
        for name, value in places.items():
            found.setdefault(prefix + name, value)
    known = {id(array) for array in found.values()}
    for place, value in everything(layer):
        if is_array(value) and is_float(value) and id(value) not in known:
            known.add(id(value))
            found[place] = value
    return found


def one_place_each(places: Mapping[str, Any], gradients: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the places under which arrays are leaves: one for each array, or each of those that are tied.

    Places of one array are tied where they stand at the same depth, in the same way, and each has a gradient of its
    own. Where a layer has a gradient for an array that layers within it share, as the steps of a recurrent layer do,
    the outer one is the array's.

    Args:
        places: The arrays by place, one array at any number of them.
        gradients: What stands beside them after a backward pass, by place.
    """
    grouped: dict[int, list[str]] = {}
    for place, array in places.items():
        grouped.setdefault(id(array), []).append(place)
    chosen: dict[str, Any] = {}
    for same in grouped.values():
        beside = [place for place in same if gradients.get(place) is not None]
        first = min(beside, key=_depth) if beside else same[0]
        chosen[first] = places[first]
        memory = [gradients.get(first)]
        for place in beside:
            alike = _depth(place) == _depth(first) and place.endswith("]") == first.endswith("]")
            if place != first and alike and not any(_overlap(gradients[place], other) for other in memory):
                chosen[place] = places[place]
                memory.append(gradients[place])
    return chosen


def _depth(place: str) -> int:
    return place.count(".")


def _overlap(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.may_share_memory(first, second)
    return first is second


def set_gradients(
    layer: Any, change: Callable[[Any], Any], names: Collection[str], loosely: Collection[str] = ()
) -> dict[str, Any]:
    """Changes gradients where they stand, in place if possible; returns those that it could change, by place.

    Args:
        layer: What holds them.
        change: Returns the new gradient, of the old one.
        names: The places whose gradients are changed.
        loosely: The names of the inputs, as for `gradients_of`.
    """
    holders = {place: holder for place, holder, _ in _holders(layer)}
    changed: dict[str, Any] = {}
    known: set[int] = set()
    for place, gradient in gradients_of(layer, loosely).items():
        if not is_float(gradient) or place not in names or id(gradient) in known:
            continue
        known.add(id(gradient))
        if isinstance(gradient, np.ndarray) and gradient.flags.writeable:
            gradient[...] = np.asarray(change(gradient))
        elif place in holders:
            object.__setattr__(holders[place], "grad", change(gradient))
        else:
            continue
        changed[place] = gradient
    return changed


def gradients_of(layer: Any, loosely: Collection[str] | None = None, *, objects: bool = True) -> dict[str, Any]:
    """What stands beside each array: `dW` beside `W`, `grads[0]` beside `params[0]`; None where that is empty still.

    With the names of the inputs given, under looser names, too: `gW`, or `dw` beside `W`. But a `dx` is the input's,
    not that of an attribute `X`. Without `objects`, those with a `grad` are not sought.
    """
    held = {place: part.grad for place, part, _ in _holders(layer) if _has_gradient(part)} if objects else {}
    beside = {
        prefix + name: value
        for prefix, part in _within(layer)
        for name, value in _gradients_beside(part, loosely).items()
    }
    return beside | held


def _holders(layer: Any) -> Iterator[tuple[str, Any, Any]]:
    """The objects with an array as their `data` or `value`: the place of each, it, and its array."""
    for place, part in everything(layer):
        if is_array(part) or is_layer(part):
            continue
        held = attributes_of(part)
        arrays = [held[name] for name in HOLDS if is_array(held.get(name)) and is_float(held[name])]
        if arrays:
            yield place, part, arrays[0]


def _has_gradient(holder: Any) -> bool:
    """Whether its `grad` is one: None is that of a constant, or forgotten."""
    return getattr(holder, "grad", None) is not None and getattr(holder, "requires_grad", True) is not False


def everything(value: Any, place: str = "", depth: int = 0, known: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """What a layer holds by attribute, in lists, in dicts and in objects, each once, with its place: `p['W'][0]`."""
    known = set() if known is None else known
    if value is None or isinstance(value, int | float | str | bytes) or depth > DEEPEST or id(value) in known:
        return
    known.add(id(value))
    yield place, value
    if isinstance(value, Mapping):
        parts = [(f"{place}[{key!r}]", part) for key, part in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"{place}[{i}]", part) for i, part in enumerate(value)]
    elif is_array(value) or is_shared(value):
        parts = []
    else:
        parts = [(f"{place}.{name}" if place else name, part) for name, part in attributes_of(value).items()]
    for where, part in parts:
        yield from everything(part, where, depth + 1, known)


def _gradients_beside(layer: Any, loosely: Collection[str] | None = None) -> dict[str, Any]:
    grads, held = _attribute(layer, "grads"), attributes_of(layer)
    named = grads if isinstance(grads, Mapping) else {}
    found = {}
    for name in held:
        beside = [held[place] for place in _places_beside(name) if place in held]
        beside += [named[form.format(name)] for form in ("{}", *BESIDE) if form.format(name) in named]
        if loosely is not None:
            beside += [held[place] for place in _loose_places(name, held, loosely) if is_float(held.get(place))]
        if beside:
            found[name] = next((value for value in beside if value is not None), None)
    for parameters, gradients in COLLECTIONS:
        if parameters in held:
            found |= _by_entry(parameters, held[parameters], _attribute(layer, gradients))
    return found


def _places_beside(name: str) -> Iterator[str]:
    """Where the gradient by an attribute stands: `dW` beside `W`, `_dW` beside `_W`."""
    yield from (form.format(name) for form in BESIDE)
    if name.startswith("_"):
        yield from (f"_{form.format(name[1:])}" for form in BESIDE)


def _by_entry(place: str, parameters: Any, gradients: Any) -> dict[str, Any]:
    """Returns the gradients of a collection: `grads[0]` of `params[0]`, `grads["dW"]` of `params["W"]`."""
    if isinstance(parameters, Mapping) and isinstance(gradients, Mapping):
        found = {}
        for key in parameters:
            names = [key, *(form.format(key) for form in BESIDE)]
            match = next((name for name in names if name in gradients), None)
            if match is not None:
                found[f"{place}[{key!r}]"] = gradients[match]
        return found
    if isinstance(parameters, list | tuple) and isinstance(gradients, list | tuple):
        return {f"{place}[{i}]": gradient for i, gradient in zip(range(len(parameters)), gradients, strict=False)}
    return {}


def _loose_places(name: str, held: Collection[str], inputs: Collection[str]) -> Iterator[str]:
    """Where else the gradient by an attribute may stand: `gW`; `dw`, unless that belongs to a `w`."""
    yield from (form.format(name) for form in LOOSELY)
    lower = name.lower()
    if lower not in held and lower not in inputs:
        yield from (form.format(lower) for form in (*BESIDE, *LOOSELY))


def unlike_arrays(layer: Any) -> dict[str, Any]:
    """What may be meant for a parameter and is no array of floats: numbers in a list, an array of integers."""
    return {
        p + name: value
        for p, part in _within(layer)
        for name, value in attributes_of(part).items()
        if _is_unlike(value)
    }


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
    return isinstance(value, np.ndarray) or is_jax(value)


def is_left(gradient: Any, before: Any, copied: Any) -> bool:
    """Whether these are floats that were not there before, or not the same."""
    if not (is_float(gradient) or isinstance(gradient, float)):
        return False
    return gradient is not before or not np.array_equal(gradient, copied, equal_nan=True)


def _entries(attribute: str, layer: Any) -> dict[str, Any]:
    """`params` = [W, b] as {"params[0]": W, "params[1]": b}, and a dict by its keys."""
    entries = _attribute(layer, attribute)
    if isinstance(entries, Mapping):
        return {f"{attribute}[{key!r}]": value for key, value in entries.items()}
    if isinstance(entries, list | tuple):
        return {f"{attribute}[{i}]": value for i, value in enumerate(entries)}
    return {}


def _attribute(layer: Any, name: str) -> Any:
    """Returns an attribute; None where there is none, or where a property raises."""
    try:
        return getattr(layer, name, None)
    except Exception:
        return None


def _within(layer: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """A layer, and the layers that it holds, by attribute, in lists or in dicts, and those within them."""
    if depth < DEEPEST:
        yield prefix, layer
        for name, value in attributes_of(layer).items():
            for place, part in sublayers(name, value):
                yield from _within(part, f"{prefix}{place}.", depth + 1)


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
    return not isinstance(value, type) and all(callable(getattr(value, m, None)) for m in ("forward", "backward"))


def undeclared(layer: Any, held: Mapping[str, Any]) -> set[str]:
    """Returns the places of arrays that a layer says are no parameters.

    It says so by a list or dict `params` or `parameters` that does not list them, an empty one included, or by
    `requires_grad = False` in the object that holds the array.
    """
    frozen = {place for place, holder, _ in _holders(layer) if getattr(holder, "requires_grad", True) is False}
    lists = [
        value
        for _, part in _within(layer)
        for name in ("params", "parameters")
        if isinstance(value := _attribute(part, name), list | tuple | Mapping)
    ]
    if not lists:
        return frozen
    listed = [part for value in lists for _, part in everything(value) if is_array(part)]
    return frozen | {
        place for place, array in held.items() if not any(array is part or _overlap(array, part) for part in listed)
    }
