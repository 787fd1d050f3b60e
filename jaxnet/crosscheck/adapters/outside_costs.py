"""Networks whose backward starts from labels, with a cost that is a function of its own: `check((net, cost), X, y)`.

The cost takes the output and the labels, in the order that its names tell. Backward takes the labels, and what forward
takes or returns by the names that forward has for it. Its gradients are those of the parameters that the object holds.
The cost may also be a method of an object that the network holds, as `net.loss_fn.compute`, and of no other.
"""

from types import FunctionType, MethodType
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.derivatives import VALUES
from jaxnet.crosscheck.adapters.methods import names_of
from jaxnet.crosscheck.adapters.style import (
    Style,
    called,
    has_method,
    parameters_of,
    required_parameters_of,
    with_methods,
)
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.returned_names import returned_names
from jaxnet.crosscheck.inspect.role_heuristics import is_label_name
from jaxnet.crosscheck.inspect.trees import is_float

NOTE = "{} of {} is checked as the gradient of {} by its parameters, so {} is held fixed"


def adapt(style: Style) -> Style | None:
    """Turns a network and a cost into a layer whose output is the cost."""
    thing, inputs = style.thing, style.inputs
    net, cost = thing if isinstance(thing, tuple | list) and len(thing) == 2 else (thing, _held_cost(thing))
    if len(inputs) != 2 or not callable(cost) or isinstance(net, FunctionType | MethodType | type | tuple | list):
        return None
    of_forward, of_backward = names_of(net)
    if not of_forward or not of_backward or len(required_parameters_of(cost)) != 2:
        return None
    kind: Any = type(net)
    names = parameters_of(getattr(net, of_forward))[:1]
    outputs = _outputs(net, of_forward, called(getattr(duplicate(net), of_forward), inputs[0]))
    takes = required_parameters_of(getattr(net, of_backward))
    labels = [name for name in takes if name not in names and name not in outputs]
    if len(labels) != 1 or not names or (net is thing and not is_label_name(labels[0])):
        return None
    first, second = required_parameters_of(cost)
    labels_first = is_label_name(first) and not is_label_name(second)

    def forward(self: Any, x: Any, t: Any) -> Any:
        result = getattr(kind, of_forward)(self, x)
        parts = result if isinstance(result, tuple) else (result,)
        given = dict(zip(outputs, parts, strict=False)) | {names[0]: x, labels[0]: t}
        self.__dict__["_recall_given"] = lambda: given
        y = next((part for part in parts if np.shape(part) == np.shape(t)), parts[0])
        return np.asarray(cost(t, y) if labels_first else cost(y, t), float).sum()

    def backward(self: Any) -> dict[str, Any]:
        given = self.__dict__["_recall_given"]()
        returned = getattr(kind, of_backward)(self, **{name: given[name] for name in takes})
        return returned if isinstance(returned, dict) else {}

    words = (of_backward, kind.__name__, getattr(cost, "__name__", "the cost"), names[0])
    adapted = with_methods(net, {"forward": forward, "backward": backward})
    data = ("x",) if is_float(inputs[0]) else ()
    return style._replace(thing=adapted, note=NOTE.format(*words), data=data)


def _outputs(net: Any, of_forward: str, result: Any) -> list[str]:
    """Returns the names of the values that forward returns together."""
    kind: Any = type(net)
    return returned_names(getattr(kind, of_forward), len(result), kind) if isinstance(result, tuple) else []


def _held_cost(net: Any) -> Any:
    """Returns the method of a value of labels and predictions that an object holds with its owner; None if several."""
    if isinstance(net, tuple | list | type):
        return None
    parts = [part for part in attributes_of(net).values() if hasattr(part, "__dict__")]
    methods = [getattr(part, name) for part in parts for name in VALUES if has_method(part, name)]
    costs = [method for method in methods if len(required_parameters_of(method)) == 2]
    return costs[0] if len(costs) == 1 else None
