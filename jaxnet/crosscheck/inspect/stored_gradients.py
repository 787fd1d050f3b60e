"""Finds the gradients that a backward pass stores in a layer: `dW` beside `W`, `grads[0]` for `params[0]`."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache, lru_cache
from itertools import permutations
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.objects import attributes_of, layers_within, parameter_objects, safe_getattr
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES
from jaxnet.crosscheck.inspect.trees import is_inexact

# Ambiguous names: gW may be the weights of a gate. They count only if backward stores something there.
LOOSE_GRADIENT_NAMES = (
    "g{}", "g_{}", "grad{}", "{}grad", "delta_{}", "nabla_{}", "dLd{}", "dL_d{}", "dJd{}", "dJ_d{}", "dE_d{}", "_d{}",
    "dl_d{}", "dld{}",
    "{}_diff", "diff_{}", "{}_gradient", "gradient_{}", "{}_gradients", "gradients_{}", "{}gradient", "gradient{}",
    "d{}_curr",
)  # fmt: skip
# Attributes that hold parameters, each with one that holds their gradients, by index or by name.
GRADIENT_LISTS = "grads", "gradients", "_grads", "_gradients", "grad", "gradient", "_grad", "_gradient"
COLLECTIONS = (
    ("P", "G"),
    ("p", "g"),
    *(
        (parameters, gradients)
        for name in ("params", "parameters", "state_dict")
        for parameters in (name, f"_{name}")
        for gradients in GRADIENT_LISTS
    ),
)
WEIGHT_LISTS = re.compile(
    r"_*(ws?|weights?)", re.IGNORECASE
)  # with biases beside them, whose gradients may be in `grads`
# Attributes that hold dicts by name: of gradients, and of parameters.
GRADIENT_DICTS = re.compile(r"_?(d_?params?|d_?weights?|(param(eter)?s?_|weights?_)?(grads?|gradients?)|derivatives?)")
PROPERTIES = ("grads", "gradients")  # which may compute such a dict
PARAMETER_DICTS = re.compile(r"_?(params?|parameters|weights)")
TWIN = re.compile(r"_*(g|gra\w*|d_?\w+|nabla\w*|delta\w*)", re.IGNORECASE)  # a dict of gradients
ENTRY = re.compile(r"(.+)\[\d+\]")
SYNONYMS = (("w", "weight", "weights", "kernel", "kernels"), ("b", "bias", "biases"))


def gradients_by_place(layer: Any, inputs: Collection[str] | None = None) -> dict[str, Any]:
    """Returns the gradients of a layer by the places of their arrays; None where one is still empty.

    Args:
        layer: The layer; it may hold others.
        inputs: The names of its inputs, to accept looser names too: `gW`, or `dw` for `W`. A `dx` is then the
            gradient of the input `x`, not of an attribute `X`. Defaults to strict names only.
    """
    objects = {
        place: getattr(part, gradient_attribute(part))
        for place, part, _ in parameter_objects(layer)
        if _has_gradient(part)
    }
    beside = {
        prefix + name: value
        for prefix, part in layers_within(layer)
        for name, value in gradients_beside(part, inputs).items()
    }
    if inputs is not None:
        beside = _private(layer) | beside
    return beside | objects


def set_gradients(
    layer: Any, change: Callable[[Any], Any], names: Collection[str], inputs: Collection[str] = ()
) -> dict[str, Any]:
    """Changes gradients where they are stored, in place if possible; returns those that were changed, by place.

    Args:
        layer: The layer that stores them.
        change: Maps the old gradient to the new one.
        names: The places whose gradients are changed.
        inputs: The names of the inputs, as for `gradients_by_place`.
    """
    owners = {place: owner for place, owner, _ in parameter_objects(layer)}
    changed: dict[str, Any] = {}
    known: set[int] = set()
    for place, gradient in gradients_by_place(layer, inputs).items():
        if not is_inexact(gradient) or place not in names or id(gradient) in known:
            continue
        known.add(id(gradient))
        if isinstance(gradient, np.ndarray) and gradient.flags.writeable:
            gradient[...] = np.asarray(change(gradient))
        elif place in owners:
            object.__setattr__(owners[place], gradient_attribute(owners[place]), change(gradient))
        else:
            continue
        changed[place] = gradient
    return changed


def is_new_gradient(gradient: Any, before: Any, copied: Any) -> bool:
    """Returns whether these are floats that are not the object from before backward, or not equal to its copy."""
    if not (is_inexact(gradient) or isinstance(gradient, float)):
        return False
    return gradient is not before or not np.array_equal(gradient, copied, equal_nan=True)


def gradients_beside(layer: Any, inputs: Collection[str] | None = None) -> dict[str, Any]:
    """Returns the gradients of a layer's own attributes, not of its sublayers; arguments as `gradients_by_place`."""
    attributes = attributes_of(layer)
    places = [*filter(GRADIENT_DICTS.fullmatch, attributes), *(n for n in PROPERTIES if n not in attributes)]
    dicts = [grads for place in places if isinstance(grads := safe_getattr(layer, place), Mapping)]
    found: dict[str, Any] = {}
    others = frozenset(name for name, value in attributes.items() if value is None or _is_gradient(value))
    for name in attributes:
        beside = [attributes[place] for place in _strict_names(name) if place in attributes]
        beside += [value for named in dicts for value in _under_its_name(name, named, attributes)]
        if inputs is not None:
            loose = loose_names(name, others, frozenset(inputs))
            beside += [attributes[place] for place in loose if place in attributes and _is_gradient(attributes[place])]
        if beside:
            gradient = next((value for value in beside if value is not None), None)
            found |= _by_entry(name, attributes[name], gradient) if are_arrays(attributes[name]) else {name: gradient}
    for parameters, gradients in COLLECTIONS:
        if parameters in attributes:
            found |= _by_entry(parameters, attributes[parameters], safe_getattr(layer, gradients))
    for name in filter(WEIGHT_LISTS.fullmatch, attributes):
        alike = [attributes[g] for g in GRADIENT_LISTS if have_shapes_of(attributes[name], attributes.get(g))]
        found |= _by_entry(name, attributes[name], alike[0]) if len(alike) == 1 else {}
    return _beside_entries(attributes) | _within_dicts(attributes) | _in_twin_dicts(attributes) | found


