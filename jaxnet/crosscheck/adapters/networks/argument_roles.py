"""Fills the arguments of a network's methods by their roles: samples, labels, the output, a rate, a flag.

`backprop(error, values)` gets the difference of output and labels, and what forward returned beside the output.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jaxnet.crosscheck.adapters.methods import BACKWARD, BACKWARD_LIKE, FORWARD, FORWARD_LIKE, in_snake_case
from jaxnet.crosscheck.adapters.networks import found_costs
from jaxnet.crosscheck.adapters.networks.function_pairs import DATA
from jaxnet.crosscheck.adapters.networks.outside_costs import is_of_labels
from jaxnet.crosscheck.adapters.networks.training_methods import EFFECTS, ONCE, SILENT, TRAINING
from jaxnet.crosscheck.adapters.optimizers.plain_descent import COUNTS, RATES
from jaxnet.crosscheck.adapters.style import has_method
from jaxnet.crosscheck.inspect.role_heuristics import is_prediction_name, label_rank
from jaxnet.crosscheck.inspect.signatures import positional

KEEPS = re.compile(r"(is_?)?train(ing)?(_?mode)?|(store|save|keep|with)_?(cache|grads?|activations?)|cache")
SAMPLES = re.compile(
    rf"{DATA.pattern}|(inputs?|data|features|images?|samples|x)_\w+|\w+_(inputs?|data|samples|x)", re.IGNORECASE
)
TARGETS = re.compile(
    r"train(ing)?_(set_)?(outputs?|results?)|[yt]_(train|batch|data|one_?hot|values?|labels?)|(batch|train)_[yt]"
    r"|salidas?_(esper|dese|real)\w*",  # in Spanish
    re.IGNORECASE,
)
DIFFERENCE = re.compile(r"(\w+_)?(err(or)?s?|loss(es)?|diff(erences?)?|deltas?|residuals?)(_\w+)?")
UPDATE = re.compile(r"(\w+_)?(update|apply|step|change|adjust|optimi[sz]e|descent|actualizar|atualizar)(_\w+)?")
Values = dict[str, Any]
Fill = Callable[[Any, Values], Any]  # an argument, from the network and the values of its passes
Role = tuple[str, Fill]


class Method(NamedTuple):
    """A method of a network, what fills its arguments, and which of these roles they have."""

    name: str
    fills: dict[str, Fill]
    roles: frozenset[str]

    def run(self, net: Any, values: Values) -> Any:
        """Returns what the method returns for the values of the passes."""
        return getattr(net, self.name)(**{name: fill(net, values) for name, fill in self.fills.items()})


def forwards(net: Any, data: tuple[str, ...]) -> Iterator[Method]:
    """Yields the forward passes that take the samples alone, or nothing if these are an attribute."""
    for name in _named(net, ("forward", *FORWARD), FORWARD_LIKE):
        fills = {p.name: fill for p in positional(getattr(net, name)) if (fill := _known_fill(p, net)) is not None}
        rest = [p.name for p in positional(getattr(net, name)) if p.default is p.empty and p.name not in fills]
        if len(rest) == 1:
            yield Method(name, fills | {rest[0]: _value_of("x")}, frozenset({rest[0]}))
        elif not rest and data:
            yield Method(name, fills, frozenset())


def backwards(net: Any, forward: Method, outputs: list[str], *, has_targets: bool) -> Iterator[Method]:
    """Yields the backward passes, and methods that train, of which all arguments can be filled."""
    for name in _named(net, ("backward", *BACKWARD), BACKWARD_LIKE, TRAINING):
        method = getattr(net, name)
        if name == forward.name or found_costs.reaches(method, type(net), EFFECTS):
            continue
        by_role, rest = _roles(method, net, forward, outputs)
        fills = {argument: fill for argument, (_, fill) in by_role.items()}
        roles = frozenset(role for role, _ in by_role.values())
        if roles & {"labels", "difference"}:
            free = [i for i, output in enumerate(outputs) if output not in by_role] or list(range(-len(rest), 0))
            fills |= {argument: _part_of("result", i) for argument, i in zip(rest, free[-len(rest) :], strict=False)}
        elif len(rest) in (1, 2) and not has_targets:
            fills |= dict(zip(rest, map(_value_of, ("x", "t")[-len(rest) :]), strict=True))
        elif rest or not has_targets:
            continue
        yield Method(name, fills, roles)


def _roles(method: Any, net: Any, forward: Method, outputs: list[str]) -> tuple[dict[str, Role], list[str]]:
    """Returns the roles of the arguments of a backward pass with what fills them, and the required ones without."""
    takes = [p for p in positional(method) if p.default is p.empty or RATES.fullmatch(p.name)]
    labels = max((p.name for p in takes if _is_of_labels(p.name)), key=label_rank, default="")
    found, rest = dict[str, Role](), list[str]()
    for p in positional(method):
        if p.name == labels:
            found[p.name] = "labels", _value_of("t")
        elif p.name in forward.roles or (p in takes and SAMPLES.fullmatch(p.name)):
            found[p.name] = "samples", _value_of("x")
        elif (fill := _known_fill(p, net)) is not None:
            found[p.name] = "rate" if RATES.fullmatch(p.name) else "constant", fill
        elif p in takes and (value := _value_named(p.name, outputs)) is not None:
            found[p.name] = value
        elif p in takes:
            rest.append(p.name)
    return found, rest


def _is_of_labels(name: str) -> bool:
    return is_of_labels(name) or TARGETS.fullmatch(name) is not None


def _value_named(name: str, outputs: list[str]) -> Role | None:
    """Returns the role of an argument that is named like the output, a value beside it, or a difference from labels."""
    if name in outputs:
        return "output", _part_of("result", outputs.index(name))
    if DIFFERENCE.fullmatch(in_snake_case(name)):
        return "difference", _value_of("difference")
    if is_prediction_name(name) or "output" in name or name.startswith("salida"):  # in Spanish
        return "output", _value_of("output")
    return None


def updates(net: Any, backward: Method) -> Iterator[Method]:
    """Yields the methods that update the parameters after a backward pass."""
    for name in _named(net, (), UPDATE):
        method = getattr(net, name)
        if name == backward.name or found_costs.reaches(method, type(net), EFFECTS):
            continue
        fills, roles, rest = dict[str, Fill](), set[str](), list[str]()
        for p in positional(method):
            if (fill := _known_fill(p, net)) is not None:
                fills[p.name] = fill
                roles |= {"rate"} if RATES.fullmatch(p.name) else set()
            elif p.default is not p.empty:
                continue
            elif SAMPLES.fullmatch(p.name):
                fills[p.name] = _value_of("x")
            elif is_of_labels(p.name):
                fills[p.name] = _value_of("t")
            else:
                rest.append(p.name)
        fills |= {name: _part_of("returned", i, whole=len(rest) == 1) for i, name in enumerate(rest)}
        yield Method(name, fills, frozenset(roles))


def _named(net: Any, names: tuple[str, ...], *patterns: re.Pattern[str]) -> list[str]:
    """Returns the names of the methods of these names, and then of those that match a pattern, private ones last."""
    own = [name for name in dir(type(net)) if not name.startswith("__") and has_method(net, name)]
    own.sort(key=lambda name: name.startswith("_"))
    alike = [n for pattern in patterns for n in own if pattern.fullmatch(in_snake_case(n).lstrip("_"))]
    private = [f"_{name}" for name in names]
    return list(dict.fromkeys([*(name for name in (*names, *private) if has_method(net, name)), *alike]))


def _known_fill(parameter: Any, net: Any) -> Fill | None:
    """Returns what fills an argument that is no value of the passes; None for another one."""
    name, is_optional = parameter.name, parameter.default is not parameter.empty
    if KEEPS.fullmatch(in_snake_case(name)) and (not is_optional or isinstance(parameter.default, bool)):
        return lambda net, values: True  # noqa: ARG005
    if RATES.fullmatch(name):
        return _value_of("rate")
    if ONCE.fullmatch(name):
        return lambda net, values: 1  # noqa: ARG005
    if SILENT.fullmatch(name):
        return lambda net, values: False  # noqa: ARG005
    if COUNTS.fullmatch(name) and not is_optional:
        return lambda net, values: len(values["x"])  # noqa: ARG005
    if not is_optional and isinstance(getattr(net, name, None), dict | list):
        return lambda net, values: getattr(net, name)  # noqa: ARG005
    return None


def _value_of(role: str) -> Fill:
    return lambda net, values: values[role]  # noqa: ARG005


def _part_of(role: str, at: int, *, whole: bool = False) -> Fill:
    """Returns what takes one of the values that a pass returned, or all of them."""
    return lambda net, values: values[role] if whole else parts_of(values[role])[at]  # noqa: ARG005


def parts_of(result: Any) -> tuple[Any, ...]:
    """Returns the values that a pass returned: those of a tuple or list, or the only one."""
    return tuple(result) if isinstance(result, tuple | list) else (result,)
