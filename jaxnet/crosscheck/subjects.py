"""What is checked, seen alike whatever its style: named leaves, a forward pass, and a backward pass.

A subject can be opened at any leaves, in any floating dtype. The caller's objects and arrays are never touched: a
layer is copied each time it is opened, and the leaves that it holds are replaced on the way.
"""

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import jax
import numpy as np
from numpy.typing import NDArray

from jaxnet.trees import flatten, unflatten

Array = NDArray[Any]
Leaves = dict[str, Array]


class SubjectError(TypeError):
    """What was brought cannot be checked; the message says what was found and what was expected."""


class Opened(Protocol):
    """One instance, to be called in any order; what it remembers between calls is its own affair."""

    handed: Leaves  # every array that it holds or is handed, by name: none is its to write to

    def forward(self) -> Any:
        """Its output."""

    def forward_elsewhere(self) -> bool:
        """A forward pass at other inputs of the same shapes; whether there were any other."""

    def backward(self, dout: Array) -> dict[str, Any]:
        """What it returns or leaves as the gradient of each leaf."""


class Subject:
    """A function of arrays, and what it claims to be its vector-Jacobian product."""

    name: str
    leaves: Leaves  # what a gradient is claimed for: "W", "x", "Affine1.W"
    takes_dout = True  # whether its backward can be given a gradient from above

    def open(self, leaves: Leaves) -> Opened:
        """A fresh instance at these leaves."""
        raise NotImplementedError

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        """What a reference in JAX is called with at these leaves."""
        raise NotImplementedError

    def forward(self, leaves: Leaves) -> Array:
        """The output at the leaves."""
        return np.asarray(self.open(leaves).forward())

    def backward(self, leaves: Leaves, dout: Array) -> Leaves:
        """The gradients at the leaves, by a fresh instance."""
        opened = self.open(leaves)
        opened.forward()
        return opened.backward(dout)


class LayerSubject(Subject):
    """A layer in the class style of the book: forward(*inputs), backward(dout), and a gradient beside each parameter.

    A parameter is a float array that the layer holds before `forward`: an attribute `W` with a `dW` beside it after
    `backward`, or an entry of a list or dict `params` with one in `grads`. `backward` returns the gradients of the
    first inputs, as many as it returns.
    """

    def __init__(self, layer: Any, inputs: tuple[Any, ...]) -> None:
        self.name = type(layer).__name__
        for method in ("forward", "backward"):
            if not callable(getattr(layer, method, None)):
                raise SubjectError(f"layer: {self.name} has no method `{method}`, expected forward and backward")
        self.layer, self.inputs = layer, inputs
        self.takes_dout = bool(inspect.signature(layer.backward).parameters)

        trial, names = copy.deepcopy(layer), input_names(layer.forward, len(inputs))
        held = parameters_of(trial)
        with blaming(f"{self.name}.forward"):
            y = trial.forward(*copy.deepcopy(inputs))
        with blaming(f"{self.name}.backward"):
            returned = as_tuple(_call_backward(trial, np.ones_like(y)))
        if len(returned) > len(inputs):
            raise SubjectError(f"{self.name}.backward: returned {len(returned)} gradients for {len(inputs)} inputs")
        self.returned = names[: len(returned)]
        self.parameters = [name for name in held if gradient_of(trial, name) is not None]
        its = {name: array for name, array in zip(self.returned, inputs, strict=False) if is_float(array)}
        self.leaves = {name: parameters_of(layer)[name] for name in self.parameters} | its
        if not self.leaves:
            raise SubjectError(
                f"{self.name}: no float input and no parameter with a gradient beside it, nothing to check"
            )

    def open(self, leaves: Leaves) -> "OpenedLayer":
        replaced = {id(parameters_of(self.layer)[name]): leaves[name] for name in self.parameters}
        return OpenedLayer(self, copy.deepcopy(self.layer, replaced), self._inputs(leaves))

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        params = {name: leaves[name] for name in self.parameters}
        return (params, *self._inputs(leaves)) if params else self._inputs(leaves)

    def _inputs(self, leaves: Leaves) -> tuple[Any, ...]:
        names = [*self.returned, *[""] * (len(self.inputs) - len(self.returned))]
        return tuple(
            leaves[name] if name in leaves else copy.deepcopy(given)
            for name, given in zip(names, self.inputs, strict=True)
        )


