"""Inspects functions that JAX differentiates, by its own rules or by a `jax.custom_vjp`."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.crosscheck.dtypes import is_float_dtype
from jaxnet.crosscheck.inspect.arguments import IMAG, REAL, Arguments, as_complex, float_parts
from jaxnet.crosscheck.inspect.checkable import TWO_FUNCTIONS_HINT, Checkable, Instance
from jaxnet.crosscheck.inspect.closures import CapturedArrays
from jaxnet.crosscheck.inspect.compiled import Compiled, is_close
from jaxnet.crosscheck.inspect.convention import Convention
from jaxnet.crosscheck.inspect.derivative_rules import has_own_rule
from jaxnet.crosscheck.inspect.errors import MissingGradientError, SubjectError, as_subject_error, describe
from jaxnet.crosscheck.inspect.function import NOTHING_TO_CHECK, expect_function, name_of
from jaxnet.crosscheck.inspect.inputs import numbers_in
from jaxnet.crosscheck.inspect.jax_errors import Origin, is_inside_jax, origin, reason, whole_tracebacks
from jaxnet.crosscheck.inspect.jax_program import Derive, JaxProgram, imaginary, packed, vjp_by_forward_mode, vjp_of
from jaxnet.crosscheck.inspect.optional_jax import double_precision, is_jax_array
from jaxnet.crosscheck.inspect.partners import (
    backward_name,
    derived_instead,
    gradient_names,
    has_partner,
    values_beside,
)
from jaxnet.crosscheck.inspect.trees import Array, Leaves, is_float, leaves_of

MAX_HINTED_ELEMENTS = 4096  # of the leaves, each of which takes one Jacobian-vector product in forward mode
ALL_OUTPUTS = "it returns a number and other outputs without gradient=, so JAX's gradient of all outputs is checked"
NO_OWN_RULE = "{} has no rule of its own: {}"


class CheckableJax(JaxProgram):
    """A function f(*args) of arrays or structures of arrays, and the gradient that JAX derives for it.

    The leaves are the float arrays among the arguments, and those that f captures. A complex array counts as two
    leaves, its real and imaginary parts, and a complex output as two float outputs, so that JAX's convention for
    complex numbers stays within the differentiated function.

    Args:
        f: The function.
        args: Its arguments.
        derive: How its gradient is derived: by reverse or by forward mode.

    Raises:
        SubjectError: If JAX cannot trace or differentiate it, or there is nothing to check.
    """

    convention = Convention.JAX

    def __init__(self, f: Callable[..., Any], args: tuple[Any, ...], derive: Derive = vjp_of) -> None:
        expect_function(f)
        self.derive = derive
        self.f, self.name = f, name_of(f)
        self.rule = self.name if isinstance(f, jax.custom_vjp) and derive is vjp_of else ""
        self.args = Arguments(f, args, complex_as_two=True)
        self.names = self.args.names
        self.captured = CapturedArrays((f,), tuple(self.args.leaves))
        if not self.args.floats and not self.captured.replaceable:
            raise SubjectError(NOTHING_TO_CHECK.format(self.name))
        self.numbers = numbers_in(dict(zip(self.names, args, strict=True)))
        self._has_number_first = False
        self._has_own_rule = True  # unless a trace shows the opposite
        self._is_imaginary = np.zeros(0, bool)
        self._captured_names: list[str] = []  # the captured arrays that are leaves
        self.others, self.constants = {}, set()
        y = self._output_of_original()
        if not is_float_dtype(y.dtype):
            raise SubjectError(f"{self.name}: returns {y.dtype}, expected floats, which JAX can differentiate")
        *choices, nothing = self._choices()
        for names in choices:
            try:
                self._differentiate_by(names, y)
            except SubjectError:  # JAX cannot trace it with these arrays as arguments
                continue
            break
        else:
            self._differentiate_by(nothing, y)
        if self._has_number_first:
            self.notes = [ALL_OUTPUTS]
        if derive is vjp_of and not (self._has_own_rule or self.fault):
            derived = NO_OWN_RULE.format(self.name, derived_instead(self.name, f, "JAX"))
            if has_partner(self.name, f) and self._uses_no_jax():
                self.doubts = [derived]
            else:
                self.notes = [*self.notes, derived]
        if derive is vjp_of and not self.fault:
            for name in self._numbers_without_gradient():
                self.others[name] = self.leaves.pop(name)

    def _numbers_without_gradient(self) -> list[str]:
        """Returns the Python numbers among the arguments for which the rule of a `custom_vjp` returns None."""
        if not isinstance(self.f, jax.custom_vjp):
            return []
        rule: Any = self.f
        try:
            bound = inspect.signature(rule.fun).bind(*self.args.args)
            bound.apply_defaults()
            args = bound.args
            fixed = [i % len(args) for i in rule.nondiff_argnums]
            with double_precision():
                output, residuals = rule.fwd(*args)
                above = jax.tree.map(jnp.ones_like, output)
                gradients = rule.bwd(*(args[i] for i in fixed), residuals, above)
            differentiated = [i for i in range(len(args)) if i not in fixed]
            by_argument = dict(zip(differentiated, tuple(gradients), strict=True))
        except Exception:  # what a rule cannot do outside of a trace is no fault of it
            return []
        named = enumerate(zip(self.names, self.args.args, strict=False))
        without = [name for i, (name, arg) in named if isinstance(arg, float) and by_argument.get(i, arg) is None]
        return [name for name in without if name in self.leaves and len(self.leaves) > 1]

    def _choices(self) -> list[list[str]]:
        """Returns the choices of captured arrays as leaves, in the order of preference: all, JAX arrays only, none."""
        replaceable = [name for name in self.captured.arrays if name in self.captured.replaceable]
        of_jax = [name for name in replaceable if is_jax_array(self.captured.arrays[name])]
        choices = [replaceable, of_jax, []]
        return [names for i, names in enumerate(choices) if names not in choices[:i]]

    def _differentiate_by(self, names: list[str], y: Array) -> None:
        """Takes the captured arrays of these names as leaves, and differentiates once, or raises a SubjectError."""
        captured = {place: part for name in names for place, part in float_parts(name, self.captured.arrays[name])}
        self.leaves = self.args.floats | captured
        if not self.leaves:
            raise SubjectError(NOTHING_TO_CHECK.format(self.name))
        self._captured_names = names
        self.set_program(self._function, self.derive)
        value = self._first_forward()
        if names and not (value.shape == y.shape and is_close(value, y)):
            raise SubjectError(f"{self.name}: returns another value with copies of the arrays that it captures")
        self._first_backward(np.ones_like(y))
        read, read_as_constants = self._leaves_read(captured)
        self.captured_leaves = frozenset(read)
        self.leaves = {n: a for n, a in self.leaves.items() if n in self.args.floats or n in self.captured_leaves}
        fixed = {name: np.asarray(a) for name, a in self.captured.arrays.items() if name not in names}
        self.others = {
            name: a for name, a in fixed.items() if name in self.captured.replaceable or read_as_constants(a)
        }
        # replaceable arrays that are no leaves are read by NumPy functions, outside of JAX's trace
        self.constants = {name for name in self.others if name in self.captured.replaceable}

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        return self.args.filled(leaves)

    def array_names(self) -> list[str]:
        return [*super().array_names(), *self.args.leaves, *self.captured.arrays]

    def _completed(self, leaves: Leaves) -> dict[str, Any]:
        numbers = {name: leaves[name] for name in self.others if name in leaves and name in self.args.floats}
        return super()._completed(leaves) | numbers

    def _function(self, leaves: Mapping[str, Any]) -> jax.Array:
        """Returns the outputs at the leaves, as one array."""
        args = self.args.filled(leaves, for_jax=True)
        replaced: dict[str, Any] = {}
        for name in self._captured_names:
            if name in leaves:
                replaced[name] = jnp.asarray(leaves[name])
            elif name + REAL in leaves:
                replaced[name] = as_complex(jnp.asarray(leaves[name + REAL]), jnp.asarray(leaves[name + IMAG]))
        (f,) = self.captured.rebuild(replaced)
        result = f(*args)
        self._has_number_first = (
            isinstance(result, tuple | list) and len(result) > 1 and getattr(result[0], "shape", None) == ()
        )
        self._is_imaginary = imaginary(result)
        return packed(result)

    @property
    def complex_leaves(self) -> list[str]:
        names = [*self.args.leaves, *self._captured_names]
        return [n for n in names if n not in self.leaves and {n + REAL, n + IMAG} <= self.leaves.keys()]

    def imaginary_outputs(self, output: Array) -> Array | None:
        return self._is_imaginary.reshape(output.shape) if self._is_imaginary.any() else None

    def _output_of_original(self) -> Array:
        """Returns the output of the original function, with the arrays that it captures."""
        self._captured_names = []
        self.set_program(self._function, self.derive)
        return self._first_forward()

    def _first_forward(self) -> Array:
        values = self.args.floats | getattr(self, "leaves", {})
        try:
            return np.asarray(self._forward.plain(values))
        except SubjectError:
            raise
        except Exception as error:
            if self._runs_on_numpy():
                raise self._untraceable(error) from error
            with as_subject_error(self.name):
                raise

    def _uses_no_jax(self) -> bool:
        """Returns whether the function makes no array of JAX from NumPy's: JAX traces the operators that it has too."""
        try:
            result = self.captured.rebuild({})[0](*self.args.filled({}))
        except Exception:  # what runs on arrays of JAX alone, such as `x.at`
            return False
        values = [value for _, value in leaves_of((result, self.args.args))]
        return not any(map(is_jax_array, values))

    def _runs_on_numpy(self) -> bool:
        """Returns whether the function runs on NumPy arrays, which unlike JAX arrays are mutable."""
        try:
            with double_precision():
                self.captured.rebuild({})[0](*self.args.filled({}))
        except Exception:
            return False
        return True

    def _first_backward(self, dout: Array) -> None:
        """Calls `jax.vjp` once, and records an exception in a derivative rule as a fault."""
        try:
            with whole_tracebacks():
                self._backward.plain(self.leaves, dout)
        except SubjectError:
            raise
        except Exception as error:
            match origin(error):
                case Origin.NOT_TRACEABLE:
                    raise self._untraceable(error) from error
                case Origin.NOT_DIFFERENTIABLE:
                    raise SubjectError(
                        f"{self.name}: JAX cannot differentiate it: {reason(error)}; pass gradient=, or write it "
                        f"with operations that have a derivative{self._forward_mode_hint(dout)}"
                    ) from error
                case Origin.RULE:
                    self.fault, self.leaves = f"jax.vjp raises {describe(error)}", {}

    def _forward_mode_hint(self, dout: Array) -> str:
        """Returns how to check the code in forward mode, if JAX has one for it."""
        if self.derive is vjp_by_forward_mode or sum(leaf.size for leaf in self.leaves.values()) > MAX_HINTED_ELEMENTS:
            return ""
        try:
            Compiled(vjp_by_forward_mode(self._function)).plain(self.leaves, dout)
        except Exception:
            return ""
        return f'; or check its forward mode: check_function({self.name}, ..., mode="forward")'

    def _untraceable(self, error: Exception) -> SubjectError:
        hint = f"; if it returns its value and its gradient, {TWO_FUNCTIONS_HINT}" if self._has_number_first else ""
        why = f"{self.name}: JAX cannot trace it ({type(error).__name__})"
        beside = values_beside(self.f)
        if backward := backward_name(self.name, beside):
            return MissingGradientError(why, (self.name, backward))
        gradients = gradient_names(self.name, beside)
        return SubjectError(f"{why}; pass gradient={''.join(gradients[:1])}, or use jax.numpy{hint}")

    def _leaves_read(self, captured: Leaves) -> tuple[set[str], Callable[[Array], bool]]:
        """Returns the captured leaves that the computation reads, and a test for arrays that it reads as constants.

        If JAX cannot trace the computation, all of them count as read.
        """
        values = {name: self.leaves[name] for name in sorted(self.leaves)}  # the order in which JAX flattens a dict
        try:
            with double_precision():
                closed = jax.make_jaxpr(self._function)(values)
        except Exception:
            return set(captured), lambda _: True
        self._has_own_rule = _is_of_jax(self.f) or has_own_rule(closed.jaxpr)
        read = {id(v) for equation in closed.jaxpr.eqns for v in equation.invars} | {
            id(v) for v in closed.jaxpr.outvars
        }
        constants = [np.asarray(c) for c in closed.consts if is_float(c)]
        names = {n for n, v in zip(values, closed.jaxpr.invars, strict=True) if n in captured and id(v) in read}
        return names, lambda array: any(c.shape == array.shape and np.array_equal(c, array) for c in constants)


