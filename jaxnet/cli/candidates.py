"""Lists what `jaxnet check` could check in a file: layers, networks, pairs of functions, and gradients of functions."""

import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from jaxnet.crosscheck.inspect.function import lacks_backward
from jaxnet.crosscheck.inspect.partners import backward_name, gradient_names
from jaxnet.crosscheck.inspect.role_heuristics import is_parameter_name


def candidates(file: str, module: ModuleType) -> Iterator[str]:
    """Yields a command for each class, pair and function of a module whose gradient can be checked.

    Args:
        file: The file of the module, as it is named on the command line.
        module: The module. What it has imported from others is left out.
    """
    own = {name: value for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    for name, value in own.items():
        if isinstance(value, type):
            passes = [method for method in ("forward", "loss") if hasattr(value, method)]
            if passes and (hasattr(value, "backward") or hasattr(value, "gradient")):
                init = arguments("--init", value) if value.__init__ is not object.__init__ else ""  # type: ignore[misc]
                yield f"jaxnet check {file}:{name}{init}{arguments('--inputs', getattr(value, passes[0]), skip=1)}"
        elif inspect.isfunction(value):
            if backward := backward_name(name, own):
                yield f"jaxnet check {file}:{name},{backward}{arguments('--inputs', value)}"
            for gradient in gradient_names(name, own):
                yield f"jaxnet check {file}:{name} --gradient {gradient}{arguments('--inputs', value)}"


def incomplete(module: ModuleType) -> Iterator[str]:
    """Yields what is missing in each class of a module that has a forward pass alone.

    A class whose objects are called, such as a `torch.nn.Module`, is left out: a framework may derive its gradient.

    Args:
        module: The module.
    """
    for name, value in vars(module).items():
        is_own = isinstance(value, type) and value.__module__ == module.__name__
        if is_own and hasattr(value, "forward") and not (hasattr(value, "backward") or _is_called(value)):
            yield f"{name} {lacks_backward(value)}"


def _is_called(layer: type) -> bool:
    return any("__call__" in vars(base) for base in layer.__mro__)


def arguments(option: str, function: Callable[..., Any], skip: int = 0) -> str:
    """Returns an option with each argument, to be filled in unless it has a default, or "" if there are none.

    A default is written out if it is a number, None, or a short string; other ones are left out.
    """
    variadic = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    try:
        parameters = [p for p in [*inspect.signature(function).parameters.values()][skip:] if p.kind not in variadic]
    except (TypeError, ValueError):  # written in C
        return ""
    is_init = option == "--init"
    listed = [
        placeholder(parameter, is_init=is_init) if parameter.default is parameter.empty else _default(parameter)
        for parameter in parameters
    ]
    return "".join([f" {option}", *listed]) if any(listed) else ""


def _default(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if isinstance(value, str) and value.isidentifier():
        return f" {parameter.name}=str:{value}"
    return f" {parameter.name}={value!r}" if value is None or isinstance(value, int | float) else ""


def placeholder(parameter: inspect.Parameter, *, is_init: bool) -> str:
    """Returns an argument to be filled in: `W=SHAPE,` with the comma that makes 6 a shape, or `k=VALUE`.

    Args:
        parameter: The parameter of a forward pass or of a constructor.
        is_init: Whether it is one of a constructor, which takes sizes and numbers beside arrays.
    """
    is_array = is_parameter_name(parameter.name) if is_init else True
    if parameter.annotation in (int, float, bool, str, "int", "float", "bool", "str"):
        is_array = False
    return f" {parameter.name}={'SHAPE,' if is_array else 'VALUE'}"
