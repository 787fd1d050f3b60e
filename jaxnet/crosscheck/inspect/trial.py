"""What a forward and a backward pass of somebody's code show: its parameters, and what each gradient belongs to.

All calls are on copies. No copy's backward is called twice, so that code which frees its cache is tried as any other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as replaced_in
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.attributes import (
    gradients_of,
    is_array,
    is_left,
    one_place_each,
    places_of,
    set_gradients,
    unlike_arrays,
)
from jaxnet.crosscheck.inspect.checkable import (
    BESIDE,
    Array,
    Outputs,
    SubjectError,
    as_tuple,
    blaming,
    elsewhere,
    is_float,
    restart_generators,
)
from jaxnet.crosscheck.inspect.claims import Claims, floats_within
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.overlap import is_covered, share
from jaxnet.crosscheck.inspect.roles import is_label, looks_constant

LEFT = ("dinputs", "dinput", "dx", "dX", "d_input", "d_inputs", "grad_input")  # where a backward leaves the input's


class Live:
    """One copy of somebody's code, to be called: `held` is the object in which arrays and gradients are sought."""

    held: Any = None

    def forward(self, *inputs: Any) -> Any:
        """Returns the output, or several in a tuple."""
        raise NotImplementedError

    def backward(self, *douts: Any) -> Any:
        """Returns what its backward returns."""
        raise NotImplementedError

    def expect(self, douts: int, who: str) -> None:
        """Checks that backward takes so many gradients from above.

        Raises:
            SubjectError: It does not.
        """
        raise NotImplementedError


@dataclass
class Trial:
    """What was found: by `held` and `inputs`, and by what came back."""

    base: Any
    names: list[str]
    inputs: tuple[Any, ...]
    held: dict[str, Any] = field(default_factory=dict)  # all float arrays that are held and last, by place
    parameters: list[str] = field(default_factory=list)  # those with a gradient
    lacking: dict[str, Any] = field(default_factory=dict)  # those without
    returned: list[str] = field(default_factory=list)  # the float inputs for which a gradient comes back
    answered: set[str] = field(default_factory=set)  # the inputs of any kind for which one does
    claims: Claims | None = None
    other_readings: tuple[Claims, ...] = ()
    bare: bool = False  # a single gradient came back, not in a tuple or dict, where there are several float inputs
    adds_up: tuple[str, ...] = ()
    one_gradient: tuple[frozenset[str], ...] = ()
    fault: str = ""


def attempt(
    base: Any,
    live: Callable[[Any], Live],
    inputs: tuple[Any, ...],
    names: list[str],
    calls: tuple[str, str],
    *,
    warmed: bool = False,
) -> Trial:
    """Calls forward and backward on copies, and returns what that shows.

    Args:
        base: What is copied. Where the first forward makes parameters, the trial's is a copy after that forward.
        live: Makes a copy callable.
        inputs: What forward takes.
        names: The inputs' names.
        calls: What its forward and its backward are called in messages.
        warmed: Whether it has been called already, so that what it makes now are no parameters.

    Raises:
        SubjectError: It cannot be called.
    """
    first = live(duplicate(base))
    before, unlike = places_of(first.held), unlike_arrays(first.held)
    values = {name: array.copy() for name, array in before.items() if isinstance(array, np.ndarray)}
    outputs = Outputs()
    y = run_forward(first, inputs, calls[0], outputs)
    after = places_of(first.held)
    if not warmed and _makes_parameters(base, live, inputs, after.keys() - before.keys()):
        warm = duplicate(base)
        run_forward(live(warm), inputs, calls[0])
        return attempt(warm, live, inputs, names, calls, warmed=True)

    trial = Trial(base, names, inputs)
    held = {name: array for name, array in after.items() if before.get(name) is array}
    unlike = {name: v for name, v in unlike_arrays(first.held).items() if unlike.get(name) is v}
    earlier = {n: (g, np.array(g) if is_float(g) else g) for n, g in gradients_of(first.held, names).items()}
    douts = outputs.unpack(np.ones_like(y))
    first.expect(len(douts), calls[1])
    try:
        result = first.backward(*(dout.copy() for dout in douts))
    except SubjectError:
        raise
    except Exception as error:
        trial.fault = f"{calls[1].rpartition('.')[2]} raises {type(error).__name__}: {error}"
        return trial
    beside = gradients_of(first.held, names)
    left = {n for n, g in beside.items() if is_left(g, *earlier.get(n, (None, None)))}
    surely = gradients_of(first.held).keys()
    _refuse(first.held, {name: value for name, value in unlike.items() if name in left & surely})

    own = tuple(name for name in held if name not in names)
    _claim(trial, result, first.held, calls[1], own)
    assert trial.claims is not None
    found = trial.claims.of(result)
    _sort(trial, held, beside, left | surely, found, values)
    if trial.lacking:
        changing = _changing(base, live, inputs)
        trial.lacking = {n: a for n, a in trial.lacking.items() if n.removeprefix("self.") not in changing}
    _settle_inputs(trial, found, left, result is None)
    trial.adds_up = _adding_up(base, live, trial, calls[0], douts, beside)
    its = places_of(live(base).held)
    rename = {name: name.removeprefix("self.") for name in [*trial.parameters, *trial.lacking]}
    trial.held = {name: its[place] for name, place in rename.items() if place in its}
    trial.parameters = [name for name in trial.parameters if name in trial.held]
    trial.lacking = {name: trial.held[name] for name in trial.lacking if name in trial.held}
    return trial


