"""Inspects hand-written layers in the class style, with code that pairs of functions share.

`inspect_layer` runs trials on copies, to find the parameters of a layer and the gradient of each. It returns a
`CheckableLayer`, which opens copies at any values of the leaves.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from jaxnet.crosscheck.inspect.adapter import Adapter, Subject, name_douts
from jaxnet.crosscheck.inspect.assignment import Assignment, floats_by_place
from jaxnet.crosscheck.inspect.checkable import Checkable, Instance
from jaxnet.crosscheck.inspect.copying import Template, duplicate, values_by_id
from jaxnet.crosscheck.inspect.errors import SubjectError, as_subject_error, counted
from jaxnet.crosscheck.inspect.inputs import as_arrays, integers_in, numbers_in
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.overlap import consistent, extent, overlaps, sum_of_tied_gradients, views
from jaxnet.crosscheck.inspect.parameters import arrays_by_place, declared_constants
from jaxnet.crosscheck.inspect.plain_numbers import with_learnable_numbers
from jaxnet.crosscheck.inspect.role_heuristics import is_label_name, is_parameter_name, looks_constant
from jaxnet.crosscheck.inspect.sample_gradients import MEAN_OF_SAMPLES
from jaxnet.crosscheck.inspect.signatures import expect_call, input_names, takes_dout
from jaxnet.crosscheck.inspect.stored_gradients import gradients_by_place, reversed_lists, set_gradients
from jaxnet.crosscheck.inspect.trees import Array, Leaves, is_inexact
from jaxnet.crosscheck.inspect.trial_run import BY_SOURCE, TrialRun, run_trial

Kind = TypeVar("Kind", bound="CheckableCode")
NOT_BY_INTEGERS = (
    "{name} is an array of integers: the gradient that backward returns for it is not checked; pass floats to check it"
)
BACKWARDS = (
    "the gradients of {names} are right in the reverse order, from the last to the first: if the update reads them so, "
    "reverse the list at the end of backward, and check again; otherwise they are wrong"
)
OUTPUT = ("output", "outputs", "out", "y", "a", "A", "Z", "value")  # attributes where a forward may store its output


class LayerAdapter(Adapter):
    """Calls one copy of a layer in the class style."""

    def __init__(self, layer: Any, takes_dout: bool) -> None:
        self.owner = layer
        self.source = getattr(type(layer), "backward", None)
        self._takes_dout = takes_dout

    def expect(self, douts: int, name: str) -> None:
        expect_call(self.owner.backward, douts if self._takes_dout else 0, name, f"backward({name_douts(douts)})")

    def forward(self, *inputs: Any) -> Any:
        result = self.owner.forward(*inputs)
        if result is not None:
            return result
        for name in OUTPUT:
            if is_inexact(output := getattr(self.owner, name, None)):
                return output
        raise SubjectError(
            f"{type(self.owner).__name__}.forward: returned None, expected its output; "
            "end it with `return self.output`, or pass a subclass whose forward does"
        )

    def backward(self, *douts: Any) -> Any:
        return self.owner.backward(*douts) if self._takes_dout else self.owner.backward()


@dataclass(eq=False, kw_only=True)
class CheckableCode(Checkable):
    """A layer or a pair of functions, with the findings of its trial run.

    Args:
        template: The object or the functions, copied at every `open`.
        adapt: Makes a copy callable.
        names, inputs: The names of its inputs, and the inputs that were passed in.
        parameters: The names of the leaves that it holds, as opposed to its inputs.
        arrays: The arrays in the template, by name: parameters and others.
        assignment: The input of each returned gradient.
        of_samples: The names of the leaves of which backward computes a gradient for each sample.
        over_samples: The reduction of these over the samples, `np.sum` or `np.mean`.
        shared_gradients: Groups of leaves whose gradients are one array.
        alternatives: Other inputs to which a single returned gradient may belong.
        places: The place whose stored gradient is read, of those leaves for which it is not their own.
    """

    name: str
    template: Template
    adapt: Callable[[Any], Adapter]
    names: list[str]
    inputs: tuple[Any, ...]
    leaves: Leaves
    others: Leaves = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)
    parameters: list[str] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=dict)
    assignment: Assignment | None = None
    takes_dout: bool = True
    accumulating: tuple[str, ...] = ()
    of_samples: tuple[str, ...] = ()
    over_samples: Callable[..., Any] = np.sum
    doubts: tuple[str, ...] = ()
    doubt: str = ""
    shared_gradients: tuple[frozenset[str], ...] = ()
    fault: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    integers: Mapping[str, Array] = field(default_factory=dict)
    alternatives: tuple[Assignment, ...] = ()
    notes: tuple[str, ...] = ()
    has_complex_output: bool = False
    places: Mapping[str, str] = field(default_factory=dict)

    def open(self, leaves: Leaves) -> Instance:
        values = {name: self._value(name, leaves) for name in self.arrays if name in leaves}
        copied, memo = self.template.copy_with_memo(values_by_id(self.arrays, values))
        adapter, inputs = self.adapt(copied), self._inputs(leaves)
        accumulating = set(self.accumulating)

        def backward(*douts: Array) -> dict[str, Any]:
            if accumulating:
                set_gradients(adapter.owner, np.zeros_like, accumulating, self.names)
            return self._gradients(adapter, adapter.backward(*douts))

        arrays = {n: a for n, a in floats_by_place(self.names, inputs) if n in self.leaves}
        arrays |= {n: a for n, a in zip(self.names, inputs, strict=True) if isinstance(a, np.ndarray)}
        copies = {name: memo[id(array)] for name, array in self.arrays.items() if id(array) in memo}
        parameters = {name: copies.get(name) for name in self.parameters}
        arrays |= {name: array if isinstance(array, np.ndarray) else leaves[name] for name, array in parameters.items()}

        def replaced() -> list[str]:
            held = arrays_by_place(adapter.owner)
            return [n for n, copied in copies.items() if held.get(n.removeprefix("self."), copied) is not copied]

        return Instance(adapter.forward, backward, inputs, arrays, replaced)

    def array_names(self) -> list[str]:
        return [*super().array_names(), *self.names, *arrays_by_place(self.adapt(self.template.value).owner)]

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        params = {name: leaves[name] for name in self.parameters}
        return (params, *self._inputs(leaves)) if params else self._inputs(leaves)

    def shared_memory_gradient(self, name: str, gradients: Mapping[str, Any]) -> Array | None:
        parameters = {n: self.arrays[n] for n in self.parameters}
        return sum_of_tied_gradients(name, parameters, gradients, self.shared_gradients)

    def consistent(self, leaves: Leaves) -> Leaves:
        return consistent(leaves, {name: self.arrays[name] for name in self.parameters})

    def with_integers(self, integers: Mapping[str, Array]) -> "Checkable":
        inputs = tuple(integers.get(name, value) for name, value in zip(self.names, self.inputs, strict=True))
        return replace(self, inputs=inputs, integers=integers)

    def readings(self) -> Iterator["Checkable"]:
        """Yields this subject with the returned gradients in another order, or the mean of those of samples."""
        if self.of_samples and self.over_samples is np.sum:
            count = len(self.open(self.leaves).forward())
            doubt = MEAN_OF_SAMPLES.format(" and ".join(self.of_samples), counted(count, "sample"), count)
            yield replace(self, over_samples=np.mean, doubt=doubt)
        floats = dict(floats_by_place(self.names, self.inputs))
        for assignment in self.alternatives:
            names = {n for n in assignment.targets if n in floats}
            previous = {n for n in self.assignment.targets if n in floats} - names if self.assignment else set()
            leaves = {n: leaf for n, leaf in self.leaves.items() if n not in previous} | {n: floats[n] for n in names}
            others = {n: a for n, a in self.others.items() if n not in names} | {n: floats[n] for n in previous}
            constants = (self.constants - names) | {n for n in previous if not is_parameter_name(n)}
            notes = tuple(note for note in self.notes if note != BY_SOURCE.format(*self._order()))
            yield replace(
                self,
                leaves=leaves,
                others=others,
                constants=constants,
                assignment=assignment,
                alternatives=(),
                notes=notes,
            )
        if places := reversed_lists({name: self.arrays[name] for name in self.parameters}):
            yield replace(self, places=places, doubt=BACKWARDS.format(names=", ".join(places)))

    def _order(self) -> tuple[str, str]:
        """Returns the words of the note on the order in which gradients are read."""
        assert self.assignment is not None
        return self.assignment.backward, ", ".join(self.assignment.targets)

    def _gradients(self, adapter: Adapter, result: Any) -> dict[str, Any]:
        """Returns the gradients by leaf: those that backward returned, or else those that it stored."""
        assert self.assignment is not None
        returned = self.assignment.by_name(result)
        found = gradients_by_place(adapter.owner, self.names) if adapter.owner is not None else {}
        if result is None:
            found |= {name: getattr(adapter.owner, attribute, None) for name, attribute in self.assignment.stored}
        found |= {name: gradient for name, gradient in returned.items() if gradient is not None}
        for name in self.of_samples:
            gradient: Any = found.get(name)
            if gradient is not None and np.ndim(gradient) == self.leaves[name].ndim + 1:
                found[name] = self.over_samples(np.asarray(gradient), axis=0)
        return {name: found.get(self.places.get(name, name)) for name in self.leaves}

    def _value(self, name: str, leaves: Leaves) -> Any:
        """Returns the value of an array at the leaves; elements that are also part of a parameter stay."""
        value, array = leaves[name], self.arrays[name]
        if name in self.parameters or not isinstance(array, np.ndarray):
            return value
        parameters = (self.arrays[n] for n in self.parameters)
        tied_to = [a for a in parameters if isinstance(a, np.ndarray) and overlaps(a, array)]
        if not tied_to:
            return value
        (own, *tied) = views([array, *tied_to], np.arange(extent([array, *tied_to]))) or [np.empty(0)]
        covered = np.isin(own, np.concatenate([index.ravel() for index in tied])) if tied else False
        return np.where(covered, array.astype(value.dtype), value)

    def _inputs(self, leaves: Leaves) -> tuple[Any, ...]:
        """Returns the inputs at the leaves; other float inputs are cast to the dtype to which the leaves were cast."""
        dtypes = {self.leaves[n].dtype: leaves[n].dtype for n in leaves if n in self.leaves}
        inputs = []
        for name, value in zip(self.names, self.inputs, strict=True):
            if name in leaves and name not in self.arrays:
                inputs.append(leaves[name])
                continue
            replaced = {}
            for place, array in floats_by_place([name], (value,)):
                if place in leaves and place not in self.arrays:
                    replaced[id(array)] = leaves[place]
                elif array.dtype in dtypes:
                    replaced[id(array)] = np.asarray(array).astype(dtypes[array.dtype])
            inputs.append(duplicate(value, replaced))
        return tuple(inputs)


class CheckableLayer(CheckableCode):
    """A layer in the class style: forward(*inputs), backward(dout), and a stored gradient for each parameter.

    A parameter is a float array that the layer or a sublayer holds before and after `forward`: an attribute `W` with a
    `dW` (`grad_W`, `gW`, `dw`, ...) beside it after `backward`, an entry of a list or dict `params` with one in
    `grads`, or the `data` of an object with a `grad`. Every other float array that lasts is a constant, or its
    gradient is missing. `backward` returns a gradient for each input, or for the first of those that are floats.
    """

    @property
    def owner(self) -> Any:
        """The layer that is copied: as passed in, or after a first forward pass that created its parameters."""
        return self.template.value


def inspect_layer(layer: Any, inputs: tuple[Any, ...]) -> CheckableLayer:
    """Runs trials on copies of a layer, and returns it as a Checkable.

    Args:
        layer: An object with `forward(*inputs)` and `backward(dout)`.
        inputs: The inputs of `forward`.

    Raises:
        SubjectError: If it cannot be called, or no array gets a gradient.
    """
    name = type(layer).__name__
    if isinstance(layer, type):
        raise SubjectError(f"layer: the class {layer.__name__}, expected an instance of it")
    for method in ("forward", "backward"):
        if not callable(getattr(layer, method, None)):
            raise SubjectError(f"layer: {name} has no method `{method}`, expected forward and backward")
    with as_subject_error(f"copying {name}"):
        base = duplicate(layer)
    names = input_names(layer.forward, len(inputs))
    has_dout = takes_dout(layer.backward)
    adapt = partial(LayerAdapter, takes_dout=has_dout)  # reads the signature, which is slow, only once
    subject = Subject(base, adapt, names, inputs, (f"{name}.forward", f"{name}.backward"))
    code = from_trial(CheckableLayer, name, run_trial_with_floats(subject), has_dout)
    if not code.fault and not code.leaves:
        raise SubjectError(f"{name}: no input and no parameter of floats has a gradient, so there is nothing to check")
    return code


def run_trial_with_floats(subject: Subject) -> TrialRun:
    """Runs a trial, and a second one with integer inputs as floats if they are likely meant so.

    They are if backward returns a gradient for a single integer, or if nothing else gets a gradient.
    """
    names, arrays = subject.names, as_arrays(subject.inputs, subject.names)
    subject, notes = with_learnable_numbers(replace(subject, inputs=arrays))
    trial = run_trial(subject)
    trial.notes += notes
    whole = [i for i, value in enumerate(arrays) if _is_integer(value)]
    if any(True for _ in floats_by_place(names, arrays)):
        scalars = (i for i in whole if not isinstance(arrays[i], np.ndarray))
        choices = [[i for i in scalars if names[i] in trial.inputs_with_gradient]]
    else:
        choices = [] if trial.parameters else [whole, [i for i in whole if not is_label_name(names[i])]]
    for chosen in filter(None, choices):
        floats = tuple(np.asarray(value, np.float64) if i in chosen else value for i, value in enumerate(arrays))
        try:
            again = run_trial(replace(subject, inputs=floats))
        except SubjectError:  # the integers are used as indices
            continue
        if not again.fault:
            return again
    return trial


def from_trial(kind: type[Kind], name: str, trial: TrialRun, takes_dout: bool) -> Kind:
    """Makes a Checkable from the findings of a trial run: sorts the arrays into leaves, others and constants."""
    base, adapt = trial.subject.base, trial.subject.adapt
    owner, named = adapt(base).owner, dict(zip(trial.names, trial.inputs, strict=True))
    inputs = dict(floats_by_place(trial.names, trial.inputs))
    common: dict[str, Any] = {
        "name": name,
        "template": Template(base),
        "adapt": adapt,
        "names": trial.names,
        "inputs": trial.inputs,
        "takes_dout": takes_dout,
        "has_complex_output": trial.has_complex_output,
        "numbers": numbers_in(attributes_of(owner) | named),
        "integers": integers_in(named),
    }
    unchecked = [n for n in common["integers"] if n in trial.inputs_with_gradient and not is_label_name(n)]
    common["notes"] = (*trial.notes, *(NOT_BY_INTEGERS.format(name=n) for n in unchecked))
    if trial.fault:
        return kind(leaves={}, fault=trial.fault, **common)
    leaves = {n: np.asarray(trial.arrays[n]) for n in trial.parameters}
    leaves |= {n: np.asarray(inputs[n]) for n in trial.checked_inputs if n in inputs}
    others = {n: np.asarray(a) for n, a in trial.without_gradient.items()}
    others |= {n: np.asarray(a) for n, a in inputs.items() if n not in leaves}
    declared = declared_constants(owner, trial.without_gradient)
    unassigned = {n for n in others if n in inputs and trial.is_single and not is_parameter_name(n)}
    likely = {n for n, a in others.items() if looks_constant(n, a, is_input=n in inputs)}
    return kind(
        leaves=leaves,
        others=others,
        constants=unassigned | likely | (declared & others.keys()),
        parameters=trial.parameters,
        arrays={n: trial.arrays[n] for n in trial.parameters} | trial.without_gradient,
        assignment=trial.assignment,
        accumulating=trial.accumulating,
        of_samples=trial.of_samples,
        doubts=trial.doubts,
        shared_gradients=trial.shared_gradients,
        alternatives=trial.alternatives,
        **common,
    )


def _is_integer(value: Any) -> bool:
    """Returns whether this is an integer or an array of integers, which may be meant as floats."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "iu"
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
