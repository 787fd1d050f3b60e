"""Inspects a whole network, and its layers one by one."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.call_recorder import Recorder
from jaxnet.crosscheck.inspect.checkable import TWO_FUNCTIONS_HINT, Checkable, Instance
from jaxnet.crosscheck.inspect.copying import Template, duplicate, values_by_id
from jaxnet.crosscheck.inspect.errors import SubjectError, as_subject_error, counted, kind_of
from jaxnet.crosscheck.inspect.global_state import restart_generators
from jaxnet.crosscheck.inspect.inputs import arrays_in, as_arrays, different_inputs, numbers_in
from jaxnet.crosscheck.inspect.layer import CheckableLayer, inspect_layer
from jaxnet.crosscheck.inspect.objects import attributes_of, innermost, is_layer
from jaxnet.crosscheck.inspect.overlap import consistent, same_memory, sum_of_tied_gradients
from jaxnet.crosscheck.inspect.parameters import arrays_by_place, parameters_of
from jaxnet.crosscheck.inspect.role_heuristics import gradient_names
from jaxnet.crosscheck.inspect.signatures import keywords, positional
from jaxnet.crosscheck.inspect.stored_gradients import gradients_by_place
from jaxnet.crosscheck.inspect.trees import Array, Leaves, is_complex, is_float, leaves_of

TRAINING = ("train_flg", "train", "training", "is_training")  # flags of a loss that select training
EXAMPLE_STRENGTH = 0.5  # of a weight decay whose strength is 0


@dataclass(eq=False, kw_only=True)
class CheckableNetwork(Checkable):
    """An object with `params`, a tree of dicts, `loss(x, t)`, and `gradient(x, t)` in the same tree.

    Its leaves are the float arrays of `params`. Other float arrays of the network and its layers are constants.

    Args:
        network: A copy of the network, which is copied again at every `open`.
        x, t: The samples and the labels.
        options: Further arguments of `loss` by name: flags that select training, and those that were passed. `gradient`
            is called with those of them that it takes.
        further: The arguments beside the samples and the labels that were passed.
        shared_gradients: Pairs of leaves that share memory and whose gradients do too.
    """

    name: str
    network: Any
    x: Any
    t: Any
    leaves: Leaves
    others: Leaves = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)
    options: Mapping[str, Any] = field(default_factory=dict)
    further: tuple[Any, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    takes_dout: bool = False
    fault: str = ""
    batch: Mapping[str, Array] = field(default_factory=dict)
    shared_gradients: tuple[frozenset[str], ...] = ()

    def __post_init__(self) -> None:
        self._template = Template(self.network)
        self._runs_loss: bool | None = None  # whether `gradient` computes the loss itself

    def open(self, leaves: Leaves) -> Instance:
        network, memo = self._copy(leaves)
        dtypes = {self.leaves[n].dtype: leaves[n].dtype for n in leaves if n in self.leaves}
        inputs = tuple(_cast_copy(value, dtypes) for value in (self.x, self.t))
        options = {name: _cast_copy(value, dtypes) for name, value in self.options.items()}

        def forward(x: Any, t: Any) -> Any:
            return network.loss(x, t, **options)

        def backward(*douts: Array) -> dict[str, Any]:
            restart_generators()
            found = self._gradients(network, inputs, leaves)
            dout = douts[0]
            return {n: None if g is None else np.asarray(g) * dout for n, g in found.items() if n in self.leaves}

        copies = {name: memo.get(id(array)) for name, array in self.leaves.items()}
        arrays = {n: a if isinstance(a, np.ndarray) else leaves[n] for n, a in copies.items()}
        return Instance(forward, backward, inputs, arrays | arrays_in(inputs, ["x", "t"]))

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        return _with_leaves(self.network.params, leaves), self.x, self.t, *self.further

    def shared_memory_gradient(self, name: str, gradients: Mapping[str, Any]) -> Array | None:
        return sum_of_tied_gradients(name, self.leaves, gradients, self.shared_gradients)

    def consistent(self, leaves: Leaves) -> Leaves:
        return consistent(leaves, self.leaves)

    @property
    def owner(self) -> Any:
        return self.network

    def array_names(self) -> list[str]:
        return [*super().array_names(), *_arrays(self.network)]

    def instance(self, leaves: Leaves) -> Any:
        """Returns a copy of the network at these leaves."""
        return self._copy(leaves)[0]

    def owners(self) -> dict[str, tuple[str, str]]:
        """Returns the name of the layer that holds each leaf, and the name of the leaf in it."""
        parameters = [
            (name, leaf, array)
            for name, layer in innermost(self.network)
            for leaf, array in parameters_of(layer).items()
        ]
        return {
            place: (name, leaf)
            for place, array in self.leaves.items()
            for name, leaf, other in reversed(parameters)
            if other is array
        }

    def layers(self) -> Iterator[tuple[str, CheckableLayer, Array | None]]:
        """Yields the layers in the order of their calls: name, layer at its inputs, and upstream gradient.

        The upstream gradient is the one that the network's `gradient` passes to the layer's backward; None if it
        does not call it. A layer that is called several times is yielded at its first call.
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
                code = inspect_layer(layer, inputs)
            except SubjectError:  # no gradient in this layer; the network's leaves are checked nonetheless
                continue
            if not (code.has_complex_output or any(map(is_complex, code.leaves.values()))):
                yield name, replace(code, others={n: a for n, a in code.others.items() if not is_complex(a)}), dout

    def _recorded(self, *, with_loss: bool) -> Recorder | None:
        """Returns the calls of the layers in `gradient`; None if it raises."""
        network = self.instance(self.leaves)
        recorder = Recorder(innermost(network))
        with recorder:
            if with_loss:
                self._loss(network)
            try:
                self._call_gradient(network, (duplicate(self.x), duplicate(self.t)))
            except Exception:
                return None
        return recorder

    def _copy(self, leaves: Leaves) -> tuple[Any, dict[int, Any]]:
        return self._template.copy_with_memo(values_by_id(self.others | self.leaves, leaves))

    def _gradients(self, network: Any, inputs: tuple[Any, ...], leaves: Leaves) -> dict[str, Any]:
        """Returns the gradients of a new copy, or of this one if `gradient` needs a `loss` before it.

        A gradient that computes the loss itself must draw the same random numbers as the loss. So it runs with
        restarted generators, in a copy whose own generators are at their start too.
        """
        if self._runs_loss is None:
            self._runs_loss = self._gradient_runs_loss()
        return self._named(self._call_gradient(self._copy(leaves)[0] if self._runs_loss else network, inputs))

    def _gradient_runs_loss(self) -> bool:
        """Returns whether `gradient` computes the loss itself, so that a loss computed before has no effect."""
        try:
            self._gradients_after()
        except SubjectError:
            raise
        except Exception:
            return False
        same = self._gradients_after((self.x, self.t))
        try:
            other = self._gradients_after(different_inputs((self.x, self.t)))
        except Exception:  # the user's code rejects other inputs
            return True
        return _all_close(same, other)

    def _gradients_after(self, before: tuple[Any, ...] | None = None) -> dict[str, Any]:
        """Returns the gradients of a new copy, after a loss at these inputs, if there are any."""
        network = self._copy(self.leaves)[0]
        if before is not None:
            restart_generators()
            network.loss(*duplicate(before), **duplicate(self.options))
        found = self._named(self._call_gradient(network, (duplicate(self.x), duplicate(self.t))))
        return {name: np.array(gradient) for name, gradient in found.items() if is_float(gradient)}

    def _call_gradient(self, network: Any, inputs: tuple[Any, ...]) -> Any:
        restart_generators()
        takes = {p.name for p in (*positional(network.gradient)[2:], *keywords(network.gradient))}
        return network.gradient(*inputs, **duplicate({n: v for n, v in self.options.items() if n in takes}))

    def _named(self, tree: Any) -> dict[str, Any]:
        """Returns the gradients by leaf; their names are those of the leaves, with or without a d: `Affine1.dW`."""
        if not isinstance(tree, Mapping | list | tuple):
            raise SubjectError(f"{self.name}.gradient: returned {kind_of(tree)}, expected the tree of params")
        found = dict(leaves_of(tree))
        for name in [name for name in self.leaves if name not in found]:
            for place in gradient_names(name):
                if place in found and place not in self.leaves:
                    found[name] = found.pop(place)
                    break
        return found

    def _loss(self, network: Any) -> Any:
        restart_generators()
        with as_subject_error(f"{self.name}.loss"):
            return network.loss(duplicate(self.x), duplicate(self.t), **duplicate(self.options))

    def zero_strengths(self) -> list[str]:
        """Returns the float arguments of `loss` that are 0 and affect it, as the strength of a weight decay."""
        parameters = (*positional(self.network.loss)[2:], *keywords(self.network.loss))
        values = {p.name: self.options.get(p.name, p.default) for p in parameters}
        zeros = [name for name, value in values.items() if isinstance(value, float) and value == 0]
        return [name for name in zeros if self._changes_loss(name)]

    def _changes_loss(self, option: str) -> bool:
        with_strength = replace(self, options={**self.options, option: EXAMPLE_STRENGTH})
        try:
            without, changed = (np.asarray(code._loss(code.instance(self.leaves))) for code in (self, with_strength))
        except SubjectError:  # the user's code rejects this value
            return False
        return not np.array_equal(without, changed)


