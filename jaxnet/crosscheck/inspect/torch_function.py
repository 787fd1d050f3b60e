"""Inspects PyTorch functions: a torch.autograd.Function, its `apply`, a module, or any callable of tensors.

The checked gradient is the one that torch.autograd.grad returns. Leaves and gradients are NumPy arrays; the caller's
tensors, modules and generators are copied and never changed.
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.arguments import IMAG, REAL, as_complex
from jaxnet.crosscheck.inspect.checkable import Instance
from jaxnet.crosscheck.inspect.convention import Convention
from jaxnet.crosscheck.inspect.errors import SubjectError, as_subject_error
from jaxnet.crosscheck.inspect.held_parameters import proposal_for_attributes
from jaxnet.crosscheck.inspect.inputs import clearly_moved
from jaxnet.crosscheck.inspect.signatures import input_names
from jaxnet.crosscheck.inspect.torch_copying import copy_with, tensors_in
from jaxnet.crosscheck.inspect.torch_instance import TorchInstance, copied_generators, floats_of, with_parameters
from jaxnet.crosscheck.inspect.torch_program import Tensors, TorchProgram, Wrap
from jaxnet.crosscheck.inspect.torch_tensors import (
    in_floats,
    is_inexact_tensor,
    parts_of,
    reject_tensor,
    tensors_from,
    to_numpy,
    to_tensor,
    torch_module,
)
from jaxnet.crosscheck.inspect.trees import Array, Leaves
from jaxnet.crosscheck.number_format import HALVES, NumberFormat


def is_torch(thing: Any, inputs: tuple[Any, ...]) -> bool:
    """Returns whether this is a Function, a module, a function of PyTorch, or any inputs are tensors.

    Never imports torch: if it is not loaded, nothing is a tensor.
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
    return any(_has_tensor(value, torch.Tensor) for value in inputs)


def _has_tensor(value: Any, kind: type) -> bool:
    if isinstance(value, list | tuple | dict):
        return any(_has_tensor(part, kind) for part in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, kind)


def forward_of(thing: Any) -> Callable[..., Any]:
    """Returns the function whose signature names the inputs: of a Function, its `forward` without the context."""
    torch = torch_module()
    owner: Any = getattr(thing, "__self__", thing)
    is_function = isinstance(owner, type) and issubclass(owner, torch.autograd.Function)
    if is_function:
        has_context = owner.setup_context is torch.autograd.Function.setup_context
        return functools.partial(owner.forward, None) if has_context else owner.forward
    return thing.forward if isinstance(thing, torch.nn.Module) else thing


@dataclass(frozen=True)
class Slot:
    """A tensor that was passed in or that the callable holds."""

    tensor: Any
    is_input: bool

    @property
    def differentiable(self) -> bool:
        """Whether it has `requires_grad`. A tensor with a graph is detached from it."""
        return bool(self.tensor.requires_grad)


