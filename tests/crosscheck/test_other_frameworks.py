"""Tests that objects of other frameworks are rejected with an example, and that no framework is imported."""

import subprocess
import sys
import types

import numpy as np
import pytest

from jaxnet.crosscheck import SubjectError, check
from jaxnet.crosscheck.inspect.other_frameworks import other_framework

X = np.linspace(-1.0, 1.5, 12).reshape(4, 3)


def test_torch_is_never_imported():
    code = (
        "import sys, numpy as np, jaxnet.crosscheck as c; c.check(lambda x: x * 2, np.ones(3)); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


FRAMEWORKS = {
    "tensorflow": ("tensorflow.python.framework.ops", "TensorFlow", "GradientTape"),
    "keras": ("keras.src.layers", "TensorFlow", "GradientTape"),
    "autograd": ("autograd.numpy.numpy_boxes", "autograd", r"make_vjp\(f\)\(x\)\[0\]\(dout\)"),
    "pytensor": ("pytensor.tensor.variable", "PyTensor", "Lop"),
    "mlx": ("mlx.core", "MLX", "mx.vjp"),
    "cupy": ("cupy", "CuPy", r"\.get\(\)"),
}


@pytest.mark.parametrize("package", FRAMEWORKS)
def test_other_frameworks_are_recognized_by_their_types_and_never_traced(package):
    module, name, says = FRAMEWORKS[package]
    kind = type("Thing", (), {"__module__": module, "__call__": lambda self, x: pytest.fail("was called")})
    assert other_framework(kind(), (X,)) == name
    assert other_framework(np.sin, ([{"a": kind()}],)) == name
    assert other_framework(kind, ()) == name
    with pytest.raises(SubjectError, match=says):
        check(kind(), X)
    with pytest.raises(SubjectError, match=says):
        check(lambda x: x, kind())


def test_function_that_uses_a_framework_is_recognized():
    space = {"anp": types.ModuleType("autograd.numpy")}
    function = eval("lambda x: anp.sin(x)", space)
    assert other_framework(function, ()) == "autograd"
    assert other_framework(lambda x: np.sin(x), ()) is None
