"""Layers whose two methods have other names than `forward` and `backward`."""

import re
from typing import Any

from jaxnet.crosscheck.adapters.style import Style, has_method, with_methods

FORWARD = (
    "forward_pass", "forward_propagation", "forward_propagate", "forward_prop", "forwardprop", "feedforward",
    "feed_forward", "fprop", "propagate_forward", "propagate", "apply", "compute", "call", "__call__",
)  # fmt: skip
BACKWARD = (
    "backward_pass", "backward_propagation", "backward_propagate", "backward_prop", "back_propagation",
    "back_propagate", "backpropagation", "backpropagate", "backprop", "back_prop", "bprop", "propagate_backward",
)  # fmt: skip
VALUE = re.compile(r"(\w+_)?(loss|cost|error)|calculate|calc|evaluate|value")


def adapt(style: Style) -> Style | None:
    """Gives an object with other names for its methods the names `forward` and `backward`."""
    thing = style.thing
    if isinstance(thing, tuple | list | type) or isinstance(getattr(thing, "backward", None), property):
        return None
    forward, backward = names_of(thing)
    forward = forward or value_method(thing) or ""
    if not forward or not backward or (forward, backward) == ("forward", "backward"):
        return None
    kind = type(thing)
    methods = {"forward": getattr(kind, forward), "backward": getattr(kind, backward)}
    return style._replace(thing=with_methods(thing, methods))


def names_of(thing: Any) -> tuple[str, str]:
    """Returns the names of the methods of an object that run its two passes; "" for one that it lacks."""
    names = _method(thing, ("forward", *FORWARD)), _method(thing, ("backward", *BACKWARD))
    return names if all(names) or any(name in names for name in ("forward", "backward")) else _alike(thing) or names


def _alike(thing: Any) -> tuple[str, str] | None:
    """Returns two names that differ in one word, as `forward_step` and `backward_step`; None if several do."""
    forward = [name for name in dir(type(thing)) if "forward" in name and not name.startswith("_")]
    pairs = [(name, name.replace("forward", "backward")) for name in forward]
    pairs = [pair for pair in pairs if all(has_method(thing, name) for name in pair)]
    return pairs[0] if len(pairs) == 1 else None


def value_method(thing: Any) -> str | None:
    """Returns the name of the only method that computes the value of a loss, as `loss(pred, labels)`; or None."""
    names = [name for name in dir(type(thing)) if VALUE.fullmatch(name) and has_method(thing, name)]
    return names[0] if len(names) == 1 else None


def _method(thing: Any, names: tuple[str, ...]) -> str:
    return next((name for name in names if has_method(thing, name)), "")
