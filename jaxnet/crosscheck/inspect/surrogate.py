"""A declared surrogate: a gradient that is meant to be the derivative of another function than its forward."""

from collections.abc import Callable
from typing import Any

from jaxnet.crosscheck.inspect.checkable import Checkable, Instance
from jaxnet.crosscheck.inspect.errors import SubjectError, as_subject_error
from jaxnet.crosscheck.inspect.outputs import Outputs
from jaxnet.crosscheck.inspect.trees import Array, Leaves


class Surrogate(Checkable):
    """The backward of a checkable beside the forward of another function, as for a straight-through estimator.

    Args:
        checkable: What was brought.
        expected: The function whose derivative its gradient is meant to be: of (params, *inputs) where there are
            parameters, else of (*inputs), as a reference is.
    """

    def __init__(self, checkable: Checkable, expected: Callable[..., Any]) -> None:
        self.checkable, self.expected = checkable, expected
        self.name = getattr(expected, "__name__", "expected")
        self.leaves, self.takes_dout = checkable.leaves, checkable.takes_dout

    def open(self, leaves: Leaves) -> Instance:
        """Returns an instance whose forward is the expected function's."""
        own = self.checkable.open(leaves)
        opened = Instance(self.expected, lambda *_: {}, self.checkable.arguments(leaves), own.arrays)

        def forward() -> Array:
            y = own.forward()
            with as_subject_error(f"expected: {self.name}"):
                found = Outputs().pack(self.expected(*opened.inputs))
            if found.shape != y.shape:
                raise SubjectError(f"expected: {self.name} returns shape {found.shape}, expected {y.shape} as forward")
            return found

        opened.forward, opened.backward = forward, own.backward  # type: ignore[method-assign]
        return opened
