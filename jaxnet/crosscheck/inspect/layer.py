"""Hand-written layers in the class style of the book, and what they have in common with pairs of functions.

`brought_layer` calls the layer on copies until it knows what is a parameter, what comes back and what does not, and
then makes a `CheckableLayer` of it, which only opens copies.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from jaxnet.crosscheck.inspect.attributes import gradients_of, set_gradients, undeclared
from jaxnet.crosscheck.inspect.checkable import (
    Array,
    Checkable,
    Instance,
    Leaves,
    SubjectError,
    as_arrays,
    attributes_of,
    blaming,
    expect_call,
    input_names,
    integers_in,
    is_float,
    numbers_in,
    positional,
)
from jaxnet.crosscheck.inspect.claims import Claims, floats_within
from jaxnet.crosscheck.inspect.copying import Template, duplicate, values_by_id
from jaxnet.crosscheck.inspect.overlap import consistent, extent, meet, tied, views
from jaxnet.crosscheck.inspect.roles import is_called_parameter, is_label, looks_constant
from jaxnet.crosscheck.inspect.trial import Live, Trial, attempt, named_douts

Kind = TypeVar("Kind", bound="CheckableCode")
NOT_BY_INTEGERS = "{name} is an array of integers: the gradient that came back for it is not checked; give it floats"
OUTPUT = ("output", "outputs", "out", "y", "a", "value")  # where a forward that returns nothing leaves its output


class LiveLayer(Live):
    """One copy of a layer, called as a class of the book is: what it remembers is its own affair."""

    def __init__(self, layer: Any, takes_dout: bool) -> None:
        self.held = layer
        self._takes_dout = takes_dout

    def expect(self, douts: int, who: str) -> None:
        expect_call(self.held.backward, douts if self._takes_dout else 0, who, f"backward({named_douts(douts)})")

    def forward(self, *inputs: Any) -> Any:
        result = self.held.forward(*inputs)
        if result is not None:
            return result
        for name in OUTPUT:
            if is_float(output := getattr(self.held, name, None)):
                return output
        raise SubjectError(
            f"{type(self.held).__name__}.forward: returned None, expected its output; "
            "end it with `return self.output`, or bring a subclass whose forward does"
        )

    def backward(self, *douts: Any) -> Any:
        return self.held.backward(*douts) if self._takes_dout else self.held.backward()


@dataclass(eq=False, kw_only=True)
class CheckableCode(Checkable):
    """Code with a forward and a backward pass, and what was found out about it: a layer, or a pair of functions.

    Args:
        name: What it is called.
        template: The object or the functions, copied at every `open`.
        live: Makes a copy callable.
        names: The inputs' names.
        inputs: What it was brought with.
        leaves: What a gradient comes back for.
        others: Float arrays for which none does.
        constants: Those of `others` for which none is owed.
        parameters: The names of the leaves that it holds, not those that are handed in.
        held: The arrays of the template, by name: parameters and others.
        claims: Which input each returned gradient belongs to.
        adds_up: Gradients that backward adds to what was there: they are cleared before it is called.
        one_gradient: Groups of leaves whose gradients share memory: each group is one gradient.
        other_readings: What else a gradient that is returned alone may belong to.
    """

    name: str
    template: Template
    live: Callable[[Any], Live]
    names: list[str]
    inputs: tuple[Any, ...]
    leaves: Leaves
    others: Leaves = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)
    parameters: list[str] = field(default_factory=list)
    held: dict[str, Any] = field(default_factory=dict)
    claims: Claims | None = None
    takes_dout: bool = True
    adds_up: tuple[str, ...] = ()
    one_gradient: tuple[frozenset[str], ...] = ()
    fault: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    integers: Mapping[str, Array] = field(default_factory=dict)
    other_readings: tuple[Claims, ...] = ()
    notes: tuple[str, ...] = ()

    def open(self, leaves: Leaves) -> Instance:
        values = {name: self._within(name, leaves) for name in self.held if name in leaves}
        copied, memo = self.template.copy_with_memo(values_by_id(self.held, values))
        live, inputs = self.live(copied), self._inputs(leaves)
        lasting = set(self.adds_up)

        def backward(*douts: Array) -> dict[str, Any]:
            if lasting:
                set_gradients(live.held, np.zeros_like, lasting, self.names)
            return self._gradients(live, live.backward(*douts))

        handed = {n: a for n, a in floats_within(self.names, inputs) if n in self.leaves}
        handed |= {n: a for n, a in zip(self.names, inputs, strict=True) if isinstance(a, np.ndarray)}
        mine = {name: memo.get(id(self.held[name])) for name in self.parameters}
        handed |= {name: array if isinstance(array, np.ndarray) else leaves[name] for name, array in mine.items()}
        return Instance(live.forward, backward, inputs, handed)

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        params = {name: leaves[name] for name in self.parameters}
        return (params, *self._inputs(leaves)) if params else self._inputs(leaves)

    def tied_gradient(self, name: str, gradients: Mapping[str, Any]) -> Array | None:
        return tied(name, {n: self.held[n] for n in self.parameters}, gradients, self.one_gradient)

    def consistent(self, leaves: Leaves) -> Leaves:
        return consistent(leaves, {name: self.held[name] for name in self.parameters})

    def with_integers(self, integers: Mapping[str, Array]) -> "Checkable":
        inputs = tuple(integers.get(name, given) for name, given in zip(self.names, self.inputs, strict=True))
        return replace(self, inputs=inputs, integers=integers)

    def readings(self) -> Iterator["Checkable"]:
        """Yields what this is if the one gradient that backward returns belongs to another input."""
        floats = dict(floats_within(self.names, self.inputs))
        for claims in self.other_readings:
            (name,) = claims.by
            (mine,) = self.claims.by if self.claims else ("",)
            leaves = {n: leaf for n, leaf in self.leaves.items() if n != mine} | {name: floats[name]}
            others = {n: a for n, a in self.others.items() if n != name} | {mine: floats[mine]}
            constants = (self.constants - {name}) | ({mine} if not is_called_parameter(mine) else set())
            yield replace(self, leaves=leaves, others=others, constants=constants, claims=claims, other_readings=())

    def _gradients(self, live: Live, result: Any) -> dict[str, Any]:
        assert self.claims is not None
        returned = self.claims.of(result)
        found = gradients_of(live.held, self.names) if live.held is not None else {}
        if result is None:
            found |= {name: getattr(live.held, attribute, None) for name, attribute in self.claims.left}
        found |= {name: gradient for name, gradient in returned.items() if gradient is not None}
        return {name: found.get(name) for name in self.leaves}

    def _within(self, name: str, leaves: Leaves) -> Any:
        """Returns the value of a held array; where it overlaps a leaf, the leaf decides."""
        value, array = leaves[name], self.held[name]
        if name in self.parameters or not isinstance(array, np.ndarray):
            return value
        tied_to = [a for n in self.parameters if isinstance(a := self.held[n], np.ndarray) and meet(a, array)]
        if not tied_to:
            return value
        (mine, *theirs) = views([array, *tied_to], np.arange(extent([array, *tied_to]))) or [np.empty(0)]
        covered = np.isin(mine, np.concatenate([index.ravel() for index in theirs])) if theirs else False
        return np.where(covered, array.astype(value.dtype), value)

    def _inputs(self, leaves: Leaves) -> tuple[Any, ...]:
        """Returns the inputs, at the leaves; other float inputs are moved to the dtype to which leaves are moved."""
        moved = {self.leaves[n].dtype: leaves[n].dtype for n in leaves if n in self.leaves}
        inputs = []
        for name, given in zip(self.names, self.inputs, strict=True):
            if name in leaves and name not in self.held:
                inputs.append(leaves[name])
                continue
            replaced = {}
            for place, array in floats_within([name], (given,)):
                if place in leaves and place not in self.held:
                    replaced[id(array)] = leaves[place]
                elif array.dtype in moved:
                    replaced[id(array)] = np.asarray(array).astype(moved[array.dtype])
            inputs.append(duplicate(given, replaced))
        return tuple(inputs)


class CheckableLayer(CheckableCode):
    """A layer in the class style of the book: forward(*inputs), backward(dout), and a gradient beside each parameter.

    A parameter is a float array that the layer, or a layer within it, holds before and after `forward`: an attribute
    `W` with a `dW` (`grad_W`, `gW`, `dw`, ...) beside it after `backward`, or an entry of a list or dict `params` with
    one in `grads`, or the `data` of an object with a `grad`. Every other float array that is held so is a constant, or
    its gradient is missing. `backward` returns a gradient for each input, or for the first of those that are floats.
    """

    @property
    def layer(self) -> Any:
        """The layer as it is copied: as it was brought, or after one forward pass that made its parameters."""
        return self.template.value


def brought_layer(layer: Any, inputs: tuple[Any, ...], constants: Collection[str] = ()) -> CheckableLayer:
    """Tries a layer on copies, and returns it as something to be checked.

    Args:
        layer: An object with `forward(*inputs)` and `backward(dout)`.
        inputs: What `forward` takes.
        constants: The names of arrays that have no gradient, and need none.

    Raises:
        SubjectError: It cannot be called, or has nothing for which a gradient comes back.
    """
    name = type(layer).__name__
    if isinstance(layer, type):
        raise SubjectError(f"layer: the class {layer.__name__}, expected an instance of it")
    for method in ("forward", "backward"):
        if not callable(getattr(layer, method, None)):
            raise SubjectError(f"layer: {name} has no method `{method}`, expected forward and backward")
    with blaming(f"copying {name}"):
        base = duplicate(layer)
    names = input_names(layer.forward, len(inputs))
    takes_dout = bool(positional(layer.backward))
    live = partial(LiveLayer, takes_dout=takes_dout)  # a signature is slow to read: once is enough
    found = tried(base, live, inputs, names, (f"{name}.forward", f"{name}.backward"))
    code = as_checkable(CheckableLayer, name, found, live, constants, takes_dout)
    if not code.fault and not code.leaves:
        raise SubjectError(f"{name}: no input and no parameter of floats with a gradient, nothing to check")
    return code


def tried(
    base: Any, live: Callable[[Any], Live], inputs: tuple[Any, ...], names: list[str], calls: tuple[str, str]
) -> Trial:
    """Returns what a trial shows; whole numbers become floats where nothing else has a gradient, or where they do.

    Args:
        base: The caller's object, copied.
        live: Makes a copy of it callable.
        inputs: As they were brought.
        names: The inputs' names.
        calls: What its forward and its backward are called in messages.
    """
    arrays = as_arrays(inputs, names)
    trial = attempt(base, live, arrays, names, calls)
    whole = [i for i, given in enumerate(arrays) if _is_whole(given)]
    if any(True for _ in floats_within(names, arrays)):
        ways = [[i for i in whole if not isinstance(arrays[i], np.ndarray) and names[i] in trial.answered]]
    else:
        ways = [] if trial.parameters else [whole, [i for i in whole if not is_label(names[i])]]
    for meant in filter(None, ways):
        floats = tuple(np.asarray(given, np.float64) if i in meant else given for i, given in enumerate(arrays))
        try:
            again = attempt(base, live, floats, names, calls)
        except SubjectError:  # they are no floats: something is indexed by them
            continue
        if not again.fault:
            return again
    return trial


def as_checkable(
    kind: type[Kind],
    name: str,
    trial: Trial,
    live: Callable[[Any], Live],
    constants: Collection[str],
    takes_dout: bool,
) -> Kind:
    """Returns the checkable object that a trial describes: leaves, others and constants are told apart."""
    template = Template(trial.base)
    inputs = dict(floats_within(trial.names, trial.inputs))
    attributes = attributes_of(live(trial.base).held)
    common: dict[str, Any] = {
        "name": name,
        "template": template,
        "live": live,
        "names": trial.names,
        "inputs": trial.inputs,
        "takes_dout": takes_dout,
        "numbers": numbers_in(attributes | dict(zip(trial.names, trial.inputs, strict=True))),
        "integers": integers_in(trial.inputs, trial.names),
    }
    whole = [n for n in common["integers"] if n in trial.answered and not is_label(n)]
    common["notes"] = tuple(NOT_BY_INTEGERS.format(name=n) for n in whole)
    if trial.fault:
        return kind(leaves={}, fault=trial.fault, **common)
    leaves = {n: np.asarray(trial.held[n]) for n in trial.parameters}
    leaves |= {n: np.asarray(inputs[n]) for n in trial.returned if n in inputs}
    others = {n: np.asarray(a) for n, a in trial.lacking.items()}
    others |= {n: np.asarray(a) for n, a in inputs.items() if n not in leaves}
    declared = undeclared(live(trial.base).held, trial.lacking)
    given = {n for n in others if n in inputs}
    bare = {n for n in given if trial.bare and not is_called_parameter(n)}
    looking = {n for n, a in others.items() if looks_constant(n, a, is_input=n in given)}
    return kind(
        leaves=leaves,
        others=others,
        constants=bare | looking | (declared & others.keys()) | (set(constants) & others.keys()),
        parameters=trial.parameters,
        held={n: trial.held[n] for n in trial.parameters} | trial.lacking,
        claims=trial.claims,
        adds_up=trial.adds_up,
        one_gradient=trial.one_gradient,
        other_readings=trial.other_readings,
        **common,
    )


def _is_whole(given: Any) -> bool:
    """Returns whether these are whole numbers that may be meant as floats: 100, or an array of integers."""
    if isinstance(given, np.ndarray):
        return given.dtype.kind in "iu"
    return isinstance(given, int | np.integer) and not isinstance(given, bool)
