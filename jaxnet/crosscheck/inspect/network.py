"""A whole network, and its layers one by one."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.attributes import DEEPEST, parameters_of, sublayers
from jaxnet.crosscheck.inspect.checkable import (
    BESIDE,
    TWO_FUNCTIONS,
    Array,
    Checkable,
    Instance,
    Leaves,
    SubjectError,
    are_double,
    arrays_in,
    as_arrays,
    attributes_of,
    blaming,
    floats_in,
    in_double,
    is_float,
    positional,
)
from jaxnet.crosscheck.inspect.layer import CheckableLayer
from jaxnet.trees import flatten

TRAINING = ("train_flg", "train", "training", "is_training")  # what a loss may ask for, to be gradient's function


class CheckableNetwork(Checkable):
    """An object with `params`, a tree of dicts, and `loss(x, t)` and `gradient(x, t)`, the latter in the same tree."""

    takes_dout = False

    def __init__(self, network: Any, x: Any, t: Any) -> None:
        self.name = type(network).__name__
        if isinstance(network, type):
            raise SubjectError(f"network: the class {network.__name__}, expected an instance of it")
        for name in ("params", "loss", "gradient"):
            if not hasattr(network, name):
                hint = f"; where one function returns the loss and the gradients, {TWO_FUNCTIONS}"
                raise SubjectError(
                    f"network: {self.name} has no `{name}`, expected params, loss(x, t), gradient(x, t)"
                    + (hint if name == "gradient" else "")
                )
        self.network, (self.x, self.t) = network, as_arrays((x, t), ["x", "t"])
        _check_labels(self.x, self.t)
        self.batch = arrays_in((self.x,), ["x"])
        params = flatten(network.params)
        self.leaves = {name: leaf for name, leaf in params.items() if is_float(leaf)}
        if not self.leaves:
            raise SubjectError("network: its params hold no float array, nothing to check")
        self.in_less = any(value.dtype != np.float64 for value in floats_in(network))
        flags = [p.name for p in positional(network.loss)[2:] if p.name in TRAINING]
        self.training = dict.fromkeys(flags, True)
        self._loss(copy.deepcopy(network))  # before the gradient is blamed for what both cannot take
        with self.trying("gradient"):
            found = self._found(copy.deepcopy(network), copy.deepcopy(self.x), copy.deepcopy(self.t))
        if self.fault:
            return
        if not self.leaves.keys() & found.keys():
            raise SubjectError(
                f"{self.name}.gradient: has none of {', '.join(self.leaves)}, expected the tree of params; "
                f"it has {', '.join(found) or 'nothing'}"
            )
        for name, gradient in found.items():
            if name not in self.leaves and is_float(gradient) and any(f"{p}.".startswith(f"{name}.") for p in params):
                raise SubjectError(
                    f"{self.name}.params: {name} is no array of floats, expected one, as it has a gradient"
                )

    def open(self, leaves: Leaves) -> Instance:
        network, inputs = self.instance(leaves), copy.deepcopy((self.x, self.t))
        if are_double(leaves):
            inputs = in_double(inputs)

        def forward(x: Any, t: Any) -> Any:
            return network.loss(x, t, **self.training)

        def backward(dout: Array) -> dict[str, Any]:
            gradient = self._found(network, *inputs)
            found = [name for name in self.leaves if name in gradient]
            return {name: None if gradient[name] is None else gradient[name] * dout for name in found}

        return Instance(forward, backward, inputs, leaves | arrays_in(inputs, ["x", "t"]))

    def _found(self, network: Any, x: Any, t: Any) -> dict[str, Any]:
        """The gradients by the names of the leaves, where theirs are the same or have a d: `dW1` or `Affine1.dW`."""
        tree = network.gradient(x, t)
        if not isinstance(tree, Mapping | list | tuple):
            kind = "None" if tree is None else f"a {type(tree).__name__}"
            raise SubjectError(f"{self.name}.gradient: returned {kind}, expected the tree of params")
        found = flatten(tree)
        for name in [name for name in self.leaves if name not in found]:
            above, dot, last = name.rpartition(".")
            for place in (f"{above}{dot}{form.format(last)}" for form in BESIDE):
                if place in found and place not in self.leaves:
                    found[name] = found.pop(place)
                    break
        return found

    def instance(self, leaves: Leaves) -> Any:
        """A copy of the network around these leaves."""
        network = copy.deepcopy(self.network, {id(old): leaves[name] for name, old in self.leaves.items()})
        return in_double(network) if self.in_less and are_double(leaves) else network

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        return _refill(self.network.params, leaves), self.x, self.t

    def owners(self) -> dict[str, tuple[str, str]]:
        """The layer that holds each leaf, and what the leaf is called in it."""
        held = [
            (name, leaf, array)
            for name, layer in innermost(self.network)
            for leaf, array in parameters_of(layer).items()
        ]
        return {
            mine: (name, leaf) for mine, array in self.leaves.items() for name, leaf, other in held if other is array
        }

    def layers(self) -> Iterator[tuple[str, CheckableLayer]]:
        """Its layers, in the order in which the forward pass comes to them, each at the input that it then gets."""
        network = self.instance(self.leaves)
        calls: list[tuple[str, Any, tuple[Any, ...]]] = []
        for name, layer in list(innermost(network)):
            if not hasattr(layer, "__dict__"):  # with `__slots__` alone, its calls cannot be recorded
                continue
            before = copy.deepcopy(layer)  # as it was: without what `forward` will keep
            layer.forward = _recorded(layer.forward, name, before, calls)
        self._loss(network)
        for name, layer, inputs in calls:
            try:
                yield name, CheckableLayer(layer, inputs)
            except SubjectError:  # nothing in it has a gradient: the network's own leaves are judged all the same
                continue

    def _loss(self, network: Any) -> None:
        with blaming(f"{self.name}.loss"):
            network.loss(copy.deepcopy(self.x), copy.deepcopy(self.t), **self.training)


def innermost(whole: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The layers that hold no others, by name; what merely holds them by an attribute does not lend its name."""
    for attribute, value in attributes_of(whole).items():
        for place, layer in sublayers(attribute, value):
            name = prefix if place == attribute else f"{prefix}{place}."
            within = list(innermost(layer, name, depth + 1)) if depth < DEEPEST else []
            yield from within or [(f"{prefix}{place}", layer)]


