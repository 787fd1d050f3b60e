"""Finds the `torch.autograd.Function` that a Python function or a module applies."""

import functools
import sys
from collections.abc import Iterator
from types import BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from jaxnet.crosscheck.inspect.random_inputs import draw_inputs
from jaxnet.crosscheck.inspect.torch_tensors import tensors_from

LIBRARIES = frozenset({"jax", "keras", "numpy", "scipy", "tensorflow", "torch"})  # whose functions are not read


def tensors_for(function: Any, inputs: tuple[Any, ...], seed: int) -> tuple[Any, ...]:
    """Returns the inputs of a function, as tensors if it applies a `torch.autograd.Function`.

    `apply` takes arrays too, and then calls forward alone: JAX would trace it, and its own derivative would be checked.

    Args:
        function: What is checked. Anything but a Python function gets its inputs as they are.
        inputs: The inputs. Shapes are drawn if they become tensors.
        seed: The seed of the inputs that are drawn.
    """
    called = function.func if isinstance(function, functools.partial) else function
    if not isinstance(called, FunctionType | MethodType) or not applied_functions(called):
        return inputs
    return tuple(tensors_from(list(draw_inputs(function, inputs, None, seed))))


def applied_functions(thing: Any) -> list[Any]:
    """Returns each `torch.autograd.Function` that a function applies, itself or in functions that it calls by name.

    Args:
        thing: A function, or a `torch.nn.Module`, whose own modules count too. Anything else applies none.
    """
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "Tensor"):
        return []
    is_module = isinstance(thing, torch.nn.Module)
    passes = [part.forward for part in thing.modules()] if is_module else [thing]
    seen: set[CodeType] = set()
    return [*dict.fromkeys(kind for part in passes for kind in _applied(part, torch.autograd.Function, seen))]


def _applied(function: Any, base: type, seen: set[CodeType]) -> Iterator[Any]:
    function = getattr(function, "__func__", function)
    if not isinstance(function, FunctionType) or function.__code__ in seen:
        return
    seen.add(function.__code__)
    names = _names(function.__code__)
    for value in _referred(function, names):
        owner = value.__self__ if isinstance(value, BuiltinMethodType | MethodType) else value
        if isinstance(owner, type) and issubclass(owner, base):
            if "apply" in names or owner is not value:
                yield owner
        elif isinstance(value, FunctionType) and _package(value.__module__) not in LIBRARIES:
            yield from _applied(value, base, seen)


def _referred(function: FunctionType, names: set[str]) -> Iterator[Any]:
    """Yields the values of the names in a function: globals, those of the modules among them, and of a closure."""
    variables = function.__globals__
    for name in names & variables.keys():
        value = variables[name]
        yield value.func if isinstance(value, functools.partial) else value
        if isinstance(value, ModuleType) and _package(value.__name__) not in LIBRARIES:
            yield from (vars(value)[inner] for inner in names & vars(value).keys())
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it has no value yet
            continue


def _package(module: str | None) -> str:
    return (module or "").partition(".")[0]


def _names(code: CodeType) -> set[str]:
    """Returns the names in the code of a function, and in that of functions within it."""
    return {*code.co_names}.union(*(_names(part) for part in code.co_consts if isinstance(part, CodeType)))
