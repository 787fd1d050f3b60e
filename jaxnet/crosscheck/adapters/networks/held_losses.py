"""Adapts networks that hold their loss and start from it: `net.loss.forward(net.forward(X), y)`, `net.backward()`.

The loss keeps what its own backward needs, so the network's backward starts from it.
"""

from typing import Any

from jaxnet.crosscheck.adapters.style import Style, called, has_method, required_parameters_of, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of, is_layer
from jaxnet.crosscheck.inspect.trees import is_float

NOTE = "backward of {} takes no argument, and is checked as the gradient of {}.forward(output, {})"


def adapt(style: Style) -> Style | None:
    """Gives such a network a forward that returns the loss."""
    net: Any = style.thing
    if isinstance(net, tuple | list | type) or len(style.inputs) != 2:
        return None
    if not (has_method(net, "forward") and has_method(net, "backward")) or required_parameters_of(net.backward):
        return None
    if len(required_parameters_of(net.forward)) != 1:
        return None
    kind: Any = type(net)
    losses = [name for name in attributes_of(net) if _is_value_of(style, name)]
    if len(losses) != 1:
        return None
    place = losses[0]
    label = required_parameters_of(getattr(net, place).forward)[1]

    def forward(self: Any, X: Any, y: Any) -> Any:
        return getattr(self, place).forward(kind.forward(self, X), y)

    def backward(self: Any) -> dict[str, Any]:
        kind.backward(self)
        return {}

    adapted = with_methods(net, {"forward": forward, "backward": backward})
    return style._replace(thing=adapted, note=NOTE.format(kind.__name__, place, label), data=("X", "y"))


def _is_value_of(style: Style, place: str) -> bool:
    """Returns whether an attribute is a loss, after whose forward the backward of the network can run."""
    trial: Any = duplicate(style.thing)
    loss = getattr(trial, place)
    if not is_layer(loss) or len(required_parameters_of(loss.forward)) != 2 or required_parameters_of(loss.backward):
        return False
    value = called(loss.forward, called(trial.forward, style.inputs[0]), style.inputs[1])
    if not isinstance(value, float) and not (is_float(value) and getattr(value, "size", 0) == 1):
        return False
    return not isinstance(called(trial.backward), Exception)
