"""Runs a forward and a backward pass on copies, to find the parameters and the gradient of each.

Each copy's backward is called once, so that code which frees its cache in backward is supported.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.adapter import Adapter, Subject, run_forward
from jaxnet.crosscheck.inspect.assignment import Assignment, as_tuple, floats_by_place
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.errors import SubjectError, counted, describe, kind_of
from jaxnet.crosscheck.inspect.held_parameters import UPSTREAM
from jaxnet.crosscheck.inspect.inputs import different_inputs
from jaxnet.crosscheck.inspect.lazy_parameters import creates_parameters
from jaxnet.crosscheck.inspect.objects import is_ndarray
from jaxnet.crosscheck.inspect.outputs import Outputs
from jaxnet.crosscheck.inspect.overlap import is_covered, same_memory
from jaxnet.crosscheck.inspect.parameters import arrays_by_place, choose_places, wrongly_typed_parameters
from jaxnet.crosscheck.inspect.plain_numbers import in_the_shell, shape_text
from jaxnet.crosscheck.inspect.returned_names import owners_of_returned
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES, base_name, label_rank, looks_constant
from jaxnet.crosscheck.inspect.sample_gradients import (
    OR_FORGOTTEN,
    SUM_OF_SAMPLES,
    may_be_forgotten,
    owners_of_sample_gradients,
)
from jaxnet.crosscheck.inspect.signatures import positional
from jaxnet.crosscheck.inspect.stored_gradients import gradients_by_place, is_new_gradient, set_gradients
from jaxnet.crosscheck.inspect.trees import Array, is_inexact

MOST_REORDERED = 5  # gradients whose shapes are compared in every order
BY_SOURCE = "{} returns gradients of {} in this order, by the names in its source"
BY_SHAPE = "{} returns gradients of {} in this order, by their shapes"
# Attributes in which a backward that returns nothing stores the gradient of its input.
INPUT_GRADIENT_ATTRIBUTES = ("dinputs", "dinput", "dx", "dX", "d_input", "d_inputs", "grad_input", "dInputs", "dInput")


@dataclass
class TrialRun:
    """The findings of a trial run.

    Attributes:
        subject: The code and its inputs; after its first forward pass, if that creates parameters.
        arrays: The float arrays of the object that last from call to call, by place.
        parameters: The names of those with a gradient.
        without_gradient: Those without one.
        checked_inputs: The names of the float inputs whose gradients are checked.
        inputs_with_gradient: The names of the inputs of any dtype for which a gradient is returned.
        assignment: Which input each returned gradient belongs to.
        alternatives: Other inputs to which a single gradient may belong.
        is_single: Whether a single gradient is returned, not in a tuple or dict, for several float inputs.
        accumulating: The names of the parameters to whose gradients backward adds.
        of_samples: The names of the leaves of which backward computes a gradient for each sample.
        doubts: Sentences that say why the gradients would not be certain if they were right.
        shared_gradients: Pairs of parameters that share memory and whose gradients do too.
        fault: The message of the exception that backward raised; empty if it raised none.
        has_complex_output: Whether forward returns complex numbers.
        notes: Sentences for the report that say how the code was read.
    """

    subject: Subject
    arrays: dict[str, Any] = field(default_factory=dict)
    parameters: list[str] = field(default_factory=list)
    without_gradient: dict[str, Any] = field(default_factory=dict)
    checked_inputs: list[str] = field(default_factory=list)
    inputs_with_gradient: set[str] = field(default_factory=set)
    assignment: Assignment | None = None
    alternatives: tuple[Assignment, ...] = ()
    is_single: bool = False
    accumulating: tuple[str, ...] = ()
    of_samples: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    shared_gradients: tuple[frozenset[str], ...] = ()
    fault: str = ""
    has_complex_output: bool = False
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The names of the inputs."""
        return self.subject.names

    @property
    def inputs(self) -> tuple[Any, ...]:
        """The inputs."""
        return self.subject.inputs


