"""Sets global random generators and JAX's 64-bit mode for a check, and restores them after it."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from jaxnet.crosscheck.inspect.optional_jax import double_precision

SEED = 2_719_643_881  # none that code gives to a generator of its own, which would then draw the same numbers


_seed = ContextVar("seed", default=SEED)


def restart_generators() -> None:
    """Seeds the global random generators of NumPy, Python and, where it is loaded, PyTorch."""
    np.random.seed(_seed.get())  # noqa: NPY002
    random.seed(_seed.get())
    if (torch := sys.modules.get("torch")) is not None:
        torch.default_generator.manual_seed(_seed.get())


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
    try:
        with double_precision():
            yield
    finally:
        np.random.set_state(before[0])  # noqa: NPY002
        random.setstate(before[1])
