"""The interface of everything that can be checked: named leaves, a forward pass and a backward pass.

A subject can be opened at any values of its leaves, in any floating dtype. The caller's objects and arrays are never
changed: `open` copies them and replaces the leaves in the copy.
"""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxnet.crosscheck.inspect.convention import Convention
from jaxnet.crosscheck.inspect.errors import SubjectError, describe, without_exit
from jaxnet.crosscheck.inspect.global_state import restart_generators
from jaxnet.crosscheck.inspect.inputs import different_inputs
from jaxnet.crosscheck.inspect.objects import floats_in
from jaxnet.crosscheck.inspect.optional_jax import is_jax_array
from jaxnet.crosscheck.inspect.outputs import Outputs
from jaxnet.crosscheck.inspect.trees import Array as Array
from jaxnet.crosscheck.inspect.trees import Leaves as Leaves
from jaxnet.crosscheck.inspect.trees import copied
from jaxnet.crosscheck.meter import count_forward
from jaxnet.crosscheck.number_format import NumberFormat, half_format

DerivedBy = Literal["analytic", "JAX", "PyTorch", "TensorFlow", "autograd", "PyTensor", "MLX"]
Backward = Callable[..., dict[str, Any]]
TWO_FUNCTIONS_HINT = "pass them separately: check_function(lambda ...: f(...)[0], ..., gradient=lambda ...: f(...)[1])"