class CheckableTorch(TorchProgram):
    """A callable of tensors and the gradients that PyTorch returns for it.

    The leaves are the inputs with `requires_grad`, or all float inputs if none has it, and every tensor with
    `requires_grad` that the callable refers to, such as a module's parameters. Other float tensors are constants. An
    input without `requires_grad` that gets no gradient is not a leaf. A complex tensor counts as two leaves, its real
    and imaginary parts, which are joined within the graph, and a complex output as two float outputs.

    Args:
        thing: A subclass of torch.autograd.Function, its `apply`, a module in training or evaluation mode, or a
            callable.
        inputs: Its inputs: tensors, structures of them, and anything else. NumPy arrays become tensors.

    Attributes:
        accepts_double: Whether it runs in float64, and not only in the dtype of the inputs.
        slots: The tensors that it takes or holds, by name.
        parts: The leaves, or the single name, of each of these: `("z.real", "z.imag")` for a complex `z`.
        outputs_without_gradient: The names of float outputs without a graph, such as non-differentiable ones.
        is_imaginary: Whether each element of the output is the imaginary part of a number.

    Raises:
        SubjectError: If it cannot be called so, has a `backward` of its own, or tensors are sparse or of complex32.
    """

    convention = Convention.PYTORCH

    def __init__(self, thing: Any, inputs: tuple[Any, ...]) -> None:
        torch = torch_module()
        is_function = isinstance(thing, type) and issubclass(thing, torch.autograd.Function)
        owner = getattr(thing, "__self__", thing)
        self.name = getattr(owner if isinstance(owner, type) else thing, "__name__", type(thing).__name__)
        self.name = self.name.replace("<lambda>", "f")
        is_apply = isinstance(owner, type) and issubclass(owner, torch.autograd.Function)
        self.rule = self.name if is_apply else ""
        if not callable(thing):
            expected = "expected a module, a torch.autograd.Function or a callable of tensors"
            raise SubjectError(f"{self.name}: {expected}{proposal_for_attributes(thing)}")
        if isinstance(owner, torch.jit.ScriptModule):
            raise SubjectError(f"{self.name}: TorchScript holds its parameters itself; pass the original module")
        if not is_function and callable(getattr(thing, "backward", None)):
            raise SubjectError(
                f"{self.name}: has a backward of its own, which PyTorch does not call; pass it as "
                "check_function(f, x, gradient=g), where g(x, dout) makes the object, calls forward, then backward"
            )
        self.function = thing.apply if is_function else thing
        self.inputs = tuple(tensors_from(value) for value in inputs)
        self.accepts_double = True
        self.outputs_without_gradient: list[str] = []
        self.is_imaginary = np.zeros(0, bool)
        with as_subject_error(self.name):
            self.function = with_parameters(self.function, self.inputs)
        self._find(input_names(forward_of(thing), len(inputs)))
        self._choose_dtype()
        self._first_backward()

    def _find(self, names: list[str]) -> None:
        """Names all tensors, and sorts those of floats into leaves, others and constants."""
        known: set[int] = set()
        self.generators: list[Any] = []
        self.slots: dict[str, Slot] = {}
        named = [(True, tensors_in(value, name, known)) for name, value in zip(names, self.inputs, strict=True)]
        for is_input, tensors in [*named, (False, tensors_in(self.function, "", known))]:
            for name, tensor in tensors:
                if isinstance(tensor, torch_module().Generator):
                    self.generators.append(tensor)
                    continue
                place = name or "tensor"
                while place in self.slots:
                    place = f"self.{place}"
                self.slots[place] = Slot(tensor, is_input)
                reject_tensor(place, tensor)
        floats = {name: slot for name, slot in self.slots.items() if is_inexact_tensor(slot.tensor)}
        any_input = any(slot.differentiable for slot in floats.values() if slot.is_input)
        self.parts = {n: (n + REAL, n + IMAG) if s.tensor.is_complex() else (n,) for n, s in self.slots.items()}
        self.place_of = {part: name for name, parts in self.parts.items() for part in parts}
        chosen = [n for n, s in floats.items() if s.differentiable or (s.is_input and not any_input)]
        leaves = {part for name in chosen for part in self.parts[name]}
        values = {
            part: to_numpy(value)
            for name, slot in floats.items()
            for part, value in zip(self.parts[name], parts_of(slot.tensor.detach()), strict=True)
        }
        self.leaves = {name: value for name, value in values.items() if name in leaves}
        self.others: Leaves = {name: value for name, value in values.items() if name not in leaves}
        self.constants = set(self.others)
        self.dtypes = {name: value.dtype for name, value in values.items()}
        other = {name: slot.tensor for name, slot in self.slots.items() if slot.is_input and name not in floats}
        self.integers = {n: to_numpy(t) for n, t in other.items() if t.dtype != torch_module().bool}
        self.numbers = _numbers(dict(zip(names, self.inputs, strict=True)) | _settings(self.function))
        if not self.leaves:
            raise SubjectError(f"{self.name}: no tensor of floats, so there is nothing to check; pass one, or a module")

    def _choose_dtype(self) -> None:
        """Runs it in its own dtypes and in float64; if only float64 works, the leaves become float64."""
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
        """Returns the exception of a forward pass at the leaves; None if it raises none."""
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
        gradients: dict[str, Any] = {}
        with self.recording_fault("backward"):
            gradients = opened.backward(np.ones_like(y))
        if all(gradient is None for gradient in gradients.values()):
            return
        for name, gradient in gradients.items():
            slot = self.slots[self.place_of[name]]
            if gradient is None and (not slot.differentiable or not self._affects_output(name, y)):
                self.others[name] = self.leaves.pop(name)

    def _affects_output(self, name: str, y: Array) -> bool:
        """Returns whether the output changes with a leaf."""
        try:
            y_moved = self.forward(self.leaves | {name: clearly_moved(self.leaves[name])})
        except Exception:
            return True
        return not np.array_equal(y_moved, y, equal_nan=True)

    def open(self, leaves: Leaves) -> Instance:
        return TorchInstance(self, leaves)

    def outputs(self, tensors: Tensors, leaves: Leaves, wrap: Wrap | None = None) -> list[Any]:
        parts = {n: tensors[n] if n in tensors else self.tensor(n, leaves) for n in self.place_of}
        all_tensors = {name: self.joined(name, parts) for name in self.slots}
        memo = copied_generators(self.generators)
        for name, slot in self.slots.items():
            is_cloned = slot.is_input and is_inexact_tensor(slot.tensor)
            memo[id(slot.tensor)] = all_tensors[name].clone() if is_cloned else all_tensors[name]
        function = copy_with(self.function, memo)
        result = (wrap(function) if wrap else function)(*(copy_with(argument, memo) for argument in self.inputs))
        return [in_floats(part) for name, part in floats_of(result) if name not in self.outputs_without_gradient]

    def joined(self, name: str, parts: Tensors) -> Any:
        """Returns the tensor of a slot from its parts: itself, or the complex tensor with these parts."""
        tensors = [parts[part] for part in self.parts[name]]
        return tensors[0] if len(tensors) == 1 else torch_module().complex(*tensors)

    @property
    def complex_leaves(self) -> list[str]:
        return [name for name, parts in self.parts.items() if len(parts) == 2 and set(parts) <= self.leaves.keys()]

    def imaginary_outputs(self, output: Array) -> Array | None:
        return self.is_imaginary.reshape(output.shape) if self.is_imaginary.any() else None

    def array_names(self) -> list[str]:
        return [*self.slots, *self.place_of]

    def half_format(self, name: str) -> NumberFormat | None:
        """Returns the format of a leaf's tensor, because a bfloat16 tensor is float32 in NumPy."""
        if name not in self.slots:  # a part of a complex tensor
            return None
        own = str(self.slots[name].tensor.dtype).removeprefix("torch.")
        return HALVES.get(own) if self.leaves[name].dtype == self.dtypes[name] else None

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        """Returns the arguments as NumPy arrays, after a dict of the parameters if there are any."""
        known = {**self.others, **self.leaves, **leaves}
        values = {}
        for name, slot in self.slots.items():
            parts = [known[part] for part in self.parts[name] if part in known]
            values[name] = as_complex(*parts) if len(parts) == 2 else parts[0] if parts else to_numpy(slot.tensor)
        args = tuple(copy_with(v, {id(s.tensor): values[n] for n, s in self.slots.items()}) for v in self.inputs)
        held = [name for name, slot in self.slots.items() if not slot.is_input and self.parts[name][0] in self.leaves]
        parameters = {name: values[name] for name in held}
        return (parameters, *args) if parameters else args

    def tensor(self, name: str, leaves: Leaves) -> Any:
        """Returns a tensor, or a part of a complex one, at these leaves, in the dtype of its leaf or in its own dtype.

        A bfloat16 tensor, which is float32 in NumPy, becomes bfloat16 again. If the leaves are float64, the other
        float tensors become float64 too, unless the callable does not accept it.
        """
        torch, slot = torch_module(), self.slots[self.place_of[name]]
        if name not in self.dtypes:
            return slot.tensor.detach().clone()
        array = leaves.get(name, self.leaves.get(name, self.others.get(name)))
        assert array is not None
        dtypes = {leaf.dtype for leaf in leaves.values()}
        own_dtypes = all(leaf.dtype == self.dtypes[n] for n, leaf in leaves.items() if n in self.dtypes)
        dtype = array.dtype if name in leaves or own_dtypes or len(dtypes) > 1 else dtypes.pop()
        is_cast = self.accepts_double and dtype != self.dtypes[name]
        torch_dtype = to_tensor(np.zeros(0, dtype)).dtype if is_cast else slot.tensor.dtype.to_real()
        tensor = to_tensor(array if name in leaves else array.copy(), torch_dtype, slot.tensor.device)
        if name in self.leaves:
            tensor.requires_grad_(True)
        is_parameter = isinstance(slot.tensor, torch.nn.Parameter) and not slot.tensor.is_complex()
        return torch.nn.Parameter(tensor, name in self.leaves) if is_parameter else tensor


def _is_double(arrays: Leaves) -> bool:
    return all(array.dtype == np.float64 for array in arrays.values())


def _settings(function: Any) -> dict[str, Any]:
    """Returns the public attributes of a module and its submodules, where its numbers stand."""
    if not isinstance(function, torch_module().nn.Module):
        return {}
    within = {(f"{at}." if at else "") + n: v for at, m in function.named_modules() for n, v in vars(m).items()}
    return {name: value for name, value in within.items() if not name.rpartition(".")[2].startswith("_")}


def _numbers(named: dict[str, Any]) -> dict[str, float]:
    return {n: float(v) for n, v in named.items() if isinstance(v, int | float) and not isinstance(v, bool)}
