"""Lists what `jaxnet check` could check in a file: layers, networks, pairs, functions with a gradient or a rule."""

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import ModuleType
from typing import Any

from jaxnet.cli.check.training_networks import training_of
from jaxnet.crosscheck.adapters.networks.network_losses import GRADIENT_METHODS
from jaxnet.crosscheck.inspect.function import lacks_backward
from jaxnet.crosscheck.inspect.partners import backward_name, gradient_names
from jaxnet.crosscheck.inspect.returned_names import returned_names
from jaxnet.crosscheck.inspect.role_heuristics import is_parameter_name

GRADIENTS = re.compile(r"grads?|gradients?|grad_\w+|\w+_grads?|d[A-Z]\w*|d[wbx]\d*|dtheta")
NAMED_GRADIENTS = re.compile(r"\w+_and_(\w+_)?(grads?|gradients?)")  # a function that returns them beside its value
ENDINGS = (("", "_backward"), ("", "_bwd"), ("fwd", "bwd"))  # of a forward and a backward pass, beside "forward"
SCALARS = (int, float, bool, str, "int", "float", "bool", "str")  # annotations


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
            if is_function_of_torch(value):
                yield f"jaxnet check {file}:{name}{arguments('--inputs', forward_of_torch(value))}"
            elif passes and (
                _has_gradient(value) or _is_module_of_torch(value) or _returns_gradients(getattr(value, passes[0]))
            ):
                yield f"jaxnet check {file}:{name}{_init(value)}{_inputs_of_method(value, passes[0])}"
            elif training := training_of(value):
                inputs = f"{training.samples}=shape:SIZES {training.labels}=LABELS"
                yield f"jaxnet check {file}:{name}{_init(value)} --inputs {inputs}"
        elif _has_rule(value):
            yield f"jaxnet check {file}:{name}{arguments('--inputs', value)}"
        elif inspect.isfunction(value):
            if _returns_gradients(value) or NAMED_GRADIENTS.fullmatch(name):
                yield f"jaxnet check {file}:{name}{arguments('--inputs', value)}"
            if backward := backward_beside(name, own):
                yield f"jaxnet check {file}:{name},{backward}{arguments('--inputs', value)}"
            for gradient in gradient_names(name, own):
                yield f"jaxnet check {file}:{name} --gradient {gradient}{arguments('--inputs', value)}"


def backward_beside(name: str, beside: Mapping[str, Any]) -> str:
    """Returns the name of the backward pass of a function, both of one module, or "" if there is none.

    Args:
        name: The name of the function.
        beside: The values of its module, by name.

    Examples:
        >>> def attention_backward(dout, cache): ...
        >>> backward_beside("attention", {"attention_backward": attention_backward})
        'attention_backward'
    """
    others = (name.removesuffix(end) + partner for end, partner in ENDINGS if name.endswith(end))
    return backward_name(name, beside) or next((other for other in others if inspect.isfunction(beside.get(other))), "")


def incomplete(module: ModuleType) -> Iterator[str]:
    """Yields what is missing in each class of a module that has a forward pass alone.

    A class whose objects are called, such as a `torch.nn.Module`, is left out: a framework may derive its gradient.

    Args:
        module: The module.
    """
    for name, value in vars(module).items():
        is_own = isinstance(value, type) and value.__module__ == module.__name__
        if (
            is_own
            and hasattr(value, "forward")
            and not (hasattr(value, "backward") or _is_called(value) or training_of(value))
        ):
            yield f"{name} {lacks_backward(value)}"


def _init(kind: type) -> str:
    return arguments("--init", kind) if kind.__init__ is not object.__init__ else ""  # type: ignore[misc]


def is_function_of_torch(kind: Any) -> bool:
    """Returns whether this is a class of `torch.autograd.Function` with a forward pass of its own."""
    torch = sys.modules.get("torch")
    is_class = torch is not None and isinstance(kind, type) and issubclass(kind, torch.autograd.Function)
    return is_class and "forward" in vars(kind)


def forward_of_torch(kind: Any) -> Callable[..., Any]:
    """Returns the forward pass of a `torch.autograd.Function`, without the `ctx` that it takes beside no setup_context.

    Args:
        kind: The class.
    """
    has_context = kind.setup_context is sys.modules["torch"].autograd.Function.setup_context
    return partial(kind.forward, None) if has_context else kind.forward


def _is_module_of_torch(kind: type) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and issubclass(kind, torch.nn.Module)


def _inputs_of_method(kind: type, method: str) -> str:
    """Returns the inputs of a forward pass; the labels of a loss too where `y=None` means that it returns scores."""
    return arguments("--inputs", getattr(kind, method), skip=1, needed=2 if method == "loss" else 0)


def _has_rule(value: Any) -> bool:
    """Returns whether this is a function with a derivative rule of its own for JAX."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.custom_vjp | jax.custom_jvp)


def _has_gradient(kind: type) -> bool:
    return any(hasattr(kind, name) for name in ("backward", "gradient", *GRADIENT_METHODS))


def _returns_gradients(function: Any) -> bool:
    """Returns whether a function returns its value and gradients beside it, by their names in its source."""
    names = returned_names(function, 2, partly=True)
    return any(GRADIENTS.fullmatch(name) for name in names) and not all(GRADIENTS.fullmatch(name) for name in names)


def _is_called(layer: type) -> bool:
    return any("__call__" in vars(base) for base in layer.__mro__)


def arguments(option: str, function: Callable[..., Any], skip: int = 0, needed: int = 0) -> str:
    """Returns an option with each argument, to be filled in unless it has a default, or "" if there are none.

    A default is written out if it is a number, None, or a short string; other ones are left out.

    Args:
        option: The option.
        function: The function, or the class that is constructed.
        skip: The number of its first arguments that are left out, as `self`.
        needed: The number of those after them that are to be filled in even if they have a default.
    """
    variadic = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    try:
        parameters = [p for p in [*inspect.signature(function).parameters.values()][skip:] if p.kind not in variadic]
    except (TypeError, ValueError):  # written in C
        return ""
    is_init = option == "--init"
    listed = [
        placeholder(parameter, is_init=is_init)
        if i < needed or parameter.default is parameter.empty
        else _default(parameter)
        for i, parameter in enumerate(parameters)
    ]
    return "".join([f" {option}", *listed]) if any(listed) else ""


def _default(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if isinstance(value, str) and value.isidentifier():
        return f" {parameter.name}=str:{value}"
    return f" {parameter.name}={value!r}" if value is None or isinstance(value, int | float) else ""


def placeholder(parameter: inspect.Parameter, *, is_init: bool) -> str:
    """Returns an argument to be filled in: `W=shape:SIZES`, where 6 is a shape after the colon, or `k=VALUE`.

    Args:
        parameter: The parameter of a forward pass or of a constructor.
        is_init: Whether it is one of a constructor, which takes sizes and numbers beside arrays.
    """
    is_array = takes_array(parameter) if is_init else parameter.annotation not in SCALARS
    return f" {parameter.name}={'shape:SIZES' if is_array else 'VALUE'}"


def takes_array(parameter: inspect.Parameter) -> bool:
    """Returns whether a parameter of a constructor takes an array, by its name and annotation."""
    return is_parameter_name(parameter.name) and parameter.annotation not in SCALARS


def has_number(parameter: inspect.Parameter) -> bool:
    """Returns whether a parameter is annotated as an integer, or has a number as its default."""
    return parameter.annotation in (int, "int") or isinstance(parameter.default, int | float)