class Instance:
    """One copy of a subject at some values of its leaves. It may keep state between calls.

    Args:
        forward: The forward pass, a function of the inputs.
        backward: The backward pass: takes a gradient for each output, returns the gradients by leaf.
        inputs: The inputs of `forward`.
        arrays: Every array that the copy holds or takes, by name; the subject should write to none of them.
        replaced: Returns the names of the arrays that the copy held and no longer holds.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        backward: Callable[..., dict[str, Any]],
        inputs: tuple[Any, ...],
        arrays: Leaves,
        replaced: Callable[[], list[str]] = list,
    ) -> None:
        self._forward, self._backward = without_exit(forward), without_exit(backward)
        self.inputs, self.arrays = inputs, arrays
        self.replaced = replaced
        self.outputs = Outputs()

    def forward(self) -> Array:
        """Returns the output. Restarts the global generators, so that a mask drawn from them is the same each time."""
        restart_generators()
        count_forward()
        return self.outputs.pack(self._forward(*self.inputs))

    def forward_at_different_inputs(self) -> bool:
        """Runs a forward pass at other inputs of the same shapes; returns whether any of them differs."""
        other = different_inputs(self.inputs)
        restart_generators()
        count_forward()
        self._forward(*other)
        return any(
            isinstance(a, np.ndarray) and not np.array_equal(a, b) for a, b in zip(other, self.inputs, strict=True)
        )

    def names_of_inputs(self, leaves: Leaves) -> list[str]:
        """Returns the leaves among the inputs; the others are parameters."""
        inputs = list(floats_in(list(self.inputs)))
        return [name for name, leaf in leaves.items() if any(array is leaf or array is leaf.base for array in inputs)]

    def backward(self, dout: Array) -> dict[str, Any]:
        """Returns the gradient of each leaf. Passes a copy of `dout`, because a backward may overwrite it."""
        return self.backward_as_given(*copied(self.outputs.unpack(dout)))

    def backward_as_given(self, *douts: Any) -> dict[str, Any]:
        """Returns the gradient of each leaf. Passes `douts` without copying, in their memory layout."""
        found = self._backward(*douts)
        return {name: np.asarray(g) if is_jax_array(g) else g for name, g in found.items()}


def with_backward(checkable: "Checkable", change: Callable[[Backward], Backward]) -> "Checkable":
    """Returns the same code with another backward pass.

    Args:
        checkable: The code.
        change: Maps the backward pass, a function of a gradient for each output that returns gradients by leaf.
    """
    other = copy.copy(checkable)

    def opened(leaves: Leaves) -> Instance:
        instance = checkable.open(leaves)
        instance._backward = change(instance._backward)
        return instance

    other.open = opened  # type: ignore[method-assign]
    return other


def name_of_dout(leaves: Leaves) -> str:
    """Returns the name of the upstream gradient where it is a leaf itself: dout, or dout2 if that is taken."""
    names = ("dout", *(f"dout{i}" for i in range(2, len(leaves) + 3)))
    return next(name for name in names if name not in leaves)


class PointValue(NamedTuple):
    """The output and the gradients at one point."""

    output: Array
    gradients: dict[str, Any]


class PartialDout(NamedTuple):
    """An upstream gradient that some or all of the outputs lack: for them, the backward receives None.

    Attributes:
        condition: Which outputs have one, as the end of a sentence.
        dout: The upstream gradient, with zeros for the outputs that lack it.
        gradients: Returns the gradients by leaf.
        certain: Whether an exception of the backward is the fault of the code that is checked.
    """

    condition: str
    dout: Array
    gradients: Callable[[], dict[str, Any]]
    certain: bool = True


class Checkable:
    """A function of arrays and the vector-Jacobian product that it claims.

    Attributes:
        name: The name in reports.
        leaves: The arrays whose gradients are checked, by name: "W", "x", "Affine1.W".
        others: The float arrays that it takes or holds and that get no gradient.
        constants: The names of `others` that are declared or recognized as constants.
        captured_leaves: The names of leaves that are not arguments, and that a reference does not know.
        takes_dout: Whether its backward takes an upstream gradient.
        derived_by: Where the checked gradient comes from.
        rule: The name of the function whose backward pass the framework calls; empty if it derives the gradient.
        accumulating: The names of leaves to whose gradients its backward adds. They are cleared before each call.
        notes: Sentences about how the subject was interpreted.
        doubts: Reasons why a PASS would say nothing about the gradient that is meant, one sentence each.
        doubt: Why this reading of the gradients is not certain although it passes; empty if it is.
        fault: The message of the exception that its backward raises; empty if it raises none.
        numbers: The numbers that it was made with: a dropout rate, a stride, an eps.
        integers: The ids and labels among its inputs.
        batch: The samples of a network. They are not leaves, but a mean may be taken over their sizes.
        transforms: The names of the transformations that `under` applies.
        cheap_transforms: Those that every check applies.
        has_complex_output: Whether hand-written code returns complex numbers.
        convention: The convention for complex gradients, by which those of the leaves are read.
        second_derivative: Returns the gradient as a function, with a derivative that was written by hand too.
        gradient_of: If it is the gradient of a function, the leaves of that function, in the order of the output.
    """

    name: str
    leaves: Leaves
    others: Mapping[str, Array] = {}
    constants: Set[str] = frozenset()
    captured_leaves: Collection[str] = frozenset()
    takes_dout = True
    derived_by: DerivedBy = "analytic"
    rule: str = ""
    accumulating: Sequence[str] = ()
    notes: Sequence[str] = ()
    doubts: Sequence[str] = ()
    doubt = ""
    fault = ""
    numbers: Mapping[str, float] = {}
    integers: Mapping[str, Array] = {}
    batch: Mapping[str, Array] = {}
    second_derivative: "Callable[[Array], Checkable] | None" = None
    transforms: Sequence[str] = ()
    cheap_transforms: Sequence[str] = ()
    gradient_of: Sequence[str] = ()
    has_complex_output = False
    convention: Convention | None = None

    def half_format(self, name: str) -> NumberFormat | None:
        """Returns the format of a leaf of 16 bits or fewer; None for other leaves."""
        return half_format(self.leaves[name].dtype)

    @property
    def owner(self) -> Any:
        """The object that holds the parameters; None for functions."""
        return None

    @property
    def complex_leaves(self) -> list[str]:
        """The names of the arrays whose parts, `z.real` and `z.imag`, are two leaves."""
        return []

    def array_names(self) -> list[str]:
        """Returns the names of the arrays that it takes or holds, those without any effect included."""
        return [*self.leaves, *self.others, *self.integers, *self.numbers]

    @contextmanager
    def recording_fault(self, call: str) -> Iterator[None]:
        """Records an exception of the block as the fault of this subject, and removes its leaves.

        Args:
            call: The name of the call in the block, for the message.
        """
        try:
            yield
        except SubjectError:
            raise
        except Exception as error:
            self.fault, self.leaves = f"{call} raises {describe(error)}", {}

    def open(self, leaves: Leaves) -> Instance:
        """Returns a new instance at these leaves."""
        raise NotImplementedError

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        """Returns the arguments of a JAX reference at these leaves."""
        raise NotImplementedError

    def shared_memory_gradient(self, name: str, gradients: Mapping[str, Any]) -> Array | None:
        """Returns the sum of the gradients of all leaves that share memory with this one; None if none does."""
        del name, gradients
        return None

    def readings(self) -> Iterator["Checkable"]:
        """Yields other ways to read the value that backward returned."""
        yield from ()

    def conventions(self) -> Iterator["Checkable"]:
        """Yields this subject with complex gradients read by another convention."""
        yield from ()

    def imaginary_outputs(self, output: Array) -> Array | None:
        """Returns whether each element of the output is the imaginary part of a number; None if none is."""
        del output
        return None

    def with_integers(self, integers: Mapping[str, Array]) -> "Checkable | None":
        """Returns the same subject with other ids and labels; None if they cannot be replaced."""
        del integers
        return None

    def consistent(self, leaves: Leaves) -> Leaves:
        """Returns the leaves with equal values where they share memory."""
        return leaves

    def value_under_differentiation(self, leaves: Leaves) -> Array | None:
        """Returns the output that differentiation computes; None if it runs the same code as forward."""
        del leaves
        return None

    def pushforward(self, leaves: Leaves, tangents: Leaves) -> Array | None:
        """Returns J v, the derivative of the output along `tangents`, by forward mode; None if it has none.

        Leaves without a tangent do not move.
        """
        del leaves, tangents
        return None

    def gradient_checkable(self, dout: Array) -> "Checkable | None":
        """Returns the gradient as a function of the leaves and of `dout`; None if it cannot be differentiated."""
        return None if self.second_derivative is None else self.second_derivative(dout)

    def partial_gradient(self, leaves: Leaves, dout: Array, names: Collection[str]) -> dict[str, Any] | None:
        """Returns the gradients of some leaves, where the others need none; None if that is no other call."""
        del leaves, dout, names
        return None

    def partial_douts(self, leaves: Leaves, dout: Array) -> Iterator[PartialDout]:
        """Yields the calls in which outputs have no upstream gradient, if there are such calls."""
        del leaves, dout
        yield from ()

    def under(self, transform: str, points: Sequence[Leaves], dout: Array) -> list[PointValue]:
        """Returns the output and the gradients at each point, as they are computed under a transformation."""
        raise NotImplementedError

    def forward(self, leaves: Leaves) -> Array:
        """Returns the output at the leaves."""
        return self.open(leaves).forward()

    def backward(self, leaves: Leaves, dout: Array) -> dict[str, Any]:
        """Returns the gradients at the leaves, from a new instance."""
        opened = self.open(leaves)
        opened.forward()
        return opened.backward(dout)
