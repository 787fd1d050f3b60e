"""Finds where the backward pass of a network leaves the gradients of its arrays: stored, returned, or as updates.

A gradient is stored beside its array, in the object or in a dict, and returned in a dict by name, in lists like those
of the arrays, or in the order that the source tells. Updates are in proportion to a learning rate.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxnet.crosscheck.inspect.objects import ARRAY_ATTRIBUTES, attributes_of, walk
from jaxnet.crosscheck.inspect.returned_names import owners_of_returned
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES, base_name
from jaxnet.crosscheck.inspect.stored_gradients import GRADIENT_DICTS, LOOSE_GRADIENT_NAMES
from jaxnet.crosscheck.inspect.trees import is_float

OWN_RATES = re.compile(r"_?((learn(ing)?_?|l_?|training_?)?rate|lr|eta|alpha|step_?size)", re.IGNORECASE)
LAST_NAME = re.compile(r"(.*?)(\w+)((?:\[\d+\])*)$")
UPDATED = "by its update"
Places = dict[str, Any]


class Network(Protocol):
    """A network of which both passes can be run on a copy."""

    @property
    def passes(self) -> tuple[str, str]:
        """The names of the two methods."""

    def run(self, replaced: Mapping[int, Any], x: Any, t: Any) -> tuple[Any, dict[str, Any], Any]:
        """Returns a copy after a forward pass, the values by name, and the cost."""

    def run_back(self, net: Any, values: Mapping[str, Any], rate: float = 1.0) -> Any:
        """Runs the backward pass of a copy, and returns what it returns."""


class Sources(NamedTuple):
    """For each array the place of its gradient: in the network, in what backward returns, or `UPDATED`."""

    by_place: dict[str, tuple[str, str]]
    late: tuple[str, ...] = ()  # arrays that are updated by a gradient through others that were updated before


def find_sources(network: Network, arrays: Places, x: Any, t: Any) -> Sources:
    """Returns where backward leaves the gradients of the arrays, according to a trial run.

    Args:
        network: The network.
        arrays: Its parameters, by place.
        x: The samples.
        t: The labels.
    """
    net, values, _ = network.run({}, x, t)
    before = {place: np.copy(array) for place, array in _float_arrays(net)}
    returned = network.run_back(net, values)
    after = dict(_float_arrays(net))
    written = {p: a for p, a in after.items() if p not in before or not _same(a, before[p])}
    stored = _stored(arrays, {p: a for p, a in written.items() if p not in arrays})
    parts = dict(_float_arrays(returned, "returned"))
    given = _returned(arrays, returned, getattr(type(net), network.passes[1], None), type(net))
    sources = {place: ("stored", where) for place, where in stored.items()}
    sources |= {place: ("returned", where) for place, where in given.items() if where in parts}
    updated = [place for place in arrays if place in written and place not in sources]
    if not updated or not (in_proportion := _in_proportion(network, updated, x, t)):
        lacking = {place: array for place, array in arrays.items() if place not in sources}
        spoken = _called_gradients(lacking, {p: a for p, a in written.items() if p not in arrays})
        return Sources({place: ("stored", where) for place, where in spoken.items()} | sources)
    late = tuple(place for place in updated if place not in in_proportion)
    return Sources(sources | {place: (UPDATED, place) for place in updated}, late)


def gradients_from(network: Network, sources: Sources, replaced: Mapping[int, Any], x: Any, t: Any) -> Places:
    """Returns the gradients of the arrays by place, of a network with other values in its arrays.

    Args:
        network: The network.
        sources: Where its backward leaves the gradients.
        replaced: The values, by the ids of the arrays of the network.
        x: The samples.
        t: The labels.
    """
    net, values, _ = network.run(replaced, x, t)
    before = {place: np.copy(array) for place, array in _float_arrays(net)}
    returned = dict(_float_arrays(network.run_back(net, values), "returned"))
    after = dict(_float_arrays(net))
    placed: Places = {}
    for place, (kind, where) in sources.by_place.items():
        if kind == UPDATED:
            placed[place] = before[where] - after[where]
        else:
            placed[place] = _as_broadcast((after if kind == "stored" else returned).get(where), before[place])
    return placed


def _as_broadcast(gradient: Any, array: Any) -> Any:
    """Returns a vector of gradients in the shape of a row that an update would broadcast it to, or of a number."""
    fits = np.ndim(gradient) == 1 and np.shape(array) in (
        (1, *np.shape(gradient)),
        () if np.size(gradient) == 1 else None,
    )
    return np.reshape(gradient, np.shape(array)) if fits else gradient


def with_own_rates(net: Any, rate: float) -> None:
    """Sets the learning rates that a network and the objects in it hold as attributes.

    Args:
        net: The network, which is changed.
        rate: The rate.
    """
    for _, part in walk(net):
        for name, value in attributes_of(part).items():
            if OWN_RATES.fullmatch(name) and isinstance(value, float | np.floating):
                setattr(part, name, rate)


def _float_arrays(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the float arrays within a value with their places, and the numbers of NumPy in it as arrays."""
    for where, part in walk(value, place):
        if isinstance(part, np.ndarray) and is_float(part):
            yield where, part
        elif isinstance(part, Mapping):
            yield from ((f"{where}[{key!r}]", np.asarray(v)) for key, v in part.items() if isinstance(v, np.floating))
        elif isinstance(part, list | tuple):
            yield from ((f"{where}[{i}]", np.asarray(v)) for i, v in enumerate(part) if isinstance(v, np.floating))
        elif not isinstance(part, np.ndarray):
            above = f"{where}." if where else ""
            numbers = ((name, v) for name, v in attributes_of(part).items() if isinstance(v, np.floating))
            yield from ((f"{above}{name}", np.asarray(v)) for name, v in numbers)


