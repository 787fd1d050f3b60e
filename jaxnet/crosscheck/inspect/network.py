"""A whole network, and its layers one by one."""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.call_recorder import Recorder
from jaxnet.crosscheck.inspect.checkable import TWO_FUNCTIONS_HINT, Checkable, Instance
from jaxnet.crosscheck.inspect.copying import Template, duplicate, values_by_id
from jaxnet.crosscheck.inspect.errors import SubjectError, as_subject_error
from jaxnet.crosscheck.inspect.global_state import restart_generators
from jaxnet.crosscheck.inspect.inputs import arrays_in, as_arrays, different_inputs
from jaxnet.crosscheck.inspect.layer import CheckableLayer, inspect_layer
from jaxnet.crosscheck.inspect.objects import DEEPEST, attributes_of, is_layer, sublayers
from jaxnet.crosscheck.inspect.overlap import consistent, overlaps, sum_of_tied_gradients
from jaxnet.crosscheck.inspect.parameters import arrays_by_place, parameters_of
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES
from jaxnet.crosscheck.inspect.signatures import positional
from jaxnet.crosscheck.inspect.stored_gradients import gradients_by_place
from jaxnet.crosscheck.inspect.trees import Array, Leaves, is_float
from jaxnet.nn.tree_paths import flatten

TRAINING = ("train_flg", "train", "training", "is_training")  # what a loss may ask for, to be gradient's function


