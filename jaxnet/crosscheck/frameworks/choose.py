"""Chooses the engine for code of another framework, if that framework is loaded."""

import sys
from collections.abc import Callable
from typing import Any

from jaxnet.crosscheck.frameworks.engine import Engine
from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.other_frameworks import other_framework


def engine_for(thing: Any, inputs: tuple[Any, ...]) -> Engine | None:
    """Returns the engine that differentiates a callable; None if it belongs to no framework that is loaded here."""
    framework = other_framework(thing, inputs)
    if framework not in ENGINES:
        return None
    module, make = ENGINES[framework]
    return make(thing) if module in sys.modules else None


def _tensorflow(thing: Any) -> Engine:
    from jaxnet.crosscheck.frameworks.tensorflow import TensorFlow

    keras = sys.modules.get("keras")
    backend = keras.backend.backend() if keras is not None and hasattr(keras, "Layer") else "tensorflow"
    if backend != "tensorflow" and keras is not None and isinstance(thing, keras.Layer):
        raise SubjectError(
            f"{type(thing).__name__}: a Keras layer on {backend}, expected TensorFlow; for JAX pass "
            "lambda params, x: layer.stateless_call(params, layer.non_trainable_variables, x)[0], with params in JAX"
        )
    return TensorFlow(thing)


def _autograd(_: Any) -> Engine:
    from jaxnet.crosscheck.frameworks.hips_autograd import HipsAutograd

    return HipsAutograd()


def _pytensor(thing: Any) -> Engine:
    from jaxnet.crosscheck.frameworks.pytensor import PyTensor

    if hasattr(thing, "maker"):
        raise SubjectError(
            f"{type(thing).__name__}: a compiled function of PyTensor, which has no derivative; pass the Op, or the "
            "Python function of symbolic variables that builds its graph"
        )
    return PyTensor()


def _mlx(thing: Any) -> Engine:
    from jaxnet.crosscheck.frameworks.mlx import Mlx

    return Mlx(thing)


ENGINES: dict[str | None, tuple[str, Callable[[Any], Engine]]] = {
    "TensorFlow": ("tensorflow", _tensorflow),
    "autograd": ("autograd.numpy", _autograd),
    "PyTensor": ("pytensor", _pytensor),
    "MLX": ("mlx.core", _mlx),
}
