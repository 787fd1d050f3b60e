"""Inspects pairs of functions, as in courses: forward returns its output and a cache, and backward takes the cache."""

import re
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.adapter import Adapter, Subject, name_douts
from jaxnet.crosscheck.inspect.assignment import as_tuple
from jaxnet.crosscheck.inspect.checkable import Instance
from jaxnet.crosscheck.inspect.closures import CapturedArrays
from jaxnet.crosscheck.inspect.copying import Template, duplicate
from jaxnet.crosscheck.inspect.errors import SubjectError, counted, describe, kind_of
from jaxnet.crosscheck.inspect.held_parameters import UPSTREAM, proposal_for_global, required
from jaxnet.crosscheck.inspect.layer import CheckableCode, from_trial, run_trial_with_floats
from jaxnet.crosscheck.inspect.role_heuristics import is_label_name, is_parameter_name, looks_constant
from jaxnet.crosscheck.inspect.signatures import expect_call, input_names, positional
from jaxnet.crosscheck.inspect.trees import Leaves, is_inexact

CACHE = ("cache", "ctx")
RESIDUALS = re.compile(r"\w*cache\w*|res|resid\w*|saved\w*|tape|memo|memory|stash|intermediates?|ctx|context")
LAST = re.compile(  # names of an upstream gradient, which no cache has
    r"d(out|logits|scores|[yzhap])\w*|d[A-Z_]\w*|grad\w*|\w+_grads?|g|g_?out|gy|cts?|cotangents?|\w+_bar"
)
COST = re.compile("(cost|loss)$", re.IGNORECASE)  # the name of a function


class PairAdapter(Adapter):
    """Calls two functions, and passes the cache of the last forward to backward.

    Plain functions are shared with the caller; methods and callable objects belong to a copy.
    """

    def __init__(self, pair: tuple[Callable[..., Any], Callable[..., Any]], cache_first: bool) -> None:
        self.pair, self.cache_first, self.source = pair, cache_first, pair[1]
        self.owner = _owner(pair[0]) if _owner(pair[0]) is not None else _owner(pair[1])
        self._cache: Any = None
        self._count = 0

    def forward(self, *inputs: Any) -> Any:
        result = self.pair[0](*inputs)
        if not (isinstance(result, tuple | list) and len(result) >= 2):
            name = getattr(self.pair[0], "__name__", "forward")
            raise SubjectError(f"{name}: returned {kind_of(result)}, expected a pair (output, cache)")
        self._cache, self._count = result[-1], len(inputs)
        return result[0] if len(result) == 2 else tuple(result[:-1])

    def backward(self, *douts: Any) -> Any:
        try:
            result = self.pair[1](self._cache, *douts) if self.cache_first else self.pair[1](*douts, self._cache)
        except Exception as error:
            if len(douts) > 1 and is_inexact(self._cache):
                raise SubjectError(self._doubtful(len(douts), describe(error))) from error
            raise
        if (count := len(as_tuple(result))) > self._count and not isinstance(result, Mapping):
            name = getattr(self.pair[0], "__name__", "forward")
            counts = f"{counted(count, 'gradient')} for {counted(self._count, 'input')}"
            raise SubjectError(f"{name}: returned {counts}, expected one for each")
        return result

    def _doubtful(self, count: int, error: str) -> str:
        """Returns the message for a backward that raises, and may take other values than upstream gradients."""
        forward, backward = (getattr(f, "__name__", "f").replace("<lambda>", "f") for f in self.pair)
        takes = ", ".join(p.name for p in positional(self.pair[1]))
        return (
            f"{backward}: raised {error} when called with upstream gradients for the first {count} outputs of "
            f"{forward} and with the last as its cache; if {takes} are other values, pass a pair whose backward takes "
            f"(dout, cache): check((lambda ...: (y, cache), lambda dout, cache: {backward}(...)), ...)"
        )

    def expect(self, douts: int, name: str) -> None:
        expect_call(self.pair[1], douts + 1, name, f"backward({name_douts(douts)}, cache)")


@dataclass(eq=False, kw_only=True)
class CheckablePair(CheckableCode):
    """The function style of courses: forward(x, w, b) -> (y, cache), backward(dout, cache) -> (dx, dw, db).

    A forward with several outputs, forward(...) -> (h, c, cache), has as many upstream gradients:
    backward(dh, dc, cache).

    Args:
        captured: The arrays in the closures, defaults and globals of plain functions. They get no gradient.
    """

    captured: CapturedArrays | None = None

    def open(self, leaves: Leaves) -> Instance:
        moved = {n: leaves[n] for n in self.captured.replaceable if n in leaves} if self.captured else {}
        if self.captured is None or not moved:
            return super().open(leaves)
        return replace(self, template=Template(self.captured.rebuild(moved)), captured=None).open(leaves)

    def with_captured(self, captured: CapturedArrays) -> "CheckablePair":
        """Returns the pair with captured arrays; one with a parameter's name lacks a gradient unless it is declared."""
        arrays = {name: captured.arrays[name] for name in captured.of_first if name in captured.replaceable}
        others = {name: np.asarray(array) for name, array in arrays.items() if is_inexact(array)}
        constants = {
            name
            for name, array in others.items()
            if not is_parameter_name(name) or looks_constant(name, array, is_input=False)
        }
        return replace(
            self,
            others=self.others | others,
            constants=self.constants | constants,
            captured=captured if others else None,
        )


