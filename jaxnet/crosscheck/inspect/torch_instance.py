"""One copy of a callable of tensors: a forward pass that leaves its graph, and the backward passes through it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Instance
from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.global_state import restart_generators
from jaxnet.crosscheck.inspect.inputs import different_inputs
from jaxnet.crosscheck.inspect.torch_tensors import (
    copied,
    held,
    is_float_tensor,
    is_tensor,
    loaded,
    refuse_tensor,
    to_numpy,
    to_tensor,
    to_view,
)
from jaxnet.crosscheck.inspect.trees import Array, Leaves

if TYPE_CHECKING:
    from jaxnet.crosscheck.inspect.torch_function import CheckableTorch


class TorchInstance(Instance):
    """One copy of a callable at some leaves; a forward pass leaves its graph for the backward passes that follow."""

    def __init__(self, subject: "CheckableTorch", leaves: Leaves) -> None:
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

    def forward_at_different_inputs(self) -> bool:
        known = {**self.subject.others, **self.subject.leaves, **self.leaves}
        before = {n: known[n] if n in known else to_numpy(self.subject.slots[n].tensor) for n in self._input_names()}
        other = dict(zip(before, different_inputs(tuple(before.values())), strict=True))
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
            if name in self.arrays and made_by[name] is not None and leaves is self.leaves:
                hidden = tensor.grad_fn is made_by[name] and tensor.dtype == to_tensor(leaves[name]).dtype
                self.arrays[name] = to_view(tensor) if hidden else leaves[name]
        claimed = {name: (fresh | self.held)[name] for name in self.subject.leaves}
        self.graph = claimed, outputs
        arrays = tuple(to_numpy(output) for output in outputs)
        return arrays[0] if is_tensor(result) else arrays

    def _floats(self, result: Any) -> list[Any]:
        """The float tensors of an output that has a graph; those marked as non-differentiable have none."""
        tensors = [(name, part) for name, part in held(result, "output") if is_tensor(part)]
        for name, part in tensors:
            refuse_tensor(f"{self.subject.name}: its {name}", part)
        floats = {name: part for name, part in tensors if is_float_tensor(part)}
        if not floats:
            raise SubjectError(f"{self.subject.name}: returned {type(result).__name__}, expected tensors of floats")
        outputs = [part for part in floats.values() if part.requires_grad]
        self.subject.outputs_without_gradient = [name for name, part in floats.items() if not part.requires_grad]
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


def with_parameters(function: Any, inputs: tuple[Any, ...]) -> Any:
    """Returns a callable, or a called copy where its first call makes parameters, as torch.nn.LazyLinear's does."""
    memo: dict[int, Any] = {}
    for _, part in held((function, inputs)):
        if is_tensor(part) and not part.is_leaf:  # which deepcopy refuses
            memo[id(part)] = part.detach().clone()
    other, arguments = copied(function, memo), copied(inputs, memo)
    before = _trained(other)
    dtypes_may_differ = suppress(RuntimeError)  # then it is called again, with all in one dtype
    with loaded().random.fork_rng([]), loaded().enable_grad(), dtypes_may_differ:
        other(*arguments)
    return function if _trained(other) == before else other


def _trained(function: Any) -> dict[str, tuple[int, ...] | None]:
    """The shapes of the parameters that a callable holds, by place; None where one has none yet."""
    made = {name: t for name, t in held(function) if is_tensor(t) and t.requires_grad and t.is_leaf}
    lazy = loaded().nn.parameter.is_lazy
    return {name: None if lazy(tensor) else tuple(tensor.shape) for name, tensor in made.items()}
