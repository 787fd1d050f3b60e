"""Passes keyword-only inputs of a forward pass by position, as the checker passes inputs."""

import copy
import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.signatures import keywords


def with_positional_inputs(thing: Any, names: Sequence[str]) -> Any:
    """Returns a layer, a network, a pair or a function that takes keyword-only inputs last, by position.

    Args:
        thing: The code. An object is copied, with the same arrays.
        names: The names of these inputs, in the order in which they are passed.

    Raises:
        SubjectError: If the code is a callable object or a class, whose signature cannot be replaced.

    Examples:
        >>> def power(x, *, n=2):
        ...     return x**n
        >>> with_positional_inputs(power, ["n"])(5, 3)
        125
    """
    if not names:
        return thing
    if isinstance(thing, tuple | list):
        return (with_positional_inputs(thing[0], names), *thing[1:])
    if inspect.isroutine(thing):
        return _positional(thing, names)
    if hasattr(thing, "loss") and not hasattr(thing, "forward"):
        return thing  # a network, whose loss is called with further arguments by name
    kind = type(thing)
    if isinstance(thing, type) or not inspect.isfunction(getattr(kind, "forward", None)):
        name, by_name = getattr(thing, "__name__", kind.__name__), ", ".join(f"{n}={n}" for n in names)
        raise SubjectError(
            f"named: {name} takes {', '.join(names)} by keyword alone, expected a function or a layer with forward; "
            f"pass a function that calls it: lambda x, {', '.join(names)}: {name}(x, {by_name})"
        )
    namespace = {
        "forward": _positional(kind.forward, names),
        "__slots__": (),  # the layout of its class, so that the copy can change to the new one
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
    }
    bound = copy.copy(thing)
    positional_kind = types.new_class(kind.__name__, (kind,), exec_body=lambda body: body.update(namespace))
    object.__setattr__(bound, "__class__", positional_kind)
    return bound


def gradient_with_positional_inputs(gradient: Any, f: Any, named: Mapping[str, Any] | None) -> Any:
    """Returns a gradient that takes by position those keyword-only inputs of its function that are passed by name.

    Args:
        gradient: The gradient of the function, or None.
        f: The function.
        named: The inputs that are passed by name.
    """
    if not (named and callable(gradient) and callable(f)):
        return gradient
    passed = {parameter.name for parameter in keywords(f)} & named.keys()
    return with_positional_inputs(gradient, [p.name for p in keywords(gradient) if p.name in passed])


def _positional(function: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """Returns a function that takes the inputs of these names after the positional ones."""
    parameters = inspect.signature(function).parameters.values()
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL

    @functools.wraps(function)
    def call(*inputs: Any) -> Any:
        count = len(inputs) - len(names)
        return function(*inputs[:count], **dict(zip(names, inputs[count:], strict=True)))

    last = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    before = [p.replace(default=p.empty) for p in parameters if p.kind in kinds]
    is_variadic = any(p.kind is p.VAR_POSITIONAL for p in before)  # no parameter can follow it
    call.__signature__ = inspect.Signature(before if is_variadic else before + last)  # type: ignore[attr-defined]
    return call
