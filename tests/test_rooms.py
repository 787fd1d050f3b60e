"""Tests what each package imports, because two derivations that share code would be one derivation."""

import importlib
import subprocess
import sys

import pytest

import jaxnet
from jaxnet.cli import main


def modules_after(statement):
    """Returns the top-level modules that a new process has imported after a statement."""
    show = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", f"{statement}\n{show}"], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def assert_apart(statement, forbidden):
    imported = modules_after(statement) & forbidden
    assert not imported, f"`{statement}` imports {', '.join(sorted(imported))}"


@pytest.mark.slow
def test_numpy_ref_imports_numpy_alone():
    assert_apart(
        "import numpy_ref, numpy_ref.notebook", {"jax", "jaxlib", "jaxnet", "jaxtyping", "matplotlib", "optax", "scipy"}
    )


def test_jaxnet_imports_neither_numpy_ref_nor_packages_of_the_scripts():
    extra = {"matplotlib", "numpy_ref", "platformdirs", "requests", "rich", "sklearn", "tyro"}
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


def test_a_check_of_a_numpy_layer_does_not_import_jax():
    assert_apart(CHECK, {"jax", "jaxlib", "jaxtyping", "ml_dtypes", "numpy_ref", "optax", "torch"})


def test_a_check_from_the_shell_imports_neither_jax_nor_matplotlib(tmp_path):
    (tmp_path / "mine.py").write_text(CHECK.partition("assert")[0])
    command = f"""
import contextlib, io, sys
from jaxnet.cli.main import main
sys.argv = ["jaxnet", "check", {str(tmp_path / "mine.py:Square")!r}, "--inputs", "2x3"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as printed:
    main()
assert printed.getvalue().startswith("PASS")
"""
    assert_apart(command, {"jax", "jaxlib", "matplotlib", "numpy_ref", "optax", "sklearn", "torch"})


def test_every_public_name_can_be_imported():
    for package in (jaxnet, jaxnet.train):
        for name in package.__all__:
            getattr(package, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "culprit",
    [
        pytest.param("import numpy_ref, jaxnet; jaxnet.fit", marks=pytest.mark.slow),
        "import numpy_ref; from jaxnet.nn import losses",
    ],
)
def test_the_test_above_can_fail(culprit):
    with pytest.raises(AssertionError, match="imports jax, jaxlib, jaxnet"):
        assert_apart(culprit, {"jax", "jaxlib", "jaxnet"})


def test_the_module_is_the_command():
    listed = subprocess.run([sys.executable, "-m", "jaxnet"], capture_output=True, text=True)
    assert listed.returncode == 0
    assert "\n  train " in listed.stdout


@pytest.fixture
def run_jaxnet(monkeypatch, capsys):
    """Runs `jaxnet ARGUMENTS` in this process, and returns its exit status, its output and its errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["jaxnet", *arguments])
        try:
            main.main()
            status = 0
        except SystemExit as stopped:
            status = stopped.code
        return status, *capsys.readouterr()

    return run


def test_the_command_lists_its_commands_and_refuses_others(run_jaxnet):
    status, listed, _ = run_jaxnet()
    assert status == 0
    for name in main.COMMANDS:
        assert f"\n  {name} " in listed
        assert callable(importlib.import_module(f"jaxnet.cli.{name}").main)
    status, _, refused = run_jaxnet("tain")
    assert status == 2
    assert refused == f"jaxnet: tain, expected one of {', '.join(main.COMMANDS)}; did you mean train?\n"


def test_a_command_uses_its_own_name_in_messages(run_jaxnet):
    status, _, refused = run_jaxnet("sweep", "--hidden", "-1")
    assert status == 2
    assert refused.startswith("jaxnet sweep: hidden")
