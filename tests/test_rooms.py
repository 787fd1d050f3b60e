"""Two derivations that share code are one derivation: neither room imports the other."""

import subprocess
import sys

import pytest


def modules_after(statement):
    """The top-level modules that a fresh process holds after a statement."""
    show = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", f"{statement}\n{show}"], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def assert_apart(statement, forbidden):
    found = modules_after(statement) & forbidden
    assert not found, f"`{statement}` imports {', '.join(sorted(found))}"


def test_numpy_ref_needs_numpy_alone():
    assert_apart(
        "import numpy_ref, numpy_ref.notebook", {"jax", "jaxlib", "jaxnet", "jaxtyping", "matplotlib", "optax", "scipy"}
    )


def test_jaxnet_needs_neither_numpy_ref_nor_what_the_scripts_need():
    extra = {"matplotlib", "numpy_ref", "pooch", "requests", "rich", "sklearn", "tyro"}
    assert_apart("import jaxnet, jaxnet.crosscheck, jaxnet.runs", extra)


@pytest.mark.parametrize("culprit", ["import numpy_ref, jaxnet", "import numpy_ref; from jaxnet import losses"])
def test_the_test_above_can_fail(culprit):
    with pytest.raises(AssertionError, match="imports jax, jaxlib, jaxnet"):
        assert_apart(culprit, {"jax", "jaxlib", "jaxnet"})
