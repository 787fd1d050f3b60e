"""What can be checked: layers of the book's class style, pairs of functions, networks, functions of arrays."""

from typing import TYPE_CHECKING, Any

from jaxnet.crosscheck.inspect.chain import CheckableChain, chain
from jaxnet.crosscheck.inspect.checkable import (
    Array,
    Checkable,
    Instance,
    Leaves,
    SubjectError,
    attributes_of,
    blaming,
    is_float,
    surroundings_kept,
)
from jaxnet.crosscheck.inspect.function import CheckableFunction, function_subject
from jaxnet.crosscheck.inspect.layer import CheckableLayer, brought_layer
from jaxnet.crosscheck.inspect.network import CheckableNetwork, brought_network
from jaxnet.crosscheck.inspect.pair import CheckablePair, as_pair, brought_pair

if TYPE_CHECKING:
    from jaxnet.crosscheck.inspect.jax_function import CheckableJax, JaxReference

__all__ = [
    "Array",
    "Checkable",
    "CheckableChain",
    "CheckableFunction",
    "CheckableJax",
    "CheckableLayer",
    "CheckableNetwork",
    "CheckablePair",
    "Instance",
    "JaxReference",
    "Leaves",
    "SubjectError",
    "as_pair",
    "attributes_of",
    "blaming",
    "brought_layer",
    "brought_network",
    "brought_pair",
    "chain",
    "function_subject",
    "is_float",
    "surroundings_kept",
]


def __getattr__(name: str) -> Any:
    """Loads what needs JAX where it is asked for."""
    if name in ("CheckableJax", "JaxReference"):
        from jaxnet.crosscheck.inspect import jax_function

        return getattr(jax_function, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
