"""Adapts models of three functions, `forward(X, parameters)`, `cost(A, Y)` and `backward(A, Y, cache)`, or of two.

The cost may come last too. Their arguments are matched by name, `Y` with `y` if no other is meant. The first argument
of the cost is the output of forward, and a name with `cache` in it is the rest of what forward returns. Other values
that forward returns are passed on by the names in its source, as of `return Z1, A1, Z2, A2`.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, called, gradients_by_argument, parameters_of, required_parameters_of
from jaxnet.crosscheck.inspect.returned_names import returned_names
from jaxnet.crosscheck.inspect.role_heuristics import label_rank

BACKWARD = re.compile(r"back|grad", re.IGNORECASE)
NOTE = "{} is checked as the gradient of {}"


def adapt(style: Style) -> Style | None:
    """Turns the functions of a model into a function of its inputs and the gradient of that."""
    thing = style.thing
    if not isinstance(thing, tuple | list) or len(thing) not in (2, 3) or not all(map(callable, thing)):
        return None
    forward, *cost, backward = _cost_in_the_middle(thing)
    of_forward, of_cost = parameters_of(forward), parameters_of(cost[0]) if cost else []
    outputs = _names_of_outputs(forward, called(forward, *style.inputs[: len(of_forward)])) if cost else []
    output = next((name for name in of_cost if name in outputs), _output_of(of_cost))
    others = [name for name in of_cost if name != output and name not in outputs]
    names = list(dict.fromkeys([*of_forward, *others]))[: len(style.inputs)]
    known = {*names, output, *filter(None, outputs)}
    missing = [name for name in required_parameters_of(backward) if name not in known]
    alike = {name: [n for n in known if n.lower() == name.lower()] for name in missing}
    aliases = {name: same[0] for name, same in alike.items() if len(same) == 1}
    rest = [name for name in missing if name not in aliases]
    unknown = [name for name in rest if "cache" not in name.lower()]
    if len(unknown) == 1 and cost and unknown == rest[:1] and output not in required_parameters_of(backward):
        aliases[unknown[0]] = output  # the output, under a name of backward's own: L_model_backward(AL, Y, caches)
        rest = rest[1:]
    if len(names) != len(style.inputs) or not all("cache" in name.lower() for name in rest):
        return None
    if not cost and len(rest) != 1:
        return None

    def run(args: tuple[Any, ...]) -> tuple[Any, dict[str, Any]]:
        values = dict(zip(names, args, strict=True))
        result = _call(forward, values)
        y, *caches = result if isinstance(result, tuple | list) else (result,)
        values |= {name: part for name, part in zip(outputs, (y, *caches), strict=False) if name and name not in values}
        if cost:
            values.setdefault(output, y)
        values |= dict.fromkeys(rest, caches[-1] if caches else None)
        values |= {name: values[known_as] for name, known_as in aliases.items()}
        return (_call(cost[0], values) if cost else y), values

    def value(*args: Any) -> Any:
        return np.asarray(run(args)[0], np.float64).sum()

    def gradient(*args: Any) -> Any:
        gradients = _call(backward, run(args)[1])
        parts = gradients if isinstance(gradients, tuple | list) else [gradients]
        dicts = [part for part in parts if isinstance(part, Mapping)]  # beside which it may return its states
        named = [found for part in dicts if (found := gradients_by_argument(part, names, args, partly=True))]
        return named[0] if len(named) == 1 else gradients

    if not isinstance(total := called(lambda *args: run(args)[0], *style.inputs), Exception) and np.size(total) == 1:
        value.__name__ = getattr(cost[0] if cost else forward, "__name__", "cost")
        note = NOTE.format(getattr(backward, "__name__", "backward"), value.__name__)
        for function in (value, gradient):
            _sign(function, names)
        return style._replace(thing=value, gradient=gradient, takes_dout=False, note=note)
    return None


def _cost_in_the_middle(functions: Any) -> tuple[Any, ...]:
    """Returns the functions of a model with its backward last, the only one of the last two that speaks of one."""
    forward, *rest = functions
    is_backward = [bool(BACKWARD.search(getattr(f, "__name__", ""))) for f in rest]
    return (forward, rest[1], rest[0]) if is_backward == [True, False] else tuple(functions)


def _output_of(of_cost: list[str]) -> str:
    """Returns the argument of a cost that is the output of a model: the first, if it is not the one named as labels."""
    if len(of_cost) == 2 and label_rank(of_cost[0]) > label_rank(of_cost[1]):
        return of_cost[1]
    return of_cost[0] if of_cost else ""


def _names_of_outputs(forward: Callable[..., Any], result: Any) -> list[str]:
    return returned_names(forward, len(result), partly=True) if isinstance(result, tuple) else []


def _call(function: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    takes = parameters_of(function)
    return function(**{name: values[name] for name in takes if name in values})


def _sign(function: Any, names: list[str]) -> None:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    function.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])