def _is_of_jax(f: Callable[..., Any]) -> bool:
    code = getattr(inspect.unwrap(f), "__code__", None)
    return code is not None and is_inside_jax(code.co_filename)


class JaxReference(Checkable):
    """A JAX function of the arguments of another subject, differentiated by JAX.

    Its leaves are the leaves of the subject, except those that the subject captures.

    Args:
        function: The function.
        like: The subject.
    """

    derived_by = "JAX"

    def __init__(self, function: Callable[..., Any], like: Checkable) -> None:
        self.name = name_of(function)
        self.leaves = {name: leaf for name, leaf in like.leaves.items() if name not in like.captured_leaves}
        self.arguments = like.arguments  # type: ignore[method-assign]

        def forward(leaves: Mapping[str, Any]) -> jax.Array:
            return packed(function(*like.arguments(dict(leaves))))

        self._forward, self._backward = Compiled(forward), Compiled(vjp_of(forward))

    def open(self, leaves: Leaves) -> Instance:
        """Returns an instance at these leaves."""
        return Instance(lambda: self.forward(leaves), lambda dout: self.backward(leaves, dout), (), {})

    def forward(self, leaves: Leaves) -> Array:
        with as_subject_error(f"the reference {self.name}"):
            return np.asarray(self._forward(self._own(leaves)))

    def backward(self, leaves: Leaves, dout: Array) -> dict[str, Any]:
        with as_subject_error(f"the reference {self.name}"):
            return dict(self._backward(self._own(leaves), np.asarray(dout)))

    def _own(self, leaves: Leaves) -> Leaves:
        return {name: leaves.get(name, leaf) for name, leaf in self.leaves.items()}