def _recorded(
    forward: Callable[..., Any], name: str, layer: Any, calls: list[tuple[str, Any, tuple[Any, ...]]]
) -> Callable[..., Any]:
    def record(*inputs: Any, **options: Any) -> Any:
        if all(name != known for known, *_ in calls):
            calls.append((name, layer, copy.deepcopy(inputs)))
        return forward(*inputs, **options)

    return record


def _check_labels(x: Any, t: Any) -> None:
    """As many as the samples of x (N, ...), or as some of its axes together: x (D, N), or t (N T,) of x (N, T, D).

    A single sample, x (D,), may have any t.

    Raises:
        SubjectError: There are more or fewer.
    """
    if not (isinstance(x, np.ndarray) and isinstance(t, np.ndarray) and x.ndim > 1 and t.ndim):
        return
    counts = {math.prod(axes) for n in range(1, x.ndim + 1) for axes in combinations(x.shape, n)}
    if counts.isdisjoint({len(t), t.shape[-1]}):
        raise SubjectError(f"t: {len(t)} labels, expected one for each of the {len(x)} samples of x")


def _refill(tree: Any, leaves: Leaves, prefix: str = "") -> Any:
    """The tree with other leaves."""
    if isinstance(tree, Mapping):
        return {name: _refill(branch, leaves, f"{prefix}{name}.") for name, branch in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_refill(branch, leaves, f"{prefix}{i}.") for i, branch in enumerate(tree))
    return leaves.get(prefix[:-1], tree)
