"""Adapts layers whose two methods have other names than `forward` and `backward`."""

import re
from typing import Any

from jaxnet.crosscheck.adapters.functions.bound_arguments import UPSTREAM
from jaxnet.crosscheck.adapters.optimizers.plain_descent import RATES
from jaxnet.crosscheck.adapters.style import Style, has_method, parameters_of, required_parameters_of, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import walk
from jaxnet.crosscheck.inspect.role_heuristics import is_label_name
from jaxnet.crosscheck.inspect.signatures import positional

FORWARD = (
    "forward_pass", "forward_propagation", "forward_propagate", "forward_prop", "forwardprop", "feedforward",
    "feed_forward", "fprop", "propagate_forward", "propagate", "apply", "compute", "call", "__call__",
    "predict_proba", "predict", "activate", "output", "get_output", "process", "run", "transform", "encode",
    "think",
)  # fmt: skip
BACKWARD = (
    "backward_pass", "backward_propagation", "backward_propagate", "backward_prop", "back_propagation",
    "back_propagate", "backpropagation", "backpropagate", "backprop", "back_prop", "bprop", "propagate_backward",
    "backword", "backforward",
)  # fmt: skip
CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
FORWARD_LIKE = re.compile(
    r"(?!\w*back)(\w+_)?(feed_?)?(for?wards?|fwd|f_?prop|front_?prop)(_?(pass|prop)\w*)?(_\w+)?"
    r"|(\w+_)?(adelante|avant|avanti|frente|vorw(ae|ä)rts)(_\w+)?"  # in Spanish, French, Italian, Portuguese, German
)
BACKWARD_LIKE = re.compile(
    r"(?!\w*for?ward)(\w+_)?(feed_?)?(back(?!up|end|ground)[a-z]*|bwd|b_?prop)(_\w+)?"
    r"|(\w+_)?(retro_?prop\w*|atr[aá]s|arri[eè]re|indietro|r(ue|ü)ckw(ae|ä)rts|tr[aá]s)(_\w+)?"
)
GRADIENT_LIKE = re.compile(r"(compute_|calc(ulate)?_|get_)?(grads?|gradients?)", re.IGNORECASE)
BESIDE_UPDATE = "backward is an update of the parameters, so {} is checked as the backward pass"
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
    return style._replace(thing=with_methods(_with_named_sublayers(thing, (forward, backward)), methods))


def _with_named_sublayers(thing: Any, names: tuple[str, str]) -> Any:
    """Returns a copy of an object in which the layers that it holds have `forward` and `backward`, too.

    Args:
        thing: The object; it is returned as it is if it holds no layer with these methods.
        names: The names of the two methods of the layers, which are those of the object itself.
    """
    if not any(_are_names_of(part, names) for place, part in walk(thing) if place):
        return thing
    copied = duplicate(thing)
    for part in [part for place, part in walk(copied) if place and _are_names_of(part, names)]:
        kind = type(part)
        methods = {"forward": getattr(kind, names[0]), "backward": getattr(kind, names[1])}
        part.__class__ = type(kind.__name__, (kind,), {"__module__": kind.__module__, **methods})
    return copied


def _are_names_of(part: Any, names: tuple[str, str]) -> bool:
    return hasattr(part, "__dict__") and not isinstance(part, type) and names_of(part) == names


def adapt_beside_update(style: Style) -> Style | None:
    """Uses another method as the backward pass of a layer whose `backward(lr=0.1)` only updates the parameters."""
    thing: Any = style.thing
    if isinstance(thing, tuple | list | type) or not _is_update(getattr(thing, "backward", None)):
        return None
    adapted = adapt(style)
    return adapted and adapted._replace(note=BESIDE_UPDATE.format(names_of(thing)[1]))


def _is_update(method: Any) -> bool:
    """Returns whether a method takes learning rates and other numbers alone, each with a default."""
    parameters = positional(method) if callable(method) else []
    numbers = [p for p in parameters if isinstance(p.default, float | int)]
    return numbers == parameters and any(RATES.fullmatch(p.name) for p in parameters)


def takes_upstream(method: Any) -> bool:
    """Returns whether the first argument of a method is named like an upstream gradient: `gradient(dout, cache)`."""
    takes = parameters_of(method)
    return bool(takes) and UPSTREAM.fullmatch(takes[0]) is not None


def names_of(thing: Any) -> tuple[str, str]:
    """Returns the names of the methods of an object that run its two passes; "" for one that it lacks."""
    names = _method(thing, ("forward", *FORWARD)), _method(thing, ("backward", *BACKWARD))
    if names == ("forward", "backward") and _is_update(thing.backward):
        return names[0], _only_backward(thing) or names[1]
    if names[0] in ("forward", "__call__") and not names[1] and (backward := _only_backward(thing, names[0])):
        return names[0], backward
    if names[0] == "forward" and not names[1]:
        return names
    if all(names) or any(name in names for name in ("forward", "backward")):
        return names
    if alike := _alike(thing):
        return alike
    forward, backward = names[0] or _only(thing, FORWARD_LIKE), names[1] or _only(thing, BACKWARD_LIKE)
    if not backward:
        private = _only(thing, FORWARD_LIKE, "_"), _only(thing, BACKWARD_LIKE, "_")
        return private if all(private) else (forward, backward)
    return forward, backward


def _only_backward(thing: Any, forward: str = "forward") -> str:
    """Returns the name of the only method beside `forward` that is a backward pass: `backpass`, `compute_gradients(g)`.

    A method that speaks of gradients alone is one if what it takes is named like an upstream gradient, or, beside a
    method `forward`, if it takes one value under another name than forward's.
    """
    own = _methods(thing)
    named = _named(thing, BACKWARD_LIKE)
    named = [name for name in named if required_parameters_of(getattr(thing, name))]
    if named and forward == "forward":
        return named[0] if len(named) == 1 else ""
    of_gradients = [name for name in own if GRADIENT_LIKE.fullmatch(name)]
    if len(of_gradients) == 1 and takes_upstream(getattr(thing, of_gradients[0])):
        return of_gradients[0]
    if forward != "forward":
        return ""
    takes = parameters_of(thing.forward)
    required = [required_parameters_of(getattr(thing, name)) for name in of_gradients]
    one = len(of_gradients) == 1 and len(required[0]) == 1 and required[0][0] not in takes
    return of_gradients[0] if one and not is_label_name(required[0][0]) else ""


def _methods(thing: Any, prefix: str = "") -> list[str]:
    """Returns the names of the methods that begin with a prefix, and then with no underscore."""
    own = [name for name in dir(type(thing)) if name.startswith(prefix) and not name[len(prefix) :].startswith("_")]
    return [name for name in own if has_method(thing, name)]


def _named(thing: Any, pattern: re.Pattern[str], prefix: str = "") -> list[str]:
    """Returns the names of the methods that match a pattern in lower case with underscores: `forwardPass`."""
    return [name for name in _methods(thing, prefix) if pattern.fullmatch(in_snake_case(name[len(prefix) :]))]


def in_snake_case(name: str) -> str:
    """Returns a name in lower case with underscores.

    Example:
        >>> in_snake_case("forwardPass")
        'forward_pass'
    """
    return CAMEL_CASE.sub("_", name).lower()


def _only(thing: Any, pattern: re.Pattern[str], prefix: str = "") -> str:
    """Returns the name of the only method that matches a pattern after a prefix; "" if there are several or none."""
    names = _named(thing, pattern, prefix)
    return names[0] if len(names) == 1 else ""


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
