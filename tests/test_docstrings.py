"""Tests the examples in docstrings, which may use `jax`, `jaxnet`, `jnp`, `np` and `optax`."""

import doctest
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import slow

import jaxnet

ROOT = Path(__file__).parent.parent
FILES = [path for room in ("jaxnet", "numpy_ref") for path in sorted((ROOT / room).rglob("*.py"))]
MODULES = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES if ">>> " in path.read_text()]


@pytest.mark.parametrize(
    "name", [slow(name) if ".train." in name else name.removesuffix(".__init__") for name in MODULES]
)
def test_the_examples_of_a_module_print_what_they_say(name):
    usual = {"jax": jax, "jaxnet": jaxnet, "jnp": jnp, "np": np, "optax": optax}
    results = doctest.testmod(
        import_module(name), extraglobs=usual, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert results.attempted
    assert not results.failed
