"""Records what a network calls its layers with, each layer as it was at the time of the call."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from inspect import signature
from types import MethodType, TracebackType
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.trees import Array, is_float


@dataclass
class Call:
    """One call of a layer's forward: a copy of the layer and of its inputs, made before the call."""

    name: str
    layer: Any
    inputs: tuple[Any, ...]
    identity: int


class Recorder:
    """Within its `with` block, the layers' forward and backward calls are recorded.

    A layer's class is replaced by one with recording methods, which works for `__slots__`, too; where the methods are
    attributes of the object, those are replaced.

    Args:
        layers: The layers by name; they are a network's copy's, and are put back as they were afterwards.
    """

    def __init__(self, layers: Iterable[tuple[str, Any]]) -> None:
        self.calls: list[Call] = []
        self.douts: dict[int, list[Array | None]] = {}
        self._layers = list(layers)
        self._kinds: dict[int, type] = {}
        self._methods: dict[int, dict[str, Any]] = {}

    def __enter__(self) -> "Recorder":
        for name, layer in self._layers:
            self._wrap(name, layer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del kind, error, traceback
        for _, layer in self._layers:
            self._restore(layer, layer)

    def first_calls(self) -> Iterator[tuple[str, Any, tuple[Any, ...], Array | None]]:
        """Yields for each layer its name, its copy and its inputs at the first call, and the dout of that call.

        Backward goes through the calls in reverse, so the last dout is that of the first call.
        """
        known: set[int] = set()
        counts = {call.identity: sum(c.identity == call.identity for c in self.calls) for call in self.calls}
        for call in self.calls:
            if call.identity in known:
                continue
            known.add(call.identity)
            douts = self.douts.get(call.identity, [])
            same = len(douts) == counts[call.identity] or len(douts) == 1
            yield call.name, call.layer, call.inputs, douts[-1] if douts and same else None

    def _wrap(self, name: str, layer: Any) -> None:
        kind = type(layer)
        forward, backward = self._forward(name, layer), self._backward(layer)
        mine = getattr(layer, "__dict__", {})
        if "forward" not in mine and "backward" not in mine:
            methods: dict[str, Any] = {"__slots__": (), "forward": forward, "backward": backward}
            if getattr(kind, "__call__", None) is getattr(kind, "forward", None):  # noqa: B004
                methods["__call__"] = forward
            try:
                layer.__class__ = type(kind.__name__, (kind,), methods | {"__module__": kind.__module__})
                self._kinds[id(layer)] = kind
                return
            except TypeError:
                pass
        self._methods[id(layer)] = {n: mine[n] for n in ("forward", "backward") if n in mine}
        try:
            object.__setattr__(layer, "forward", forward.__get__(layer))
            object.__setattr__(layer, "backward", backward.__get__(layer))
        except AttributeError:  # it can take neither: its calls are not recorded
            del self._methods[id(layer)]

    def _restore(self, layer: Any, copied: Any) -> None:
        """Gives a layer, or a copy of it, its own class and methods back."""
        if id(layer) in self._kinds:
            copied.__class__ = self._kinds[id(layer)]
        for name in ("forward", "backward") if id(layer) in self._methods else ():
            own = self._methods[id(layer)].get(name)
            if own is not None:
                theirs = isinstance(own, MethodType) and own.__self__ is layer
                object.__setattr__(copied, name, MethodType(own.__func__, copied) if theirs else own)
            elif name in vars(copied):
                object.__delattr__(copied, name)

    def _forward(self, name: str, layer: Any) -> Callable[..., Any]:
        own = layer.forward

        def forward(_: Any, *inputs: Any, **options: Any) -> Any:
            if all(call.identity != id(layer) for call in self.calls):
                copied, handed = duplicate((layer, inputs + _by_place(own, inputs, options)))
                self._restore(layer, copied)
                self.calls.append(Call(name, copied, handed, id(layer)))
            else:
                self.calls.append(Call(name, None, (), id(layer)))
            return own(*inputs, **options)

        return forward

    def _backward(self, layer: Any) -> Callable[..., Any]:
        own = layer.backward

        def backward(_: Any, *douts: Any, **options: Any) -> Any:
            self.douts.setdefault(id(layer), []).append(_packed((*douts, *options.values())))
            return own(*douts, **options)

        return backward


def _by_place(function: Callable[..., Any], inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, ...]:
    """Returns what was handed by keyword as it can be handed by its place; what cannot is left out."""
    try:
        bound = signature(function).bind(*inputs, **options)
    except (TypeError, ValueError):
        return ()
    bound.apply_defaults() if options else None
    return bound.args[len(inputs) :]


def _packed(douts: tuple[Any, ...]) -> Array | None:
    """Returns a copy of the gradient from above; several laid end to end, as a forward's outputs are."""
    arrays = [np.array(dout, dtype=None if is_float(dout) else np.float64) for dout in douts if _is_number(dout)]
    if not arrays:
        return None
    return arrays[0] if len(arrays) == 1 else np.concatenate([array.ravel() for array in arrays])


def _is_number(dout: Any) -> bool:
    return is_float(dout) or (isinstance(dout, int | float) and not isinstance(dout, bool))
