"""Recognizes objects of other frameworks, which JAX cannot trace, by the modules of their types. Imports none."""

import sys
import types
from collections.abc import Iterator
from typing import Any

from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.holders import holders_of

FRAMEWORKS = {
    "tensorflow": "TensorFlow",
    "keras": "TensorFlow",
    "autograd": "autograd",
    "pytensor": "PyTensor",
    "mlx": "MLX",
    "cupy": "CuPy",
}
EXAMPLES = {
    "TensorFlow": """
    def gradient(x, dout):
        with tf.GradientTape() as tape: v = tf.Variable(x); y = f(v)
        return tape.gradient(y, v, dout).numpy()
    check_function(lambda x: f(tf.constant(x)).numpy(), x, gradient=gradient)""",
    "autograd": """
    check_function(f, x, gradient=lambda x, dout: autograd.make_vjp(f)(x)[0](dout))""",
    "PyTensor": """
    forward = pytensor.function([x], y)
    vjp = pytensor.function([x, dout], pytensor.gradient.Lop(y, x, dout))
    check_function(lambda x: forward(x), value, gradient=lambda x, dout: vjp(x, dout))""",
    "MLX": """
    forward = lambda x: np.array(f(mx.array(x)))
    vjp = lambda x, dout: np.array(mx.vjp(f, [mx.array(x)], [mx.array(dout)])[1][0])
    check_function(forward, np.array(x), gradient=vjp)""",
    "CuPy": """
    check_function(f, x, gradient=gradient)  # where gradient(x, dout) takes and returns arrays of CuPy""",
}
CTYPES = """
    def f(x):
        x, y = np.ascontiguousarray(x, np.float64), np.empty(x.shape)
        library.f(x.ctypes.data_as(pointer), y.ctypes.data_as(pointer), x.size)  # pointer = POINTER(c_double)
        return y"""


def other_framework(thing: Any, inputs: tuple[Any, ...]) -> str | None:
    """Returns the framework of a callable or its inputs; None for NumPy, JAX and PyTorch.

    Looks at the modules that define their types, and at the modules that a function's code names.
    """
    for module in (*_modules_of(thing), *(m for value in inputs for m in _modules_in(value))):
        top = module.partition(".")[0]
        if (framework := FRAMEWORKS.get(top)) is not None and _is_framework(top):
            return framework
    return None


def reject_other_framework(thing: Any, inputs: tuple[Any, ...]) -> None:
    """Raises a SubjectError for objects of another framework, which shows how to pass their gradient."""
    if (framework := other_framework(thing, inputs)) is not None:
        name = str(getattr(thing, "__name__", type(thing).__name__)).replace("<lambda>", "f")
        raise SubjectError(
            f"{name}: belongs to {framework}, which JAX cannot differentiate; pass its gradient:{EXAMPLES[framework]}"
        )


def reject_foreign_function(argument: str, function: Any) -> None:
    """Raises a SubjectError for a function of ctypes, which takes pointers, with a Python function that calls it."""
    if any(kind.__module__ == "_ctypes" for kind in type(function).__mro__):
        raise SubjectError(
            f"{argument}: a foreign function of ctypes, expected one that takes and returns arrays:{CTYPES}"
        )


def _is_framework(name: str) -> bool:
    """Returns whether the module of this name is the framework, and not a file or a package `autograd` of one's own."""
    module = sys.modules.get(name)
    return module is None or (hasattr(module, "__path__") and (name != "autograd" or hasattr(module, "make_vjp")))


def _modules_of(thing: Any) -> Iterator[str]:
    """Yields the modules of an object and its type, and those of what its code reads."""
    yield from (kind.__module__ for kind in type(thing).__mro__)
    yield str(getattr(thing, "__module__", None) or "")
    for held in holders_of(thing) if callable(thing) else ():
        if isinstance(held, types.ModuleType):
            yield held.__name__
        elif callable(held) or held is not thing:
            yield type(held).__module__
            yield str(getattr(held, "__globals__", {}).get("__name__", ""))


def _modules_in(value: Any) -> Iterator[str]:
    if isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _modules_in(part)
    else:
        yield from (kind.__module__ for kind in type(value).__mro__)
