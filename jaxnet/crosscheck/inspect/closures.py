"""Finds the float arrays that a callable captures, and rebuilds the callable with other arrays.

A callable captures arrays in its closure, its defaults, its module's globals, its attributes, the object that it is
bound to, and the arguments of a `functools.partial`. Functions with derivative rules (`jax.custom_vjp`) are not
rebuilt, because a copy would lose its rules.
"""

import copy
import functools
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.trees import distinct, is_array, is_complex, is_float

DEEPEST = 8
MAX_OBJECTS = 20_000  # visited by one walk
CODE = (type, types.ModuleType, types.BuiltinFunctionType)


class CapturedArrays:
    """The float and complex arrays that some callables capture.

    Args:
        callables: The callables. Arrays that they share are shared by the rebuilt callables too.
        known: Names that are taken.

    Attributes:
        arrays: The captured arrays by name.
        replaceable: The names of those that can be replaced.
        of_first: The names of those that the first callable captures.
    """

    def __init__(self, callables: tuple[Callable[..., Any], ...], known: tuple[str, ...] = ()) -> None:
        self.callables = callables
        self.stateful = any(_is_object(f) or isinstance(f, types.MethodType) for f in callables)
        walk = _Walk(callables)
        found: dict[int, tuple[str, Any]] = {}
        counts = []
        for f in callables:
            for name, array in walk.arrays(f, ""):
                found.setdefault(id(array), (name or "array", array))
            counts.append(len(found))
        names = distinct([*known, *(name if name not in known else f"self.{name}" for name, _ in found.values())])
        named = zip(names[len(known) :], found.values(), strict=True)
        self.arrays: dict[str, Any] = {name: array for name, (_, array) in named}
        self.of_first = list(self.arrays)[: counts[0]]
        self._by_shallow_copies = False
        self.replaceable = self._find_replaceable()

    def rebuild(self, values: Mapping[str, Any]) -> tuple[Callable[..., Any], ...]:
        """Returns the callables with other arrays in place; callable objects are copied in any case."""
        arrays = {name: np.asarray(v) if isinstance(v, np.generic) else v for name, v in values.items()}  # 0-d too
        replaced = {id(self.arrays[name]): value for name, value in arrays.items()}
        if not replaced and not self.stateful:
            return self.callables
        return _Rebuild(self.callables, replaced, deeply=not self._by_shallow_copies).all(self.callables)

    def _find_replaceable(self) -> set[str]:
        """Chooses deep or shallow copies, whichever replace more arrays; returns the names that they replace."""
        if not self.arrays and not self.stateful:
            return set()
        best: tuple[bool, set[str]] = (True, set())
        for shallow in (False, True):
            self._by_shallow_copies = shallow
            try:
                replaceable = self._replaced_in_copies()
            except Exception:  # a part cannot be copied
                continue
            if replaceable == set(self.arrays):
                return replaceable
            best = (shallow, replaceable) if len(replaceable) > len(best[1]) else best
        self._by_shallow_copies, replaceable = best
        return replaceable

    def _replaced_in_copies(self) -> set[str]:
        other = {name: copy.copy(array) for name, array in self.arrays.items()}
        rebuilt = self.rebuild(other)
        walk = _Walk(rebuilt)
        present = {id(array) for f in rebuilt for _, array in walk.arrays(f, "")}
        replaced = {name for name, array in other.items() if id(array) in present}
        return {name for name in replaced if id(self.arrays[name]) not in present}


