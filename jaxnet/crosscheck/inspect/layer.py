"""Hand-written layers: the class style of the book, and the pairs of functions of courses."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.crosscheck.inspect.attributes import (
    arrays_of,
    clear,
    gradients_of,
    has_objects,
    is_array,
    is_left,
    unlike_arrays,
)
from jaxnet.crosscheck.inspect.checkable import (
    Array,
    Checkable,
    Instance,
    Leaves,
    Outputs,
    SubjectError,
    are_double,
    arrays_in,
    as_arrays,
    as_tuple,
    attributes_of,
    blaming,
    claimed,
    expect_call,
    floats_in,
    in_double,
    input_names,
    integers_in,
    is_float,
    numbers_in,
    positional,
)

CACHE = ("cache", "ctx")


class CheckableLayer(Checkable):
    """A layer in the class style of the book: forward(*inputs), backward(dout), and a gradient beside each parameter.

    A parameter is a float array that the layer, or a layer within it, holds before and after `forward`: an attribute
    `W` with a `dW` (`grad_W`, `gW`, `dw`, ...) beside it after `backward`, or an entry of a list or dict `params` with
    one in `grads`, or the `data` of an object with a `grad`. Every other float array that is held so is a constant, or
    its gradient is missing. `backward` returns a gradient for each input, or for the first of those that are floats.
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
        held, unlike, outputs = arrays_of(trial), unlike_arrays(trial), Outputs()
        with blaming(f"{self.name}.forward"):
            y = outputs.pack(trial.forward(*copy.deepcopy(self.inputs)))
        held = {name: array for name, array in arrays_of(trial).items() if held.get(name) is array}
        unlike = {name: value for name, value in unlike_arrays(trial).items() if unlike.get(name) is value}
        before = {name: (g, copy.deepcopy(g)) for name, g in gradients_of(trial, self.names).items()}
        douts = outputs.unpack(np.ones_like(y))
        count = len(douts) if self.takes_dout else 0
        expect_call(trial.backward, count, f"{self.name}.backward", f"backward({_named(douts)})")
        with self.trying("backward"):
            result = self._backward(trial, douts)
        if self.fault:
            return
        self.unreturned = [name for name in held if name not in self.names]
        returned = self._claimed(result)
        left = {n for n, g in gradients_of(trial, self.names).items() if is_left(g, *before.get(n, (None, None)))}
        surely = gradients_of(trial).keys()
        self._refuse({name: value for name, value in unlike.items() if name in left & surely})
        found = left | surely | returned.keys()
        self.returned = [name for name in returned if name in self.names]
        self.parameters = [name for name in held if name in found]
        its = arrays_in(self.inputs, self.names)
        self.objects = has_objects(trial)  # to look for them is slow where a layer holds much else
        self.held = own = arrays_of(layer)
        self.in_less = any(value.dtype != np.float64 for value in floats_in((layer, self.inputs)))
        self.constants = {n: own[n] for n in held if n not in found}  # no parameters, or their gradient is forgotten
        params = getattr(layer, "params", None)
        self.declares_none = isinstance(params, list | tuple | Mapping) and not params
        self.numbers = numbers_in(attributes_of(layer) | dict(zip(self.names, self.inputs, strict=True)))
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

    def open(self, leaves: Leaves) -> Instance:
        replaced = {id(array): as_kind(leaves[name], array) for name, array in self.held.items() if name in leaves}
        inputs = self._inputs(leaves)
        layer = copy.deepcopy(self.layer, replaced)
        if self.in_less and are_double(leaves):
            layer, inputs = in_double((layer, inputs))

        def backward(*douts: Array) -> dict[str, Any]:
            if self.objects:
                clear(layer)
            returned = self._claimed(self._backward(layer, douts))
            # a `dx`, too, which counts where nothing is returned
            gradients = gradients_of(layer, self.names, objects=self.objects)
            gradients |= {name: g for name, g in returned.items() if g is not None}
            return {name: gradients.get(name) for name in self.leaves}

        handed = arrays_in(inputs, self.names) | {name: leaves[name] for name in self.parameters}
        return Instance(layer.forward, backward, inputs, handed)

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        params = {name: leaves[name] for name in self.parameters}
        return (params, *self._inputs(leaves)) if params else self._inputs(leaves)

    def _backward(self, layer: Any, douts: tuple[Array, ...]) -> Any:
        return layer.backward(*douts) if self.takes_dout else layer.backward()

    def _claimed(self, result: Any) -> dict[str, Any]:
        return claimed(result, self.inputs, self.names, f"{self.name}.backward", self.unreturned)

    def _inputs(self, leaves: Leaves) -> tuple[Any, ...]:
        taken = set(self.returned)
        return tuple(
            leaves[name] if name in taken and name in leaves else copy.deepcopy(given)
            for name, given in zip(self.names, self.inputs, strict=True)
        )