@dataclass(eq=False, kw_only=True)
class CheckableNetwork(Checkable):
    """An object with `params`, a tree of dicts, and `loss(x, t)` and `gradient(x, t)`, the latter in the same tree.

    Args:
        name: Its class.
        network: A copy of it, which is copied at every `open`.
        x: Samples.
        t: Labels.
        leaves: The float arrays of `params`.
        others: Float arrays that it or its layers hold, not in `params`.
        constants: All of `others`: what `params` does not list is none.
        training: Flags of `loss`, set.
    """

    name: str
    network: Any
    x: Any
    t: Any
    leaves: Leaves
    others: Leaves = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)
    training: dict[str, bool] = field(default_factory=dict)
    takes_dout: bool = False
    fault: str = ""
    batch: Mapping[str, Array] = field(default_factory=dict)
    shared_gradients: tuple[frozenset[str], ...] = ()

    def __post_init__(self) -> None:
        self._template = Template(self.network)
        self._alone: bool | None = None  # whether `gradient` needs no `loss` before it

    def open(self, leaves: Leaves) -> Instance:
        network, memo = self._copy(leaves)
        moved = {self.leaves[n].dtype: leaves[n].dtype for n in leaves if n in self.leaves}
        inputs = tuple(_moved(given, moved) for given in (self.x, self.t))

        def forward(x: Any, t: Any) -> Any:
            return network.loss(x, t, **self.training)

        def backward(*douts: Array) -> dict[str, Any]:
            restart_generators()
            found = self._found(network, inputs, leaves)
            dout = douts[0]
            return {n: None if g is None else np.asarray(g) * dout for n, g in found.items() if n in self.leaves}

        copies = {name: memo.get(id(array)) for name, array in self.leaves.items()}
        handed = {n: a if isinstance(a, np.ndarray) else leaves[n] for n, a in copies.items()}
        return Instance(forward, backward, inputs, handed | arrays_in(inputs, ["x", "t"]))

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        return _refill(self.network.params, leaves), self.x, self.t

    def tied_gradient(self, name: str, gradients: Mapping[str, Any]) -> Array | None:
        return sum_of_tied_gradients(name, self.leaves, gradients, self.shared_gradients)

    def consistent(self, leaves: Leaves) -> Leaves:
        return consistent(leaves, self.leaves)

    def instance(self, leaves: Leaves) -> Any:
        """Returns a copy of the network around these leaves."""
        return self._copy(leaves)[0]

    def owners(self) -> dict[str, tuple[str, str]]:
        """Returns the layer that holds each leaf, and what the leaf is called in it."""
        held = [
            (name, leaf, array)
            for name, layer in innermost(self.network)
            for leaf, array in parameters_of(layer).items()
        ]
        return {
            mine: (name, leaf)
            for mine, array in self.leaves.items()
            for name, leaf, other in reversed(held)
            if other is array
        }

    def layers(self) -> Iterator[tuple[str, CheckableLayer, Array | None]]:
        """Yields its layers in the order in which they are called, as they were and at the inputs that they got.

        With each stands the gradient from above that the network's own `gradient` handed to its backward, None where
        it was not called. A layer that is called several times is recorded at its first call.
        """
        recorder = self._recorded(with_loss=False)
        if recorder is None or not recorder.calls:
            recorder = self._recorded(with_loss=True)
        if recorder is None:
            recorder = Recorder(innermost(network := self.instance(self.leaves)))
            with recorder:
                self._loss(network)
        for name, layer, inputs, dout in recorder.first_calls():
            try:
                yield name, inspect_layer(layer, inputs), dout
            except SubjectError:  # nothing in it has a gradient: the network's own leaves are judged all the same
                continue

    def _recorded(self, *, with_loss: bool) -> Recorder | None:
        """Returns what the layers were called with in `gradient`; None if that raises."""
        network = self.instance(self.leaves)
        recorder = Recorder(innermost(network))
        with recorder:
            if with_loss:
                self._loss(network)
            try:
                self._gradient(network, (duplicate(self.x), duplicate(self.t)))
            except Exception:
                return None
        return recorder

    def _copy(self, leaves: Leaves) -> tuple[Any, dict[int, Any]]:
        return self._template.copy_with_memo(values_by_id(self.others | self.leaves, leaves))

    def _found(self, network: Any, inputs: tuple[Any, ...], leaves: Leaves) -> dict[str, Any]:
        """Returns the gradients of a fresh copy, or, where they need a loss computed before, of this one.

        A gradient that computes the loss itself draws again what the loss drew: from generators that start anew, and
        in a copy in which nothing was drawn yet, so that generators that it holds are at their start, too.
        """
        if self._alone is None:
            self._alone = self._recomputes()
        return self._named(self._gradient(self._copy(leaves)[0] if self._alone else network, inputs))

    def _recomputes(self) -> bool:
        """Returns whether `gradient` computes the loss itself: then a loss at other inputs before leaves no trace."""
        try:
            self._after()
        except SubjectError:
            raise
        except Exception:
            return False
        same = self._after((self.x, self.t))
        try:
            other = self._after(different_inputs((self.x, self.t)))
        except Exception:  # it refuses the other inputs
            return True
        return _alike(same, other)

    def _after(self, before: tuple[Any, ...] | None = None) -> dict[str, Any]:
        """Returns the gradients of a fresh copy, after a loss at some inputs."""
        network = self._copy(self.leaves)[0]
        if before is not None:
            restart_generators()
            network.loss(*duplicate(before), **self.training)
        found = self._named(self._gradient(network, (duplicate(self.x), duplicate(self.t))))
        return {name: np.array(gradient) for name, gradient in found.items() if is_float(gradient)}

    def _gradient(self, network: Any, inputs: tuple[Any, ...]) -> Any:
        restart_generators()
        return network.gradient(*inputs)

    def _named(self, tree: Any) -> dict[str, Any]:
        """Returns the gradients by the names of the leaves, where theirs are the same or have a d: `Affine1.dW`."""
        if not isinstance(tree, Mapping | list | tuple):
            kind = "None" if tree is None else f"a {type(tree).__name__}"
            raise SubjectError(f"{self.name}.gradient: returned {kind}, expected the tree of params")
        found = flatten(tree)
        for name in [name for name in self.leaves if name not in found]:
            above, dot, last = name.rpartition(".")
            for place in (f"{above}{dot}{form.format(last)}" for form in GRADIENT_NAMES):
                if place in found and place not in self.leaves:
                    found[name] = found.pop(place)
                    break
        return found

    def _loss(self, network: Any) -> Any:
        restart_generators()
        with as_subject_error(f"{self.name}.loss"):
            return network.loss(duplicate(self.x), duplicate(self.t), **self.training)


def inspect_network(network: Any, x: Any, t: Any, constants: Collection[str] = ()) -> CheckableNetwork:
    """Tries a network on copies, and returns it as something to be checked.

    Args:
        network: An object with `params`, `loss(x, t)` and `gradient(x, t)`.
        x: Samples.
        t: Labels.
        constants: Accepted for the sake of `inspect_layer`: what `params` does not list is a constant anyway.

    Raises:
        SubjectError: It cannot be called, or its gradient has none of the leaves.
    """
    del constants
    name = type(network).__name__
    _check_methods(network, name)
    x, t = as_arrays((x, t), ["x", "t"])
    _check_labels(x, t)
    with as_subject_error(f"copying {name}"):
        base = duplicate(network)
    params = flatten(base.params)
    leaves = {place: leaf for place, leaf in params.items() if is_float(leaf)}
    if not leaves:
        raise SubjectError("network: its params hold no float array, nothing to check")
    flags = [p.name for p in positional(network.loss)[2:] if p.name in TRAINING]
    batch = arrays_in((x,), ["x"])
    code = CheckableNetwork(
        name=name, network=base, x=x, t=t, leaves=leaves, training=dict.fromkeys(flags, True), batch=batch
    )
    trial = code.instance(leaves)
    before = _held(trial)
    code._loss(trial)  # before the gradient is blamed for what both cannot take
    last = {place: array for place, array in _held(trial).items() if before.get(place) is array}
    try:
        found = code._found(trial, (duplicate(x), duplicate(t)), leaves)
    except SubjectError:
        raise
    except Exception as error:
        code.fault, code.leaves = f"gradient raises {type(error).__name__}: {error}", {}
        return code
    _check_gradient(code, found, params)
    arrays = [leaf for leaf in leaves.values() if isinstance(leaf, np.ndarray)]
    for place, array in _held(base).items():
        mine = isinstance(array, np.ndarray) and not any(overlaps(array, leaf) for leaf in arrays)
        if place in last and place not in leaves and mine:
            code.others[place] = array
    code.constants = set(code.others)
    pairs = [(n, m) for n in leaves for m in leaves if n < m and _overlap(leaves.get(n), leaves.get(m))]
    code.shared_gradients = tuple(frozenset(p) for p in pairs if _overlap(found.get(p[0]), found.get(p[1])))
    return code


