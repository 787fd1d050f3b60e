"""Lists what `jaxnet check` could check in a file: layers, networks, pairs of functions, and gradients of functions."""

import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from jaxnet.crosscheck.inspect.role_heuristics import is_parameter_name

GRADIENT_NAMES = ("{}_gradient", "{}_grad", "gradient_of_{}", "grad_{}", "d_{}", "d{}")


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
                init = arguments("--init", value) if "__init__" in vars(value) else ""
                yield f"jaxnet check {file}:{name}{init}{arguments('--inputs', getattr(value, passes[0]), skip=1)}"
        elif inspect.isfunction(value):
            backward = name.removesuffix("forward") + "backward"
            if name.endswith("forward") and inspect.isfunction(own.get(backward)):
                yield f"jaxnet check {file}:{name},{backward}{arguments('--inputs', value)}"
            for gradient in (form.format(name) for form in GRADIENT_NAMES):
                if inspect.isfunction(own.get(gradient)):
                    yield f"jaxnet check {file}:{name} --gradient {gradient}{arguments('--inputs', value)}"


def arguments(option: str, function: Callable[..., Any], skip: int = 0) -> str:
    """Returns an option with a placeholder for each argument that has no default, or "" if there are none."""
    variadic = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    parameters = [*inspect.signature(function).parameters.values()][skip:]
    required = [p for p in parameters if p.default is p.empty and p.kind not in variadic]
    is_init = option == "--init"
    return "".join([f" {option}", *(placeholder(p, is_init=is_init) for p in required)]) if required else ""


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
