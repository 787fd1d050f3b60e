"""Which arrays are constants by the look of them: labels, masks, running statistics."""

import re

import numpy as np

from jaxnet.crosscheck.inspect.trees import Array

LABELS = re.compile(
    r"(?i)^(t|targets?|labels?|y|y_?true|y_?target|truth|ground_?truth|gt|ids?|classes|one_?hot|tokens)$"
)
MASKS = re.compile(r"(?i)mask")
PARAMETERS = re.compile(r"(?i)^(w|b|weights?|bias(es)?|gamma|beta|kernel|scale|theta|params?|parameters?)\d*$")
MOST_SORTED = 4096  # elements that are looked at


def last_name(name: str) -> str:
    """Returns what a leaf is called in the structure that holds it."""
    return re.sub(r"#\d+$", "", name).rpartition(".")[2]


def is_label(name: str) -> bool:
    """Returns whether an input has the name of labels."""
    return bool(LABELS.match(last_name(name)))


def is_constant(name: str, array: Array) -> bool:
    """Returns whether this is a constant by its name or its values: labels, a mask, zeros and ones."""
    if is_label(name) or MASKS.search(last_name(name)):
        return True
    if array.size < 2:
        return False
    few = np.asarray(array).reshape(-1)[:MOST_SORTED].astype(np.float64)
    return bool(np.isin(few, (0.0, 1.0, -np.inf)).all() and np.unique(few).size == 2)


def is_parameter(name: str) -> bool:
    """Returns whether an input is called as parameters are, so that a gradient by it is expected."""
    return bool(PARAMETERS.match(last_name(name)))