class _Walk:
    """Walks over callables and the objects that they capture, to find arrays."""

    def __init__(self, callables: tuple[Callable[..., Any], ...]) -> None:
        self.globals = [function.__globals__ for function in map(_plain_function, callables) if function is not None]
        self.known: set[int] = set()

    def arrays(self, value: Any, place: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
        if value is None or isinstance(value, (str, bytes, bool, int, float, *CODE)) or depth > DEEPEST:
            return
        if id(value) in self.known or len(self.known) > MAX_OBJECTS:
            return
        self.known.add(id(value))
        if is_array(value):
            if is_float(value) or is_complex(value):
                yield place, value
            return
        for name, part in self.parts(value, place):
            yield from self.arrays(part, name, depth + 1)

    def parts(self, value: Any, place: str) -> Iterator[tuple[str, Any]]:
        dot = f"{place}." if place else ""
        if isinstance(value, types.FunctionType):
            yield from _in_function(value, with_globals=any(value.__globals__ is known for known in self.globals))
        elif isinstance(value, functools.partial):
            yield from [(place, value.func)]
            names = _positional_names(value.func, len(value.args))
            yield from zip(names, value.args, strict=True)
            yield from value.keywords.items()
        elif isinstance(value, types.MethodType):
            yield from [(place, value.__self__), (place, value.__func__)]
        elif isinstance(value, Mapping):
            yield from ((f"{dot}{key}", part) for key, part in value.items())
        elif isinstance(value, list | tuple):
            yield from ((f"{place}[{i}]", part) for i, part in enumerate(value))
        elif _is_compiled(value):
            yield place, _compiled_from(value)
        elif _is_object(value):
            yield from ((f"{dot}{name}", part) for name, part in attributes_of(value).items())


class _Rebuild:
    """Rebuilds callables with other arrays in place; an object that holds none of them is not copied."""

    def __init__(self, callables: tuple[Callable[..., Any], ...], replaced: Mapping[int, Any], *, deeply: bool) -> None:
        self.globals = [function.__globals__ for function in map(_plain_function, callables) if function is not None]
        self.replaced, self.deeply = replaced, deeply
        self.memo: dict[int, Any] = dict(replaced)
        self.originals: list[Any] = []  # kept alive, so that no id is reused

    def all(self, callables: tuple[Callable[..., Any], ...]) -> tuple[Callable[..., Any], ...]:
        return tuple(self.of(f, 0, top=True) for f in callables)

    def of(self, value: Any, depth: int, *, top: bool = False) -> Any:
        if id(value) in self.memo:
            return self.memo[id(value)]
        if value is None or isinstance(value, (str, bytes, bool, int, float, *CODE)) or depth > DEEPEST:
            return value
        self.memo[id(value)] = value
        self.originals.append(value)
        self.memo[id(value)] = other = self._other(value, depth, top)
        return other

    def _other(self, value: Any, depth: int, top: bool) -> Any:
        if isinstance(value, types.FunctionType):
            return self._function(value, depth)
        if isinstance(value, functools.partial):
            func, args = self.of(value.func, depth + 1, top=top), [self.of(a, depth + 1) for a in value.args]
            options = {name: self.of(part, depth + 1) for name, part in value.keywords.items()}
            return type(value)(func, *args, **options)
        if isinstance(value, types.MethodType):
            return types.MethodType(self.of(value.__func__, depth + 1), self.of(value.__self__, depth + 1, top=top))
        if type(value) in (dict, list, tuple):
            return self._container(value, depth)
        if _is_compiled(value):
            plain = _compiled_from(value)
            other = self.of(plain, depth + 1, top=top)
            return value if other is plain else other
        return self._object(value, depth, top) if _is_object(value) else value

    def _container(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            other: Any = {key: self.of(part, depth + 1) for key, part in value.items()}
            return other if any(other[key] is not value[key] for key in value) else value
        parts = [self.of(part, depth + 1) for part in value]
        return type(value)(parts) if any(a is not b for a, b in zip(parts, value, strict=True)) else value

    def _function(self, function: types.FunctionType, depth: int) -> Any:
        cells, changed = [], False
        for cell in function.__closure__ or ():
            contents = cell_contents(cell)
            other = self.of(contents, depth + 1)
            changed |= other is not contents
            cells.append(cell if other is contents else types.CellType(other))
        space = function.__globals__
        if any(space is known for known in self.globals):
            read = {name: self.of(space[name], depth + 1) for name in _globals_read(function)}
            moved = {name: part for name, part in read.items() if part is not space[name]}
            space = {**space, **moved} if moved else space
        defaults = tuple(self.of(part, depth + 1) for part in function.__defaults__ or ())
        options = {name: self.of(part, depth + 1) for name, part in (function.__kwdefaults__ or {}).items()}
        changed |= space is not function.__globals__
        changed |= any(a is not b for a, b in zip(defaults, function.__defaults__ or (), strict=True))
        changed |= any(part is not (function.__kwdefaults__ or {})[name] for name, part in options.items())
        if not changed:
            return function
        other = types.FunctionType(function.__code__, space, function.__name__, defaults or None, tuple(cells))
        other.__kwdefaults__, other.__qualname__ = options or None, function.__qualname__
        other.__dict__.update({name: part for name, part in vars(function).items() if name != "__wrapped__"})
        return other

    def _object(self, value: Any, depth: int, top: bool) -> Any:
        if not self.deeply:
            parts = {name: self.of(part, depth + 1) for name, part in attributes_of(value).items()}
            moved = {name: part for name, part in parts.items() if part is not attributes_of(value)[name]}
            if not moved and not top:
                return value
            other = copy.copy(value)
            for name, part in moved.items():
                object.__setattr__(other, name, part)
            return other
        holds = any(id(array) in self.replaced for _, array in _Walk(()).arrays(value, ""))
        if not holds and not top:
            return value
        memo = dict(self.memo)
        del memo[id(value)]
        _keep_rules(value, memo)
        return copy.deepcopy(value, memo)


def _is_object(value: Any) -> bool:
    """Returns whether this is an instance of a class with attributes, and not a function with a derivative rule."""
    if isinstance(value, (types.FunctionType, types.MethodType, functools.partial, *CODE)) or is_array(value):
        return False
    return (
        not _has_rule(value) and not _is_compiled(value) and (hasattr(value, "__dict__") or hasattr(value, "__slots__"))
    )


def _has_rule(value: Any) -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.custom_vjp | jax.custom_jvp)


def _is_compiled(value: Any) -> bool:
    """Returns whether this is a function compiled by `jax.jit`, or by Numba, which reads globals as it compiles."""
    return isinstance(getattr(value, "py_func", None), types.FunctionType) or (
        type(value).__module__.partition(".")[0] == "jaxlib"
        and hasattr(value, "__wrapped__")
        and hasattr(value, "lower")
    )


def _compiled_from(value: Any) -> Any:
    """Returns the Python function that was compiled."""
    return value.py_func if hasattr(value, "py_func") else value.__wrapped__


def _in_function(function: types.FunctionType, *, with_globals: bool) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield name, cell_contents(cell)
    defaults = function.__defaults__ or ()
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    yield from zip(names[len(names) - len(defaults) :], defaults, strict=True)
    yield from (function.__kwdefaults__ or {}).items()
    if with_globals:
        yield from ((name, function.__globals__[name]) for name in _globals_read(function))


def _globals_read(function: types.FunctionType) -> list[str]:
    """Returns the globals that a function reads and that may hold arrays: not functions, classes or modules."""
    names = names_in_code(function.__code__)
    space = function.__globals__
    return sorted(name for name in names if name in space and _may_hold(space[name]))


def _may_hold(value: Any) -> bool:
    return is_array(value) or isinstance(value, dict | list | tuple) or _is_object(value)


def names_in_code(code: types.CodeType) -> set[str]:
    """Returns the names of globals and attributes that a function's code reads, inner functions included."""
    inner = (names_in_code(part) for part in code.co_consts if isinstance(part, types.CodeType))
    return set(code.co_names).union(*inner)


def cell_contents(cell: types.CellType) -> Any:
    """Returns the contents of a cell of a closure; None if it is not assigned yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _plain_function(value: Any) -> types.FunctionType | None:
    """Returns the function inside partials, methods and wrappers; None if there is none."""
    for _ in range(DEEPEST):
        if isinstance(value, types.FunctionType):
            return value
        value = getattr(
            value, "func", getattr(value, "__func__", getattr(value, "__wrapped__", getattr(value, "py_func", None)))
        )
    return None


def _positional_names(function: Any, count: int) -> list[str]:
    code = getattr(_plain_function(function), "__code__", None)
    names = list(code.co_varnames[: code.co_argcount]) if code is not None else []
    return [*names[:count], *(f"args[{i}]" for i in range(len(names), count))]


def _keep_rules(value: Any, memo: dict[int, Any]) -> None:
    """Adds attributes to the memo of a deep copy that it must not copy: modules, functions with derivative rules."""
    for part in attributes_of(value).values():
        if _has_rule(part) or isinstance(part, types.ModuleType) or _is_compiled(part):
            memo[id(part)] = part
