"""Defines the code that is checked, as an adapter receives and returns it."""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import CellType, FunctionType
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.errors import without_exit
from jaxnet.crosscheck.inspect.global_state import restart_generators
from jaxnet.crosscheck.inspect.optional_jax import is_jax_array
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES
from jaxnet.crosscheck.inspect.signatures import positional
from jaxnet.crosscheck.inspect.trees import is_array, is_float, map_leaves


class Style(NamedTuple):
    """What is checked, and the arguments that it is called with.

    `gradient` is the gradient of a function, for the styles that become a function with its gradient. `note` is a
    sentence for the report that says how the code was read. `data` are the names of inputs that get no gradient,
    and `lacking` those of parameters that lack one. `drawn` are the places of inputs of which only a shape was passed.
    """

    thing: Any
    inputs: tuple[Any, ...]
    gradient: Callable[..., Any] | None = None
    takes_dout: bool | None = None
    note: str = ""
    data: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    drawn: tuple[int, ...] = ()


def parameters_of(function: Any) -> list[str]:
    """Returns the names of the positional parameters of a function; none if it has no signature."""
    return [p.name for p in positional(function)]


def required_parameters_of(function: Any) -> list[str]:
    """Returns the names of the positional parameters without a default."""
    return [p.name for p in positional(function) if p.default is p.empty]


def undecorated(function: Any) -> Any:
    """Returns the function behind a decorator that hides its signature, `wrap(*args, **kwargs)`; else the function."""
    if not isinstance(function, FunctionType) or function.__closure__ is None:
        return function
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    if kinds != [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]:
        return function
    held = [cell.cell_contents for cell in function.__closure__ if _holds_function(cell)]
    hidden = [f for f in held if f is not function]
    return hidden[0] if len(hidden) == 1 else function


def _holds_function(cell: CellType) -> bool:
    try:
        return isinstance(cell.cell_contents, FunctionType)
    except ValueError:  # a cell that is still empty
        return False


def has_method(thing: Any, name: str) -> bool:
    """Returns whether the class of an object defines a method; the `__call__` of every class does not count."""
    return callable(getattr(thing, name, None)) and any(name in vars(kind) for kind in type(thing).__mro__)


def with_methods(thing: Any, methods: Mapping[str, Any]) -> Any:
    """Returns a shallow copy of an object whose class has these methods as well, under the name of its class."""
    kind = type(thing)
    adapted = copy.copy(thing)
    adapted.__class__ = type(kind.__name__, (kind,), {"__module__": kind.__module__, **methods})
    return adapted


@contextmanager
def of_class(thing: Any, kind: type) -> Iterator[None]:
    """Gives an object its own class for the block, in which methods call others that `with_methods` replaced.

    Args:
        thing: The object.
        kind: The class that it had before.
    """
    adapted, thing.__class__ = type(thing), kind
    try:
        yield
    finally:
        thing.__class__ = adapted


def with_parameters(function: Any, names: list[str]) -> Any:
    """Returns a function of any arguments with a signature of these."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    function.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])
    return function


def called(function: Callable[..., Any], *args: Any) -> Any:
    """Returns the result of a trial call with copies of the arguments; an exception if it raises one.

    Random numbers are the same in each call.
    """
    restart_generators()
    try:
        return without_exit(function)(*(map_leaves(_duplicate, arg) for arg in args))
    except Exception as error:
        return error


def backward_runs_after(forward: Callable[..., Any], layer: Any, inputs: tuple[Any, ...]) -> bool:
    """Returns whether the backward pass of a layer runs after `forward(layer, *inputs)`; tried on a copy."""
    trial: Any = duplicate(layer)
    y = called(lambda *args: forward(trial, *args), *inputs)
    return is_float(y) and not isinstance(called(trial.backward, np.ones_like(y)), Exception)


def _duplicate(value: Any) -> Any:
    """Returns a copy, of a JAX array too, which a compiled function may take over (`donate_argnums`)."""
    return value.copy() if is_jax_array(value) and is_array(value) else duplicate(value)


def named_gradients(gradients: Any, names: list[str], args: tuple[Any, ...]) -> dict[str, Any] | None:
    """Returns gradients by the names of arguments, `w` for `dw`; None if the keys name no arguments.

    Args:
        gradients: A dict of gradients by the names of arguments, or of the entries of an argument that is a dict.
        names: The names of the arguments.
        args: The arguments.
    """
    if not isinstance(gradients, Mapping):
        return None
    if (named := _by_owner(gradients, names)) is not None:
        return named
    for name, arg in zip(names, args, strict=False):
        if isinstance(arg, Mapping) and (inner := _by_owner(gradients, list(arg))) is not None:
            return {name: inner}
    return None


def gradients_by_argument(
    gradients: Mapping[Any, Any], names: list[str], args: tuple[Any, ...], *, partly: bool = False
) -> dict[str, Any] | None:
    """Returns gradients by argument, those of the entries of an argument that is a dict in a dict of their own.

    Args:
        gradients: The gradients, by the names of arguments and of entries, `dW` for `W`.
        names: The names of the arguments.
        args: The arguments.
        partly: Whether keys that name neither are left out, as those of values within a network.

    Returns:
        The gradients; None if a key names no argument, or if none does.
    """
    found: dict[str, Any] = {}
    for key, gradient in gradients.items():
        owner = next((name for name in names if key in _forms(name)), None)
        if owner is not None:
            found[owner] = gradient
            continue
        inner = ((n, e) for n, arg in zip(names, args, strict=False) if isinstance(arg, Mapping) for e in arg)
        place = next(((n, e) for n, e in inner if key in _forms(e)), None)
        if place is not None:
            found.setdefault(place[0], {})[place[1]] = gradient
        elif not partly:
            return None
    return found or None


def _forms(name: Any) -> list[str]:
    return [form.format(name) for form in ("{}", *GRADIENT_NAMES)]


def _by_owner(gradients: Mapping[Any, Any], names: list[Any]) -> dict[Any, Any] | None:
    forms = {form.format(name): name for name in names for form in ("{}", *GRADIENT_NAMES)}
    owners = {key: forms[key] for key in gradients if key in forms}
    return {owners[key]: gradients[key] for key in owners} if owners and len(owners) == len(gradients) else None