def inspect_pair(pair: tuple[Any, ...], inputs: tuple[Any, ...]) -> CheckablePair:
    """Runs trials on a pair of functions, and returns it as a Checkable.

    Args:
        pair: Forward and backward.
        inputs: The inputs of forward.

    Raises:
        SubjectError: If they cannot be called so, or no float array gets a gradient.
    """
    if len(pair) != 2 or not all(callable(function) for function in pair):
        raise SubjectError(f"layer: a tuple of {len(pair)}, expected a pair of functions (forward, backward)")
    forward, backward = pair
    reject_labels(forward, backward)
    name = getattr(forward, "__name__", "forward")
    names = input_names(forward, len(inputs))
    backward_name = getattr(backward, "__name__", "backward").replace("<lambda>", "backward")
    takes = [p.name for p in positional(backward)]
    cache_first = takes_cache_first(takes)

    def run(cache_first: bool) -> CheckablePair:
        adapt = partial(PairAdapter, cache_first=cache_first)
        subject = Subject(duplicate((forward, backward)), adapt, names, inputs, (name, backward_name))
        return from_trial(CheckablePair, name, run_trial_with_floats(subject), takes_dout=True)

    try:
        code = run(cache_first)
        if code.fault and len(takes) == 2 and not cache_first:  # names that tell nothing, as in `bwd(saved, v)`
            with suppress(SubjectError):
                code = other if not (other := run(cache_first=True)).fault else code
    except SubjectError as error:
        if proposal := proposal_for_global(forward, backward):
            raise SubjectError(f"{error}; {proposal}") from error
        raise
    if not code.fault and not code.leaves:
        raise SubjectError(f"{name}: no float input gets a gradient, so there is nothing to check")
    if code.fault or not all(isinstance(function, types.FunctionType | partial) for function in pair):
        return code
    return code.with_captured(CapturedArrays((forward, backward), (*code.leaves, *code.others)))


def takes_cache_first(takes: list[str]) -> bool:
    """Returns whether the names of a backward's arguments say that the upstream gradient follows the cache."""
    if len(takes) < 2:
        return False
    named = RESIDUALS.fullmatch(takes[0]) is not None and not RESIDUALS.fullmatch(takes[-1])
    return named or (len(takes) == 2 and LAST.fullmatch(takes[1]) is not None and not UPSTREAM.match(takes[0]))


def as_pair(layer: Any) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """Returns the two functions of a pair, or of an object whose methods pass a cache; None for other layers.

    Raises:
        SubjectError: If both functions take a context.
    """
    if isinstance(layer, tuple | list):
        if len(layer) == 2:
            _reject_context(*layer)
        return tuple(layer)
    backward = getattr(layer, "backward", None)
    takes = [p.name for p in positional(backward)] if callable(backward) else []
    if backward is None or not any(name in CACHE for name in takes):
        return None
    _reject_context(layer.forward, backward)
    return (layer.forward, backward) if takes[-1] in CACHE or (len(takes) > 1 and takes[0] in CACHE) else None


def reject_labels(forward: Any, backward: Any) -> None:
    """Raises a SubjectError if backward takes labels and a cache, and nothing that may be an upstream gradient.

    `backward(parameters, cache, X, Y)` starts from the derivative of a cost, so it is none of forward alone.
    """
    takes = required(backward)
    rest = [name for name in takes if name not in required(forward) and "cache" not in name.lower()]
    labels = [name for name in rest if is_label_name(name)]
    is_upstream = any(UPSTREAM.match(name) for name in rest if name not in labels)
    is_method = any(isinstance(f, types.MethodType) for f in (forward, backward))  # whose cost the object may hold
    if not labels or is_upstream or is_method or not any("cache" in name.lower() for name in takes):
        return
    of_forward, of_backward = (getattr(f, "__name__", "f").replace("<lambda>", "f") for f in (forward, backward))
    held = getattr(backward, "__globals__", {})
    cost = next((name for name, f in held.items() if COST.search(name) and callable(f)), "cost")
    raise SubjectError(
        f"{of_backward}: takes {labels[0]} and no upstream gradient, so it is the backward of a cost; pass that too: "
        f"check(({of_forward}, {cost}, {of_backward}), {', '.join([*required(forward), labels[0]])})"
    )


def _owner(function: Any) -> Any:
    """Returns the object of a method, or a callable object itself; None for a plain function."""
    if isinstance(function, types.MethodType):
        return None if isinstance(function.__self__, type) else function.__self__
    plain = types.FunctionType | types.BuiltinFunctionType | type
    return None if isinstance(function, plain) or not hasattr(function, "__dict__") else function


def _reject_context(forward: Any, backward: Any) -> None:
    """Raises a SubjectError if forward writes to a context, as in torch.autograd.Function."""
    firsts = [takes[0].name for takes in map(positional, (forward, backward)) if takes]
    if len(firsts) == 2 and all(name in CACHE for name in firsts):
        raise SubjectError(
            f"forward({firsts[0]}, ...), backward({firsts[1]}, ...): expected forward(x) -> (y, cache) and "
            "backward(dout, cache); wrap it in a pair of functions (forward, backward) whose cache is ctx"
        )