def run_forward(live: Live, inputs: tuple[Any, ...], who: str, outputs: Outputs | None = None) -> Array:
    """Calls forward with copies of the inputs, the random generators restarted, and returns the packed output.

    Raises:
        SubjectError: It raises; the message says whose fault it is.
    """
    copies = tuple(duplicate(given) for given in inputs)
    restart_generators()
    with blaming(who):
        return (outputs or Outputs()).pack(live.forward(*copies))


def named_douts(count: int) -> str:
    """Returns what the gradients from above are called in messages."""
    return "dout" if count == 1 else ", ".join(f"dout{i}" for i in range(count))


def _makes_parameters(base: Any, live: Callable[[Any], Live], inputs: tuple[Any, ...], made: set[str]) -> bool:
    """Returns whether the first forward makes parameters.

    They are the same, to the bit, after a forward at other inputs; and a backward leaves a gradient beside them, or
    their values do not depend on the inputs. An array that does depend on the first inputs ever seen, and stays, is
    a state: what it does is to be found at the second call.
    """
    if not made:
        return False
    called = live(duplicate(base))
    own = [array for array in places_of(called.held).values() if isinstance(array, np.ndarray)]
    y = Outputs()
    douts = y.unpack(np.ones_like(run_forward(called, inputs, "forward", y)))
    before: dict[str, tuple[Any, Any]] = {
        name: (array, np.array(array)) for name, array in places_of(called.held).items() if name in made
    }
    try:
        run_forward(called, elsewhere(inputs), "forward")
    except SubjectError:
        run_forward(called, inputs, "forward")
    after: dict[str, Any] = places_of(called.held)
    lasting = {
        name: copied
        for name, (array, copied) in before.items()
        if after.get(name) is array
        and np.array_equal(copied, after[name], equal_nan=True)
        and not any(_has_values_of(copied, other) for other in own)
    }
    return bool(lasting) and _are_parameters(lasting, base, live, inputs, douts)


def _has_values_of(array: Array, other: Array) -> bool:
    """Returns whether an array holds the values of another in any order: a copy of weights, or their transpose."""
    return array.size == other.size > 1 and np.array_equal(np.sort(array, axis=None), np.sort(other, axis=None))


def _are_parameters(
    lasting: Mapping[str, Array],
    base: Any,
    live: Callable[[Any], Live],
    inputs: tuple[Any, ...],
    douts: tuple[Array, ...],
) -> bool:
    """Returns whether any of the arrays that a first forward made gets a gradient, or is made of no input."""
    called = live(duplicate(base))
    run_forward(called, inputs, "forward")
    gradients = {id(g) for g in gradients_of(called.held).values()}
    made = {name for name, array in places_of(called.held).items() if id(array) not in gradients}
    try:
        called.backward(*(dout.copy() for dout in douts))
    except Exception:
        return False
    if any(is_float(gradients_of(called.held).get(name)) for name in lasting):
        return True
    other = live(duplicate(base))
    try:
        run_forward(other, elsewhere(inputs), "forward")
    except SubjectError:
        return False
    theirs = places_of(other.held)
    same = {name for name in lasting if name in theirs and np.array_equal(lasting[name], theirs[name], equal_nan=True)}
    return bool(same & made)


def _changing(base: Any, live: Callable[[Any], Live], inputs: tuple[Any, ...]) -> set[str]:
    """Returns the places of arrays that a forward at other inputs writes to: buffers, statistics, states."""
    called = live(duplicate(base))
    before = {name: np.array(array) for name, array in places_of(called.held).items()}
    try:
        run_forward(called, elsewhere(inputs), "forward")
    except SubjectError:
        return set()
    after = places_of(called.held)
    return {name for name in before if name in after and not np.array_equal(before[name], after[name], equal_nan=True)}


def _refuse(held: Any, unlike: Mapping[str, Any]) -> None:
    for name, value in unlike.items():
        kind = f"an array of {value.dtype}" if is_array(value) else f"a {type(value).__name__}"
        raise SubjectError(
            f"{type(held).__name__}.{name}: {kind}, expected an array of floats, "
            "since backward leaves a gradient beside it"
        )


