"""Tensors of PyTorch: as NumPy arrays and back, where an object or a function holds them, and copies of both.

PyTorch is never imported: a caller who brings a tensor has already loaded it.
"""

import copy
import functools
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.trees import Array

DEEPEST = 6  # objects within objects; a module's submodules do not count
MOST_OBJECTS = 20_000  # an object that refers to half a program is not searched to its end
ATOMS = (str, bytes, int, float, complex, type(None), type, types.ModuleType, types.BuiltinFunctionType, np.ndarray)
COMPLEX = (
    "{} is a complex tensor, and only real ones are checked: bring its parts, "
    "check(lambda re, im: torch.view_as_real(f(torch.complex(re, im))), z.real, z.imag)"
)


def loaded() -> Any:
    """Returns the module torch."""
    return sys.modules["torch"]


def is_tensor(value: Any) -> bool:
    """Returns whether this is a tensor."""
    return isinstance(value, loaded().Tensor)


def is_float_tensor(value: Any) -> bool:
    """Returns whether this is a tensor of floats, by which a gradient can be taken."""
    return is_tensor(value) and bool(value.is_floating_point())


def to_numpy(tensor: Any) -> Array:
    """Returns a copy as a NumPy array, its axes in the same order in memory; bfloat16 as float32."""
    torch = loaded()
    flat = tensor.detach().cpu()
    if flat.is_floating_point() and flat.dtype not in (torch.float16, torch.float32, torch.float64):
        flat = flat.to(torch.float32)
    return np.array(flat.resolve_neg().numpy(), order="K")


def to_view(tensor: Any) -> Array:
    """Returns a tensor's memory as a NumPy array, or a copy where it lies on another device."""
    return tensor.detach().numpy() if tensor.device.type == "cpu" else to_numpy(tensor)


def to_tensor(array: Array, dtype: Any = None, device: Any = None) -> Any:
    """Returns a tensor on the array's own memory and with its strides, where PyTorch can have them, else on a copy."""
    torch = loaded()
    array = np.asarray(array)
    if any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = array.copy()
    if array.flags.writeable:
        return torch.from_numpy(array).to(device=device, dtype=dtype)
    spread = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)
    own = torch.from_numpy(np.array(array[spread], order="K")).to(device=device, dtype=dtype)
    return own.expand(array.shape)


def tensors_from(value: Any) -> Any:
    """Returns the value with tensors in the place of NumPy arrays, in lists, tuples and dicts too."""
    if isinstance(value, np.ndarray | np.floating):
        return to_tensor(np.array(value, order="K"))
    if isinstance(value, dict):
        return {key: tensors_from(part) for key, part in value.items()}
    return type(value)(map(tensors_from, value)) if type(value) in (list, tuple) else value


def arrays_from(value: Any) -> Any:
    """Returns the value with NumPy arrays in the place of tensors, in lists, tuples and dicts too."""
    if is_tensor(value):
        return to_numpy(value)
    if isinstance(value, dict):
        return {key: arrays_from(part) for key, part in value.items()}
    return type(value)(map(arrays_from, value)) if type(value) in (list, tuple) else value


