"""Functions of arrays with a gradient written beside them."""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.arguments import Arguments
from jaxnet.crosscheck.inspect.checkable import (
    TWO_FUNCTIONS,
    Checkable,
    Instance,
    Leaves,
    numbers_in,
    restart_generators,
)
from jaxnet.crosscheck.inspect.errors import SubjectError, blaming
from jaxnet.crosscheck.inspect.held import Held
from jaxnet.crosscheck.inspect.jax_loaded import double_precision
from jaxnet.crosscheck.inspect.returned import Form, Reading, by_leaf, readings_of
from jaxnet.crosscheck.inspect.roles import is_called_parameter, looks_constant
from jaxnet.crosscheck.inspect.signatures import from_above
from jaxnet.crosscheck.inspect.trees import Array, is_float, leaves_of

OF_THE_SUM = "gradient takes no dout: it is judged as the gradient of the sum of what {} returns"
VALUE_FIRST = "gradient returns the value of {} first: what comes after it is read as the gradient"


class CheckableFunction(Checkable):
    """f(*args), of arrays or structures of arrays, and `gradient`, which claims to be its gradient.

    `gradient` is called with the same arguments. Where it asks for one more, that is `dout`, or for one more by output;
    it stands last, or first where it is called so, or is a keyword. Options are no `dout`. It returns a gradient for
    each argument, for the first of those with floats, a dict of them by name, or a single one.

    Args:
        f: The function.
        args: What it is called with.
        gradient: Its gradient.
        takes_dout: Whether `gradient` takes `dout`; told by its signature where None.

    Raises:
        SubjectError: It cannot be checked.
    """

    derived_by = "analytic"

    def __init__(
        self,
        f: Callable[..., Any],
        args: tuple[Any, ...],
        gradient: Callable[..., Any],
        takes_dout: bool | None = None,
    ) -> None:
        expect_function(f)
        if not callable(gradient):
            raise SubjectError(f"gradient: a {type(gradient).__name__}, expected a function of the same arguments")
        self.f, self.gradient, self.name = f, gradient, name_of(f)
        self.given = Arguments(f, args, complex_as_two=False)
        self.names, self.leaves = self.given.names, self.given.floats
        if not self.leaves:
            raise SubjectError(f"{self.name}: no argument of floats, nothing to check; give it arrays of floats")
        self.held = Held((f, gradient), tuple(self.given.leaves))
        named = dict(zip(self.names, args, strict=True))
        self.numbers = numbers_in(named)
        self.integers = {
            n: a for n, a in self.given.leaves.items() if isinstance(a, np.ndarray) and a.dtype.kind in "iu"
        }
        self.notes: list[str] = []
        self._alternatives: list[Reading] = []
        self._look(takes_dout)

    def _look(self, takes_dout: bool | None) -> None:
        """Runs both passes once, and finds out how they are to be called and read."""
        args, f, gradient = self._copies(self.leaves)
        opened = Instance(lambda *inputs: self._f(f, inputs), lambda *_: {}, args, {})
        with blaming(self.name):
            y = opened.forward()
        outputs = opened.outputs
        self._from_above = from_above(
            self.f, self.gradient, self.names, outputs=outputs.count, scalar=y.ndim == 0, takes_dout=takes_dout
        )
        self.takes_dout = self._from_above.taken
        if not self.takes_dout and y.size > 1:
            if outputs.has_number_first:
                raise SubjectError(f"{self.name}: returns a number and more, expected one output; {TWO_FUNCTIONS}")
            self.notes.append(OF_THE_SUM.format(self.name))
        result: Any = None
        with self.trying("gradient"):
            douts = outputs.unpack(np.ones_like(y))
            result = self._returned(gradient, args, douts, outputs.regrouped(douts))
        if self.fault:
            return
        first, *self._alternatives = readings_of(result, self.given, y)
        self._read_as(first, result)

    def _read_as(self, reading: Reading, result: Any) -> None:
        """Sorts the float arrays into leaves, others and constants, as one reading has it."""
        self.reading, self._result = reading, result
        claimed = by_leaf(result, reading, self.given)
        floats = self.given.floats
        self.leaves = {name: array for name, array in floats.items() if name in claimed}
        if not self.leaves:
            raise SubjectError(f"gradient: no gradient comes back for any of {', '.join(floats)}, nothing to check")
        self.others = {name: array for name, array in floats.items() if name not in claimed}
        bare = reading.form is Form.BARE
        self.constants = {
            name
            for name, array in self.others.items()
            if looks_constant(name, array, is_input=True)
            or (bare and self.given.owner[name] not in reading.owners and not is_called_parameter(name))
        }
        held = {name: self.held.arrays[name] for name in self.held.of_first}
        closed_over = {name: np.asarray(array) for name, array in held.items() if is_float(array)}
        self.others |= closed_over
        self.constants |= closed_over.keys()
        self.immovable = closed_over.keys() - self.held.movable
        note = VALUE_FIRST.format(self.name)
        self.notes = [*(n for n in self.notes if n != note), *([note] if reading.value_first else [])]

    def readings(self) -> Iterator[Checkable]:
        """Yields this subject with the gradient that came back taken for that by another argument."""
        for reading in self._alternatives:
            other = copy.copy(self)
            other._alternatives = []
            other._read_as(reading, self._result)
            yield other

    def with_integers(self, integers: Mapping[str, Array]) -> Checkable | None:
        if not integers.keys() <= set(self.names):
            return None
        other = copy.copy(self)
        args = tuple(integers.get(name, given) for name, given in zip(self.names, self.given.args, strict=True))
        other.given, other.integers = Arguments(self.f, args, complex_as_two=False), dict(integers)
        return other

    def open(self, leaves: Leaves) -> Instance:
        args, f, gradient = self._copies(leaves)
        names = list(self.given.leaves)
        flat = [leaf for name, arg in zip(self.names, args, strict=True) for _, leaf in leaves_of(arg, name)]
        handed = {name: leaf for name, leaf in zip(names, flat, strict=True) if isinstance(leaf, np.ndarray)}

        def backward(*douts: Any) -> dict[str, Any]:
            result = self._returned(gradient, args, douts, opened.outputs.regrouped(douts))
            found = by_leaf(result, self.reading, self.given)
            return {name: found.get(name) for name in self.leaves}

        opened = Instance(lambda *inputs: self._f(f, inputs), backward, args, handed)
        return opened

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        return self.given.filled(leaves)

    def _copies(self, leaves: Leaves) -> tuple[tuple[Any, ...], Callable[..., Any], Callable[..., Any]]:
        """The arguments at these leaves, and the two functions around what they hold at these leaves."""
        with double_precision():
            args = self.given.filled(leaves)
            f, gradient = self.held.rebuilt({name: leaves[name] for name in self.held.movable if name in leaves})
        return args, f, gradient

    def _f(self, f: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        with double_precision():
            return f(*args)

    def _returned(self, gradient: Callable[..., Any], args: tuple[Any, ...], douts: tuple[Any, ...], whole: Any) -> Any:
        restart_generators()  # a gradient that computes the forward pass anew draws the same mask
        with double_precision():
            return self._from_above.call(gradient, args, douts, whole)


def function_subject(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    gradient: Callable[..., Any] | None = None,
    takes_dout: bool | None = None,
) -> Checkable:
    """Returns the subject for a function: with a gradient of its own, or else with JAX's."""
    if gradient is not None:
        return CheckableFunction(f, args, gradient, takes_dout)
    from jaxnet.crosscheck.inspect.jax_function import CheckableJax  # JAX is loaded where it is needed

    return CheckableJax(f, args)


def expect_function(f: Any) -> None:
    """Checks that this can be called.

    Raises:
        SubjectError: It cannot.
    """
    if not callable(f):
        raise SubjectError(f"f: a {type(f).__name__}, expected a function")


def name_of(f: Callable[..., Any]) -> str:
    """Returns what a report calls a function."""
    return str(getattr(f, "__name__", type(f).__name__)).replace("<lambda>", "f")
