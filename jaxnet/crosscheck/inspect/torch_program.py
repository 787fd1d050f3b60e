"""Differentiates a callable of tensors in every way that PyTorch has: forward mode, in part, again, transformed."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Checkable, Instance, PartialDout, PointValue, name_of_dout
from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.global_state import restart_generators
from jaxnet.crosscheck.inspect.torch_tensors import to_numpy, to_tensor, torch_module
from jaxnet.crosscheck.inspect.trees import Array, Leaves

Tensors = Mapping[str, Any]  # tensors by the name of their leaf
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]
MAX_OUTPUTS = 8  # more are a model's outputs, and not those of one rule


class TorchProgram(Checkable):
    """A callable as a function of tensors by name, and the gradient that PyTorch derives for it."""

    derived_by = "PyTorch"
    transforms: Sequence[str] = ("vmap", "per-sample", "batched-dout", "checkpoint", "compile")
    cheap_transforms: Sequence[str] = ("vmap", "per-sample")

    @abstractmethod
    def outputs(self, tensors: Tensors, leaves: Leaves, wrap: Wrap | None = None) -> list[Any]:
        """Returns the differentiable float outputs.

        Args:
            tensors: The leaves as tensors, with a graph, a tangent or a batch axis.
            leaves: The leaves as arrays, which set the dtype of everything else.
            wrap: A transformation of the callable.
        """

    @abstractmethod
    def tensor(self, name: str, leaves: Leaves) -> Any:
        """Returns one leaf as a new tensor that requires a gradient."""

    def pushforward(self, leaves: Leaves, tangents: Leaves) -> Array | None:
        forward_ad = torch_module().autograd.forward_ad
        with torch_state(), _without_warnings(), forward_ad.dual_level():
            tensors = {name: self.tensor(name, leaves) for name in self.leaves}
            moving = {name: to_tensor(tangent, tensors[name].dtype) for name, tangent in tangents.items()}
            duals = {n: forward_ad.make_dual(t, moving[n]) if n in moving else t for n, t in tensors.items()}
            try:
                outputs = self.outputs(duals, leaves)
            except NotImplementedError:  # a Function without jvp, or an operation without forward mode
                return None
            pushed = [forward_ad.unpack_dual(output).tangent for output in outputs]
            pairs = zip(pushed, outputs, strict=True)
            return packed([np.zeros(y.shape) if tangent is None else to_numpy(tangent) for tangent, y in pairs])

    def partial_gradient(self, leaves: Leaves, dout: Array, names: Collection[str]) -> dict[str, Any] | None:
        with torch_state():
            tensors = {name: self.tensor(name, leaves) for name in self.leaves}
            for name in tensors.keys() - set(names):
                tensors[name] = tensors[name].detach()
            outputs = self.outputs(tensors, leaves)
            return gradients_of(outputs, {name: tensors[name] for name in names}, dout)

    def partial_douts(self, leaves: Leaves, dout: Array) -> Iterator[PartialDout]:
        with torch_state():
            outputs = self.outputs({name: self.tensor(name, leaves) for name in self.leaves}, leaves)
        count = sum(output.requires_grad for output in outputs)
        for number in range(1, count + 1) if 1 < count <= MAX_OUTPUTS else ():
            condition = f"if of the {count} outputs with a gradient only number {number} is used"
            gradients = partial(self._gradients_of_some, leaves, dout, number)
            yield PartialDout(condition, _dout_of(number, outputs, dout), gradients)
        # A hook on a tensor is called with None too, and need not expect it; the backward of a Function must.
        functions = torch_module().autograd.function.BackwardCFunction
        direct = all(isinstance(y.grad_fn, functions) and not y._backward_hooks for y in outputs if y.requires_grad)
        yield PartialDout(
            "if dout is None for all outputs, as set_materialize_grads(False) permits",
            np.zeros_like(dout),
            partial(self._gradients_of_some, leaves, dout, 0),
            direct,
        )

    def _gradients_of_some(self, leaves: Leaves, dout: Array, number: int) -> dict[str, Any]:
        """Returns the gradients if only one output, counted from 1, has an upstream gradient; 0 for none."""
        torch = torch_module()
        with torch_state():
            tensors = {name: self.tensor(name, leaves) for name in self.leaves}
            outputs = self.outputs(tensors, leaves)
            pairs = [(y, above) for y, above in zip(outputs, split(dout, outputs), strict=True) if y.requires_grad]
            if number:
                pairs = pairs[number - 1 : number]
            else:
                pairs = [(torch._C._functions.UndefinedGrad()(y), above) for y, above in pairs]
            ys, douts = zip(*pairs, strict=True)
            found = torch.autograd.grad(ys, list(tensors.values()), douts, allow_unused=True)
            return {name: None if g is None else to_numpy(g) for name, g in zip(tensors, found, strict=True)}

    def under(self, transform: str, points: Sequence[Leaves], dout: Array) -> list[PointValue]:
        with torch_state(), _without_warnings():
            return UNDER[transform](self, points, dout)

    def gradient_checkable(self, dout: Array) -> Checkable:
        return TorchGradient(self, dout)


class TorchGradient(TorchProgram):
    """The gradient of a callable as a function of its leaves and of `dout`, with a graph (`create_graph`).

    Args:
        of: The callable.
        dout: An upstream gradient.
    """

    transforms = cheap_transforms = ()  # autograd.grad does not run within them

    def __init__(self, of: TorchProgram, dout: Array) -> None:
        self.name, self.of = of.name, of
        self.dout_name = name_of_dout(of.leaves)
        self.leaves = dict(of.leaves) | {self.dout_name: np.asarray(dout)}
        self.gradient_of = () if of.gradient_of else tuple(of.leaves)

    def open(self, leaves: Leaves) -> Instance:
        graph: dict[str, Any] = {}

        def forward() -> Array:
            with torch_state(restart=False):
                tensors = {name: self.tensor(name, leaves) for name in self.leaves}
                graph["tensors"], graph["outputs"] = tensors, self.outputs(tensors, leaves)
            if any(_is_once_differentiable(output) for output in graph["outputs"]):
                raise SubjectError(
                    f"order: {self.name} has a backward marked @once_differentiable, so there is no further derivative"
                )
            return packed([to_numpy(output).ravel() for output in graph["outputs"]])

        def backward(dout: Any) -> dict[str, Any]:
            gradients = gradients_of(graph["outputs"], graph["tensors"], np.asarray(dout))
            zeros = {name: np.zeros_like(leaf) for name, leaf in leaves.items()}
            return {name: zeros[name] if g is None else g for name, g in gradients.items()}

        return Instance(forward, backward, (), dict(leaves))

    def outputs(self, tensors: Tensors, leaves: Leaves, wrap: Wrap | None = None) -> list[Any]:
        del wrap
        own = {name: tensors[name] for name in self.of.leaves}
        outputs = self.of.outputs(own, leaves)
        needed = {name: tensor for name, tensor in own.items() if tensor.requires_grad}
        found = torch_module().autograd.grad(
            outputs,
            list(needed.values()),
            split(tensors[self.dout_name], outputs),
            create_graph=True,
            allow_unused=True,
        )
        gradients = dict(zip(needed, found, strict=True))
        return [torch_module().zeros_like(t) if (g := gradients.get(n)) is None else g for n, t in own.items()]

    def partial_gradient(self, leaves: Leaves, dout: Array, names: Collection[str]) -> None:
        """Returns None, since all leaves are needed for the first gradient."""

    def tensor(self, name: str, leaves: Leaves) -> Any:
        if name != self.dout_name:
            return self.of.tensor(name, leaves)
        return to_tensor(np.array(leaves[name])).requires_grad_(True)


def _is_once_differentiable(output: Any) -> bool:
    """Returns whether a graph has the node that PyTorch puts in the place of such a backward's own graph."""
    nodes, known = [output.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in known:
            continue
        if type(node).__name__ == "Error":
            return True
        known.add(node)
        nodes += [following for following, _ in node.next_functions]
    return False


def _dout_of(number: int, outputs: Sequence[Any], dout: Array) -> Array:
    """Returns dout with zeros for all outputs but one, which is counted from 1 among those with a gradient."""
    ends = np.cumsum([output.numel() for output in outputs])
    place = [i for i, output in enumerate(outputs) if output.requires_grad][number - 1]
    only = np.zeros_like(dout)
    start, end = ends[place] - outputs[place].numel(), ends[place]
    only.reshape(-1)[start:end] = np.asarray(dout).reshape(-1)[start:end]
    return only


def gradients_of(outputs: Sequence[Any], tensors: Tensors, dout: Any) -> dict[str, Any]:
    """Returns the gradients of tensors as arrays; None where an output does not depend on one."""
    with_graph = [(y, above) for y, above in zip(outputs, split(dout, outputs), strict=True) if y.requires_grad]
    if not with_graph:
        return dict.fromkeys(tensors)
    ys, douts = zip(*with_graph, strict=True)
    found = torch_module().autograd.grad(ys, list(tensors.values()), douts, retain_graph=True, allow_unused=True)
    return {name: None if g is None else to_numpy(g) for name, g in zip(tensors, found, strict=True)}


def split(dout: Any, outputs: Sequence[Any]) -> list[Any]:
    """Returns the upstream gradient of each output, from the one of all outputs in a row."""
    torch = torch_module()
    whole = (dout if isinstance(dout, torch.Tensor) else to_tensor(np.array(dout))).reshape(-1)
    parts = torch.split(whole, [output.numel() for output in outputs])
    return [part.reshape(y.shape).to(device=y.device, dtype=y.dtype) for part, y in zip(parts, outputs, strict=True)]


def packed(arrays: Sequence[Array]) -> Array:
    """Returns one array as it is, and several in a row."""
    return arrays[0] if len(arrays) == 1 else np.concatenate([array.ravel() for array in arrays])


@contextmanager
def torch_state(devices: Sequence[int] = (), *, restart: bool = True) -> Iterator[None]:
    """Turns recording of graphs on within the block, and restores torch's generators after it.

    Args:
        devices: The indices of CUDA devices whose generators are restored too.
        restart: Whether the generators start anew, as before each forward pass.
    """
    torch = torch_module()
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(list(devices)):
        if restart:
            restart_generators()
        yield


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silences the warnings of PyTorch's own code, such as deprecations within its decompositions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _under_vmap(program: TorchProgram, points: Sequence[Leaves], dout: Array) -> list[PointValue]:
    """Returns the gradients of a function of a batch, as in the training of a function of one sample."""
    torch = torch_module()
    stacked = {name: tensor.requires_grad_(True) for name, tensor in _stacked(program, points).items()}
    outputs = torch.func.vmap(lambda tensors: tuple(program.outputs(tensors, points[0])))(stacked)
    above = [torch.stack([part] * len(points)) for part in split(dout, [output[0] for output in outputs])]
    found = torch.autograd.grad(outputs, list(stacked.values()), above, allow_unused=True)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in stacked.items()}
    gradients = {n: zeros[n] if g is None else g for n, g in zip(stacked, found, strict=True)}
    return _unstacked(outputs, gradients, len(points))


