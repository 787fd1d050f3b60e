"""What is checked, seen alike whatever its style: named leaves, a forward pass, and a backward pass.

A subject's functions can be called at any leaves, in any floating dtype. The caller's objects and arrays are never
touched: a layer is copied for every call, with the leaves that it holds replaced on the way.
"""

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from jaxnet.trees import flatten, unflatten

Array = NDArray[Any]
Leaves = dict[str, Array]


@dataclass(frozen=True)
class Subject:
    """A function of arrays and its claimed vector-Jacobian product."""

    leaves: Leaves  # what a gradient is claimed for, by name: "W", "x", "Affine1.W"
    forward: Callable[[Leaves], Array]
    backward: Callable[[Leaves, Array], Leaves]  # (leaves, dout) -> a gradient for each leaf
    arguments: Callable[[Leaves], tuple[Any, ...]]  # what a reference in JAX is called with at these leaves


def from_layer(layer: Any, inputs: tuple[Any, ...]) -> Subject:
    """A layer in the class style of the book: forward(*inputs), backward(dout), and dW beside W.

    Its parameters are the float arrays that it holds before `forward` and that have a `d`-name beside them after
    `backward`. `backward` returns the gradients of the first inputs, as many as it returns.
    """
    trial = copy.deepcopy(layer)
    returned = _as_tuple(_backward(trial, _dout_like(trial.forward(*inputs))))
    names = [*inspect.signature(layer.forward).parameters][: len(returned)]
    held = [name for name, value in vars(layer).items() if _is_float(value) and hasattr(trial, "d" + name)]
    leaves = {name: getattr(layer, name) for name in held} | dict(zip(names, inputs, strict=False))

    def holding(leaves: Leaves) -> Any:
        return copy.deepcopy(layer, {id(getattr(layer, name)): leaves[name] for name in held})

    def all_inputs(leaves: Leaves) -> tuple[Any, ...]:
        return *(leaves[name] for name in names), *inputs[len(names) :]

    def forward(leaves: Leaves) -> Array:
        return np.asarray(holding(leaves).forward(*all_inputs(leaves)))

    def backward(leaves: Leaves, dout: Array) -> Leaves:
        its = holding(leaves)
        its.forward(*all_inputs(leaves))
        returned = _as_tuple(_backward(its, dout))
        return {name: getattr(its, "d" + name) for name in held} | dict(zip(names, returned, strict=True))

    def arguments(leaves: Leaves) -> tuple[Any, ...]:
        params = {name: leaves[name] for name in held}
        return (params, *all_inputs(leaves)) if params else all_inputs(leaves)

    return Subject(leaves, forward, backward, arguments)


def from_network(network: Any, x: Array, t: Array) -> Subject:
    """An object with `params`, a tree of dicts, and `loss(x, t)` and `gradient(x, t)`, the latter in the same tree."""
    leaves = flatten(network.params)

    def at(new: Leaves) -> Any:
        return copy.deepcopy(network, {id(old): new[name] for name, old in leaves.items()})

    def forward(new: Leaves) -> Array:
        return np.asarray(at(new).loss(x.astype(_dtype(new)), t))

    def backward(new: Leaves, dout: Array) -> Leaves:
        gradient = flatten(at(new).gradient(x.astype(_dtype(new)), t))
        return {name: dout * gradient[name] for name in new}

    return Subject(leaves, forward, backward, lambda new: (unflatten(new), x, t))


def from_jax(function: Callable[..., Any], like: Subject) -> Subject:
    """A JAX function of the same arguments as another subject, differentiated by JAX."""

    @jax.jit
    def forward(leaves: Leaves) -> Any:
        return function(*like.arguments(leaves))

    @jax.jit
    def backward(leaves: Leaves, dout: Any) -> Any:
        return jax.vjp(forward, leaves)[1](dout)[0]

    def numpy_forward(leaves: Leaves) -> Array:
        with jax.enable_x64(True):
            return np.asarray(forward(leaves))

    def numpy_backward(leaves: Leaves, dout: Array) -> Leaves:
        with jax.enable_x64(True):
            return {name: np.asarray(g) for name, g in backward(leaves, dout).items()}

    return Subject(like.leaves, numpy_forward, numpy_backward, like.arguments)


def _backward(layer: Any, dout: Array) -> Any:
    """A loss layer's backward may take no argument, or have one that it may be called without."""
    return layer.backward(dout) if inspect.signature(layer.backward).parameters else layer.backward()


def _dout_like(y: Any) -> Array:
    return np.ones_like(y)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)


def _dtype(leaves: Leaves) -> np.dtype[Any]:
    return np.result_type(*leaves.values())