def innermost(whole: Any) -> Iterator[tuple[str, Any]]:
    """Yields the layers that hold no others, each once, by name; what merely holds them does not lend its name."""
    known: set[int] = set()
    for name, layer in _innermost(whole, "", 0):
        if id(layer) not in known:
            known.add(id(layer))
            yield name, layer


def _innermost(whole: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for attribute, value in attributes_of(whole).items():
        for place, layer in sublayers(attribute, value):
            name = prefix if place == attribute else f"{prefix}{place}."
            within = list(_innermost(layer, name, depth + 1)) if depth < DEEPEST else []
            yield from within or [(f"{prefix}{place}", layer)]


def _held(network: Any) -> dict[str, Any]:
    """Returns the float arrays that it and its layers hold, without the gradients that stand beside them."""
    layers = [("", network), *((f"{name}.", layer) for name, layer in innermost(network))]
    gradients = {id(g) for _, layer in layers for g in gradients_by_place(layer).values()}
    found: dict[str, Any] = {}
    for prefix, layer in reversed(layers) if not is_layer(network) else layers[:1]:
        places = arrays_by_place(layer) if prefix or is_layer(network) else _own_arrays(layer)
        for place, array in places.items():
            if id(array) not in gradients and not any(array is other for other in found.values()):
                found[prefix + place] = array
    return found


def _own_arrays(network: Any) -> dict[str, Any]:
    return {name: a for name, a in attributes_of(network).items() if isinstance(a, np.ndarray) and is_float(a)}


def _overlap(first: Any, second: Any) -> bool:
    return isinstance(first, np.ndarray) and isinstance(second, np.ndarray) and overlaps(first, second)


def _alike(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Returns whether two trees of gradients are equal up to rounding."""
    return first.keys() == second.keys() and all(
        np.shape(g) == np.shape(second[n]) and np.allclose(g, second[n], rtol=1e-6, atol=1e-12, equal_nan=True)
        for n, g in first.items()
    )


def _moved(given: Any, dtypes: Mapping[Any, Any]) -> Any:
    copied = duplicate(given)
    return copied.astype(dtypes[copied.dtype]) if is_float(copied) and copied.dtype in dtypes else copied


def _check_methods(network: Any, name: str) -> None:
    if isinstance(network, type):
        raise SubjectError(f"network: the class {network.__name__}, expected an instance of it")
    for attribute in ("params", "loss", "gradient"):
        if not hasattr(network, attribute):
            hint = f"; where one function returns the loss and the gradients, {TWO_FUNCTIONS_HINT}"
            raise SubjectError(
                f"network: {name} has no `{attribute}`, expected params, loss(x, t), gradient(x, t)"
                + (hint if attribute == "gradient" else "")
            )


def _check_gradient(code: CheckableNetwork, found: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    """Raises a SubjectError if the gradient has none of the leaves, or has one of what is no float array."""
    if not code.leaves.keys() & found.keys():
        raise SubjectError(
            f"{code.name}.gradient: has none of {', '.join(code.leaves)}, expected the tree of params; "
            f"it has {', '.join(found) or 'nothing'}"
        )
    for name, gradient in found.items():
        if name not in code.leaves and is_float(gradient) and any(f"{p}.".startswith(f"{name}.") for p in params):
            raise SubjectError(f"{code.name}.params: {name} is no array of floats, expected one, as it has a gradient")


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
    """Returns the tree with other leaves."""
    if isinstance(tree, Mapping):
        return {name: _refill(branch, leaves, f"{prefix}{name}.") for name, branch in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_refill(branch, leaves, f"{prefix}{i}.") for i, branch in enumerate(tree))
    return leaves.get(prefix[:-1], tree)
