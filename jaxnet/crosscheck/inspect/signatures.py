"""How functions are called: the names of their inputs, and which argument of a gradient comes from above."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.trees import distinct

# What the gradient from above is called. The first are called so by nobody else, even where they are optional.
SURELY_FROM_ABOVE = (
    "dout", "dy", "dY", "dz", "dh", "dL", "dloss", "dvalues", "ct", "cts", "cotangent", "cotangents", "upstream",
    "upstream_grad", "upstream_gradient", "grad_output", "grad_outputs", "grad_out", "output_grad", "dLdy", "dL_dy",
    "dL_dout", "ybar", "y_bar", "gy", "gout", "dout_",
)  # fmt: skip
FROM_ABOVE = (*SURELY_FROM_ABOVE, "g", "grad", "delta", "above", "bar", "seed", "v")
IGNORABLE = (None, 1, 1.0)  # defaults of an optional gradient from above


class Place(Enum):
    """Where a gradient takes what comes from above."""

    NOWHERE = "nowhere"
    POSITION = "position"
    KEYWORD = "keyword"


@dataclass(frozen=True)
class FromAbove:
    """How `dout` is handed over.

    Attributes:
        place: Where.
        index: Before which of the arguments, for a position.
        keyword: Under which name, for a keyword.
        apart: Whether several outputs have an argument each, not one of their structure.
    """

    place: Place
    index: int = 0
    keyword: str = ""
    apart: bool = True

    @property
    def taken(self) -> bool:
        """Whether it is handed over at all."""
        return self.place is not Place.NOWHERE

    def call(self, gradient: Callable[..., Any], args: Sequence[Any], douts: tuple[Any, ...], whole: Any) -> Any:
        """Returns what the gradient returns.

        Args:
            gradient: The function.
            args: Those of the function that it is the gradient of.
            douts: The gradients from above by each output.
            whole: The same in the structure of the outputs.
        """
        if self.place is Place.NOWHERE:
            return gradient(*args)
        if self.place is Place.KEYWORD:
            return gradient(*args, **{self.keyword: douts[0] if len(douts) == 1 else whole})
        above = douts if self.apart else (whole,)
        return gradient(*args[: self.index], *above, *args[self.index :])


def input_names(function: Callable[..., Any], count: int) -> list[str]:
    """Returns the names that a function gives its first arguments.

    Those that `*rest` takes are rest[0], rest[1], ..., and those without a name x0, x1, ...; no two are alike.
    """
    names = [p.name for p in positional(function)][:count]
    rest = next((p.name for p in _parameters(function) if p.kind is p.VAR_POSITIONAL), None)
    for i in range(len(names), count):
        names.append(f"x{i}" if rest in (None, "args") else f"{rest}[{i - len(positional(function))}]")
    return distinct(names)


def positional(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Returns the parameters that arguments can fill by their place; none where the signature cannot be read."""
    if isinstance(function, np.ufunc):  # its `out` is no input
        names = ["x"] if function.nin == 1 else [f"x{i}" for i in range(function.nin)]
        return [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in names]
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [p for p in _parameters(function) if p.kind in kinds]


def keywords(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Returns the parameters that only a keyword fills; none where the signature cannot be read."""
    return [] if isinstance(function, np.ufunc) else [p for p in _parameters(function) if p.kind is p.KEYWORD_ONLY]


def takes_any_number(function: Callable[..., Any]) -> bool:
    """Returns whether a function takes any number of arguments, or does not say how many."""
    if isinstance(function, np.ufunc):
        return False
    parameters = _parameters(function)
    return any(p.kind is p.VAR_POSITIONAL for p in parameters) or not _is_readable(function)


def from_above(
    f: Callable[..., Any],
    gradient: Callable[..., Any],
    names: Sequence[str],
    *,
    outputs: int,
    scalar: bool,
    takes_dout: bool | None = None,
) -> FromAbove:
    """Returns where a gradient takes what comes from above, by what its signature asks for.

    What it must be given beyond the arguments of f comes from above; what is optional does so only under a name that
    says it, and never where f has an option of that name.

    Args:
        f: The function that it is the gradient of.
        gradient: The function to be called.
        names: The inputs that f is called with.
        outputs: The number of outputs of f.
        scalar: Whether f returns a single number.
        takes_dout: What the user says of it; None where it is to be told by the signature.

    Raises:
        SubjectError: It cannot be called so, or must take one and where it does is not told.
    """
    found = FromAbove(Place.NOWHERE) if takes_dout is False else _told_by_signature(f, gradient, names, outputs, scalar)
    if takes_dout is True and not found.taken:
        found = _forced(f, gradient, names, outputs)
    _expect_callable_so(gradient, names, found, outputs)
    return found


def expect_call(function: Callable[..., Any], count: int, who: str, expected: str, **named: Any) -> None:
    """Checks that a function can be called with so many arguments.

    Raises:
        SubjectError: It takes fewer, or asks for more.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*[None] * count, **named)
    except TypeError as error:
        bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        takes = signature.replace(parameters=bare, return_annotation=signature.empty)
        raise SubjectError(f"{who}: takes {takes}, expected {expected}") from error


