"""Hand-written layers: the class style of the book, and the pairs of functions of courses."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.crosscheck.subjects.attributes import gradients_of, is_array, is_left, parameters_of, unlike_arrays
from jaxnet.crosscheck.subjects.base import (
    Array,
    Leaves,
    Opened,
    Outputs,
    Subject,
    SubjectError,
    are_double,
    arrays_in,
    as_arrays,
    as_tuple,
    blaming,
    derived_by,
    floats_in,
    in_double,
    input_names,
    integers_in,
    is_float,
    numbers_in,
    positional,
)

CACHE = ("cache", "ctx")


class LayerSubject(Subject):
    """A layer in the class style of the book: forward(*inputs), backward(dout), and a gradient beside each parameter.

    A parameter is a float array that the layer, or a layer within it, holds before and after `forward`: an attribute
    `W` with a `dW` (`grad_W`, `gW`, `dw`, ...) beside it after `backward`, or an entry of a list or dict `params` with
    one in `grads`. `backward` returns a gradient for each input, or for the first of those that are floats.
    """

    def __init__(self, layer: Any, inputs: tuple[Any, ...]) -> None:
        self.name = type(layer).__name__
        if isinstance(layer, type):
            raise SubjectError(f"layer: the class {layer.__name__}, expected an instance of it")
        for method in ("forward", "backward"):
            if not callable(getattr(layer, method, None)):
                raise SubjectError(f"layer: {self.name} has no method `{method}`, expected forward and backward")
        self.names = input_names(layer.forward, len(inputs))
        self.layer, self.inputs = layer, as_arrays(inputs, self.names)
        self.takes_dout = bool(positional(layer.backward))

        with blaming(f"copying {self.name}"):
            trial = copy.deepcopy(layer)
        held, unlike, outputs = parameters_of(trial), unlike_arrays(trial), Outputs()
        with blaming(f"{self.name}.forward"):
            y = outputs.pack(trial.forward(*copy.deepcopy(self.inputs)))
        held = {name: array for name, array in parameters_of(trial).items() if held.get(name) is array}
        unlike = {name: value for name, value in unlike_arrays(trial).items() if unlike.get(name) is value}
        before = {name: (g, copy.deepcopy(g)) for name, g in gradients_of(trial, self.names).items()}
        with self.trying("backward"):
            returned = as_tuple(self._backward(trial, outputs.unpack(np.ones_like(y))))
        if self.fault:
            return
        if len(returned) > len(inputs):
            raise SubjectError(f"{self.name}.backward: returned {len(returned)} gradients for {len(inputs)} inputs")
        left = {n for n, g in gradients_of(trial, self.names).items() if is_left(g, *before.get(n, (None, None)))}
        surely = gradients_of(trial).keys()
        self._refuse({name: value for name, value in unlike.items() if name in left & surely})
        found = left | surely
        self.returned = derived_by(self.inputs, self.names, len(returned))
        self.parameters = [name for name in held if name in found]
        its = arrays_in(self.inputs, self.names)
        self.held = own = parameters_of(layer)
        self.in_less = any(value.dtype != np.float64 for value in floats_in((layer, self.inputs)))
        self.constants = {n: own[n] for n in held if n not in found}  # no parameters, or their gradient is forgotten
        params = getattr(layer, "params", None)
        self.declares_none = isinstance(params, list | tuple | Mapping) and not params
        self.numbers = numbers_in(vars(layer) | dict(zip(self.names, self.inputs, strict=True)))
        self.integers = integers_in(self.inputs, self.names)
        self.leaves = {name: np.asarray(own[name]) for name in self.parameters}
        self.leaves |= {name: its[name] for name in self.returned if is_float(its.get(name))}
        if not self.leaves:
            raise SubjectError(f"{self.name}: no input and no parameter of floats with a gradient, nothing to check")

    def _refuse(self, unlike: dict[str, Any]) -> None:
        for name, value in unlike.items():
            kind = f"an array of {value.dtype}" if is_array(value) else f"a {type(value).__name__}"
            raise SubjectError(
                f"{self.name}.{name}: {kind}, expected an array of floats, since backward leaves a gradient beside it"
            )

    def open(self, leaves: Leaves) -> Opened:
        replaced = {id(array): as_kind(leaves[name], array) for name, array in self.held.items() if name in leaves}
        inputs = self._inputs(leaves)
        layer = copy.deepcopy(self.layer, replaced)
        if self.in_less and are_double(leaves):
            layer, inputs = in_double((layer, inputs))

        def backward(*douts: Array) -> dict[str, Any]:
            returned = dict(zip(self.returned, as_tuple(self._backward(layer, douts)), strict=False))
            gradients = gradients_of(layer, self.names)  # a `dx`, too, which counts where nothing is returned
            gradients |= {name: g for name, g in returned.items() if g is not None}
            return {name: gradients.get(name) for name in self.leaves}

        handed = arrays_in(inputs, self.names) | {name: leaves[name] for name in self.parameters}
        return Opened(layer.forward, backward, inputs, handed)

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        params = {name: leaves[name] for name in self.parameters}
        return (params, *self._inputs(leaves)) if params else self._inputs(leaves)

    def _backward(self, layer: Any, douts: tuple[Array, ...]) -> Any:
        return layer.backward(*douts) if self.takes_dout else layer.backward()

    def _inputs(self, leaves: Leaves) -> tuple[Any, ...]:
        taken = set(self.returned)
        return tuple(
            leaves[name] if name in taken and name in leaves else copy.deepcopy(given)
            for name, given in zip(self.names, self.inputs, strict=True)
        )


class PairSubject(Subject):
    """The function style of courses: forward(x, w, b) -> (y, cache), backward(dout, cache) -> (dx, dw, db).

    Several outputs, forward(...) -> (h, c, cache), have as many gradients from above: backward(dh, dc, cache).
    """

    def __init__(self, pair: tuple[Callable[..., Any], Callable[..., Any]], inputs: tuple[Any, ...]) -> None:
        if len(pair) != 2 or not all(callable(function) for function in pair):
            raise SubjectError(f"layer: a tuple of {len(pair)}, expected a pair of functions (forward, backward)")
        self.pair = pair
        forward, backward = pair
        self.name = getattr(forward, "__name__", "forward")
        self.names = input_names(forward, len(inputs))
        self.inputs = as_arrays(inputs, self.names)
        with blaming(self.name):
            result = forward(*copy.deepcopy(self.inputs))
        if not (isinstance(result, tuple | list) and len(result) >= 2):
            raise SubjectError(f"{self.name}: returned {type(result).__name__}, expected a pair (output, cache)")
        outputs = Outputs()
        y = outputs.pack(_outputs(result))
        with self.trying(getattr(backward, "__name__", "backward")):
            returned = as_tuple(backward(*outputs.unpack(np.ones_like(y)), result[-1]))
        if self.fault:
            return
        if len(returned) > len(inputs):
            raise SubjectError(f"{self.name}: {len(returned)} gradients come back for {len(inputs)} inputs")
        self.returned = derived_by(self.inputs, self.names, len(returned))
        its = arrays_in(self.inputs, self.names)
        self.numbers = numbers_in(dict(zip(self.names, self.inputs, strict=True)))
        self.integers = integers_in(self.inputs, self.names)
        self.leaves = {name: its[name] for name in self.returned if is_float(its.get(name))}
        if not self.leaves:
            raise SubjectError(f"{self.name}: no float input whose gradient comes back, nothing to check")

    def open(self, leaves: Leaves) -> Opened:
        cache: list[Any] = []
        inputs = self.arguments(leaves)
        if are_double(leaves):
            inputs = in_double(inputs)

        def forward(*inputs: Any) -> Any:
            result = self.pair[0](*inputs)
            cache[:] = [result[-1]]
            return _outputs(result)

        def backward(*douts: Array) -> dict[str, Any]:
            gradients = dict(zip(self.returned, as_tuple(self.pair[1](*douts, *cache)), strict=False))
            return {name: gradients.get(name) for name in self.leaves}

        return Opened(forward, backward, inputs, arrays_in(inputs, self.names))

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        return tuple(
            leaves[name] if name in leaves else copy.deepcopy(given)
            for name, given in zip(self.names, self.inputs, strict=True)
        )


def as_kind(array: Array, like: Any) -> Any:
    """A NumPy array as JAX's where the layer holds such."""
    return jnp.asarray(array) if isinstance(like, jax.Array) else array


def as_pair(layer: Any) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """The two functions, where that is what was brought: as a tuple, or as methods that hand the cache over."""
    if isinstance(layer, tuple | list):
        return tuple(layer)
    takes = positional(getattr(layer, "backward", None) or (lambda: None))
    return (layer.forward, layer.backward) if takes and takes[-1].name in CACHE else None


def _outputs(result: Any) -> Any:
    return result[0] if len(result) == 2 else tuple(result[:-1])