def run_trial(subject: Subject, *, warmed: bool = False) -> TrialRun:
    """Calls forward and backward on copies, and returns the findings.

    Args:
        subject: The code and its inputs.
        warmed: Whether the object has run a forward pass, so that arrays which forward creates are not parameters.

    Raises:
        SubjectError: If it cannot be called.
    """
    adapter, names, calls = subject.copy(), subject.names, subject.calls
    before, wrongly_typed = arrays_by_place(adapter.owner), wrongly_typed_parameters(adapter.owner)
    values = {name: array.copy() for name, array in before.items() if isinstance(array, np.ndarray)}
    outputs = Outputs()
    y = run_forward(adapter, subject.inputs, calls[0], outputs)
    after = arrays_by_place(adapter.owner)
    if not warmed and creates_parameters(subject, after.keys() - before.keys()):
        warm = duplicate(subject.base)
        run_forward(subject.adapt(warm), subject.inputs, calls[0])
        return run_trial(replace(subject, base=warm), warmed=True)

    trial = TrialRun(subject, has_complex_output=outputs.has_complex)
    lasting = _unchanged(before, after)
    moved = {n for n, value in values.items() if n in after and not np.array_equal(value, after[n], equal_nan=True)}
    wrongly_typed = _unchanged(wrongly_typed, wrongly_typed_parameters(adapter.owner))
    earlier = {n: (g, np.array(g) if is_inexact(g) else g) for n, g in gradients_by_place(adapter.owner, names).items()}
    douts = outputs.unpack(np.ones_like(y))
    adapter.expect(len(douts), calls[1])
    try:
        result = adapter.backward(*(dout.copy() for dout in douts))
    except SubjectError:
        raise
    except Exception as error:
        _reject_other_arguments(adapter, len(douts), calls[1], error)
        _reject_other_keys(douts, calls[1], error)
        _reject_without_inputs(subject, calls, error)
        trial.fault = f"{calls[1].rpartition('.')[2]} raises {describe(error)}"
        return trial
    stored = gradients_by_place(adapter.owner, names)
    new = {n for n, g in stored.items() if is_new_gradient(g, *earlier.get(n, (None, None)))}
    strict = gradients_by_place(adapter.owner).keys()
    _reject_wrong_types(adapter.owner, {name: v for name, v in wrongly_typed.items() if name in new & strict}, stored)

    own = tuple(name for name in lasting if name not in names)
    returned = _assign(trial, result, adapter, calls[1], own)
    _sort_arrays(trial, lasting, stored, new | strict, returned, moved)
    if trial.without_gradient:
        _drop(trial.without_gradient, _written_by_forward(subject))
    _choose_inputs(trial, returned, new, result is None)
    trial.accumulating = _find_accumulating(trial, douts, stored)
    _take_arrays_of_base(trial)
    _find_sample_gradients(trial, {**stored, **returned}, y)
    return trial


def _reject_other_arguments(adapter: Adapter, douts: int, backward: str, error: Exception) -> None:
    """Raises a SubjectError if an error may come from arguments that are no gradients of the several outputs."""
    takes = [p.name for p in positional(adapter.source)][-douts:] if adapter.source is not None else []
    if douts > 1 and (others := [name for name in takes if not UPSTREAM.match(name)]):
        raise SubjectError(
            f"{backward}: raises {describe(error)}, given the gradients of the {douts} outputs of forward; if "
            f"{' and '.join(others)} is none of them, pass a subclass whose forward returns the output alone, and "
            "whose backward takes its gradient alone"
        )


def _reject_without_inputs(subject: Subject, calls: Sequence[str], error: Exception) -> None:
    """Raises a SubjectError if an error may come from an upstream gradient that is read from an attribute.

    A layer whose forward takes no inputs, since others set its attributes, may expect the gradient in one as well.
    """
    if not subject.inputs:
        raise SubjectError(
            f"{calls[1]}: raises {describe(error)}, given dout; as {calls[0]} takes no inputs, dout may be read from "
            "an attribute: pass a subclass whose forward takes the input, and whose backward takes dout, and set them"
        )


def _reject_other_keys(douts: Sequence[Any], backward: str, error: Exception) -> None:
    """Raises a SubjectError if backward reads a key of a dict of upstream gradients that forward has for no output."""
    if not isinstance(error, KeyError) or not douts or not isinstance(douts[0], Mapping):
        return
    key, outputs = error.args[0], douts[0]
    if key not in outputs:
        raise SubjectError(
            f"{backward}: reads dout[{key!r}], expected the keys of the dict that forward returns, "
            f"{', '.join(map(repr, outputs))}; pass a subclass whose forward takes and returns an array, as "
            f"super().forward({{...}})[...], and whose backward returns super().backward({{{key!r}: dout}})[...]"
        )


