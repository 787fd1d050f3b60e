"""Inspects functions of arrays with a hand-written gradient."""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.arguments import Arguments
from jaxnet.crosscheck.inspect.checkable import TWO_FUNCTIONS_HINT, Checkable, Instance
from jaxnet.crosscheck.inspect.closures import CapturedArrays
from jaxnet.crosscheck.inspect.errors import SubjectError, as_subject_error, did_you_mean, kind_of
from jaxnet.crosscheck.inspect.global_state import restart_generators
from jaxnet.crosscheck.inspect.gradient_readings import Form, Reading, gradients_by_leaf, possible_readings
from jaxnet.crosscheck.inspect.inputs import integers_in, numbers_in
from jaxnet.crosscheck.inspect.optional_jax import double_precision
from jaxnet.crosscheck.inspect.role_heuristics import is_parameter_name, looks_constant
from jaxnet.crosscheck.inspect.signatures import from_above
from jaxnet.crosscheck.inspect.trees import Array, Leaves, is_array, is_inexact, leaves_of

NOTHING_TO_CHECK = "{}: no argument has floats, so there is nothing to check; pass arrays of floats"
OF_THE_SUM = "gradient takes no dout, so it is checked as the gradient of {} of {}"
THE_SUM, THE_REAL_SUM = "the sum of the outputs", "the real part of the sum of the outputs"
VALUE_FIRST = "gradient returns the value of {} first, so the rest is read as the gradient"