def _told_by_signature(
    f: Callable[..., Any], gradient: Callable[..., Any], names: Sequence[str], outputs: int, scalar: bool
) -> FromAbove:
    own = {p.name for p in (*positional(f), *keywords(f))} | set(names)
    required = [p.name for p in keywords(gradient) if p.default is p.empty and p.name not in own]
    named = [p.name for p in keywords(gradient) if p.name not in own and _is_optional_dout(p)]
    if len(required) == 1 or (not required and len(named) == 1):
        return FromAbove(Place.KEYWORD, keyword=(required or named)[0])
    takes = positional(gradient)
    extra = sum(p.default is p.empty for p in takes) - len(names)
    if extra > 0 and not takes_any_number(gradient):
        extra_names = [p.name for p in takes if p.default is p.empty and p.name not in own]
        if not extra_names and any(p.name in own and p.name not in names for p in takes):
            return FromAbove(Place.NOWHERE)  # it asks for an option of f: refused as it cannot be called
        return FromAbove(Place.POSITION, _index(takes, own, len(names)), apart=extra == outputs or outputs == 1)
    optional = [p for p in takes if p.name not in own and _is_optional_dout(p)]
    if optional and len(takes) > len(names):
        return FromAbove(Place.POSITION, _index(takes, own, len(names), optional[0].name), apart=outputs == 1)
    if takes_any_number(gradient):
        first = bool(takes) and takes[0].name in FROM_ABOVE and takes[0].name not in own
        return (
            FromAbove(Place.POSITION, 0 if first else len(names)) if first or not scalar else FromAbove(Place.NOWHERE)
        )
    return FromAbove(Place.NOWHERE)


def _forced(f: Callable[..., Any], gradient: Callable[..., Any], names: Sequence[str], outputs: int) -> FromAbove:
    """Where it is, if the user says that there is one: the one parameter that f does not have, or the one after."""
    own = {p.name for p in (*positional(f), *keywords(f))} | set(names)
    takes = positional(gradient)
    beyond = [p.name for p in takes if p.name not in own]
    only = [p.name for p in keywords(gradient) if p.name not in own]
    if len(takes) <= len(names) and only:
        return FromAbove(Place.KEYWORD, keyword=only[0])
    told = next((name for name in beyond if name in FROM_ABOVE), beyond[0] if len(beyond) == 1 else "")
    return FromAbove(
        Place.POSITION, _index(takes, own, len(names), told), apart=outputs == 1 or len(takes) != len(names) + 1
    )


def _index(takes: list[inspect.Parameter], own: set[str], count: int, told: str = "") -> int:
    """Before which argument the gradient from above stands: by its name, or by being the one that f does not have."""
    places = [p.name for p in takes]
    if told in places:
        return min(places.index(told), count)
    others = [name for name in places if name not in own]
    if len(others) == len(places) - count and others:  # all that is left are f's own
        return min(places.index(others[0]), count)
    known = [name for name in others if name in SURELY_FROM_ABOVE] or [n for n in others if n in FROM_ABOVE]
    return min(places.index(known[0]), count) if known else count


def _is_optional_dout(parameter: inspect.Parameter) -> bool:
    """Whether an option is the gradient from above: by a name that nothing else has, or by name and default."""
    if parameter.default is parameter.empty:
        return parameter.name in FROM_ABOVE
    ignorable = any(parameter.default is value or (_is_number(parameter.default) and parameter.default == value)
                    for value in IGNORABLE)  # fmt: skip
    return parameter.name in SURELY_FROM_ABOVE or (parameter.name in FROM_ABOVE and ignorable)


def _expect_callable_so(gradient: Callable[..., Any], names: Sequence[str], found: FromAbove, outputs: int) -> None:
    args = ", ".join(names)
    expected = f"gradient({args}, dout), or gradient({args}) where f is a scalar"
    above = (outputs if found.apart else 1) if found.place is Place.POSITION else 0
    named = {found.keyword: None} if found.place is Place.KEYWORD else {}
    if isinstance(gradient, np.ufunc) and len(names) + above != gradient.nin:
        raise SubjectError(f"gradient: the ufunc {gradient.__name__} takes {gradient.nin} inputs, expected {expected}")
    expect_call(gradient, len(names) + above, "gradient", expected, **named)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []


def _is_readable(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function)
    except (TypeError, ValueError):
        return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
