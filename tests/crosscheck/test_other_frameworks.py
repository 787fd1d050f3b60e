"""Tests that objects of frameworks that are not loaded are rejected with an example, and that none is imported."""

import ctypes
import functools
import subprocess
import sys
import types

import numpy as np
import pytest

from jaxnet.crosscheck import SubjectError, check, check_function
from jaxnet.crosscheck.inspect.other_frameworks import other_framework

X = np.linspace(-1.0, 1.5, 12).reshape(4, 3)


@pytest.mark.slow
def test_frameworks_are_never_imported():
    code = (
        "import sys, numpy as np, jaxnet.crosscheck as c; c.check(lambda x: x * 2, np.ones(3)); "
        "sys.exit(bool({'torch', 'tensorflow', 'keras', 'autograd', 'pytensor', 'mlx', 'numba'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


FRAMEWORKS = {
    "tensorflow": ("tensorflow.python.framework.ops", "TensorFlow", "GradientTape"),
    "keras": ("keras.src.layers", "TensorFlow", "GradientTape"),
    "autograd": ("autograd.numpy.numpy_boxes", "autograd", r"make_vjp\(f\)\(x\)\[0\]\(dout\)"),
    "pytensor": ("pytensor.tensor.variable", "PyTensor", "Lop"),
    "mlx": ("mlx.core", "MLX", "mx.vjp"),
    "cupy": ("cupy", "CuPy", r"gradient\(x, dout\)"),
}


@pytest.mark.parametrize("package", FRAMEWORKS)
def test_frameworks_that_are_not_loaded_are_recognized_by_their_types_and_never_traced(package, monkeypatch):
    module, name, says = FRAMEWORKS[package]
    for loaded in [part for part in sys.modules if part.partition(".")[0] in FRAMEWORKS]:
        monkeypatch.delitem(sys.modules, loaded)
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


def test_function_that_calls_a_function_of_a_framework_is_recognized():
    library = types.FunctionType((lambda x: x).__code__, {"__name__": "autograd.tracer"})
    assert other_framework(lambda x: library(x), ()) == "autograd"
    assert other_framework(functools.partial(lambda x: library(x)), ()) == "autograd"


def test_foreign_functions_are_rejected_with_a_function_that_calls_them():
    sine = ctypes.CDLL(None).printf
    for call in (lambda: check(sine, X), lambda: check_function(np.sin, X, gradient=sine)):
        with pytest.raises(SubjectError, match=r"(f|gradient): a foreign function of ctypes(.|\n)*data_as"):
            call()


def test_foreign_function_through_a_function_of_arrays():
    library = ctypes.CDLL(None)
    pointer = ctypes.POINTER(ctypes.c_double)

    def copied(x):
        x, y = np.ascontiguousarray(x, np.float64), np.empty(x.shape)
        library.memcpy(y.ctypes.data_as(pointer), x.ctypes.data_as(pointer), ctypes.c_size_t(x.nbytes))
        return y

    assert check_function(copied, X, gradient=lambda x, dout: copied(dout)).verdict.value == "PASS"
    assert check_function(copied, X, gradient=lambda x, dout: 2 * copied(dout)).verdict.value == "FAIL"