def _claim(trial: Trial, result: Any, held: Any, who: str, own: tuple[str, ...]) -> None:
    """Settles which inputs the returned gradients belong to."""
    names, inputs = trial.names, trial.inputs
    with_floats = [n for n, given in zip(names, inputs, strict=True) if any(floats_within([n], (given,)))]
    claims = Claims((), tuple(names), inputs, own, who)
    if isinstance(result, Mapping):
        trial.claims = claims
        return
    returned = as_tuple(result)
    if result is None:
        left = {n: _left_for(n, given, held) for n, given in zip(names, inputs, strict=True) if n in with_floats}
        found = tuple((n, attribute) for n, attribute in left.items() if attribute)
        trial.claims = replaced_in(claims, by=tuple(with_floats[:1]), left=found)
        return
    if isinstance(result, tuple | list) or len(with_floats) < 2:
        by = names if len(returned) == len(inputs) else with_floats[: len(returned)]
        trial.claims = replaced_in(claims, by=tuple(by))
        return
    trial.bare = True
    arrays = dict(floats_within(names, inputs))
    fitting = [n for n in with_floats if n in arrays and arrays[n].shape == np.shape(result)]
    unlabelled = [n for n in fitting if not is_label(n)]
    by = (unlabelled or fitting or with_floats)[:1]
    trial.claims = replaced_in(claims, by=tuple(by))
    trial.other_readings = tuple(replaced_in(claims, by=(n,)) for n in fitting if n not in by)


def _left_for(name: str, given: Any, held: Any) -> str:
    """Returns the attribute in which backward leaves the gradient by an input; empty if there is none."""
    for attribute in (*(form.format(name) for form in BESIDE), *LEFT):
        gradient: Any = getattr(held, attribute, None)
        if is_float(gradient) and np.shape(gradient) == np.shape(given):
            return attribute
    return ""


def _sort(
    trial: Trial,
    held: dict[str, Any],
    beside: Mapping[str, Any],
    with_gradient: set[str],
    found: Mapping[str, Any],
    values: Mapping[str, Array],
) -> None:
    """Tells the arrays that are held apart: parameters, those that lack a gradient, and what is neither."""
    own = {n: a for n, a in held.items() if n not in trial.names}
    gradients = {n: g for n, g in beside.items() if n in own and n in with_gradient}
    gradients |= {n: g for n, g in found.items() if n in own}
    chosen = one_place_each(own, gradients)
    trial.parameters = [n for n in chosen if n in gradients]
    arrays = {n: own[n] for n in trial.parameters}
    theirs = {id(g) for g in beside.values()}
    meeting = {n: a for n, a in held.items() if n in trial.names and not any(a is b for b in own.values())}
    for name, array in [*((n, a) for n, a in chosen.items() if n not in arrays), *meeting.items()]:
        changed = name in values and not np.array_equal(values[name], array, equal_nan=True)
        if not changed and id(array) not in theirs and not is_covered(array, arrays.values()):
            trial.lacking[f"self.{name}" if name in meeting else name] = array
    pairs = [(n, m) for n in arrays for m in arrays if n < m and share(arrays[n], arrays[m])]
    trial.one_gradient = tuple(frozenset(p) for p in pairs if share(gradients.get(p[0]), gradients.get(p[1])))


def _settle_inputs(trial: Trial, found: Mapping[str, Any], left: set[str], nothing: bool) -> None:
    """Finds the float inputs for which a gradient comes back; where none at all does, the first is owed one.

    Args:
        trial: What is completed.
        found: What backward returns, by name.
        left: The names beside which it leaves a gradient.
        nothing: Whether it returns None, as a backward does whose `return` is forgotten.
    """
    assert trial.claims is not None
    floats = list(dict(floats_within(trial.names, trial.inputs)))
    came = {n for n, g in found.items() if g is not None} | left | {n for n, _ in trial.claims.left}
    trial.answered = {n for n in trial.names if found.get(n) is not None}
    trial.returned = [n for n in floats if n in came]
    if not trial.returned and (nothing or not trial.parameters):
        values = dict(floats_within(trial.names, trial.inputs))
        owed = [n for n in floats if not (trial.parameters and looks_constant(n, values[n], is_input=True))]
        trial.returned = [n for n in owed if n in trial.claims.by or n in found][:1]


def _adding_up(
    base: Any,
    live: Callable[[Any], Live],
    trial: Trial,
    who: str,
    douts: tuple[Array, ...],
    beside: Mapping[str, Any],
) -> tuple[str, ...]:
    """Returns the parameters whose gradients backward adds to what is there: 1 more there is 1 more afterwards."""
    again = live(duplicate(base))
    run_forward(again, trial.inputs, who)
    changed = set_gradients(again.held, lambda g: g + 1, trial.parameters, trial.names)
    if not changed:
        return ()
    try:
        again.backward(*(dout.copy() for dout in douts))
    except Exception:
        return ()
    after = gradients_of(again.held, trial.names)
    adding = []
    for name in changed:
        once: Any = beside.get(name)
        more: Any = after.get(name)
        if is_float(once) and is_float(more) and np.shape(once) == np.shape(more):
            same = np.allclose(more, once, rtol=1e-6, atol=1e-6, equal_nan=True)
            if not same and np.allclose(np.asarray(more) - 1, once, rtol=1e-4, atol=1e-4, equal_nan=True):
                adding.append(name)
    return tuple(adding)
