"""The common interface under which trial runs and checks call one copy of a layer or of a pair of functions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.errors import as_subject_error
from jaxnet.crosscheck.inspect.global_state import restart_generators
from jaxnet.crosscheck.inspect.outputs import Outputs
from jaxnet.crosscheck.inspect.trees import Array


class Adapter:
    """Calls one copy of a layer or of a pair of functions.

    Attributes:
        owner: The object that holds parameters and stored gradients; None for plain functions.
        source: The function or method that is the backward, in whose source gradients may have names.
    """

    owner: Any = None
    source: Any = None

    def forward(self, *inputs: Any) -> Any:
        """Returns the output; several outputs as a tuple."""
        raise NotImplementedError

    def backward(self, *douts: Any) -> Any:
        """Returns the value that the wrapped backward returns."""
        raise NotImplementedError

    def expect(self, douts: int, name: str) -> None:
        """Checks that backward takes this number of upstream gradients.

        Raises:
            SubjectError: If it takes another number.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Subject:
    """An object or a pair of functions, and how its copies are called.

    Attributes:
        base: The object, which is copied before each call.
        adapt: Makes a copy callable.
        names: The names of the inputs of forward.
        inputs: The inputs.
        calls: The names of forward and backward in messages.
    """

    base: Any
    adapt: Callable[[Any], Adapter]
    names: list[str]
    inputs: tuple[Any, ...]
    calls: tuple[str, str] = ("forward", "backward")

    def copy(self) -> Adapter:
        """Returns a callable copy."""
        return self.adapt(duplicate(self.base))

    def copy_after_forward(self, inputs: tuple[Any, ...]) -> Adapter:
        """Returns a callable copy that has run a forward pass.

        Raises:
            SubjectError: If forward raises.
        """
        adapter = self.copy()
        run_forward(adapter, inputs, self.calls[0])
        return adapter


def run_forward(adapter: Adapter, inputs: tuple[Any, ...], name: str, outputs: Outputs | None = None) -> Array:
    """Restarts the random generators, calls forward with copies of the inputs, and returns the packed output.

    Args:
        adapter: The copy that is called.
        inputs: The inputs, which are copied.
        name: The name of the forward, for messages.
        outputs: Packs the outputs. Defaults to a new packer.

    Raises:
        SubjectError: If forward raises; the message contains `name`.
    """
    copies = tuple(duplicate(value) for value in inputs)
    restart_generators()
    with as_subject_error(name):
        return (outputs or Outputs()).pack(adapter.forward(*copies))


def name_douts(count: int) -> str:
    """Returns the names of the upstream gradients in messages: `dout`, or `dout0, dout1`."""
    return "dout" if count == 1 else ", ".join(f"dout{i}" for i in range(count))
