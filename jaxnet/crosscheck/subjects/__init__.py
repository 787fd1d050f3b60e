"""What can be checked: layers of the book's class style, pairs of functions, networks, functions of arrays."""

from jaxnet.crosscheck.subjects.base import (
    Array,
    Leaves,
    Opened,
    Subject,
    SubjectError,
    attributes_of,
    blaming,
    is_float,
    surroundings_kept,
)
from jaxnet.crosscheck.subjects.function import FunctionSubject, JaxSubject
from jaxnet.crosscheck.subjects.layer import LayerSubject, PairSubject, as_pair
from jaxnet.crosscheck.subjects.network import NetworkSubject

__all__ = [
    "Array",
    "FunctionSubject",
    "JaxSubject",
    "LayerSubject",
    "Leaves",
    "NetworkSubject",
    "Opened",
    "PairSubject",
    "Subject",
    "SubjectError",
    "as_pair",
    "attributes_of",
    "blaming",
    "is_float",
    "surroundings_kept",
]