def _unchanged(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entries that are the same objects before and after a call."""
    return {name: value for name, value in after.items() if before.get(name) is value}


def _drop(arrays: dict[str, Any], places: set[str]) -> None:
    """Removes the arrays at these places, whose names may start with `self.`."""
    for name in [name for name in arrays if name.removeprefix("self.") in places]:
        del arrays[name]


def _take_arrays_of_base(trial: TrialRun) -> None:
    """Replaces the arrays of the copy that was called by those of the object, and drops those that it does not hold."""
    arrays = arrays_by_place(trial.subject.adapt(trial.subject.base).owner)
    places = {name: name.removeprefix("self.") for name in [*trial.parameters, *trial.without_gradient]}
    trial.arrays = {name: arrays[place] for name, place in places.items() if place in arrays}
    trial.parameters = [name for name in trial.parameters if name in trial.arrays]
    trial.without_gradient = {n: trial.arrays[n] for n in trial.without_gradient if n in trial.arrays}


def _written_by_forward(subject: Subject) -> set[str]:
    """Returns the places of arrays that a forward pass at other inputs changes: buffers, statistics, states."""
    adapter = subject.copy()
    before = {name: np.array(array) for name, array in arrays_by_place(adapter.owner).items()}
    try:
        run_forward(adapter, different_inputs(subject.inputs), "forward")
    except SubjectError:
        return set()
    after = arrays_by_place(adapter.owner)
    return {name for name in before if name in after and not np.array_equal(before[name], after[name], equal_nan=True)}


def _reject_wrong_types(owner: Any, wrongly_typed: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Raises a SubjectError for the first value that has a gradient but is no float array."""
    for name, value in wrongly_typed.items():
        kind, of_shape = f"an array of {value.dtype}" if is_ndarray(value) else kind_of(value), ""
        if isinstance(value, float | np.floating) and (shape := np.shape(stored[name])):
            of_shape = f" of shape {shape}{in_the_shell(owner, name, shape_text(shape))}"
        raise SubjectError(
            f"{type(owner).__name__}.{name}: {kind}, expected an array of floats, "
            f"since backward stores a gradient{of_shape} for it"
        )


def _assign(trial: TrialRun, result: Any, adapter: Adapter, backward: str, own: tuple[str, ...]) -> dict[str, Any]:
    """Assigns the returned gradients to inputs; returns them by name."""
    assignment = _find_assignment(trial, result, adapter.owner, Assignment((), (), (), own, backward))
    if isinstance(result, tuple | list):
        assignment = _in_another_order(trial, tuple(result), adapter.source, assignment)
    trial.assignment = assignment
    return assignment.by_name(result)


def _in_another_order(trial: TrialRun, result: tuple[Any, ...], source: Any, assignment: Assignment) -> Assignment:
    """Returns the order in which backward returns the gradients, if names in its source or their shapes tell another.

    The order of the inputs stays as an alternative to that of names.
    """
    arrays = {n: a for n, a in zip(trial.names, trial.inputs, strict=True) if is_ndarray(a) and is_inexact(a)}

    def fits(targets: Sequence[str]) -> bool:
        pairs = zip(targets, result, strict=False)
        return len(targets) == len(result) and all(n in arrays and arrays[n].shape == np.shape(g) for n, g in pairs)

    by_name = owners_of_returned(source, len(result), trial.names)
    if by_name and fits(by_name) and tuple(by_name) != assignment.targets:
        note, order = BY_SOURCE, tuple(by_name)
        trial.alternatives = (assignment,) if fits(assignment.targets) else ()
    elif len(result) <= MOST_REORDERED and len(arrays) == len(result) and not fits(assignment.targets):
        fitting = [order for order in permutations(arrays) if fits(order)]
        if len(fitting) != 1:
            return assignment
        note, order = BY_SHAPE, fitting[0]
    else:
        return assignment
    trial.notes = (note.format(assignment.backward, ", ".join(order)),)
    return replace(assignment, targets=order)


def _find_assignment(trial: TrialRun, result: Any, owner: Any, empty: Assignment) -> Assignment:
    names, inputs = trial.names, trial.inputs
    empty = replace(empty, names=tuple(names), inputs=inputs)
    with_floats = [n for n, value in zip(names, inputs, strict=True) if any(floats_by_place([n], (value,)))]
    if isinstance(result, Mapping):
        return empty
    if result is None:
        values = dict(zip(names, inputs, strict=True))
        stored_by_input: dict[str, str] = {}
        for name in sorted(with_floats, key=label_rank):  # one attribute is the gradient of one input
            attribute = _stored_for(name, values[name], owner)
            if attribute and attribute not in stored_by_input.values():
                stored_by_input[name] = attribute
        stored = tuple((name, stored_by_input[name]) for name in names if name in stored_by_input)
        return replace(empty, targets=tuple(with_floats[:1]), stored=stored)
    if isinstance(result, tuple | list) or len(with_floats) < 2:
        count = len(as_tuple(result))
        return replace(empty, targets=tuple(names if count == len(inputs) else with_floats[:count]))
    trial.is_single = True
    arrays = dict(floats_by_place(names, inputs))
    fitting = [n for n in with_floats if n in arrays and arrays[n].shape == np.shape(result)]
    targets = (sorted(fitting, key=label_rank) or with_floats)[:1]
    trial.alternatives = tuple(replace(empty, targets=(n,)) for n in fitting if n not in targets)
    return replace(empty, targets=tuple(targets))


def _stored_for(name: str, value: Any, owner: Any) -> str:
    """Returns the attribute in which backward stores the gradient of an input; empty if there is none."""
    for attribute in (*(form.format(name) for form in GRADIENT_NAMES), *INPUT_GRADIENT_ATTRIBUTES):
        gradient: Any = getattr(owner, attribute, None)
        if is_inexact(gradient) and np.shape(gradient) == np.shape(value):
            return attribute
    return ""


def _sort_arrays(
    trial: TrialRun,
    lasting: dict[str, Any],
    stored: Mapping[str, Any],
    with_gradient: set[str],
    returned: Mapping[str, Any],
    moved: Set[str],
) -> None:
    """Sorts the lasting arrays into parameters, arrays without a gradient, and others such as buffers.

    `stored` are the gradients by place, of which those at `with_gradient` count, `returned` are those by name, and
    `moved` are the places of the arrays that forward changed: one that backward alone changed may be a parameter.
    """
    own = {n: a for n, a in lasting.items() if n not in trial.names}
    gradients = {n: g for n, g in stored.items() if n in own and n in with_gradient}
    gradients |= {n: g for n, g in returned.items() if n in own}
    chosen = choose_places(own, gradients)
    trial.parameters = [n for n in chosen if n in gradients]
    arrays = {n: own[n] for n in trial.parameters}
    gradient_ids = {id(g) for g in stored.values()}
    like_inputs = {n: a for n, a in lasting.items() if n in trial.names and not any(a is b for b in own.values())}
    for name, array in [*((n, a) for n, a in chosen.items() if n not in arrays), *like_inputs.items()]:
        if name not in moved and id(array) not in gradient_ids and not is_covered(array, arrays.values()):
            trial.without_gradient[f"self.{name}" if name in like_inputs else name] = array
    pairs = [(n, m) for n in arrays for m in arrays if n < m and same_memory(arrays[n], arrays[m])]
    trial.shared_gradients = tuple(frozenset(p) for p in pairs if same_memory(gradients.get(p[0]), gradients.get(p[1])))


def _choose_inputs(trial: TrialRun, returned: Mapping[str, Any], new: set[str], is_none: bool) -> None:
    """Finds the float inputs that get a gradient. If there is no gradient at all, the first should get one.

    `new` are the names beside which backward stored a gradient; `is_none` says that it returned None.
    """
    assert trial.assignment is not None
    values = dict(floats_by_place(trial.names, trial.inputs))
    with_gradient = {n for n, g in returned.items() if g is not None} | new | {n for n, _ in trial.assignment.stored}
    trial.inputs_with_gradient = {n for n in trial.names if returned.get(n) is not None}
    trial.checked_inputs = [n for n in values if n in with_gradient]
    if not trial.checked_inputs and (is_none or not trial.parameters):
        variable = [n for n, a in values.items() if not (trial.parameters and looks_constant(n, a, is_input=True))]
        trial.checked_inputs = [n for n in variable if n in trial.assignment.targets or n in returned][:1]


def _find_sample_gradients(trial: TrialRun, gradients: Mapping[str, Any], y: Array) -> None:
    """Finds the leaves of which backward computes a gradient for each sample, and adds a note on them."""
    inputs = dict(floats_by_place(trial.names, trial.inputs))
    arrays = {n: trial.arrays[n] for n in trial.parameters} | {n: inputs[n] for n in trial.checked_inputs}
    if not arrays or not inputs:
        return
    samples = next(iter(inputs.values()))
    trial.of_samples = owners_of_sample_gradients(gradients, arrays, inputs, samples, y)
    names = " and ".join(trial.of_samples)
    if trial.of_samples and may_be_forgotten(gradients, trial.of_samples, samples):
        trial.doubts = (OR_FORGOTTEN.format(names, f"d{base_name(trial.of_samples[0])}"),)
    elif trial.of_samples:
        trial.notes += (SUM_OF_SAMPLES.format(names, counted(len(y), "sample")),)


def _find_accumulating(trial: TrialRun, douts: tuple[Array, ...], stored: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the parameters to whose gradients backward adds: 1 more before backward is 1 more after it."""
    adapter = trial.subject.copy_after_forward(trial.inputs)
    changed = set_gradients(adapter.owner, lambda g: g + 1, trial.parameters, trial.names)
    if not changed:
        return ()
    try:
        adapter.backward(*(dout.copy() for dout in douts))
    except Exception:
        return ()
    after = gradients_by_place(adapter.owner, trial.names)
    accumulating = []
    for name in changed:
        once: Any = stored.get(name)
        more: Any = after.get(name)
        if is_inexact(once) and is_inexact(more) and np.shape(once) == np.shape(more):
            same = np.allclose(more, once, rtol=1e-6, atol=1e-6, equal_nan=True)
            if not same and np.allclose(np.asarray(more) - 1, once, rtol=1e-4, atol=1e-4, equal_nan=True):
                accumulating.append(name)
    return tuple(accumulating)
