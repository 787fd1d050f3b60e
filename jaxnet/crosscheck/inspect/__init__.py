"""Inspects the code to be checked: layers in the class style, pairs of functions, networks, functions of arrays."""

from typing import TYPE_CHECKING, Any

from jaxnet.crosscheck.inspect.chain import chain
from jaxnet.crosscheck.inspect.checkable import Checkable
from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.function import CheckableFunction
from jaxnet.crosscheck.inspect.global_state import preserve_global_state
from jaxnet.crosscheck.inspect.layer import CheckableLayer, inspect_layer
from jaxnet.crosscheck.inspect.network import CheckableNetwork, inspect_network
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.pair import inspect_pair
from jaxnet.crosscheck.inspect.trees import Array, Leaves

if TYPE_CHECKING:
    from jaxnet.crosscheck.inspect.jax_function import CheckableJax

__all__ = [
    "Array",
    "Checkable",
    "CheckableFunction",
    "CheckableJax",
    "CheckableLayer",
    "CheckableNetwork",
    "Leaves",
    "SubjectError",
    "attributes_of",
    "chain",
    "inspect_layer",
    "inspect_network",
    "inspect_pair",
    "preserve_global_state",
]


def __getattr__(name: str) -> Any:
    """Loads `CheckableJax`, which needs JAX, on first use."""
    if name == "CheckableJax":
        from jaxnet.crosscheck.inspect.jax_function import CheckableJax

        return CheckableJax
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
