"""Reads signatures: the names of inputs, and where a gradient takes the upstream gradient, `dout`."""

import dis
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from jaxnet.crosscheck.inspect.errors import SubjectError, counted, did_you_mean
from jaxnet.crosscheck.inspect.trees import distinct

# Names of the upstream gradient. The first mean nothing else, even if they are optional.
CERTAIN_DOUT_NAMES = (
    "dout", "dy", "dY", "dz", "dh", "dL", "dloss", "dvalues", "ct", "cts", "cotangent", "cotangents", "upstream",
    "upstream_grad", "upstream_gradient", "grad_output", "grad_outputs", "grad_out", "output_grad", "dLdy", "dL_dy",
    "dL_dout", "ybar", "y_bar", "gy", "gout", "dout_",
)  # fmt: skip
DOUT_NAMES = (*CERTAIN_DOUT_NAMES, "g", "grad", "delta", "above", "bar", "seed", "v")
OPTIONAL_DEFAULTS = (None, 1, 1.0)  # defaults of an optional upstream gradient

# Signatures are asked for at each evaluation, and Python reads them anew each time, which may take longer than a layer.
_parameters_of_functions: WeakKeyDictionary[FunctionType, list[inspect.Parameter] | None] = WeakKeyDictionary()


class Place(Enum):
    """Where a gradient takes `dout`."""

    NOWHERE = "nowhere"
    POSITION = "position"
    KEYWORD = "keyword"


@dataclass(frozen=True)
class FromAbove:
    """How `dout` is passed to a gradient.

    Attributes:
        place: Whether it is positional, a keyword, or not passed.
        index: The index of the argument that follows it, if it is positional.
        keyword: Its name, if it is a keyword.
        apart: Whether each output has an argument of its own, as opposed to one argument for all.
    """

    place: Place
    index: int = 0
    keyword: str = ""
    apart: bool = True

    @property
    def taken(self) -> bool:
        """Whether the gradient takes `dout`."""
        return self.place is not Place.NOWHERE

    def call(self, gradient: Callable[..., Any], args: Sequence[Any], douts: tuple[Any, ...], whole: Any) -> Any:
        """Calls the gradient and returns its result.

        Args:
            gradient: The gradient.
            args: The arguments of the function.
            douts: The upstream gradient for each output.
            whole: The same in the structure of the outputs.
        """
        if self.place is Place.NOWHERE:
            return gradient(*args)
        if self.place is Place.KEYWORD:
            return gradient(*args, **{self.keyword: douts[0] if len(douts) == 1 else whole})
        above = douts if self.apart else (whole,)
        return gradient(*args[: self.index], *above, *args[self.index :])


def input_names(function: Callable[..., Any], count: int) -> list[str]:
    """Returns the names of a function's first arguments.

    Arguments taken by `*rest` are rest[0], rest[1], ...; arguments without a name are x0, x1, .... All names differ.
    """
    names = [p.name for p in positional(function)][:count]
    rest = next((p.name for p in _parameters(function) if p.kind is p.VAR_POSITIONAL), None)
    for i in range(len(names), count):
        names.append(f"x{i}" if rest in (None, "args") else f"{rest}[{i - len(positional(function))}]")
    return distinct(names)


