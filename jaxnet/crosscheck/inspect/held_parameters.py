"""Proposes a call for a backward that starts from a cost, and reads its parameters in an object or in a global dict.

It takes labels, or the derivative of the cost, in place of an upstream gradient. Its parameters become the argument of
a function that puts them back: `lambda p: (model.update(p), loss())[1]`.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Any

from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.returned_names import owners_of_returned
from jaxnet.crosscheck.inspect.role_heuristics import is_label_name, is_parameter_name
from jaxnet.crosscheck.inspect.signatures import positional
from jaxnet.crosscheck.inspect.trees import is_float

UPSTREAM = re.compile(r"d|grad|delta|err|up|g$|v$|ct|bar|above|seed", re.IGNORECASE)  # names of upstream gradients
PROPOSAL = (
    "write loss(), which runs {forward} and returns the cost, and gradients(), which runs {backward}({takes}) and "
    "returns the gradients, a dict by the names in {holder}; "
    "then check_function(lambda p: ({holder}.update(p), loss())[1], {held}, "
    "gradient=lambda p: ({holder}.update(p), gradients())[1])"
)
OF_A_COST = (
    "{name}.{backward}: takes {label} and no upstream gradient, so it is the backward of a cost; "
    "for net = {name}(...), pass the cost with it, check((net, cost), X, {label}), where cost(output, {label}) returns "
    "a number, or {proposal}"
)


def proposal_for_cost(layer: Any, of_forward: str = "forward", of_backward: str = "backward") -> str:
    """Returns a message for an object whose backward takes labels and no upstream gradient; empty for other things.

    Args:
        layer: The object.
        of_forward: The name of its method for the forward pass.
        of_backward: The name of that for the backward pass.
    """
    forward, backward = (getattr(layer, name, None) for name in (of_forward, of_backward))
    if isinstance(layer, type) or not callable(forward) or not callable(backward):
        return ""
    takes = required(backward)
    rest = [name for name in takes if name not in required(forward)]
    labels = [name for name in rest if is_label_name(name)]
    if not labels or any(UPSTREAM.match(name) for name in rest if name not in labels):
        return ""
    name = type(layer).__name__
    for place, value in attributes_of(layer).items():
        if _is_dict_of_floats(value):
            holder, held = f"net.{place}", f"dict(net.{place})"
            break
    else:
        arrays = [place for place, value in attributes_of(layer).items() if is_float(value)]
        names = [place for place in arrays if is_parameter_name(place)] or arrays
        holder, held = "vars(net)", f"{{n: vars(net)[n] for n in {names}}}"
    words = {"forward": f"net.{of_forward}", "backward": f"net.{of_backward}", "takes": ", ".join(takes)}
    proposal = PROPOSAL.format(**words, holder=holder, held=held)
    return OF_A_COST.format(name=name, backward=of_backward, label=labels[0], proposal=proposal)


def proposal_for_attributes(thing: Any) -> str:
    """Returns a proposal for an object with one method that speaks of a gradient, by its attributes; or nothing.

    The value is taken from the method whose name is most like that of the gradient.
    """
    own = [name for name in dir(type(thing)) if not name.startswith("_") and callable(getattr(thing, name))]
    gradients = [name for name in own if "grad" in name.lower()]
    held = [place for place, value in attributes_of(thing).items() if getattr(value, "ndim", None) is not None]
    if len(gradients) != 1 or len(own) < 2 or not held:
        return ""
    method = gradients[0]
    value = difflib.get_close_matches(method, [name for name in own if name != method], n=1, cutoff=0.0)[0]
    names = owners_of_returned(getattr(thing, method), len(held), held) or held
    takes = ", ".join(required(getattr(thing, value)))
    return (
        f"; if {method} returns the gradients of {', '.join(names)}, for net = {type(thing).__name__}(...): "
        f"check_function(lambda p: (vars(net).update(p), net.{value}({takes}).mean())[1], "
        f"{{n: vars(net)[n] for n in {names}}}, "
        f"gradient=lambda p: (vars(net).update(p), dict(zip({names}, net.{method}({takes}))))[1])"
    )


def proposal_for_global(forward: Any, backward: Any) -> str:
    """Returns a proposal for a backward that reads a global dict of arrays; empty for others."""
    used, held = getattr(getattr(backward, "__code__", None), "co_names", ()), getattr(backward, "__globals__", {})
    holder = next((name for name in used if _is_dict_of_floats(held.get(name))), None)
    if holder is None:
        return ""
    names = [getattr(f, "__name__", "f") for f in (forward, backward)]
    takes = ", ".join(required(backward))
    return PROPOSAL.format(forward=names[0], backward=names[1], takes=takes, holder=holder, held=f"dict({holder})")


def required(function: Any) -> list[str]:
    """Returns the names of the positional parameters without a default."""
    return [p.name for p in positional(function) if p.default is p.empty]


def _is_dict_of_floats(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(name, str) and is_float(array) for name, array in value.items())