class OpenedLayer:
    """A copy of a layer, and its inputs."""

    def __init__(self, subject: LayerSubject, layer: Any, inputs: tuple[Any, ...]) -> None:
        self.subject, self.layer, self.inputs = subject, layer, inputs
        self.handed = _arrays(inputs) | {name: parameters_of(layer)[name] for name in subject.parameters}

    def forward(self) -> Any:
        return self.layer.forward(*self.inputs)

    def forward_elsewhere(self) -> bool:
        other = elsewhere(self.inputs)
        self.layer.forward(*other)
        return _differ(other, self.inputs)

    def backward(self, dout: Array) -> dict[str, Any]:
        returned = as_tuple(_call_backward(self.layer, dout))
        gradients = {name: gradient_of(self.layer, name) for name in self.subject.parameters}
        gradients |= dict(zip(self.subject.returned, returned, strict=False))
        return {name: gradients.get(name) for name in self.subject.leaves}


class PairSubject(Subject):
    """The function style of courses: forward(x, w, b) -> (y, cache), backward(dout, cache) -> (dx, dw, db)."""

    def __init__(self, pair: tuple[Callable[..., Any], Callable[..., Any]], inputs: tuple[Any, ...]) -> None:
        self.pair, self.inputs = pair, inputs
        forward, backward = pair
        self.name = getattr(forward, "__name__", "forward")
        names = input_names(forward, len(inputs))
        with blaming(self.name):
            result = forward(*copy.deepcopy(inputs))
        if not (isinstance(result, tuple) and len(result) == 2):
            raise SubjectError(f"{self.name}: returned {type(result).__name__}, expected a pair (output, cache)")
        with blaming(getattr(backward, "__name__", "backward")):
            returned = as_tuple(backward(np.ones_like(result[0]), result[1]))
        if len(returned) > len(inputs):
            raise SubjectError(f"{self.name}: {len(returned)} gradients come back for {len(inputs)} inputs")
        self.names = names[: len(returned)]
        self.leaves = {name: array for name, array in zip(self.names, inputs, strict=False) if is_float(array)}
        if not self.leaves:
            raise SubjectError(f"{self.name}: no float input whose gradient comes back, nothing to check")

    def open(self, leaves: Leaves) -> "OpenedPair":
        return OpenedPair(self, self.arguments(leaves))

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        names = [*self.names, *[""] * (len(self.inputs) - len(self.names))]
        return tuple(
            leaves[name] if name in leaves else copy.deepcopy(given)
            for name, given in zip(names, self.inputs, strict=True)
        )


class OpenedPair:
    """The cache that a forward function hands to its backward function."""

    def __init__(self, subject: PairSubject, inputs: tuple[Any, ...]) -> None:
        self.subject, self.inputs, self.handed = subject, inputs, _arrays(inputs)

    def forward(self) -> Any:
        y, self.cache = self.subject.pair[0](*self.inputs)
        return y

    def forward_elsewhere(self) -> bool:
        other = elsewhere(self.inputs)
        self.subject.pair[0](*other)
        return _differ(other, self.inputs)

    def backward(self, dout: Array) -> dict[str, Any]:
        gradients = dict(zip(self.subject.names, as_tuple(self.subject.pair[1](dout, self.cache)), strict=False))
        return {name: gradients.get(name) for name in self.subject.leaves}


class NetworkSubject(Subject):
    """An object with `params`, a tree of dicts, and `loss(x, t)` and `gradient(x, t)`, the latter in the same tree."""

    takes_dout = False

    def __init__(self, network: Any, x: Any, t: Any) -> None:
        self.name = type(network).__name__
        for name in ("params", "loss", "gradient"):
            if not hasattr(network, name):
                raise SubjectError(f"network: {self.name} has no `{name}`, expected params, loss(x, t), gradient(x, t)")
        self.network, self.x, self.t = network, x, t
        self.leaves = {name: leaf for name, leaf in flatten(network.params).items() if is_float(leaf)}
        if not self.leaves:
            raise SubjectError("network: its params hold no float array, nothing to check")
        with blaming(f"{self.name}.gradient"):
            found = set(flatten(copy.deepcopy(network).gradient(copy.deepcopy(x), copy.deepcopy(t))))
        if missing := set(self.leaves) - found:
            raise SubjectError(
                f"{self.name}.gradient: has no {', '.join(sorted(missing))}, expected the tree of params"
            )

    def open(self, leaves: Leaves) -> "OpenedNetwork":
        replaced = {id(old): leaves[name] for name, old in self.leaves.items()}
        x = self.x.astype(np.result_type(*leaves.values())) if is_float(self.x) else self.x
        return OpenedNetwork(copy.deepcopy(self.network, replaced), copy.deepcopy(x), copy.deepcopy(self.t), leaves)

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        return unflatten(leaves), self.x, self.t