def positional(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Returns the positional parameters of a function; none if its signature cannot be read."""
    if isinstance(function, np.ufunc):  # `out` is not an input
        names = ["x"] if function.nin == 1 else [f"x{i}" for i in range(function.nin)]
        return [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in names]
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [p for p in _parameters(function) if p.kind in kinds]


def keywords(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Returns the keyword-only parameters of a function; none if its signature cannot be read."""
    return [] if isinstance(function, np.ufunc) else [p for p in _parameters(function) if p.kind is p.KEYWORD_ONLY]


def takes_any_number(function: Callable[..., Any]) -> bool:
    """Returns whether a function takes any number of arguments, or its signature cannot be read."""
    if isinstance(function, np.ufunc):
        return False
    parameters = _parameters_if_known(function)
    return parameters is None or any(p.kind is p.VAR_POSITIONAL for p in parameters)


def takes_dout(method: Callable[..., Any]) -> bool:
    """Returns whether a backward pass takes arguments: by name, or by `*grads` where its code reads them.

    A method whose decorator takes `self` with the rest says nothing about its arguments.

    Example:
        >>> class Layer:
        ...     def backward(self, *grads):
        ...         return 2 * grads[0]
        >>> takes_dout(Layer().backward)
        True
    """
    if positional(method):
        return True
    rest = next((p.name for p in _parameters(method) if p.kind is p.VAR_POSITIONAL), None)
    own = inspect.unwrap(getattr(method, "__func__", method))
    if rest is None or not isinstance(own, FunctionType) or not positional(own):
        return False
    return reads(own, rest)


def reads(function: Any, name: str) -> bool:
    """Returns whether the code of a function, or of one within it, loads a variable.

    Example:
        >>> reads(lambda x, y: x + 1, "y")
        False
    """
    steps = [step for step in dis.get_instructions(function) if step.opname.startswith("LOAD_")]
    within = {free for constant in function.__code__.co_consts for free in getattr(constant, "co_freevars", ())}
    return name in within or any(name == step.argval or name in _several(step.argval) for step in steps)


def _several(value: Any) -> tuple[Any, ...]:
    """Returns the names that one instruction loads, where it loads two."""
    return value if isinstance(value, tuple) else ()


def from_above(
    f: Callable[..., Any],
    gradient: Callable[..., Any],
    names: Sequence[str],
    *,
    outputs: int,
    scalar: bool,
    takes_dout: bool | None = None,
) -> FromAbove:
    """Returns where a gradient takes the upstream gradient, according to its signature.

    A required parameter beyond the arguments of f is the upstream gradient. An optional one is so only if its name
    says so, and if f has no option of that name.

    Args:
        f: The function.
        gradient: Its gradient.
        names: The names of the inputs of f.
        outputs: The number of outputs of f.
        scalar: Whether f returns a single number.
        takes_dout: Whether `gradient` takes it. Defaults to what the signature says.

    Raises:
        SubjectError: If the gradient cannot be called so.
    """
    found = FromAbove(Place.NOWHERE) if takes_dout is False else _from_signature(f, gradient, names, outputs, scalar)
    if takes_dout is True and not found.taken:
        found = _forced(f, gradient, names, outputs)
    _expect_gradient_call(gradient, names, found, outputs)
    return found


def in_order_of(f: Callable[..., Any], gradient: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Returns a gradient that takes the arguments of f in the order of f.

    Args:
        f: The function.
        gradient: Its gradient, which may take some of the arguments alone, or in another order, by the names that f
            has for them.
        count: The number of arguments that f gets.

    Returns:
        The gradient itself if it takes them as f does, or others.

    Examples:
        >>> in_order_of(lambda x, a, b: a * x**b, lambda x, b, a: a * b * x ** (b - 1), 3)(2.0, 5.0, 3.0)
        60.0
    """
    own, takes = [p.name for p in positional(f)][:count], [p.name for p in positional(gradient)]
    required = [p.name for p in positional(gradient) if p.default is p.empty]
    is_of_f = bool(takes) and set(takes) <= set(own) and len(own) == count and not takes_any_number(gradient)
    if not is_of_f or takes == own or (takes == own[: len(takes)] and len(required) < len(takes)):
        return gradient

    def reordered(*args: Any, **options: Any) -> Any:
        given = dict(zip(own, args, strict=True))
        return gradient(**{name: given[name] for name in takes}, **options)

    functools.update_wrapper(reordered, gradient)
    signature = _signature(f)
    if signature is not None:
        reordered.__signature__ = signature  # type: ignore[attr-defined]
    return reordered


def expect_call(function: Callable[..., Any], count: int, name: str, expected: str, **named: Any) -> None:
    """Checks that a function can be called with `count` positional arguments and the keywords `named`.

    Raises:
        SubjectError: If its signature does not allow the call; the message has its `name` and what is `expected`.
    """
    signature = _signature(function)
    if signature is None:
        return
    try:
        signature.bind(*[None] * count, **named)
    except TypeError as error:
        bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        takes = signature.replace(parameters=bare, return_annotation=signature.empty)
        raise SubjectError(f"{name}: takes {takes}, expected {expected}") from error


def forward_pass_of(thing: Any) -> Any:
    """Returns the function that computes the forward pass of a layer, a loss or a pair, or a function itself."""
    if isinstance(thing, tuple | list) and thing:
        return thing[0]
    return next((getattr(thing, name) for name in ("forward", "loss") if hasattr(thing, name)), thing)


def wrong_call(function: Callable[..., Any], args: Sequence[Any], named: Mapping[str, Any]) -> str:
    """Returns why a function cannot be called with these arguments; "" if it can, or has no signature to read.

    Examples:
        >>> wrong_call(lambda W, b, pad=0: None, (1, 2), {"padding": 1})
        'takes W, b, pad, and no padding; did you mean pad?'
        >>> wrong_call(lambda W, b, pad=0: None, (1,), {})
        'takes W, b, pad: b is missing'
    """
    signature = _signature(function)
    if signature is None:
        return ""
    try:
        signature.bind(*args, **named)
    except TypeError:
        takes = f"takes {', '.join(signature.parameters) or 'no arguments'}"
    else:
        return ""
    names = [p.name for p in positional(function)]
    unknown = [name for name in named if name not in signature.parameters]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        near = did_you_mean(unknown[0], signature.parameters)
        return f"{takes}, and no {unknown[0]}" + (f"; {near}" if near else "")
    if twice := [name for name in names[: len(args)] if name in named]:
        return f"{takes}: {twice[0]} is passed twice"
    if missing := missing_arguments(function, args, named):
        return f"{takes}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    if len(args) > len(names) and not takes_any_number(function):
        return f"{takes}: it got {counted(len(args), 'value')} without a name"
    return takes


def missing_arguments(function: Callable[..., Any], args: Sequence[Any], named: Mapping[str, Any]) -> list[str]:
    """Returns the names of the required parameters that get no value from these arguments."""
    required = [*positional(function)[len(args) :], *keywords(function)]
    return [p.name for p in required if p.default is p.empty and p.name not in named]


def _from_signature(
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
            return FromAbove(Place.NOWHERE)  # it requires an option of f, so the check of the call below fails
        return FromAbove(Place.POSITION, _index(takes, own, len(names)), apart=outputs in (extra, 1))
    optional = [p for p in takes if p.name not in own and _is_optional_dout(p)]
    if optional and len(takes) > len(names):
        return FromAbove(Place.POSITION, _index(takes, own, len(names), optional[0].name), apart=outputs == 1)
    if takes_any_number(gradient):
        first = bool(takes) and takes[0].name in DOUT_NAMES and takes[0].name not in own
        return (
            FromAbove(Place.POSITION, 0 if first else len(names)) if first or not scalar else FromAbove(Place.NOWHERE)
        )
    return FromAbove(Place.NOWHERE)


def _forced(f: Callable[..., Any], gradient: Callable[..., Any], names: Sequence[str], outputs: int) -> FromAbove:
    """Returns where a gradient takes `dout`, if it does: the parameter that f does not have, or the one after f's."""
    own = {p.name for p in (*positional(f), *keywords(f))} | set(names)
    takes = positional(gradient)
    beyond = [p.name for p in takes if p.name not in own]
    only = [p.name for p in keywords(gradient) if p.name not in own]
    if len(takes) <= len(names) and only:
        return FromAbove(Place.KEYWORD, keyword=only[0])
    dout = next((name for name in beyond if name in DOUT_NAMES), beyond[0] if len(beyond) == 1 else "")
    return FromAbove(
        Place.POSITION, _index(takes, own, len(names), dout), apart=outputs == 1 or len(takes) != len(names) + 1
    )


def _index(takes: list[inspect.Parameter], own: set[str], count: int, dout: str = "") -> int:
    """Returns the index of the upstream gradient: of the name `dout`, or of the parameter that f does not have."""
    places = [p.name for p in takes]
    if dout in places:
        return min(places.index(dout), count)
    others = [name for name in places if name not in own]
    if len(others) == len(places) - count and others:  # the remaining parameters are those of f
        return min(places.index(others[0]), count)
    known = [name for name in others if name in CERTAIN_DOUT_NAMES] or [n for n in others if n in DOUT_NAMES]
    return min(places.index(known[0]), count) if known else count


def _is_optional_dout(parameter: inspect.Parameter) -> bool:
    """Returns whether a parameter is the upstream gradient, by a certain name, or by name and default."""
    if parameter.default is parameter.empty:
        return parameter.name in DOUT_NAMES
    is_default = any(parameter.default is value or (_is_number(parameter.default) and parameter.default == value)
                    for value in OPTIONAL_DEFAULTS)  # fmt: skip
    return parameter.name in CERTAIN_DOUT_NAMES or (parameter.name in DOUT_NAMES and is_default)


def _expect_gradient_call(gradient: Callable[..., Any], names: Sequence[str], found: FromAbove, outputs: int) -> None:
    args = ", ".join(names)
    expected = f"gradient({args}, dout), or gradient({args}) if f returns a scalar"
    above = (outputs if found.apart else 1) if found.place is Place.POSITION else 0
    named = {found.keyword: None} if found.place is Place.KEYWORD else {}
    if isinstance(gradient, np.ufunc) and len(names) + above != gradient.nin:
        raise SubjectError(f"gradient: the ufunc {gradient.__name__} takes {gradient.nin} inputs, expected {expected}")
    expect_call(gradient, len(names) + above, "gradient", expected, **named)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return _parameters_if_known(function) or []


def _parameters_if_known(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """Returns the parameters of a function, without `self` those of a method; None if they cannot be read."""
    own = function.__func__ if isinstance(function, MethodType) else function
    if not isinstance(own, FunctionType):
        return _read_parameters(function)
    if own not in _parameters_of_functions:
        _parameters_of_functions[own] = _read_parameters(own)
    parameters = _parameters_of_functions[own]
    takes_self = own is not function and parameters and parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL
    return parameters[1:] if parameters and takes_self else parameters


def _read_parameters(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    signature = _signature(function)
    return None if signature is None else list(signature.parameters.values())


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """Returns the signature of a function; None if it cannot be read."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
