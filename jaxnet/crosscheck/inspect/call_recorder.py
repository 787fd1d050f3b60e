"""Records the inputs with which a network calls its layers, and a copy of each layer from before the call."""

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
    """One call of a layer's forward, with copies of the layer and its inputs from before the call."""

    name: str
    layer: Any
    inputs: tuple[Any, ...]
    identity: int


class Recorder:
    """Records the forward and backward calls of layers within its `with` block.

    Replaces the class of each layer by one with recording methods, which also works with `__slots__`; or the methods,
    if they are attributes of the object. Restores the layers at the end.

    Args:
        layers: The layers by name, which belong to a copy of the network.
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
        """Yields the name, the copy, the inputs and the dout of each layer's first call.

        Backward passes through the calls in reverse, so the last dout belongs to the first call.
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
        attributes = getattr(layer, "__dict__", {})
        if "forward" not in attributes and "backward" not in attributes:
            methods: dict[str, Any] = {"__slots__": (), "forward": forward, "backward": backward}
            if getattr(kind, "__call__", None) is getattr(kind, "forward", None):  # noqa: B004
                methods["__call__"] = forward
            try:
                layer.__class__ = type(kind.__name__, (kind,), methods | {"__module__": kind.__module__})
                self._kinds[id(layer)] = kind
                return
            except TypeError:
                pass
        self._methods[id(layer)] = {n: attributes[n] for n in ("forward", "backward") if n in attributes}
        try:
            object.__setattr__(layer, "forward", forward.__get__(layer))
            object.__setattr__(layer, "backward", backward.__get__(layer))
        except AttributeError:  # neither can be replaced, so its calls are not recorded
            del self._methods[id(layer)]

    def _restore(self, layer: Any, copied: Any) -> None:
        """Restores the class and methods of a layer in the layer itself or in a copy."""
        if id(layer) in self._kinds:
            copied.__class__ = self._kinds[id(layer)]
        for name in ("forward", "backward") if id(layer) in self._methods else ():
            own = self._methods[id(layer)].get(name)
            if own is not None:
                is_bound = isinstance(own, MethodType) and own.__self__ is layer
                object.__setattr__(copied, name, MethodType(own.__func__, copied) if is_bound else own)
            elif name in vars(copied):
                object.__delattr__(copied, name)

    def _forward(self, name: str, layer: Any) -> Callable[..., Any]:
        own = layer.forward

        def forward(_: Any, *inputs: Any, **options: Any) -> Any:
            if all(call.identity != id(layer) for call in self.calls):
                copied, copied_inputs = duplicate((layer, inputs + _keyword_inputs(own, inputs, options)))
                self._restore(layer, copied)
                self.calls.append(Call(name, copied, copied_inputs, id(layer)))
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


def _keyword_inputs(function: Callable[..., Any], inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, ...]:
    """Returns the keyword arguments as positional ones; none if they cannot be positional."""
    try:
        bound = signature(function).bind(*inputs, **options)
    except (TypeError, ValueError):
        return ()
    bound.apply_defaults() if options else None
    return bound.args[len(inputs) :]


def _packed(douts: tuple[Any, ...]) -> Array | None:
    """Returns a copy of the upstream gradient; several are concatenated, as a forward's outputs are."""
    arrays = [np.array(dout, dtype=None if is_float(dout) else np.float64) for dout in douts if _is_number(dout)]
    if not arrays:
        return None
    return arrays[0] if len(arrays) == 1 else np.concatenate([array.ravel() for array in arrays])


def _is_number(dout: Any) -> bool:
    return is_float(dout) or (isinstance(dout, int | float) and not isinstance(dout, bool))
