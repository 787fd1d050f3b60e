"""Which input or parameter each gradient belongs to that a backward returns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxnet.crosscheck.inspect.attributes import DEEPEST, everything, is_array
from jaxnet.crosscheck.inspect.checkable import BESIDE, as_tuple, claimed, is_float


@dataclass(frozen=True)
class Claims:
    """Which input each gradient belongs to that a backward returns.

    Args:
        by: The inputs by which it differentiates, in the order in which their gradients are returned.
        names: All inputs.
        inputs: Their values.
        parameters: What a dict may have a gradient for besides.
        who: The backward's name.
        left: Where gradients of inputs are left if nothing is returned: pairs of an input and an attribute.
    """

    by: tuple[str, ...]
    names: tuple[str, ...]
    inputs: tuple[Any, ...]
    parameters: tuple[str, ...]
    who: str
    left: tuple[tuple[str, str], ...] = ()

    def of(self, result: Any) -> dict[str, Any]:
        """Returns the gradients by name; those by an input that is a dict or a list, by its entries: `p['W']`.

        Raises:
            SubjectError: There are more gradients than inputs, or they have other names.
        """
        returned = as_tuple(result)
        if isinstance(result, Mapping) or len(returned) > len(self.inputs):
            found = claimed(result, self.inputs, list(self.names), self.who, self.parameters)
        else:
            found = dict(zip(self.by, returned, strict=False))
        trees = {n: given for n, given in zip(self.names, self.inputs, strict=True) if not is_array(given)}
        named: dict[str, Any] = {}
        for name, gradient in found.items():
            places = [place for place, _ in floats_within([name], (trees[name],))] if name in trees else []
            if places and not is_array(gradient):
                entries = dict(_entries(name, gradient))
                named |= {place: _entry(place, entries) for place in places}
            else:
                named[name] = gradient
        return named


def floats_within(names: Sequence[str], inputs: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """Yields the float arrays among the inputs and in their dicts, lists and objects, by place: `x`, `p['W']`."""
    for name, given in zip(names, inputs, strict=True):
        for place, value in everything(given, name):
            if is_array(value) and is_float(value):
                yield place, value


def _entries(name: str, tree: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yields what stands in a tree of gradients, each with its place."""
    if isinstance(tree, Mapping) and depth < DEEPEST:
        for key, part in tree.items():
            yield from _entries(f"{name}[{key!r}]", part, depth + 1)
    elif isinstance(tree, list | tuple) and depth < DEEPEST:
        for i, part in enumerate(tree):
            yield from _entries(f"{name}[{i}]", part, depth + 1)
    else:
        yield name, tree


def _entry(place: str, entries: Mapping[str, Any]) -> Any:
    """Returns the gradient for an entry of a dict, under its own key or one with a d: `p['W']` or `p['dW']`."""
    above, bracket, key = place.rpartition("['")
    for form in ("{}", *BESIDE):
        other = f"{above}{bracket}{form.format(key[:-2])}']" if bracket else place
        if other in entries:
            return entries[other]
    return None
