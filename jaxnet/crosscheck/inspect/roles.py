"""What an array is for, by its name and its values: a parameter, a label, a mask, a running statistic."""

import re
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.trees import Array

LABELS = frozenset(
    {
        "t",
        "ts",
        "target",
        "targets",
        "label",
        "labels",
        "lbl",
        "y",
        "ys",
        "y_true",
        "ytrue",
        "true",
        "truth",
        "ground_truth",
        "gt",
        "ids",
        "idx",
        "index",
        "indices",
        "tokens",
        "onehot",
        "one_hot",
    }
)
STATISTICS = frozenset(
    {
        "mean",
        "var",
        "std",
        "mu",
        "sigma",
        "variance",
        "eps",
        "epsilon",
        "momentum",
        "pe",
        "pos",
        "position",
        "positions",
        "rng",
    }
)
LOOKED_AT = 4096  # elements, to tell a mask or one-hot labels
PARAMETER = re.compile(
    r"([wb](\d+|_\w+|[a-z]{0,2}\d*)|.*(weight|bias|gamma|beta|kernel|theta|filter|embedd?ing|scale|shift)s?(_?\w\d*)?)"
)


def name_in(place: str) -> str:
    """Returns what an array is called where it stands: `W` in p['W'] and cell.W; an entry of a list has but its place.

    Examples:
        >>> name_in("cell.p['W']"), name_in("net.b")
        ('W', 'b')
    """
    place = re.sub(r"#\d+$", "", place)
    key = re.search(r"""\[(['"])(.*)\1\]$""", place)
    return key[2] if key else place.rpartition(".")[2]


def is_called_parameter(place: str) -> bool:
    """Returns whether an array is called as parameters are: `W1`, `b`, `w_out`, `gamma`, `kernel`."""
    return PARAMETER.fullmatch(name_in(place).lower()) is not None


def is_label(place: str) -> bool:
    """Returns whether an array is called as labels or masks are: `t`, `y_true`, `targets`, `mask`."""
    name = name_in(place).lower()
    return name in LABELS or "mask" in name or name.endswith(("_true", "_target", "_label", "_labels"))


def looks_constant(place: str, array: Any, *, is_input: bool) -> bool:
    """Returns whether an array is taken for a constant by its name or its values.

    Labels, masks and arrays of 0 and 1 are; of what a layer holds, running statistics and positions are, too.
    """
    name = name_in(place).lower()
    if is_label(place):
        return True
    if name.startswith(("running_", "moving_")):
        return True
    if not is_input and (name in STATISTICS or name.startswith(("pos_", "position"))):
        return True
    return not is_called_parameter(place) and _is_zero_one(np.asarray(array))


def _is_zero_one(array: Array) -> bool:
    few = array.reshape(-1)[:LOOKED_AT].astype(np.float64)
    return few.size > 1 and bool(np.isin(few, (0.0, 1.0, -np.inf)).all()) and len(np.unique(few)) == 2