def _per_sample(program: TorchProgram, points: Sequence[Leaves], dout: Array) -> list[PointValue]:
    """Returns the gradients of each sample, from a batch of them."""
    func, torch = torch_module().func, torch_module()

    def pulled(tensors: Tensors, above: Any) -> Any:
        y, pull = func.vjp(lambda tensors: tuple(program.outputs(tensors, points[0])), dict(tensors))
        return y, pull(tuple(split(above, y)))[0]

    above = torch.stack([to_tensor(np.array(dout))] * len(points))
    y, gradients = func.vmap(pulled)(_stacked(program, points), above)
    return _unstacked(y, gradients, len(points))


def _stacked(program: TorchProgram, points: Sequence[Leaves]) -> dict[str, Any]:
    at = [{name: program.tensor(name, point).detach() for name in program.leaves} for point in points]
    return {name: torch_module().stack([tensors[name] for tensors in at]) for name in program.leaves}


def _batched_dout(program: TorchProgram, points: Sequence[Leaves], dout: Array) -> list[PointValue]:
    """Returns the gradients for a batch of douts, dout and its double, as `is_grads_batched` computes them."""
    torch = torch_module()
    values = []
    for point in points:
        tensors = {name: program.tensor(name, point) for name in program.leaves}
        outputs = program.outputs(tensors, point)
        douts = [torch.stack([2 * above, above]) for above in split(dout, outputs)]
        found = torch.autograd.grad(
            outputs, list(tensors.values()), douts, is_grads_batched=True, allow_unused=True, retain_graph=True
        )
        gradients = {n: None if g is None else to_numpy(g[1]) for n, g in zip(tensors, found, strict=True)}
        values.append(PointValue(packed([to_numpy(y) for y in outputs]), gradients))
    return values


