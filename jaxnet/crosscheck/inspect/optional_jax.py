"""Handles arrays and precision of JAX. Only `as_jax` imports JAX; the other functions work without it."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

_SINGLE: ContextVar[bool] = ContextVar("single", default=False)


def is_jax_array(value: Any) -> bool:
    """Returns whether this is an array of JAX, a typed random key included."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.Array)


def as_jax(value: Any) -> Any:
    """Returns an array as a JAX array."""
    import jax.numpy as jnp

    return jnp.asarray(value)


def double_precision() -> AbstractContextManager[Any]:
    """Returns a scope in which JAX, if it is loaded, has double precision, except within `single_precision`."""
    jax = sys.modules.get("jax")
    return nullcontext() if jax is None else jax.enable_x64(not _SINGLE.get())


@contextmanager
def single_precision() -> Iterator[None]:
    """Enters a scope in which JAX has single precision, its default."""
    token = _SINGLE.set(True)
    try:
        with double_precision():
            yield
    finally:
        _SINGLE.reset(token)
