"""Two derivations that share code are one derivation: neither room imports the other."""

import subprocess
import sys

import pytest

import jaxnet


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
    assert_apart("import jaxnet, jaxnet.crosscheck, jaxnet.train.run_folder", extra)


CHECK = """
import numpy as np, jaxnet, jaxnet.crosscheck
class Square:
    def forward(self, x):
        self.x = x
        return x**2
    def backward(self, dout):
        return 2 * self.x * dout
assert jaxnet.crosscheck.check_layer(Square(), np.ones((2, 3)))
"""


def test_a_check_of_a_numpy_layer_needs_no_jax():
    assert_apart(CHECK, {"jax", "jaxlib", "jaxtyping", "ml_dtypes", "numpy_ref", "optax", "torch"})


def test_every_public_name_is_there():
    for name in jaxnet.__all__:
        getattr(jaxnet, name)


@pytest.mark.parametrize(
    "culprit", ["import numpy_ref, jaxnet; jaxnet.fit", "import numpy_ref; from jaxnet.nn import losses"]
)
def test_the_test_above_can_fail(culprit):
    with pytest.raises(AssertionError, match="imports jax, jaxlib, jaxnet"):
        assert_apart(culprit, {"jax", "jaxlib", "jaxnet"})
