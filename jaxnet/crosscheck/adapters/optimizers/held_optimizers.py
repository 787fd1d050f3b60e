"""Adapts layers whose backward passes gradients to optimizers of their own: `self.W = self.W_opt.update(self.W, dW)`.

While backward runs, a recorder stands in their place, and notes the gradients. It moves no parameter, which is why it
is not taken if backward returns something else with the optimizers themselves: then its result depends on the update.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.optimizers.given_optimizers import NOTE, OPTIMIZERS, Recorder, floats_in, that_move
from jaxnet.crosscheck.adapters.style import Style, called, has_method, required_parameters_of, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of, layers_within
from jaxnet.crosscheck.inspect.trees import is_float


def adapt(style: Style) -> Style | None:
    """Lets backward store the gradients that it gives to optimizers which the layer holds."""
    layer: Any = style.thing
    if isinstance(layer, tuple | list | type) or not all(has_method(layer, name) for name in ("forward", "backward")):
        return None
    if not any(_optimizers(layer)) or len(required_parameters_of(layer.backward)) != 1:
        return None
    kind: Any = type(layer)
    trial = duplicate(layer)
    y = called(trial.forward, *style.inputs)
    if not is_float(y):
        return None
    moving = that_move(trial, style.inputs)

    def run(self: Any, dout: Any) -> tuple[Any, Recorder]:
        recorder = Recorder(self, moving, dout, disturbs=False)
        held = list(_optimizers(self))
        for part, name, _ in held:
            setattr(part, name, recorder)
        try:
            return kind.backward(self, dout), recorder
        finally:
            for part, name, optimizer in held:
                setattr(part, name, optimizer)

    dout = np.ones_like(y)
    own, recorded = called(duplicate(trial).backward, dout), called(run, duplicate(trial), dout)
    if isinstance(recorded, Exception) or not recorded[1].gradients or not _are_same(own, recorded[0]):
        return None

    def backward(self: Any, dout: Any) -> Any:
        dx, recorder = run(self, dout)
        recorder.restore()
        recorder.store()
        return dx

    names = [name for _, name, _ in _optimizers(layer)]
    methods = " and ".join(f"{name}{method}" for name in names for method in recorded[1].methods)
    note = "; ".join(filter(None, (style.note, NOTE.format(methods))))
    return style._replace(thing=with_methods(layer, {"backward": backward}), note=note)


def _optimizers(layer: Any) -> Iterator[tuple[Any, str, Any]]:
    """Yields the objects that a layer and those within it hold under the name of an optimizer, after owner and name."""
    for _, part in layers_within(layer):
        for name, value in attributes_of(part).items():
            is_object = hasattr(value, "__dict__") and not isinstance(value, type)
            if is_object and OPTIMIZERS.fullmatch(name):
                yield part, name, value


def _are_same(first: Any, second: Any) -> bool:
    pairs = list(floats_in(first)), list(floats_in(second))
    return len(pairs[0]) == len(pairs[1]) and all(map(np.array_equal, *pairs))
