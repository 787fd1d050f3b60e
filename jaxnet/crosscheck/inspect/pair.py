"""The function style of courses: a forward that returns its output and a cache, and a backward that takes the cache."""

import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.checkable import (
    Instance,
    Leaves,
    SubjectError,
    as_tuple,
    expect_call,
    input_names,
    positional,
)
from jaxnet.crosscheck.inspect.copying import Template, duplicate
from jaxnet.crosscheck.inspect.held import Held
from jaxnet.crosscheck.inspect.layer import CheckableCode, as_checkable, tried
from jaxnet.crosscheck.inspect.roles import is_called_parameter, looks_constant
from jaxnet.crosscheck.inspect.trees import is_float
from jaxnet.crosscheck.inspect.trial import Live, named_douts

CACHE = ("cache", "ctx")


class LivePair(Live):
    """A copy of two functions, and the cache that the last forward returned.

    Functions are shared; where they are methods, or objects to be called, they are those of a copy.
    """

    def __init__(self, pair: tuple[Callable[..., Any], Callable[..., Any]], cache_first: bool) -> None:
        self.pair, self.cache_first = pair, cache_first
        self.held = _owner(pair[0]) if _owner(pair[0]) is not None else _owner(pair[1])
        self._cache: Any = None
        self._count = 0

    def forward(self, *inputs: Any) -> Any:
        result = self.pair[0](*inputs)
        if not (isinstance(result, tuple | list) and len(result) >= 2):
            name = getattr(self.pair[0], "__name__", "forward")
            raise SubjectError(f"{name}: returned {type(result).__name__}, expected a pair (output, cache)")
        self._cache, self._count = result[-1], len(inputs)
        return result[0] if len(result) == 2 else tuple(result[:-1])

    def backward(self, *douts: Any) -> Any:
        result = self.pair[1](self._cache, *douts) if self.cache_first else self.pair[1](*douts, self._cache)
        if (count := len(as_tuple(result))) > self._count and not isinstance(result, Mapping):
            name = getattr(self.pair[0], "__name__", "forward")
            raise SubjectError(f"{name}: {count} gradients come back for {self._count} inputs, expected one for each")
        return result

    def expect(self, douts: int, who: str) -> None:
        expect_call(self.pair[1], douts + 1, who, f"backward({named_douts(douts)}, cache)")


@dataclass(eq=False, kw_only=True)
class CheckablePair(CheckableCode):
    """The function style of courses: forward(x, w, b) -> (y, cache), backward(dout, cache) -> (dx, dw, db).

    Several outputs, forward(...) -> (h, c, cache), have as many gradients from above: backward(dh, dc, cache).

    Args:
        closed_over: What plain functions hold in their closures, defaults and globals. No gradient comes back for it.
    """

    closed_over: Held | None = None

    def open(self, leaves: Leaves) -> Instance:
        moved = {n: leaves[n] for n in self.closed_over.movable if n in leaves} if self.closed_over else {}
        if self.closed_over is None or not moved:
            return super().open(leaves)
        return replace(self, template=Template(self.closed_over.rebuilt(moved)), closed_over=None).open(leaves)

    def with_closed_over(self, held: Held, declared: Collection[str]) -> "CheckablePair":
        """Returns the pair with what its functions hold: what is called as a parameter is owed a gradient."""
        arrays = {name: held.arrays[name] for name in held.of_first if name in held.movable}
        others = {name: np.asarray(array) for name, array in arrays.items() if is_float(array)}
        constants = {
            name
            for name, array in others.items()
            if name in declared or not is_called_parameter(name) or looks_constant(name, array, is_input=False)
        }
        return replace(
            self,
            others=self.others | others,
            constants=self.constants | constants,
            closed_over=held if others else None,
        )


def brought_pair(pair: tuple[Any, ...], inputs: tuple[Any, ...], constants: Collection[str] = ()) -> CheckablePair:
    """Tries a pair of functions, and returns it as something to be checked.

    Args:
        pair: Forward and backward.
        inputs: What forward takes.
        constants: The names of arrays that have no gradient, and need none.

    Raises:
        SubjectError: They cannot be called so, or no gradient of a float comes back.
    """
    if len(pair) != 2 or not all(callable(function) for function in pair):
        raise SubjectError(f"layer: a tuple of {len(pair)}, expected a pair of functions (forward, backward)")
    forward, backward = pair
    name = getattr(forward, "__name__", "forward")
    names = input_names(forward, len(inputs))
    its_backward = getattr(backward, "__name__", "backward").replace("<lambda>", "backward")
    takes = [p.name for p in positional(backward)]
    live = partial(LivePair, cache_first=len(takes) > 1 and takes[0] in CACHE and takes[-1] not in CACHE)
    trial = tried(duplicate((forward, backward)), live, inputs, names, (name, its_backward))
    code = as_checkable(CheckablePair, name, trial, live, constants, takes_dout=True)
    if not code.fault and not code.leaves:
        raise SubjectError(f"{name}: no float input whose gradient comes back, nothing to check")
    if code.fault or not all(isinstance(function, types.FunctionType | partial) for function in pair):
        return code
    return code.with_closed_over(Held((forward, backward), (*code.leaves, *code.others)), constants)


def as_pair(layer: Any) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """Returns the two functions, where that is what was brought: a tuple, or methods that hand the cache over."""
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


def _owner(function: Any) -> Any:
    """Returns the object whose method this is, or the function object itself; None for a plain function."""
    if isinstance(function, types.MethodType):
        return None if isinstance(function.__self__, type) else function.__self__
    plain = types.FunctionType | types.BuiltinFunctionType | type
    return None if isinstance(function, plain) or not hasattr(function, "__dict__") else function


def _refuse_context(forward: Any, backward: Any) -> None:
    """Refuses the style of torch.autograd.Function, in which forward writes to the context that it is handed.

    Raises:
        SubjectError: Both take one first.
    """
    firsts = [takes[0].name for takes in map(positional, (forward, backward)) if takes]
    if len(firsts) == 2 and all(name in CACHE for name in firsts):
        raise SubjectError(
            f"forward({firsts[0]}, ...), backward({firsts[1]}, ...): expected forward(x) -> (y, cache) and "
            "backward(dout, cache); wrap it in a pair of functions (forward, backward) whose cache is ctx"
        )