def in_numpy(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of NumPy arrays that calls a function of tensors."""

    @functools.wraps(function)
    def wrapped(*args: Any, **named: Any) -> Any:
        with loaded().enable_grad():
            return arrays_from(function(*map(tensors_from, args), **tensors_from(named)))

    return wrapped


def held(value: Any, place: str = "", known: set[int] | None = None, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yields every tensor and generator that a value holds or refers to, each once, with its place: `net.0.weight`.

    Looks into lists, tuples, dicts, modules and other objects; for a function, into what it closes over, and into those
    of its global names that stand for tensors, modules and functions beside it.
    """
    torch = loaded()
    known = set() if known is None else known
    if isinstance(value, ATOMS) or id(value) in known or depth > DEEPEST or len(known) > MOST_OBJECTS:
        return
    known.add(id(value))
    if isinstance(value, torch.Tensor | torch.Generator):
        yield place, value
        return
    for name, part in _parts(value):
        where = f"{place}.{name}" if place and name else place or name
        yield from held(part, where, known, depth + (not isinstance(part, torch.nn.Module)))


def _parts(value: Any) -> list[tuple[str, Any]]:
    """Lists what a value is made of, with names; that of a function's `self` is empty."""
    if isinstance(value, loaded().nn.Module):
        plain = {n: v for n, v in vars(value).items() if n not in vars(loaded().nn.Module())}
        return [*value._parameters.items(), *value._buffers.items(), *value._modules.items(), *plain.items()]
    if isinstance(value, Mapping):
        return [(str(key), part) for key, part in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        fields: Any = getattr(value, "_fields", range(len(value)))
        return [(str(name), part) for name, part in zip(fields, value, strict=True)]
    if isinstance(value, functools.partial):
        return [("", value.func), *((str(i), a) for i, a in enumerate(value.args)), *value.keywords.items()]
    if isinstance(value, types.MethodType):
        return [("", value.__self__), ("", value.__func__)]
    if isinstance(value, types.FunctionType):
        own = dict(zip(value.__code__.co_freevars, map(_contents, value.__closure__ or ()), strict=True))
        defaults = {f"default{i}": part for i, part in enumerate(value.__defaults__ or ())}
        return [*own.items(), *_globals(value).items(), *defaults.items(), *(value.__kwdefaults__ or {}).items()]
    return list(attributes_of(value).items())


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet assigned
        return None


def _globals(function: Any) -> dict[str, Any]:
    """The global names in a function's code that stand for what may hold parameters."""
    torch, space = loaded(), function.__globals__
    found = {}
    for name in sorted(_names(function.__code__)):
        value = space.get(name)
        beside = isinstance(value, types.FunctionType) and value.__globals__ is space
        if beside or isinstance(value, torch.Tensor | torch.Generator | torch.nn.Module | list | tuple | dict):
            found[name] = value
    return found


def _names(code: types.CodeType) -> set[str]:
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*inner)


def copied(value: Any, memo: dict[int, Any]) -> Any:
    """Returns a deep copy that has, for what is in the memo by its id, the memo's value in its place.

    A function is made anew over copies of what it refers to. Functions and data that hold no tensor stay what they are.

    Raises:
        SubjectError: Something that holds tensors cannot be copied.
    """
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, ATOMS):
        return value
    if isinstance(value, types.MethodType):
        owner = value.__self__
        return types.MethodType(
            copied(value.__func__, memo), owner if isinstance(owner, type) else _object(owner, memo)
        )
    has_tensors = any(True for _ in held(value))
    is_function = isinstance(value, types.FunctionType)
    if not has_tensors and (is_function or not callable(value)):
        return value
    if isinstance(value, functools.partial):
        return functools.partial(copied(value.func, memo), *copied(value.args, memo), **copied(value.keywords, memo))
    if is_function:
        return _rebuilt(value, memo)
    if type(value) in (list, tuple):
        return type(value)(copied(part, memo) for part in value)
    if type(value) is dict:
        return {key: copied(part, memo) for key, part in value.items()}
    return _object(value, memo)


def _object(value: Any, memo: dict[int, Any]) -> Any:
    """A deep copy of an object, which shares what cannot be copied and holds no tensor."""
    trial = dict(memo)
    try:
        other = copy.deepcopy(value, trial)
    except Exception:
        _share_uncopyable(value, memo)
    else:
        alive = trial.pop(id(trial), [])  # where deepcopy keeps what the ids belong to
        memo |= trial  # what was one object stays one
        memo.setdefault(id(memo), []).extend(alive)
        return other
    try:
        return copy.deepcopy(value, memo)
    except Exception as error:
        if not any(True for _ in held(value)):
            return value
        raise SubjectError(
            f"a {type(value).__name__} cannot be copied ({type(error).__name__}: {error}), and a check changes copies "
            "only: bring a function of its tensors instead"
        ) from error


def _share_uncopyable(value: Any, memo: dict[int, Any], depth: int = 0) -> None:
    """Puts into the memo what no copy can be made of and holds no tensor: modules, locks, files."""
    for _, part in _parts(value):
        try:
            copy.deepcopy(part, dict(memo))
        except Exception:
            if depth < DEEPEST and any(True for _ in held(part)):
                _share_uncopyable(part, memo, depth + 1)
            else:
                memo[id(part)] = part


def _rebuilt(function: Any, memo: dict[int, Any]) -> Any:
    """A function over copies of what it closes over and of the globals that hold tensors."""
    names = [name for name, value in _globals(function).items() if any(True for _ in held(value))]
    space = dict(function.__globals__) if names else function.__globals__
    cells = tuple(types.CellType() for _ in function.__closure__ or ())
    other = types.FunctionType(function.__code__, space, function.__name__, None, cells)
    memo[id(function)] = other  # before its parts: they may refer to it
    for cell, old in zip(cells, function.__closure__ or (), strict=True):
        cell.cell_contents = copied(_contents(old), memo)
    space.update({name: copied(function.__globals__[name], memo) for name in names})
    other.__defaults__ = copied(function.__defaults__, memo)
    other.__kwdefaults__ = copied(function.__kwdefaults__, memo)
    other.__dict__.update(function.__dict__)
    return other


def refuse_tensor(name: str, tensor: Any) -> None:
    """Refuses kinds of tensors that are not checked.

    Raises:
        SubjectError: The tensor is complex, sparse or quantized.
    """
    if tensor.is_complex():
        raise SubjectError(COMPLEX.format(name))
    if tensor.layout is not loaded().strided or tensor.is_quantized:
        raise SubjectError(f"{name} is a sparse or quantized tensor: bring a function of its dense values")