def _stored(arrays: Places, written: Places) -> dict[str, str]:
    """Returns the places of stored gradients by those of the arrays, the ones in the same object first."""
    placed: dict[str, str] = {}
    for place, array in arrays.items():
        places = [where for where, gradient in written.items() if np.shape(gradient) == np.shape(array)]
        forms = _forms(place)
        beside = [where for where in places if where in forms]
        elsewhere = [where for where in places if base_name(where) in map(base_name, forms) or _in_dict(where, place)]
        choice = beside or elsewhere
        if len(choice) == 1 and choice[0] not in placed.values():
            placed[place] = choice[0]
    return placed


def _called_gradients(arrays: Places, written: Places) -> dict[str, str]:
    """Returns the places of the only array in the same object that speaks of a gradient: `layer.gradientMatrix`."""
    placed: dict[str, str] = {}
    for place, array in arrays.items():
        above = place[: len(place) - len(base_name(place))]
        beside = [
            where for where in written if where == above + base_name(where) and "grad" in base_name(where).lower()
        ]
        alike = [where for where in beside if np.shape(written[where]) == np.shape(array)]
        if len(alike) == 1:
            placed[place] = alike[0]
    return placed


def _forms(place: str) -> list[str]:
    """Returns the places that the gradient of an array may have in the same object.

    Examples:
        >>> {"net.dW[1]", "net.delta_W[1]"} <= set(_forms("net.W[1]")), "p['dW']" in _forms("p['W']")
        (True, True)
    """
    forms = (*GRADIENT_NAMES, *LOOSE_GRADIENT_NAMES)
    if place.endswith("']") and (name := base_name(place)):
        return [f"{place[: -len(name) - 2]}{form.format(name)}']" for form in forms]
    match = LAST_NAME.fullmatch(place)
    if match is None:
        return []
    above, name, index = match.groups()
    as_object = [f"{above}grad"] if name in ARRAY_ATTRIBUTES else []
    return [f"{above}{form.format(name)}{index}" for form in forms] + as_object


def _in_dict(where: str, place: str) -> bool:
    """Returns whether a place lies in a dict of gradients, under the name of the array."""
    holder = where.rpartition("[")[0].rpartition(".")[2]
    return base_name(where) == base_name(place) and GRADIENT_DICTS.fullmatch(holder) is not None