def inspect_network(network: Any, x: Any, t: Any, *further: Any) -> CheckableNetwork:
    """Runs a network on copies, and returns it as a Checkable.

    Args:
        network: An object with `params`, `loss(x, t)` and `gradient(x, t)`.
        x: The samples.
        t: The labels.
        further: Further arguments of `loss`, such as the strength of a weight decay.

    Raises:
        SubjectError: If it cannot be called, or its gradient has none of the leaves.
    """
    name = type(network).__name__
    _check_methods(network, name)
    x, t = as_arrays((x, t), ["x", "t"])
    _check_labels(x, t)
    with as_subject_error(f"copying {name}"):
        base = duplicate(network)
    params = dict(leaves_of(base.params))
    leaves = {place: leaf for place, leaf in params.items() if is_float(leaf)}
    if not leaves:
        raise SubjectError("network: its params hold no float array, so there is nothing to check")
    options = _options_of_loss(network, name, further)
    batch = arrays_in((x,), ["x"])
    code = CheckableNetwork(
        name=name, network=base, x=x, t=t, leaves=leaves, options=options, further=further,
        numbers=numbers_in(options), batch=batch,
    )  # fmt: skip
    trial = code.instance(leaves)
    before = _arrays(trial)
    code._loss(trial)  # first, so that an error in both is not reported as one of the gradient
    lasting = {place for place, array in _arrays(trial).items() if before.get(place) is array}
    found: dict[str, Any] = {}
    with code.recording_fault("gradient"):
        found = code._gradients(trial, (duplicate(x), duplicate(t)), leaves)
    if code.fault:
        return code
    _check_gradient(code, found, params)
    for place, array in _arrays(base).items():
        is_candidate = place in lasting and place not in leaves and isinstance(array, np.ndarray) and is_float(array)
        if is_candidate and not any(same_memory(array, leaf) for leaf in leaves.values()):
            code.others[place] = array
    code.constants = set(code.others)
    pairs = [(n, m) for n in leaves for m in leaves if n < m and same_memory(leaves[n], leaves[m])]
    code.shared_gradients = tuple(frozenset(p) for p in pairs if same_memory(found.get(p[0]), found.get(p[1])))
    return code