class CheckableFunction(Checkable):
    """A function f(*args) of arrays or structures of arrays, and its hand-written `gradient`.

    `gradient` takes the same arguments. If it requires one more, that is `dout`, or one more for each output; `dout`
    comes last, or first if its name says so, or is a keyword. It returns a gradient for each argument, for the first
    of those with floats, a dict of gradients by name, or a single gradient.

    Args:
        f: The function.
        args: Its arguments.
        gradient: Its gradient.
        takes_dout: Whether `gradient` takes `dout`. Defaults to what its signature says.

    Raises:
        SubjectError: If it cannot be checked.
    """

    derived_by = "analytic"

    def __init__(
        self, f: Callable[..., Any], args: tuple[Any, ...], gradient: Callable[..., Any], takes_dout: bool | None = None
    ) -> None:
        expect_function(f)
        if not callable(gradient):
            raise SubjectError(f"gradient: {kind_of(gradient)}, expected a function of the same arguments")
        self.f, self.gradient, self.name = f, gradient, name_of(f)
        self.args = Arguments(f, args, complex_as_two=False)
        self.names, self.leaves = self.args.names, self.args.floats
        if not self.leaves:
            raise SubjectError(NOTHING_TO_CHECK.format(self.name))
        self.captured = CapturedArrays((f, gradient), tuple(self.args.leaves))
        self.numbers = numbers_in(dict(zip(self.names, args, strict=True)))
        self.integers = integers_in(self.args.leaves)
        self.notes: list[str] = []
        self._alternatives: list[Reading] = []
        self._run_both_passes(takes_dout)

    def _run_both_passes(self, takes_dout: bool | None) -> None:
        """Runs both passes once, to find out how gradient takes `dout` and how its result is read."""
        args, f, gradient = self._copies(self.leaves)
        opened = Instance(lambda *inputs: self._f(f, inputs), lambda *_: {}, args, {})
        with as_subject_error(self.name):
            y = opened.forward()
        outputs = opened.outputs
        self.has_complex_output = outputs.has_complex
        self._from_above = from_above(
            self.f, self.gradient, self.names, outputs=outputs.count, scalar=y.ndim == 0, takes_dout=takes_dout
        )
        self.takes_dout = self._from_above.taken
        self._is_loss = y.ndim == 0 and not self.takes_dout
        if not self.takes_dout and y.size > 1:
            if outputs.has_number_first:
                raise SubjectError(f"{self.name}: returns several outputs, expected one; {TWO_FUNCTIONS_HINT}")
            self.notes.append(OF_THE_SUM.format(THE_REAL_SUM if outputs.has_complex else THE_SUM, self.name))
        result: Any = None
        with self.recording_fault("gradient"):
            douts = outputs.unpack(np.ones_like(y))
            result = self._call_gradient(gradient, args, douts, outputs.regrouped(douts))
        if self.fault:
            return
        first, *self._alternatives = possible_readings(result, self.args, y, self.gradient)
        self._read_as(first, result)

    def _read_as(self, reading: Reading, result: Any) -> None:
        """Sorts the float arrays into leaves, others and constants, according to one reading of the result."""
        self.reading, self._result = reading, result
        with_gradient = gradients_by_leaf(result, reading, self.args)
        floats = self.args.floats
        self.leaves = {name: array for name, array in floats.items() if name in with_gradient}
        if not self.leaves:
            raise SubjectError(
                f"gradient: returns no gradient for any of {', '.join(floats)}, so there is nothing to check"
            )
        self.others = {name: array for name, array in floats.items() if name not in with_gradient}
        is_single = reading.form is Form.SINGLE or is_array(result)  # several numbers, whose gradients are one array
        self.constants = {
            name
            for name, array in self.others.items()
            if looks_constant(name, array, is_input=True)
            or (is_single and self.args.owner[name] not in reading.owners and not is_parameter_name(name))
        }
        if self._is_loss and all(map(is_parameter_name, self.leaves)):
            self.constants |= {name for name in self.others if not is_parameter_name(name)}  # the data of a loss
        captured = {name: self.captured.arrays[name] for name in self.captured.of_first}
        floats_of_f = {name: np.asarray(array) for name, array in captured.items() if is_inexact(array)}
        self.others |= floats_of_f
        self.constants |= floats_of_f.keys()
        note = VALUE_FIRST.format(self.name)
        self.notes = [*(n for n in self.notes if n != note), *([note] if reading.value_first else [])]

    def readings(self) -> Iterator[Checkable]:
        """Yields this subject with the gradient that was returned assigned to another argument."""
        for reading in self._alternatives:
            other = copy.copy(self)
            other._alternatives = []
            other._read_as(reading, self._result)
            yield other

    def with_integers(self, integers: Mapping[str, Array]) -> Checkable | None:
        if not integers.keys() <= set(self.names):
            return None
        other = copy.copy(self)
        args = tuple(integers.get(name, value) for name, value in zip(self.names, self.args.args, strict=True))
        other.args, other.integers = Arguments(self.f, args, complex_as_two=False), dict(integers)
        return other

    def open(self, leaves: Leaves) -> Instance:
        args, f, gradient = self._copies(leaves)
        names = list(self.args.leaves)
        flat = [leaf for name, arg in zip(self.names, args, strict=True) for _, leaf in leaves_of(arg, name)]
        arrays = {name: leaf for name, leaf in zip(names, flat, strict=True) if isinstance(leaf, np.ndarray)}

        def backward(*douts: Any) -> dict[str, Any]:
            result = self._call_gradient(gradient, args, douts, opened.outputs.regrouped(douts))
            found = gradients_by_leaf(result, self.reading, self.args)
            return {name: found.get(name) for name in self.leaves}

        opened = Instance(lambda *inputs: self._f(f, inputs), backward, args, arrays)
        return opened

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        return self.args.filled(leaves)

    def array_names(self) -> list[str]:
        return [*super().array_names(), *self.args.leaves, *self.captured.arrays]

    def _copies(self, leaves: Leaves) -> tuple[tuple[Any, ...], Callable[..., Any], Callable[..., Any]]:
        """Returns copies of the arguments and of the two functions, with the leaves in place."""
        with double_precision():
            args = self.args.filled(leaves)
            replaced = {name: leaves[name] for name in self.captured.replaceable if name in leaves}
            f, gradient = self.captured.rebuild(replaced)
        return args, f, gradient

    def _f(self, f: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        with double_precision():
            return f(*args)

    def _call_gradient(
        self, gradient: Callable[..., Any], args: tuple[Any, ...], douts: tuple[Any, ...], whole: Any
    ) -> Any:
        restart_generators()  # a gradient that runs the forward pass again draws the same mask
        with double_precision():
            return self._from_above.call(gradient, args, douts, whole)


def inspect_function(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    gradient: Callable[..., Any] | None = None,
    takes_dout: bool | None = None,
) -> Checkable:
    """Returns a function as a Checkable, with JAX's gradient in reverse mode if it has no hand-written one."""
    if gradient is not None:
        return CheckableFunction(f, args, gradient, takes_dout)
    from jaxnet.crosscheck.inspect.jax_function import CheckableJax  # imports JAX only if needed

    return CheckableJax(f, args)


def inspect_forward_mode(f: Callable[..., Any], args: tuple[Any, ...]) -> Checkable:
    """Returns a function as a Checkable, with the gradient that JAX's forward mode gives."""
    from jaxnet.crosscheck.inspect.jax_function import CheckableJax
    from jaxnet.crosscheck.inspect.jax_program import vjp_by_forward_mode

    return CheckableJax(f, args, vjp_by_forward_mode)


def expect_function(f: Any) -> None:
    """Raises a SubjectError if f is not callable."""
    if callable(f):
        return
    if callable(getattr(f, "forward", None)) and not isinstance(f, type):
        raise SubjectError(f"{type(f).__name__} {lacks_backward(type(f))}")
    raise SubjectError(f"f: {kind_of(f)}, expected a function{_methods_hint(f)}")


def lacks_backward(layer: type) -> str:
    """Returns what a class lacks that has a forward pass alone, with the method that may be the misspelled one.

    Examples:
        >>> class Double:
        ...     def forward(self, x):
        ...         return 2 * x
        ...     def backwards(self, dout):
        ...         return 2 * dout
        >>> lacks_backward(Double)
        'has forward and no backward(dout); did you mean backwards?'
    """
    own = [name for name in dir(layer) if not name.startswith("_") and name != "forward"]
    near = did_you_mean("backward", own)
    return "has forward and no backward(dout)" + (f"; {near}" if near else "")


def _methods_hint(thing: Any) -> str:
    """Returns how to pass the method of an object that is named after a gradient; empty if it has none."""
    names = [name for name in dir(type(thing)) if "grad" in name.lower() and callable(getattr(type(thing), name))]
    if not names or isinstance(thing, type):
        return ""
    method = f"thing.{names[0]}"
    return (
        f"; if {names[0]} returns the value and the gradient, pass check({method}, ...), "
        f"and if it returns the gradient of another method f, check((thing.f, {method}), ...)"
    )


def name_of(f: Callable[..., Any]) -> str:
    """Returns the name of a function in reports."""
    return str(getattr(f, "__name__", type(f).__name__)).replace("<lambda>", "f")