def _returned(arrays: Places, returned: Any, backward: Any, owner: Any, where: str = "returned") -> dict[str, str]:
    """Returns the places of returned gradients by those of the arrays; beside them a loss may be returned."""
    if isinstance(returned, Mapping):
        keys = {form.format(base_name(p)): p for p in arrays for form in ("{}", *GRADIENT_NAMES, *LOOSE_GRADIENT_NAMES)}
        placed = {keys[str(key)]: f"{where}[{key!r}]" for key in returned if str(key) in keys}
        return placed or _by_shape(arrays, {f"{where}[{key!r}]": part for key, part in returned.items()})
    if is_float(returned):
        return _by_shape(arrays, {where: returned})
    if not isinstance(returned, tuple | list) or not returned:
        return {}
    if all(isinstance(part, list) for part in returned):
        return _in_lists(arrays, returned)
    nested = [i for i, part in enumerate(returned) if isinstance(part, Mapping | tuple | list)]
    if len(nested) == 1:
        return _returned(arrays, returned[nested[0]], None, owner, f"{where}[{nested[0]}]")
    names = [base_name(place) for place in arrays]
    owners = owners_of_returned(backward, len(returned), names, owner) if backward else []
    placed = {list(arrays)[names.index(name)]: f"{where}[{i}]" for i, name in enumerate(owners)}
    return placed or _by_shape(arrays, {f"{where}[{i}]": part for i, part in enumerate(returned)})


def _by_shape(arrays: Places, returned: Mapping[str, Any]) -> dict[str, str]:
    """Returns them for gradients of which each has the shape of a single array; none if one has not.

    A number may be a loss beside them. It is the gradient of a number if all stand in the order of the arrays.
    """
    in_order = [np.shape(array) for array in arrays.values()]
    if len(set(in_order)) == len(in_order) and [np.shape(part) for part in returned.values()] == in_order:
        return dict(zip(arrays, returned, strict=True))
    gradients = {where: np.shape(part) for where, part in returned.items() if is_float(part) and np.ndim(part)}
    shapes = {place: np.shape(array) for place, array in arrays.items()}
    alike = {where: [place for place in arrays if shapes[place] == shape] for where, shape in gradients.items()}
    placed = {places[0]: where for where, places in alike.items() if len(places) == 1}
    return placed if len(placed) == len(gradients) else {}


def _in_lists(arrays: Places, returned: Any) -> dict[str, str]:
    """Returns them for lists of gradients that have the lengths and shapes of lists of arrays, in this order."""
    lists: dict[str, list[str]] = {}
    for place in arrays:
        match = re.fullmatch(r"(.*)\[\d+\]", place)
        if match:
            lists.setdefault(match[1], []).append(place)
    placed: dict[str, str] = {}
    for i, part in enumerate(returned):
        name = next((n for n, places in lists.items() if _fit(part, [arrays[p] for p in places])), None)
        if name is not None:
            placed |= {place: f"returned[{i}][{j}]" for j, place in enumerate(lists.pop(name))}
    return placed


def _fit(gradients: list[Any], arrays: list[Any]) -> bool:
    """Returns whether gradients have the shapes of arrays; one of shape (n,) fits a row of shape (1, n) too."""
    return len(gradients) == len(arrays) and all(
        np.shape(array) in (np.shape(gradient), (1, *np.shape(gradient)))
        for gradient, array in zip(gradients, arrays, strict=True)
    )


def _in_proportion(network: Network, places: list[str], x: Any, t: Any) -> list[str]:
    """Returns the arrays whose updates double with the learning rate, as those of plain gradient descent do."""
    steps = []
    for rate in (1.0, 2.0):
        net, values, _ = network.run({}, x, t)
        before = {place: np.copy(array) for place, array in _float_arrays(net)}
        network.run_back(net, values, rate)
        after = dict(_float_arrays(net))
        steps.append({place: before[place] - after[place] for place in places})
    first, second = steps
    return [place for place in places if np.allclose(2 * first[place], second[place], rtol=1e-6, atol=1e-12)]


def _same(first: Any, second: Any) -> bool:
    return np.shape(first) == np.shape(second) and np.array_equal(first, second, equal_nan=True)
