"""Lists what a callable holds: what it is bound to or made of, and what its code reads by a global or a closure."""

import functools
import types
from collections.abc import Iterator
from typing import Any

from jaxnet.crosscheck.inspect.closures import cell_contents, names_in_code

DEEPEST = 4  # functions that call functions
WRAPPED = ("__wrapped__", "python_function", "_fun")  # where wrappers keep the function that they wrap


def holders_of(thing: Any) -> Iterator[Any]:
    """Yields a callable and what it holds, each once. Does not read functions of other modules, nor objects' parts."""
    yield from _walk(thing, [], set(), 0)


def _walk(thing: Any, spaces: list[dict[str, Any]], known: set[int], depth: int) -> Iterator[Any]:
    if id(thing) in known or depth > DEEPEST:
        return
    known.add(id(thing))
    yield thing
    for part in _parts(thing, spaces):
        yield from _walk(part, spaces, known, depth + 1)


def _parts(thing: Any, spaces: list[dict[str, Any]]) -> list[Any]:
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, types.MethodType):
        return [thing.__self__, thing.__func__]
    if isinstance(thing, types.FunctionType):
        spaces[:] = spaces or [thing.__globals__]
        held = [*map(cell_contents, thing.__closure__ or ()), *(thing.__defaults__ or ())]
        if thing.__globals__ is spaces[0]:
            names = names_in_code(thing.__code__)
            held += [value for name, value in thing.__globals__.items() if name in names]
        return held
    if isinstance(thing, list | tuple):
        return list(thing)
    if isinstance(thing, dict):
        return list(thing.values())
    if isinstance(thing, type | types.ModuleType):
        return []
    inner = [vars(thing).get(name) for name in WRAPPED] if hasattr(thing, "__dict__") else []
    return [f for f in inner if callable(f)]
