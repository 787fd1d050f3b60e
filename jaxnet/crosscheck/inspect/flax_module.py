"""Turns a module of Flax NNX into a function of its parameters, as it changes its own state when it is called.

A BatchNorm writes its running statistics and a Dropout counts its keys. JAX forbids that within differentiation, so the
module is split into parameters and state, and merged anew in every call. Flax is never imported: if it is not loaded,
nothing is one of its modules.
"""

import inspect
import sys
from collections.abc import Callable
from typing import Any


def is_nnx_module(thing: Any) -> bool:
    """Returns whether this is a module of Flax NNX that can be called."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(thing, nnx.Module) and callable(thing)


def functional_form(module: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Returns a function of (params, *inputs) that calls the module, and its parameters as a nested dict.

    The function captures the rest of the module, its running statistics, under the name `state`.
    """
    nnx = sys.modules["flax.nnx"]
    graph, params, state = nnx.split(module, nnx.Param, ...)

    def call(values: Any, *inputs: Any, **named: Any) -> Any:
        filled = nnx.clone(params)
        nnx.replace_by_pure_dict(filled, values)
        return nnx.merge(graph, filled, state, copy=True)(*inputs, **named)

    parameters = list(inspect.signature(type(module).__call__).parameters.values())[1:]
    first = inspect.Parameter("params", inspect.Parameter.POSITIONAL_ONLY)
    call.__signature__ = inspect.Signature([first, *parameters])  # type: ignore[attr-defined]
    call.__name__ = type(module).__name__
    return call, nnx.to_pure_dict(params)
