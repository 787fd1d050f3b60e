"""Finds the tensors that an object or a function refers to, and copies it with other tensors in place."""

import copy
import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.closures import cell_contents, names_in_code
from jaxnet.crosscheck.inspect.errors import SubjectError, describe, kind_of
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.torch_tensors import torch_module

DEEPEST = 6  # levels of nesting, without a module's submodules
MAX_OBJECTS = 20_000  # visited by one walk; an object may refer to half a program
ATOMS = (str, bytes, int, float, complex, type(None), type, types.ModuleType, types.BuiltinFunctionType, np.ndarray)


def tensors_in(value: Any, place: str = "", known: set[int] | None = None, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yields every tensor and generator that a value refers to, each once, with its place: `net.0.weight`.

    Looks into lists, tuples, dicts, modules and other objects; for a function, into its closure, its defaults, and the
    globals that it reads, if they are tensors, modules, containers or functions of the same module.
    """
    torch = torch_module()
    known = set() if known is None else known
    if isinstance(value, ATOMS) or id(value) in known or depth > DEEPEST or len(known) > MAX_OBJECTS:
        return
    known.add(id(value))
    if isinstance(value, torch.Tensor | torch.Generator):
        yield place, value
        return
    for name, part in _parts(value):
        where = f"{place}.{name}" if place and name else place or name
        yield from tensors_in(part, where, known, depth + (not isinstance(part, torch.nn.Module)))


def _parts(value: Any) -> list[tuple[str, Any]]:
    """Returns the named parts of a value. The name of a method's `self` is empty."""
    if isinstance(value, torch_module().nn.Module):
        plain = {n: v for n, v in vars(value).items() if n not in vars(torch_module().nn.Module())}
        return [*value._parameters.items(), *value._buffers.items(), *value._modules.items(), *plain.items()]
    if isinstance(value, Mapping):
        return [(str(key), part) for key, part in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        fields: Any = getattr(value, "_fields", range(len(value)))
        return [(str(name), part) for name, part in zip(fields, value, strict=True)]
    if isinstance(value, functools.partial | types.MethodType | types.FunctionType):
        return _parts_of_callable(value)
    return list(attributes_of(value).items())


def _parts_of_callable(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, functools.partial):
        return [("", value.func), *((str(i), a) for i, a in enumerate(value.args)), *value.keywords.items()]
    if isinstance(value, types.MethodType):
        return [("", value.__self__), ("", value.__func__)]
    closure = zip(value.__code__.co_freevars, map(cell_contents, value.__closure__ or ()), strict=True)
    defaults = {f"default{i}": part for i, part in enumerate(value.__defaults__ or ())}
    return [*closure, *_globals(value).items(), *defaults.items(), *(value.__kwdefaults__ or {}).items()]


def _globals(function: Any) -> dict[str, Any]:
    """Returns the globals that a function reads and that may hold parameters."""
    torch, space = torch_module(), function.__globals__
    found = {}
    for name in sorted(names_in_code(function.__code__)):
        value = space.get(name)
        in_same_module = isinstance(value, types.FunctionType) and value.__globals__ is space
        if in_same_module or isinstance(value, torch.Tensor | torch.Generator | torch.nn.Module | list | tuple | dict):
            found[name] = value
    return found


def copy_with(value: Any, memo: dict[int, Any]) -> Any:
    """Returns a deep copy with other objects in the place of some parts.

    A function is rebuilt with copies of its closure and globals. Functions and data without tensors are not copied.

    Args:
        value: The object to copy.
        memo: Maps the ids of parts to the objects that replace them; copies are added.

    Raises:
        SubjectError: If a part that holds tensors cannot be copied.
    """
    if id(value) in memo or isinstance(value, ATOMS):
        return memo.get(id(value), value)
    if isinstance(value, types.MethodType):
        owner, function = value.__self__, copy_with(value.__func__, memo)
        return types.MethodType(function, owner if isinstance(owner, type) else _object(owner, memo))
    has_tensors = any(True for _ in tensors_in(value))
    is_function = isinstance(value, types.FunctionType)
    if not has_tensors and (is_function or not callable(value)):
        return value
    if isinstance(value, functools.partial):
        return functools.partial(
            copy_with(value.func, memo), *copy_with(value.args, memo), **copy_with(value.keywords, memo)
        )
    if is_function:
        return _rebuilt(value, memo)
    if type(value) in (list, tuple):
        return type(value)(copy_with(part, memo) for part in value)
    if type(value) is dict:
        return {key: copy_with(part, memo) for key, part in value.items()}
    return _object(value, memo)


def _object(value: Any, memo: dict[int, Any]) -> Any:
    """Returns a deep copy of an object; parts that cannot be copied and hold no tensor are shared."""
    trial = dict(memo)
    try:
        other = copy.deepcopy(value, trial)
    except Exception:
        _share_uncopyable(value, memo)
    else:
        alive = trial.pop(id(trial), [])  # the objects that deepcopy keeps alive
        memo |= trial  # so that later copies share these parts
        memo.setdefault(id(memo), []).extend(alive)
        return other
    try:
        return copy.deepcopy(value, memo)
    except Exception as error:
        if not any(True for _ in tensors_in(value)):
            return value
        raise SubjectError(
            f"{kind_of(value)} cannot be copied ({describe(error)}), and a check changes copies "
            "only: pass a function of its tensors instead"
        ) from error


def _share_uncopyable(value: Any, memo: dict[int, Any], depth: int = 0) -> None:
    """Adds to the memo the parts that cannot be copied and hold no tensor: modules, locks, files."""
    for _, part in _parts(value):
        try:
            copy.deepcopy(part, dict(memo))
        except Exception:
            if depth < DEEPEST and any(True for _ in tensors_in(part)):
                _share_uncopyable(part, memo, depth + 1)
            else:
                memo[id(part)] = part


def _rebuilt(function: Any, memo: dict[int, Any]) -> Any:
    """Returns a function rebuilt with copies of its closure and of the globals that hold tensors."""
    names = [name for name, value in _globals(function).items() if any(True for _ in tensors_in(value))]
    space = dict(function.__globals__) if names else function.__globals__
    cells = tuple(types.CellType() for _ in function.__closure__ or ())
    other = types.FunctionType(function.__code__, space, function.__name__, None, cells)
    memo[id(function)] = other  # before its parts, which may refer to it
    for cell, old in zip(cells, function.__closure__ or (), strict=True):
        cell.cell_contents = copy_with(cell_contents(old), memo)
    space.update({name: copy_with(function.__globals__[name], memo) for name in names})
    other.__defaults__ = copy_with(function.__defaults__, memo)
    other.__kwdefaults__ = copy_with(function.__kwdefaults__, memo)
    other.__dict__.update(function.__dict__)
    return other
