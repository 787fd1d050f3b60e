"""Calls one copy of a callable of tensors: a forward pass that records a graph, and backward passes through it."""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Instance
from jaxnet.crosscheck.inspect.errors import SubjectError, kind_of
from jaxnet.crosscheck.inspect.global_state import restart_generators
from jaxnet.crosscheck.inspect.inputs import different_inputs
from jaxnet.crosscheck.inspect.torch_copying import copy_with, tensors_in
from jaxnet.crosscheck.inspect.torch_layout import clone_as_laid_out
from jaxnet.crosscheck.inspect.torch_program import torch_state
from jaxnet.crosscheck.inspect.torch_tensors import (
    in_floats,
    is_inexact_tensor,
    is_tensor,
    parts_of,
    reject_tensor,
    to_numpy,
    to_tensor,
    to_view,
    torch_module,
)
from jaxnet.crosscheck.inspect.trees import Array, Leaves

if TYPE_CHECKING:
    from jaxnet.crosscheck.inspect.torch_function import CheckableTorch


class TorchInstance(Instance):
    """One copy of a callable at some leaves. A forward pass records the graph for the backward passes after it."""

    def __init__(self, subject: "CheckableTorch", leaves: Leaves) -> None:
        self.subject, self.leaves = subject, leaves
        self.memo = copied_generators(subject.generators)
        captured = [name for name, slot in subject.slots.items() if not slot.is_input]
        self.captured = {part: subject.tensor(part, leaves) for name in captured for part in subject.parts[name]}
        with torch_module().inference_mode(False), torch_module().enable_grad():
            joined = {name: subject.joined(name, self.captured) for name in captured}
        self.memo |= {id(subject.slots[name].tensor): tensor for name, tensor in joined.items()}
        self.function = copy_with(subject.function, self.memo)
        self.graph: tuple[dict[str, Any], list[Any]] = {}, []
        self.devices = sorted({s.tensor.device.index for s in subject.slots.values() if s.tensor.device.type == "cuda"})
        self.draws: Any = None
        known = {part for parts in subject.parts.values() for part in parts}
        arrays = {name: array for name, array in leaves.items() if name in known}
        super().__init__(lambda: self._run(leaves), self._gradients, (), arrays)

    def names_of_inputs(self, leaves: Leaves) -> list[str]:
        return [part for name in self._input_names() for part in self.subject.parts[name] if part in leaves]

    def forward(self) -> Array:
        with torch_state(self.devices, restart=False):
            y = super().forward()
            self.draws = torch_module().get_rng_state()
        return y

    def forward_at_different_inputs(self) -> bool:
        known = {**self.subject.others, **self.subject.leaves, **self.leaves}
        names = [part for name in self._input_names() for part in self.subject.parts[name]]
        before = {n: known[n] if n in known else to_numpy(self.subject.slots[n].tensor) for n in names}
        other = dict(zip(before, different_inputs(tuple(before.values())), strict=True))
        integers = {name: array for name, array in other.items() if name not in known}
        with torch_state(self.devices, restart=False):
            restart_generators()
            self._run(self.leaves | {name: other[name] for name in other if name in known}, integers)
        return any(not np.array_equal(other[name], before[name]) for name in before)

    def _input_names(self) -> list[str]:
        return [name for name, slot in self.subject.slots.items() if slot.is_input]

    def _run(self, leaves: Leaves, integers: Leaves | None = None) -> Any:
        """Runs a forward pass on clones of its inputs, which it may change in place, as PyTorch allows."""
        parts = {name: self.subject.parts[name] for name in self._input_names()}
        fresh = {name: self.subject.tensor(name, leaves) for name in sum(parts.values(), ())}
        fresh |= {name: to_tensor(array.copy(), fresh[name].dtype) for name, array in (integers or {}).items()}
        inputs = {name: self.subject.joined(name, fresh) for name in parts}
        clones = {n: clone_as_laid_out(tensor) if is_inexact_tensor(tensor) else tensor for n, tensor in inputs.items()}
        made_by = {name: tensor.grad_fn for name, tensor in clones.items()}
        memo = dict(self.memo) | {id(self.subject.slots[name].tensor): tensor for name, tensor in clones.items()}
        result = self.function(*(copy_with(argument, memo) for argument in self.subject.inputs))
        outputs = self._floats(result)
        for name, tensor in clones.items():
            # an in-place change that PyTorch records sets another grad_fn, and is allowed
            for part, values in zip(parts[name], parts_of(tensor.detach()), strict=True):
                if part in self.arrays and made_by[name] is not None and leaves is self.leaves:
                    unrecorded = tensor.grad_fn is made_by[name] and values.dtype == to_tensor(leaves[part]).dtype
                    self.arrays[part] = to_view(values) if unrecorded else leaves[part]
        leaf_tensors = {name: (fresh | self.captured)[name] for name in self.subject.leaves}
        self.graph = leaf_tensors, outputs
        arrays = tuple(to_numpy(output) for output in outputs)
        return arrays[0] if is_tensor(result) else arrays

    def _floats(self, result: Any) -> list[Any]:
        """Returns the float tensors among the outputs that have a graph; non-differentiable ones have none."""
        tensors = [(name, part) for name, part in tensors_in(result, "output") if is_tensor(part)]
        for name, part in tensors:
            reject_tensor(f"{self.subject.name}: its {name}", part)
        floats = dict(floats_of(result))
        if not floats:
            raise SubjectError(f"{self.subject.name}: returned {kind_of(result)}, expected tensors of floats")
        differentiable = [part for part in floats.values() if part.requires_grad]
        outputs = [in_floats(part) for part in differentiable]
        halves = [np.tile([False, True] if y.is_complex() else [False], y.numel()) for y in differentiable]
        self.subject.is_imaginary = np.concatenate(halves) if halves else np.zeros(0, bool)
        self.subject.outputs_without_gradient = [name for name, part in floats.items() if not part.requires_grad]
        if not outputs:
            raise SubjectError(
                f"{self.subject.name}: no output has a gradient, as under torch.no_grad() or after detach(), "
                "so there is nothing to check; remove these"
            )
        return outputs

    def _gradients(self, *douts: Any) -> dict[str, Any]:
        torch = torch_module()
        leaves, outputs = self.graph
        above = [to_tensor(d, y.dtype, y.device) for d, y in zip(douts, outputs, strict=True)]
        with torch_state(self.devices, restart=False):
            if self.draws is not None:
                torch.set_rng_state(self.draws)  # backward draws after forward, from the same stream
            found = torch.autograd.grad(outputs, list(leaves.values()), above, retain_graph=True, allow_unused=True)
        return {n: None if g is None else to_numpy(g) for n, g in zip(leaves, found, strict=True)}


