"""What can be checked: layers of the book's class style, pairs of functions, networks, functions of arrays."""

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
from jaxnet.crosscheck.inspect.jax_function import CheckableJax, JaxReference
from jaxnet.crosscheck.inspect.layer import CheckableLayer, CheckablePair, as_pair
from jaxnet.crosscheck.inspect.network import CheckableNetwork

__all__ = [
    "Array",
    "Checkable",
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
    "function_subject",
    "is_float",
    "surroundings_kept",
]
