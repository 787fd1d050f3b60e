"""Checks surrogate gradients, which are meant to be the derivative of a function other than forward."""

import sys
from collections.abc import Callable
from typing import Any

from jaxnet.crosscheck.adapters.style import called
from jaxnet.crosscheck.inspect.checkable import Checkable, Instance
from jaxnet.crosscheck.inspect.errors import SubjectError, as_subject_error
from jaxnet.crosscheck.inspect.outputs import Outputs
from jaxnet.crosscheck.inspect.torch_tensors import in_numpy
from jaxnet.crosscheck.inspect.trees import Array, Leaves


class Surrogate(Checkable):
    """The backward of one subject with the forward of another function, as for a straight-through estimator.

    Args:
        checkable: The subject.
        expected: The function whose derivative the gradient is meant to be. It takes (params, *inputs) if the subject
            has parameters, else (*inputs), as a reference does: arrays, or tensors of PyTorch if it rejects arrays.
    """

    def __init__(self, checkable: Checkable, expected: Callable[..., Any]) -> None:
        self.checkable, self.expected = checkable, _of_arrays(expected, checkable.arguments(checkable.leaves))
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


def _of_arrays(expected: Callable[..., Any], arguments: tuple[Any, ...]) -> Callable[..., Any]:
    """Returns a function of arrays: the function, or one that calls it with tensors if it runs with these alone."""
    if "torch" not in sys.modules or not isinstance(called(expected, *arguments), Exception):
        return expected
    on_tensors = in_numpy(expected)
    return expected if isinstance(called(on_tensors, *arguments), Exception) else on_tensors
