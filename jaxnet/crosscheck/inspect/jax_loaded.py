"""What concerns JAX, where it is loaded; nothing here loads it but `as_jax`."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any


def is_of_jax(value: Any) -> bool:
    """Returns whether this is an array of JAX's, a typed random key included."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.Array)


def as_jax(value: Any) -> Any:
    """Returns an array as JAX's."""
    import jax.numpy as jnp

    return jnp.asarray(value)


_SINGLE: ContextVar[bool] = ContextVar("single", default=False)


def double_precision() -> AbstractContextManager[Any]:
    """Returns the scope in which JAX, where it is loaded, has double precision, but not within `single_precision`."""
    jax = sys.modules.get("jax")
    return nullcontext() if jax is None else jax.enable_x64(not _SINGLE.get())


@contextmanager
def single_precision() -> Iterator[None]:
    """Enters the scope in which JAX has single precision, as it has by default."""
    token = _SINGLE.set(True)
    try:
        with double_precision():
            yield
    finally:
        _SINGLE.reset(token)