class CheckablePair(Checkable):
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
        douts = outputs.unpack(np.ones_like(y))
        self.its_backward = getattr(backward, "__name__", "backward").replace("<lambda>", "backward")
        takes = [p.name for p in positional(backward)]
        self.cache_first = len(takes) > 1 and takes[0] in CACHE and takes[-1] not in CACHE
        expect_call(backward, len(douts) + 1, self.its_backward, f"backward({_named(douts)}, cache)")
        with self.trying(self.its_backward):
            returned = self._backward(douts, result[-1])
        if self.fault:
            return
        self.returned = list(returned)
        its = arrays_in(self.inputs, self.names)
        self.numbers = numbers_in(dict(zip(self.names, self.inputs, strict=True)))
        self.integers = integers_in(self.inputs, self.names)
        self.leaves = {name: its[name] for name in self.returned if is_float(its.get(name))}
        if not self.leaves:
            raise SubjectError(f"{self.name}: no float input whose gradient comes back, nothing to check")

    def open(self, leaves: Leaves) -> Instance:
        cache: list[Any] = []
        inputs = self.arguments(leaves)
        if are_double(leaves):
            inputs = in_double(inputs)

        def forward(*inputs: Any) -> Any:
            result = self.pair[0](*inputs)
            cache[:] = [result[-1]]
            return _outputs(result)

        def backward(*douts: Array) -> dict[str, Any]:
            gradients = self._backward(douts, *cache)
            return {name: gradients.get(name) for name in self.leaves}

        return Instance(forward, backward, inputs, arrays_in(inputs, self.names))

    def _backward(self, douts: tuple[Array, ...], cache: Any) -> dict[str, Any]:
        result = self.pair[1](cache, *douts) if self.cache_first else self.pair[1](*douts, cache)
        if (count := len(as_tuple(result))) > len(self.inputs):
            raise SubjectError(f"{self.name}: {count} gradients come back for {len(self.inputs)} inputs")
        return claimed(result, self.inputs, self.names, self.its_backward)

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
        if len(layer) == 2:
            _refuse_context(*layer)
        return tuple(layer)
    backward = getattr(layer, "backward", None)
    takes = [p.name for p in positional(backward)] if callable(backward) else []
    if backward is None or not any(name in CACHE for name in takes):
        return None
    _refuse_context(layer.forward, backward)
    return (layer.forward, backward) if takes[-1] in CACHE or (len(takes) > 1 and takes[0] in CACHE) else None


def _refuse_context(forward: Any, backward: Any) -> None:
    """The style of torch.autograd.Function: forward writes to the context that it is handed.

    Raises:
        SubjectError: Both take one first.
    """
    firsts = [takes[0].name for takes in map(positional, (forward, backward)) if takes]
    if len(firsts) == 2 and all(name in CACHE for name in firsts):
        raise SubjectError(
            f"forward({firsts[0]}, ...), backward({firsts[1]}, ...): expected forward(x) -> (y, cache) and "
            "backward(dout, cache); wrap it in a pair of functions (forward, backward) whose cache is ctx"
        )


def _named(douts: tuple[Array, ...]) -> str:
    return "dout" if len(douts) == 1 else ", ".join(f"dout{i}" for i in range(len(douts)))


def _outputs(result: Any) -> Any:
    return result[0] if len(result) == 2 else tuple(result[:-1])