def _options_of_loss(network: Any, name: str, further: tuple[Any, ...]) -> dict[str, Any]:
    """Returns the arguments of `loss` beside samples and labels by name; flags of training are set in any case."""
    names = [p.name for p in (*positional(network.loss)[2:], *keywords(network.loss))]
    if len(further) > len(names):
        takes = f"samples, labels{''.join(f', {option}' for option in names)}"
        raise SubjectError(f"{name}: {counted(2 + len(further), 'input')}, expected at most {2 + len(names)}: {takes}")
    return dict(zip(names, further, strict=False)) | {option: True for option in names if option in TRAINING}


def _arrays(network: Any) -> dict[str, Any]:
    """Returns the float arrays of a network and its layers, except stored gradients."""
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


def _all_close(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Returns whether two trees of gradients are equal up to rounding."""
    return first.keys() == second.keys() and all(
        np.shape(g) == np.shape(second[n]) and np.allclose(g, second[n], rtol=1e-6, atol=1e-12, equal_nan=True)
        for n, g in first.items()
    )


def _cast_copy(value: Any, dtypes: Mapping[Any, Any]) -> Any:
    copied = duplicate(value)
    return copied.astype(dtypes[copied.dtype]) if is_float(copied) and copied.dtype in dtypes else copied


def _check_methods(network: Any, name: str) -> None:
    if isinstance(network, type):
        raise SubjectError(f"network: the class {network.__name__}, expected an instance of it")
    for attribute in ("params", "loss", "gradient"):
        if not hasattr(network, attribute):
            hint = f"; if one function returns the loss and the gradients, {TWO_FUNCTIONS_HINT}"
            raise SubjectError(
                f"network: {name} has no `{attribute}`, expected params, loss(x, t), gradient(x, t)"
                + (hint if attribute == "gradient" else "")
            )
    for method in ("loss", "gradient"):
        value = getattr(network, method)
        if not callable(value):
            raise SubjectError(f"network: {name}.{method} is {kind_of(value)}, expected a method {method}(x, t)")


def _check_gradient(code: CheckableNetwork, found: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    """Raises a SubjectError if the gradient has none of the leaves, or has an entry that is not a float array."""
    if not code.leaves.keys() & found.keys():
        raise SubjectError(
            f"{code.name}.gradient: has none of {', '.join(code.leaves)}, expected the tree of params; "
            f"it has {', '.join(found) or 'nothing'}"
        )
    for name, gradient in found.items():
        if name not in code.leaves and is_float(gradient) and any(f"{p}.".startswith(f"{name}.") for p in params):
            raise SubjectError(f"{code.name}.params: {name} is not an array of floats, although it has a gradient")


def _check_labels(x: Any, t: Any) -> None:
    """Raises a SubjectError unless there is a label for each sample of x (N, ...).

    The size of any product of axes counts as the number of samples: x may be (D, N), or t (N T,) for x (N, T, D). A
    single sample, x (D,), may have any t.
    """
    if not (isinstance(x, np.ndarray) and isinstance(t, np.ndarray) and x.ndim > 1 and t.ndim):
        return
    counts = {math.prod(axes) for n in range(1, x.ndim + 1) for axes in combinations(x.shape, n)}
    if counts.isdisjoint({len(t), t.shape[-1]}):
        raise SubjectError(
            f"t: {counted(len(t), 'label')}, expected one for each of the {counted(len(x), 'sample')} of x"
        )


def _with_leaves(tree: Any, leaves: Leaves, prefix: str = "") -> Any:
    """Returns the tree with other values of its leaves, which are named by their paths."""
    if isinstance(tree, Mapping):
        return {name: _with_leaves(branch, leaves, f"{prefix}{name}.") for name, branch in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_with_leaves(branch, leaves, f"{prefix}{i}.") for i, branch in enumerate(tree))
    return leaves.get(prefix[:-1], tree)