def copied_generators(generators: Sequence[Any]) -> dict[int, Any]:
    """Returns copies of generators in their present state, by the id of the original."""
    copies = {}
    for generator in generators:
        copies[id(generator)] = torch_module().Generator(generator.device)
        copies[id(generator)].set_state(generator.get_state())
    return copies


def floats_of(result: Any) -> list[tuple[str, Any]]:
    """Returns the tensors of floats and of complex numbers among the outputs, by name."""
    return [(name, part) for name, part in tensors_in(result, "output") if is_inexact_tensor(part)]


def with_parameters(function: Any, inputs: tuple[Any, ...]) -> Any:
    """Returns a callable, or a copy after one call if that creates parameters, as in torch.nn.LazyLinear."""
    memo: dict[int, Any] = {}
    for _, part in tensors_in((function, inputs)):
        if is_tensor(part) and not part.is_leaf:  # which deepcopy refuses
            memo[id(part)] = part.detach().clone()
    other, arguments = copy_with(function, memo), copy_with(inputs, memo)
    before = _parameter_shapes(other)
    mixed_dtypes_fail = suppress(RuntimeError)  # a later call has all in one dtype
    with torch_module().random.fork_rng([]), torch_module().enable_grad(), mixed_dtypes_fail:
        other(*arguments)
    return function if _parameter_shapes(other) == before else other


def _parameter_shapes(function: Any) -> dict[str, tuple[int, ...] | None]:
    """Returns the shapes of a callable's parameters by place; None for one without a shape yet."""
    parameters = {name: t for name, t in tensors_in(function) if is_tensor(t) and t.requires_grad and t.is_leaf}
    lazy = torch_module().nn.parameter.is_lazy
    return {name: None if lazy(tensor) else tuple(tensor.shape) for name, tensor in parameters.items()}
