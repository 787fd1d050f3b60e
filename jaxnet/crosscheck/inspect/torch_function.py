"""PyTorch's functions: a torch.autograd.Function, its `apply`, a module, or any callable of tensors.

The gradient that is checked is the one that torch.autograd.grad returns. Values come and go as NumPy arrays; the
caller's tensors, modules and generators are copied, never touched.
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Checkable, Instance
from jaxnet.crosscheck.inspect.errors import SubjectError, as_subject_error
from jaxnet.crosscheck.inspect.signatures import input_names
from jaxnet.crosscheck.inspect.torch_instance import TorchInstance, with_parameters
from jaxnet.crosscheck.inspect.torch_tensors import (
    copied,
    held,
    loaded,
    refuse_tensor,
    tensors_from,
    to_numpy,
    to_tensor,
)
from jaxnet.crosscheck.inspect.trees import Array, Leaves

SCALED, SHIFTED = 1.25, 0.125  # where an array is moved to, to see whether the output depends on it


def is_torch(thing: Any, inputs: tuple[Any, ...]) -> bool:
    """Returns whether PyTorch is what calls this: a Function, a module, one of its own functions, or tensors came.

    Never imports torch: where nobody has, nothing is a tensor.
    """
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "Tensor"):
        return False
    owner = thing.func if isinstance(thing, functools.partial) else thing
    owner = getattr(owner, "__self__", owner)
    kind = owner if isinstance(owner, type) else type(owner)
    if issubclass(kind, torch.autograd.Function | torch.nn.Module):
        return True
    if callable(thing) and str(getattr(thing, "__module__", "")).partition(".")[0] == "torch":
        return True
    return any(_has_tensor(given, torch.Tensor) for given in inputs)


def _has_tensor(value: Any, kind: type) -> bool:
    if isinstance(value, list | tuple | dict):
        return any(_has_tensor(part, kind) for part in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, kind)


def forward_of(thing: Any) -> Callable[..., Any]:
    """Returns the function whose signature names the inputs: a Function's `forward` without its context."""
    torch = loaded()
    owner: Any = getattr(thing, "__self__", thing)
    is_function = isinstance(owner, type) and issubclass(owner, torch.autograd.Function)
    if is_function:
        has_context = owner.setup_context is torch.autograd.Function.setup_context
        return functools.partial(owner.forward, None) if has_context else owner.forward
    return thing.forward if isinstance(thing, torch.nn.Module) else thing


@dataclass(frozen=True)
class Slot:
    """A tensor that takes part, and what it was when it was brought."""

    tensor: Any
    is_input: bool

    @property
    def differentiable(self) -> bool:
        """Whether its owner asks for a gradient by it; what has a graph of its own is cut off from it."""
        return bool(self.tensor.requires_grad)