def _private(layer: Any) -> dict[str, Any]:
    """Returns the gradients of a layer's own attributes that private names hold: `_gradient_weights` for `weights`.

    Two underscores in front, `__gradient_weights`, are stored by Python behind the name of the class.

    Those of layers within it may be of their last call alone, as of a cell in a loop over time, and do not count.
    """
    attributes, found = attributes_of(layer), {}
    plain = {name: _without_privacy(name, type(layer)) for name in attributes}
    private = {own: name for name, own in plain.items() if own != name}
    for name in attributes if private else ():
        places = [private[form] for form in _all_forms(plain[name]) if form in private]
        gradient = next((attributes[place] for place in places if is_inexact(attributes[place])), None)
        if gradient is not None:
            found[name] = gradient
    return found


def _without_privacy(name: str, kind: type) -> str:
    """Returns the name of an attribute as its class has it, without underscores in front: `_Dense__dw` is `__dw`."""
    mangled = next((f"_{k.__name__.lstrip('_')}__" for k in kind.__mro__ if _is_mangled(name, k)), "")
    return name.removeprefix(mangled).lstrip("_") or name


def _is_mangled(name: str, kind: type) -> bool:
    return name.startswith(f"_{kind.__name__.lstrip('_')}__")


def _beside_entries(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the gradients that are attributes, of entries of a dict of parameters: `dW` for `params["W"]`."""
    found = {}
    for place, entries in attributes.items():
        for key in entries if PARAMETER_DICTS.fullmatch(place) and isinstance(entries, Mapping) else ():
            names = (form.format(key) for form in GRADIENT_NAMES)
            if (name := next((n for n in names if is_inexact(attributes.get(n))), None)) is not None:
                found[f"{place}[{key!r}]"] = attributes[name]
    return found


def _within_dicts(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the gradients that stand in one dict with their parameter: `W["grad"]` for `W["val"]`."""
    found = {}
    for place, entries in attributes.items():
        if not isinstance(entries, Mapping) or "grad" not in entries:
            continue
        arrays = [key for key, value in entries.items() if key != "grad" and is_inexact(value)]
        if len(arrays) == 1:
            gradient = entries["grad"]
            found[f"{place}[{arrays[0]!r}]"] = gradient if is_inexact(gradient) else None
    return found


def _in_twin_dicts(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the gradients in a dict with the keys and shapes of another: `gra["w"]` for `par["w"]`."""
    dicts = [(name, value) for name, value in attributes.items() if isinstance(value, Mapping) and value]
    found = dict[str, Any]()
    for (place, arrays), (other, gradients) in permutations(dicts, 2):
        is_twin = TWIN.fullmatch(other) and not TWIN.fullmatch(place) and arrays.keys() == gradients.keys()
        if is_twin and all(is_inexact(a) and np.shape(gradients[key]) == np.shape(a) for key, a in arrays.items()):
            found |= {f"{place}[{key!r}]": gradients[key] for key in arrays}
    return found


def _under_its_name(name: str, gradients: Mapping[str, Any], attributes: Collection[str]) -> Iterator[Any]:
    """Yields the gradients of an attribute in a dict of them: `dW` for `W`, `dLdGamma` for `gamma`, `dW` for `weights`.

    Names of other cases and abbreviations count only if no other attribute may be meant.
    """
    forms = ("{}", *GRADIENT_NAMES)
    yield from (gradients[form.format(name)] for form in forms if form.format(name) in gradients)
    by_lower = {key.lower(): value for key, value in gradients.items() if isinstance(key, str)}
    names = [name.lower(), *_synonyms(name, attributes)] if _is_alone(name, attributes) else []
    keys = (form.format(own).lower() for own in names for form in (*forms, *LOOSE_GRADIENT_NAMES))
    yield from (by_lower[key] for key in keys if is_inexact(by_lower.get(key)))


def _synonyms(name: str, attributes: Collection[str]) -> list[str]:
    """Returns `w` for `weights` and `bias` for `b`; none for other names, and if another attribute may be meant."""
    plain = name.strip("_").lower()
    words = next((words for words in SYNONYMS if plain in words), ())
    alike = [other for other in attributes if other.strip("_").lower() in words]
    return [word for word in words if word != plain] if alike == [name] else []


def _is_alone(name: str, attributes: Collection[str]) -> bool:
    """Returns whether no other attribute has the name in another case, as `w` beside `W`."""
    return sum(other.lower() == name.lower() for other in attributes) == 1


def gradient_attribute(owner: Any) -> str:
    """Returns the name of the attribute in which a parameter object keeps its gradient: `grad`, `dvalue`, `grads`."""
    return next((name for name in ("grad", "dvalue", "ddata", "grads") if name in attributes_of(owner)), "grad")


def _has_gradient(owner: Any) -> bool:
    """Returns whether the gradient of a parameter object is set and belongs to no constant."""
    is_set = getattr(owner, gradient_attribute(owner), None) is not None
    return is_set and getattr(owner, "requires_grad", True) is not False


def _is_gradient(value: Any) -> bool:
    return is_inexact(value) or are_arrays(value)


def are_arrays(value: Any) -> bool:
    """Returns whether a value is a list of float or complex arrays, as `Ws` of the weights of several layers.

    Args:
        value: The value.
    """
    return isinstance(value, list | tuple) and len(value) > 0 and all(map(is_inexact, value))


def names_of_gradient(name: str, attributes: Mapping[str, Any], inputs: frozenset[str]) -> tuple[str, ...]:
    """Returns the names that the gradient of an attribute may have: `dW`, `grad_W`, and for `weight` also `gradient_w`.

    Args:
        name: The name of the attribute.
        attributes: All attributes of the layer.
        inputs: The names of its inputs, whose gradients have such names too.
    """
    others = frozenset(n for n, value in attributes.items() if value is None or _is_gradient(value))
    return *_strict_names(name), *loose_names(name, others, inputs)


@cache  # the names of one layer are asked for at each of its many backward passes
def _strict_names(name: str) -> tuple[str, ...]:
    """Returns the names of the gradient of an attribute: `dW` for `W`, `_dW` for `_W`."""
    private = [f"_{form.format(name[1:])}" for form in GRADIENT_NAMES] if name.startswith("_") else []
    return *(form.format(name) for form in GRADIENT_NAMES), *private, *_plurals(name, GRADIENT_NAMES)


def _plurals(name: str, forms: Collection[str]) -> list[str]:
    """Returns the names of the gradients of several arrays: `weight_grads` of `weights`."""
    return [f"{form.format(name[:-1])}s" for form in forms if not form.endswith("s")] if name.endswith("s") else []


@cache
def _all_forms(name: str) -> tuple[str, ...]:
    """Returns the names that the gradient of an attribute may have: `gradient_weights` for `weights`."""
    return tuple(form.format(name) for form in (*GRADIENT_NAMES, *LOOSE_GRADIENT_NAMES))


@lru_cache(maxsize=4096)
def loose_names(name: str, attributes: frozenset[str], inputs: frozenset[str]) -> tuple[str, ...]:
    """Returns ambiguous names of the gradient of an attribute: `gW`; `dw` for `W`, unless there is a `w`."""
    forms = (*GRADIENT_NAMES, *LOOSE_GRADIENT_NAMES)
    lower = name.lower()
    found = [*(form.format(name) for form in LOOSE_GRADIENT_NAMES), *_plurals(name, LOOSE_GRADIENT_NAMES)]
    if lower not in attributes and lower not in inputs:
        found += [form.format(lower) for form in forms]
    for word in _synonyms(name, attributes):
        if word not in map(str.lower, inputs):
            found += [form.format(own) for own in (word.upper(), word) for form in forms]
    return tuple(found)


def _by_entry(place: str, parameters: Any, gradients: Any) -> dict[str, Any]:
    """Returns the gradients of a collection: `grads[0]` for `params[0]`, `grads["dW"]` for `params["W"]`."""
    if is_inexact(parameters) and is_inexact(gradients):
        return {place: gradients} if np.shape(parameters) == np.shape(gradients) else {}
    if isinstance(parameters, Mapping) and isinstance(gradients, Mapping):
        found = {}
        for key in parameters:
            names = [key, *(form.format(key) for form in GRADIENT_NAMES)]
            match = next((name for name in names if name in gradients), None)
            if match is not None:
                found[f"{place}[{key!r}]"] = gradients[match]
        return found
    if isinstance(parameters, list | tuple) and isinstance(gradients, list | tuple):
        ordered = gradients[::-1] if _is_reversed(parameters, gradients) else gradients
        return {f"{place}[{i}]": gradient for i, gradient in zip(range(len(parameters)), ordered, strict=False)}
    return {}


def reversed_lists(places: Mapping[str, Any]) -> dict[str, str]:
    """Returns for each place in a list of arrays the one that its gradient has in a list in the reverse order.

    Lists whose shapes tell the order are left out.

    Args:
        places: Arrays by their places: `Ws[0]`, `Ws[1]`.

    Examples:
        >>> reversed_lists({"Ws[0]": np.eye(2), "Ws[1]": np.eye(2), "b": np.ones(2)})
        {'Ws[0]': 'Ws[1]', 'Ws[1]': 'Ws[0]'}
    """
    lists: dict[str, list[str]] = {}
    for place in places:
        if match := ENTRY.fullmatch(place):
            lists.setdefault(match[1], []).append(place)
    found: dict[str, str] = {}
    for entries in lists.values():
        shapes = [np.shape(places[entry]) for entry in entries]
        if len(entries) > 1 and shapes == shapes[::-1]:
            found |= dict(zip(entries, entries[::-1], strict=True))
    return found


def _is_reversed(parameters: Any, gradients: Any) -> bool:
    """Returns whether gradients have the shapes of parameters only from the last one to the first, as backward goes."""
    shapes, found = (list(map(np.shape, values)) for values in (parameters, gradients))
    return shapes != found[: len(shapes)] and shapes == found[::-1]


def have_shapes_of(parameters: Any, gradients: Any) -> bool:
    """Returns whether two lists have arrays of the same shapes, in this order or, as backward goes, in the reverse one.

    Args:
        parameters: The list of parameters.
        gradients: What may be the list of their gradients.
    """
    if not (are_arrays(parameters) and are_arrays(gradients)):
        return False
    shapes, found = (list(map(np.shape, values)) for values in (parameters, gradients))
    return shapes in (found, found[::-1])