def _one_by_one(wrap: Wrap) -> Callable[..., list[PointValue]]:
    def under(program: TorchProgram, points: Sequence[Leaves], dout: Array) -> list[PointValue]:
        values = []
        for point in points:
            restart_generators()
            tensors = {name: program.tensor(name, point) for name in program.leaves}
            outputs = program.outputs(tensors, point, wrap)
            values.append(PointValue(packed([to_numpy(y) for y in outputs]), gradients_of(outputs, tensors, dout)))
        return values

    return under


def _checkpointed(function: Callable[..., Any]) -> Callable[..., Any]:
    from torch.utils.checkpoint import checkpoint

    return lambda *args: checkpoint(function, *args, use_reentrant=False)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    torch_module()._dynamo.reset()  # no program of an earlier copy
    return torch_module().compile(function)


def _unstacked(outputs: Sequence[Any], gradients: Tensors, count: int) -> list[PointValue]:
    return [
        PointValue(packed([to_numpy(y[i]) for y in outputs]), {n: to_numpy(g[i]) for n, g in gradients.items()})
        for i in range(count)
    ]


UNDER: dict[str, Callable[..., list[PointValue]]] = {
    "vmap": _under_vmap,
    "per-sample": _per_sample,
    "batched-dout": _batched_dout,
    "checkpoint": _one_by_one(_checkpointed),
    "compile": _one_by_one(_compiled),
}