class CheckableTorch(Checkable):
    """A callable of tensors and the gradients that PyTorch returns for it.

    The leaves are the inputs with `requires_grad`, all float inputs where none has it, and every tensor with
    `requires_grad` that the callable holds: a module's parameters, and what a function refers to. Other float tensors
    are constants. An input that was not asked for by `requires_grad`, and by which no gradient comes back, is no leaf.

    Args:
        thing: A subclass of torch.autograd.Function, its `apply`, a module as it stands (training or not), or a
            callable.
        inputs: What it is called with: tensors, structures of them, and anything else; NumPy arrays become tensors.

    Raises:
        SubjectError: It cannot be called so, has a `backward` of its own, or tensors are complex or sparse.
    """

    derived_by = "PyTorch"
    accepts_double: bool  # False where it runs only in the dtype in which it was brought
    outputs_without_gradient: list[str]  # float outputs without a graph, such as those marked as non-differentiable

    def __init__(self, thing: Any, inputs: tuple[Any, ...]) -> None:
        torch = loaded()
        is_function = isinstance(thing, type) and issubclass(thing, torch.autograd.Function)
        owner = getattr(thing, "__self__", thing)
        self.name = getattr(owner if isinstance(owner, type) else thing, "__name__", type(thing).__name__)
        self.name = self.name.replace("<lambda>", "f")
        if not callable(thing):
            raise SubjectError(f"{self.name}: expected a module, a torch.autograd.Function or a callable of tensors")
        if isinstance(owner, torch.jit.ScriptModule):
            raise SubjectError(f"{self.name}: TorchScript holds its parameters itself: bring the module it was made of")
        if not is_function and callable(getattr(thing, "backward", None)):
            raise SubjectError(
                f"{self.name}: has a backward of its own, which PyTorch does not call; bring it as "
                "check_function(f, x, gradient=g), where g(x, dout) makes the object, calls forward, then backward"
            )
        self.function = thing.apply if is_function else thing
        self.inputs = tuple(tensors_from(given) for given in inputs)
        self.accepts_double = True
        self.outputs_without_gradient: list[str] = []
        with as_subject_error(self.name):
            self.function = with_parameters(self.function, self.inputs)
        self._find(input_names(forward_of(thing), len(inputs)))
        self._settle()
        self._first_backward()

    def _find(self, names: list[str]) -> None:
        """Names every tensor, and sorts the float ones into leaves, others and constants."""
        known: set[int] = set()
        self.generators: list[Any] = []
        self.slots: dict[str, Slot] = {}
        named = [(True, held(given, name, known)) for name, given in zip(names, self.inputs, strict=True)]
        for is_input, tensors in [*named, (False, held(self.function, "", known))]:
            for name, tensor in tensors:
                if isinstance(tensor, loaded().Generator):
                    self.generators.append(tensor)
                    continue
                place = name or "tensor"
                while place in self.slots:
                    place = f"self.{place}"
                self.slots[place] = Slot(tensor, is_input)
                refuse_tensor(place, tensor)
        floats = {name: slot for name, slot in self.slots.items() if slot.tensor.is_floating_point()}
        asked = any(slot.differentiable for slot in floats.values() if slot.is_input)
        wanted = [n for n, s in floats.items() if s.differentiable or (s.is_input and not asked)]
        values = {name: to_numpy(slot.tensor) for name, slot in floats.items()}
        self.leaves = {name: values[name] for name in wanted}
        self.others: Leaves = {name: value for name, value in values.items() if name not in wanted}
        self.constants = set(self.others)
        self.own = {name: value.dtype for name, value in values.items()}
        whole = {name: slot.tensor for name, slot in self.slots.items() if slot.is_input and name not in floats}
        self.integers = {n: to_numpy(t) for n, t in whole.items() if t.dtype != loaded().bool}
        self.numbers = _numbers(dict(zip(names, self.inputs, strict=True)) | _settings(self.function))
        if not self.leaves:
            raise SubjectError(f"{self.name}: no tensor of floats to take a gradient by; give it one, or parameters")

    def _settle(self) -> None:
        """Runs it as it was brought, and in float64; where dtypes do not go together, float64 is what is checked."""
        error = self._error(self.leaves)
        double = {name: array.astype(np.float64) for name, array in self.leaves.items()}
        error_in_double = error if _is_double(self.leaves) and _is_double(self.others) else self._error(double)
        if error is None:
            self.accepts_double = error_in_double is None
        elif error_in_double is None:  # the parameters' dtype is not the inputs'
            self.leaves = double
        else:
            with as_subject_error(self.name):
                raise error

    def _error(self, leaves: Leaves) -> Exception | None:
        """What a forward pass at the leaves raises."""
        try:
            self.open({name: array.copy() for name, array in leaves.items()}).forward()
        except SubjectError:
            raise
        except Exception as error:
            return error
        return None

    def _first_backward(self) -> None:
        opened = self.open({name: array.copy() for name, array in self.leaves.items()})
        with as_subject_error(self.name):
            y = opened.forward()
        try:
            gradients = opened.backward(np.ones_like(y))
        except SubjectError:
            raise
        except Exception as error:
            self.fault, self.leaves = f"backward raises {type(error).__name__}: {error}", {}
            return
        if all(gradient is None for gradient in gradients.values()):
            return
        for name, gradient in gradients.items():
            if gradient is None and (not self.slots[name].differentiable or not self._matters(name, y)):
                self.others[name] = self.leaves.pop(name)

    def _matters(self, name: str, y: Array) -> bool:
        """Whether the output changes with a leaf."""
        try:
            moved = self.forward(self.leaves | {name: SCALED * self.leaves[name] + SHIFTED})
        except Exception:
            return True
        return not np.array_equal(moved, y, equal_nan=True)

    def open(self, leaves: Leaves) -> Instance:
        return TorchInstance(self, leaves)

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        """Returns NumPy arrays in the place of tensors; a dict of the parameters first, where there are any."""
        values = {id(slot.tensor): leaves.get(name, self.others.get(name)) for name, slot in self.slots.items()}
        whole = {id(s.tensor): to_numpy(s.tensor) for s in self.slots.values() if values[id(s.tensor)] is None}
        args = tuple(copied(given, values | whole) for given in self.inputs)
        captured_leaves = {name: leaves[name] for name in self.leaves if not self.slots[name].is_input}
        return (captured_leaves, *args) if captured_leaves else args

    def tensor(self, name: str, leaves: Leaves) -> Any:
        """Returns the tensor of one slot at these leaves: in the leaf's dtype, or in the one in which it was brought.

        What was brought in bfloat16 is float32 in NumPy, and becomes bfloat16 again. In a check in float64 the other
        float tensors are float64 too, unless that cannot be run.
        """
        torch, slot = loaded(), self.slots[name]
        if name not in self.own:
            return slot.tensor.detach().clone()
        array = leaves.get(name, self.leaves.get(name, self.others.get(name)))
        assert array is not None
        asked = {leaf.dtype for leaf in leaves.values()}
        as_brought = all(leaf.dtype == self.own[n] for n, leaf in leaves.items() if n in self.own)
        wanted = array.dtype if name in leaves or as_brought or len(asked) > 1 else asked.pop()
        changed = self.accepts_double and wanted != self.own[name]
        dtype = to_tensor(np.zeros(0, wanted)).dtype if changed else slot.tensor.dtype
        tensor = to_tensor(array if name in leaves else array.copy(), dtype, slot.tensor.device)
        if name in self.leaves:
            tensor.requires_grad_(True)
        return (
            torch.nn.Parameter(tensor, name in self.leaves) if isinstance(slot.tensor, torch.nn.Parameter) else tensor
        )


def _is_double(arrays: Leaves) -> bool:
    return all(array.dtype == np.float64 for array in arrays.values())


def _settings(function: Any) -> dict[str, Any]:
    """The numbers that a module and its submodules were made with, by attribute."""
    if not isinstance(function, loaded().nn.Module):
        return {}
    within = {(f"{at}." if at else "") + n: v for at, m in function.named_modules() for n, v in vars(m).items()}
    return {name: value for name, value in within.items() if not name.rpartition(".")[2].startswith("_")}


def _numbers(named: dict[str, Any]) -> dict[str, float]:
    return {n: float(v) for n, v in named.items() if isinstance(v, int | float) and not isinstance(v, bool)}
