"""Sets global random generators and JAX's 64-bit mode for a check, and restores them after it.

Generators that a module keeps in a global, `rng = np.random.default_rng()`, are global ones too for its functions.
"""

import inspect
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.optional_jax import double_precision

SEED = 2_719_643_881  # none that code gives to a generator of its own, which would then draw the same numbers


Generators = list[tuple[np.random.Generator, Any]]  # each with the state to restore

_seed = ContextVar("seed", default=SEED)
_of_modules: ContextVar[Generators | None] = ContextVar("generators", default=None)


def restart_generators() -> None:
    """Seeds the global random generators of NumPy, Python, the checked code and, where it is loaded, PyTorch."""
    np.random.seed(_seed.get())  # noqa: NPY002
    random.seed(_seed.get())
    for generator, _ in _of_modules.get() or ():
        generator.bit_generator.state = type(generator.bit_generator)(_seed.get()).state
    if (torch := sys.modules.get("torch")) is not None:
        torch.default_generator.manual_seed(_seed.get())


def include_generators_of(thing: Any) -> None:
    """Restarts the generators in the globals of some code as well, until the end of `preserve_global_state`.

    Args:
        thing: A function, a method, an object or a pair of functions, in whose modules they are looked for.
    """
    if (generators := _of_modules.get()) is None:
        return
    for part in thing if isinstance(thing, tuple | list) else (thing,):
        own: Any = getattr(part, "__func__", part)
        function = inspect.unwrap(own) if callable(own) else own
        module = sys.modules.get(type(part).__module__)
        values = getattr(function, "__globals__", None) or (vars(module) if module is not None else {})
        found = {id(v): v for v in list(values.values()) if isinstance(v, np.random.Generator)}
        known = {id(generator) for generator, _ in generators}
        generators += [(g, g.bit_generator.state) for key, g in found.items() if key not in known]


@contextmanager
def other_random_numbers() -> Iterator[None]:
    """Seeds the global random generators otherwise within the block, which shows whether code draws from them."""
    token = _seed.set(SEED + 1)
    try:
        yield
    finally:
        _seed.reset(token)


@contextmanager
def preserve_global_state() -> Iterator[None]:
    """Restores the global random generators at the end of the block, within which JAX has double precision."""
    before = np.random.get_state(), random.getstate()  # noqa: NPY002
    generators: Generators = []
    token = _of_modules.set(generators)
    try:
        with double_precision():
            yield
    finally:
        _of_modules.reset(token)
        for generator, state in generators:
            generator.bit_generator.state = state
        np.random.set_state(before[0])  # noqa: NPY002
        random.setstate(before[1])