class OpenedNetwork:
    """A copy of a network, and a batch."""

    def __init__(self, network: Any, x: Any, t: Any, leaves: Leaves) -> None:
        self.network, self.x, self.t = network, x, t
        self.handed = leaves | _arrays((x, t))

    def forward(self) -> Any:
        return self.network.loss(self.x, self.t)

    def forward_elsewhere(self) -> bool:
        (other,) = elsewhere((self.x,))
        self.network.gradient(other, self.t)
        return _differ((other,), (self.x,))

    def backward(self, dout: Array) -> dict[str, Any]:
        gradient = flatten(self.network.gradient(self.x, self.t))
        return {name: gradient[name] * dout for name in self.handed if name in gradient}


class JaxSubject(Subject):
    """A JAX function of the arguments of another subject, differentiated by JAX."""

    def __init__(self, function: Callable[..., Any], like: Subject) -> None:
        self.name = getattr(function, "__name__", "reference")
        self.leaves, self.arguments = like.leaves, like.arguments  # type: ignore[method-assign]
        self._forward = jax.jit(lambda leaves: function(*like.arguments(leaves)))
        self._backward = jax.jit(lambda leaves, dout: jax.vjp(self._forward, leaves)[1](dout)[0])

    def forward(self, leaves: Leaves) -> Array:
        with jax.enable_x64(True), blaming(f"the reference {self.name}"):
            return np.asarray(self._forward(leaves))

    def backward(self, leaves: Leaves, dout: Array) -> Leaves:
        with jax.enable_x64(True), blaming(f"the reference {self.name}"):
            return {name: np.asarray(g) for name, g in self._backward(leaves, dout).items()}


def parameters_of(layer: Any) -> Leaves:
    """The float arrays that a layer holds, by attribute or by their place in `params`."""
    held = {name: value for name, value in getattr(layer, "__dict__", {}).items() if is_float(value)}
    params = getattr(layer, "params", None)
    if isinstance(params, dict):
        held |= {f"params[{key!r}]": value for key, value in params.items() if is_float(value)}
    elif isinstance(params, list | tuple):
        held |= {f"params[{i}]": value for i, value in enumerate(params) if is_float(value)}
    return held


def gradient_of(layer: Any, name: str) -> Any:
    """What stands beside a parameter: `dW` beside `W`, `grads[0]` beside `params[0]`; None where nothing does."""
    if not name.startswith("params["):
        return getattr(layer, "d" + name, None)
    grads, key = getattr(layer, "grads", None), name[len("params[") : -1]
    if isinstance(grads, dict):
        return grads.get(key.strip("'"))
    return grads[int(key)] if isinstance(grads, list | tuple) and int(key) < len(grads) else None


def input_names(function: Callable[..., Any], count: int) -> list[str]:
    """The names that a function gives its first arguments; x0, x1, ... where it takes them as they come."""
    positional = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = [p.name for p in inspect.signature(function).parameters.values() if p.kind in positional]
    return [*names[:count], *(f"x{i}" for i in range(len(names), count))]


def elsewhere(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Other inputs of the same kind: the same numbers in other places, floats halved, so that they stay in range."""
    moved = (np.roll(a, 1, axis=0 if len(a) > 1 else -1) if isinstance(a, np.ndarray) and a.ndim else a for a in inputs)
    return tuple(0.5 * a if is_float(a) and not _is_one_hot(a) else a for a in moved)


def as_tuple(value: Any) -> tuple[Any, ...]:
    """What a backward returns, as a tuple."""
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def is_float(value: Any) -> bool:
    """Whether a gradient by this is to be expected."""
    return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)


@contextmanager
def blaming(who: str) -> Iterator[None]:
    """An exception in somebody's code becomes one that says whose.

    Raises:
        SubjectError: The block raised.
    """
    try:
        yield
    except SubjectError:
        raise
    except Exception as error:
        raise SubjectError(f"{who}: raised {type(error).__name__}: {error}") from error


def _call_backward(layer: Any, dout: Array) -> Any:
    return layer.backward(dout) if inspect.signature(layer.backward).parameters else layer.backward()


def _is_one_hot(a: Array) -> bool:
    return bool(np.isin(a, (0, 1)).all())


def _differ(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return any(isinstance(a, np.ndarray) and not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def _arrays(inputs: tuple[Any, ...]) -> Leaves:
    return {f"input {i}": value for i, value in enumerate(inputs) if isinstance(value, np.ndarray)}
