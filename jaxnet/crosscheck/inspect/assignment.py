"""Assigns the gradients that a backward returns to inputs and parameters."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.errors import SubjectError, counted
from jaxnet.crosscheck.inspect.objects import DEEPEST, is_ndarray, walk
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES
from jaxnet.crosscheck.inspect.trees import is_inexact


@dataclass(frozen=True)
class Assignment:
    """An assignment of the gradients that a backward returns to inputs.

    Args:
        targets: The inputs that get a gradient, in the order in which backward returns them.
        names: All inputs.
        inputs: Their values.
        parameters: Further names that a returned dict may have.
        backward: The name of the backward, for messages.
        stored: Pairs of an input and the attribute where backward stores its gradient, if it returns nothing.
    """

    targets: tuple[str, ...]
    names: tuple[str, ...]
    inputs: tuple[Any, ...]
    parameters: tuple[str, ...]
    backward: str
    stored: tuple[tuple[str, str], ...] = ()

    def by_name(self, result: Any) -> dict[str, Any]:
        """Returns the gradients by name. Those of an input that is a dict or a list are split by place: `p['W']`.

        Raises:
            SubjectError: If there are more gradients than inputs, or a dict has other keys.
        """
        found = self._by_input(result)
        trees = {n: value for n, value in zip(self.names, self.inputs, strict=True) if not is_ndarray(value)}
        named: dict[str, Any] = {}
        for name, gradient in found.items():
            places = [place for place, _ in floats_by_place([name], (trees[name],))] if name in trees else []
            if places and not is_ndarray(gradient):
                entries = dict(_entries(name, gradient))
                named |= {place: _entry(place, entries) for place in places}
            else:
                named[name] = gradient
        return named

    def _by_input(self, result: Any) -> dict[str, Any]:
        if isinstance(result, Mapping):
            places = {
                form.format(name): name
                for names in (self.parameters, self.names)
                for form in (*GRADIENT_NAMES, "{}")
                for name in names
            }
            if not result.keys() <= places.keys():
                raise SubjectError(
                    f"{self.backward}: returned a dict with the keys {', '.join(map(str, result))}, "
                    f"expected a gradient for each input, in this order: {', '.join(self.names)}"
                )
            return {places[key]: gradient for key, gradient in result.items()}
        returned = () if result is None and not self.inputs else as_tuple(result)
        taking = sum(not isinstance(value, bool) for value in self.inputs)  # a switch, as `training`, has no gradient
        if len(returned) > len(self.inputs) or sum(gradient is not None for gradient in returned) > taking:
            hint = ", ".join(f"self.d{name}" for name in self.parameters if name.isidentifier())
            counts = f"{counted(len(returned), 'gradient')} for {counted(taking, 'input')}"
            raise SubjectError(
                f"{self.backward}: returned {counts}" + (f"; store those of parameters in {hint}" if hint else "")
            )
        return dict(zip(self.targets, returned, strict=False))


def as_tuple(value: Any) -> tuple[Any, ...]:
    """Returns the value that a backward returns as a tuple."""
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def floats_by_place(names: Sequence[str], inputs: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """Yields the float arrays among the inputs and in their dicts, lists and objects, by place: `x`, `p['W']`."""
    for name, value in zip(names, inputs, strict=True):
        if type(value) is np.ndarray:  # holds nothing else, and most inputs are
            if is_inexact(value):
                yield name, value
            continue
        for place, part in walk(value, name):
            if is_ndarray(part) and is_inexact(part):
                yield place, part


def _entries(name: str, tree: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yields the gradients in nested dicts and lists, each with its place."""
    if isinstance(tree, Mapping) and depth < DEEPEST:
        for key, part in tree.items():
            yield from _entries(f"{name}[{key!r}]", part, depth + 1)
    elif isinstance(tree, list | tuple) and depth < DEEPEST:
        for i, part in enumerate(tree):
            yield from _entries(f"{name}[{i}]", part, depth + 1)
    else:
        yield name, tree


def _entry(place: str, entries: Mapping[str, Any]) -> Any:
    """Returns the gradient for an entry of a dict, under the same key or a gradient's name: `p['W']` or `p['dW']`."""
    above, bracket, key = place.rpartition("['")
    for form in ("{}", *GRADIENT_NAMES):
        other = f"{above}{bracket}{form.format(key[:-2])}']" if bracket else place
        if other in entries:
            return entries[other]
    return None
