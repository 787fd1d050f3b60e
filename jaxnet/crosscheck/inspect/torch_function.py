"""PyTorch's functions: a torch.autograd.Function, its `apply`, a module, or any callable of tensors.

The gradient that is checked is the one that torch.autograd.grad returns. Values come and go as NumPy arrays; the
caller's tensors, modules and generators are copied, never touched.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.checkable import (
    Array,
    Checkable,
    Instance,
    Leaves,
    SubjectError,
    are_double,
    blaming,
    elsewhere,
    input_names,
    restart_generators,
)
from jaxnet.crosscheck.inspect.torch_tensors import (
    COMPLEX,
    copied,
    held,
    is_float_tensor,
    is_tensor,
    loaded,
    tensors_from,
    to_numpy,
    to_tensor,
)

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
    if isinstance(owner, type) and issubclass(owner, torch.autograd.Function):
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
        """Whether its owner asks for a gradient by it."""
        return bool(self.tensor.requires_grad and self.tensor.is_leaf)


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

    def __init__(self, thing: Any, inputs: tuple[Any, ...]) -> None:
        torch = loaded()
        is_function = isinstance(thing, type) and issubclass(thing, torch.autograd.Function)
        owner = getattr(thing, "__self__", thing)
        self.name = getattr(owner if isinstance(owner, type) else thing, "__name__", type(thing).__name__)
        self.name = self.name.replace("<lambda>", "f")
        if not callable(thing):
            raise SubjectError(f"{self.name}: expected a module, a torch.autograd.Function or a callable of tensors")
        if not is_function and callable(getattr(thing, "backward", None)):
            raise SubjectError(
                f"{self.name}: has a backward of its own, which PyTorch does not call; bring it as "
                "check_function(f, x, gradient=g), where g(x, dout) makes the object, calls forward, then backward"
            )
        self.function = thing.apply if is_function else thing
        self.inputs = tuple(tensors_from(given) for given in inputs)
        self.accepts_double = True
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
                _refuse(place, tensor)
        floats = {name: slot for name, slot in self.slots.items() if slot.tensor.is_floating_point()}
        asked = any(slot.differentiable for slot in floats.values() if slot.is_input)
        wanted = [n for n, s in floats.items() if s.differentiable or (s.is_input and not asked)]
        values = {name: to_numpy(slot.tensor) for name, slot in floats.items()}
        self.leaves = {name: values[name] for name in wanted}
        self.others = {name: value for name, value in values.items() if name not in wanted}
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
        error_in_double = error if are_double(self.leaves) and are_double(self.others) else self._error(double)
        if error is None:
            self.accepts_double = error_in_double is None
        elif error_in_double is None:  # the parameters' dtype is not the inputs'
            self.leaves = double
        else:
            with blaming(self.name):
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
        with blaming(self.name):
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
        held_leaves = {name: leaves[name] for name in self.leaves if not self.slots[name].is_input}
        return (held_leaves, *args) if held_leaves else args

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


class TorchInstance(Instance):
    """One copy of a callable at some leaves; a forward pass leaves its graph for the backward passes that follow."""

    def __init__(self, subject: CheckableTorch, leaves: Leaves) -> None:
        torch = loaded()
        self.subject, self.leaves = subject, leaves
        self.memo: dict[int, Any] = {}
        for generator in subject.generators:
            self.memo[id(generator)] = torch.Generator(generator.device)
            self.memo[id(generator)].set_state(generator.get_state())
        self.held = {name: subject.tensor(name, leaves) for name, slot in subject.slots.items() if not slot.is_input}
        self.memo |= {id(subject.slots[name].tensor): tensor for name, tensor in self.held.items()}
        self.function = copied(subject.function, self.memo)
        self.graph: tuple[dict[str, Any], list[Any]] = {}, []
        self.devices = sorted({s.tensor.device.index for s in subject.slots.values() if s.tensor.device.type == "cuda"})
        self.draws: Any = None
        handed = {name: array for name, array in leaves.items() if name in subject.slots}
        super().__init__(lambda: self._run(leaves), self._gradients, (), handed)

    def forward(self) -> Array:
        with self._surroundings():
            y = super().forward()
            self.draws = loaded().get_rng_state()
        return y

    def forward_elsewhere(self) -> bool:
        known = self.subject.others | self.subject.leaves | self.leaves
        before = {n: known[n] if n in known else to_numpy(self.subject.slots[n].tensor) for n in self._input_names()}
        other = dict(zip(before, elsewhere(tuple(before.values())), strict=True))
        whole = {name: array for name, array in other.items() if name not in known}
        with self._surroundings():
            restart_generators()
            self._run(self.leaves | {name: other[name] for name in other if name in known}, whole)
        return any(not np.array_equal(other[name], before[name]) for name in before)

    def _input_names(self) -> list[str]:
        return [name for name, slot in self.subject.slots.items() if slot.is_input]

    def _run(self, leaves: Leaves, whole: Leaves | None = None) -> Any:
        """Runs a forward pass, on clones of its inputs: it may change them in place, as PyTorch allows."""
        fresh = {name: self.subject.tensor(name, leaves) for name in self._input_names()}
        fresh |= {name: to_tensor(array.copy(), fresh[name].dtype) for name, array in (whole or {}).items()}
        given = {name: tensor.clone() if name in self.subject.own else tensor for name, tensor in fresh.items()}
        made_by = {name: tensor.grad_fn for name, tensor in given.items()}
        memo = dict(self.memo) | {id(self.subject.slots[name].tensor): tensor for name, tensor in given.items()}
        result = self.function(*(copied(argument, memo) for argument in self.subject.inputs))
        outputs = self._floats(result)
        for name, tensor in given.items():
            # an in-place change that PyTorch knows of gave the tensor another grad_fn, and is no fault
            if name in self.handed and made_by[name] is not None and leaves is self.leaves:
                hidden = tensor.grad_fn is made_by[name] and tensor.dtype == to_tensor(leaves[name]).dtype
                self.handed[name] = to_view(tensor) if hidden else leaves[name]
        claimed = {name: (fresh | self.held)[name] for name in self.subject.leaves}
        self.graph = claimed, outputs
        arrays = tuple(to_numpy(output) for output in outputs)
        return arrays[0] if is_tensor(result) else arrays

    def _floats(self, result: Any) -> list[Any]:
        """The float tensors of an output that has a graph; those marked as non-differentiable have none."""
        tensors = [(name, part) for name, part in held(result, "output") if is_tensor(part)]
        for name, part in tensors:
            _refuse(f"{self.subject.name}: its {name}", part)
        floats = [part for _, part in tensors if is_float_tensor(part)]
        if not floats:
            raise SubjectError(f"{self.subject.name}: returned {type(result).__name__}, expected tensors of floats")
        outputs = [part for part in floats if part.requires_grad]
        if not outputs:
            raise SubjectError(
                f"{self.subject.name}: no output has a gradient, as under torch.no_grad() or after detach(): "
                "nothing to check; take these away"
            )
        return outputs

    def _gradients(self, *douts: Any) -> dict[str, Any]:
        torch = loaded()
        leaves, outputs = self.graph
        above = [to_tensor(d, y.dtype, y.device) for d, y in zip(douts, outputs, strict=True)]
        with self._surroundings():
            if self.draws is not None:
                torch.set_rng_state(self.draws)  # what backward draws follows what forward drew
            found = torch.autograd.grad(outputs, list(leaves.values()), above, retain_graph=True, allow_unused=True)
        return {n: None if g is None else to_numpy(g) for n, g in zip(leaves, found, strict=True)}

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        """Graphs are recorded whatever the caller has switched off, and torch's generators are as they were after."""
        torch = loaded()
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(self.devices):
            yield


def to_view(tensor: Any) -> Array:
    """Returns a tensor's memory as a NumPy array, or a copy where it lies on another device."""
    return tensor.detach().numpy() if tensor.device.type == "cpu" else to_numpy(tensor)


def _refuse(name: str, tensor: Any) -> None:
    """Raises SubjectError for a tensor of a kind that is not checked."""
    if tensor.is_complex():
        raise SubjectError(COMPLEX.format(name))
    if tensor.layout is not loaded().strided or tensor.is_quantized:
        raise SubjectError(f"{name} is a sparse or quantized tensor: bring a function of its dense values")


def _settings(function: Any) -> dict[str, Any]:
    """The numbers that a module and its submodules were made with, by attribute."""
    if not isinstance(function, loaded().nn.Module):
        return {}
    within = {(f"{at}." if at else "") + n: v for at, m in function.named_modules() for n, v in vars(m).items()}
    return {name: value for name, value in within.items() if not name.rpartition(".")[2].startswith("_")}


def _numbers(named: dict[str, Any]) -> dict[str, float]:
    return {n: float(v) for n, v in named.items() if isinstance(v, int | float) and not isinstance(v, bool)}
