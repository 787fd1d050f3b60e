"""What can be checked: layers of the book's class style, pairs of functions, networks, functions of arrays."""

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
from jaxnet.crosscheck.inspect.function import CheckableFunction, JaxReference
from jaxnet.crosscheck.inspect.layer import CheckableLayer, brought_layer
from jaxnet.crosscheck.inspect.network import CheckableNetwork, brought_network
from jaxnet.crosscheck.inspect.pair import CheckablePair, as_pair, brought_pair

__all__ = [
    "Array",
    "Checkable",
    "CheckableChain",
    "CheckableFunction",
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
    "is_float",
    "surroundings_kept",
]
