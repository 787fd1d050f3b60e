"""Guesses the role of an array from its name and values: parameter, label, mask, running statistic, constant."""

import re
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.trees import Array

GRADIENT_NAMES = ("d{}", "d_{}", "grad_{}", "{}_grad")  # names of the gradient of an array
LABELS = frozenset({
    "t", "ts", "target", "targets", "label", "labels", "lbl", "y", "ys", "y_true", "ytrue", "true", "truth",
    "ground_truth", "gt", "ids", "idx", "index", "indices", "tokens", "onehot", "one_hot", "actual", "expected",
})  # fmt: skip
EITHER = frozenset({"y", "ys"})  # labels beside a prediction, and predictions beside labels: loss(a, y), loss(y, t)
PREDICTION = re.compile(r"(\w+_)?(preds?|predicted|predictions?|hat|yhat)")
STATISTICS = frozenset({
    "mean", "var", "std", "mu", "sigma", "variance", "eps", "epsilon", "momentum", "pe", "pos", "position",
    "positions", "rng",
})  # fmt: skip
MAX_ELEMENTS = 4096  # examined to recognize a mask or one-hot labels
PARAMETER = re.compile(
    r"([wb](\d+|_\w+|[a-z]{0,2}\d*)|.*(weight|bias|gamma|beta|kernel|theta|filter|embedd?ing|scale|shift)s?(_?\w\d*)?)"
)


def base_name(place: str) -> str:
    """Returns the last name in a place: `W` for p['W'] and cell.W. An entry of a list has only its index.

    Examples:
        >>> base_name("cell.p['W']"), base_name("net.b")
        ('W', 'b')
    """
    place = re.sub(r"#\d+$", "", place)
    key = re.search(r"""\[(['"])(.*)\1\]$""", place)
    return key[2] if key else place.rpartition(".")[2]


def gradient_names(name: str) -> list[str]:
    """Returns the name of a leaf and the names of its gradient: params.W, params.dW, params.grad_W, ..."""
    above, dot, last = name.rpartition(".")
    return [name, *(f"{above}{dot}{form.format(last)}" for form in GRADIENT_NAMES)]


def is_parameter_name(place: str) -> bool:
    """Returns whether the name is one that parameters have: `W1`, `b`, `w_out`, `gamma`, `kernel`."""
    return PARAMETER.fullmatch(base_name(place).lower()) is not None


def is_label_name(place: str) -> bool:
    """Returns whether the name is one that labels or masks have: `t`, `y_true`, `targets`, `mask`."""
    name = base_name(place).lower()
    return name in LABELS or "mask" in name or name.endswith(("_true", "_target", "_label", "_labels"))


def label_rank(place: str) -> int:
    """Returns 2 for a name that only labels have, 1 for `y`, which predictions have too, and 0 for other names.

    Examples:
        >>> [label_rank(name) for name in ("y_pred", "y", "y_true")]
        [0, 1, 2]
    """
    if base_name(place).lower() in EITHER:
        return 1
    return 2 if is_label_name(place) else 0


def is_prediction_name(place: str) -> bool:
    """Returns whether the name is one that predictions alone have.

    Examples:
        >>> [is_prediction_name(name) for name in ("predicted", "y_pred", "y_hat", "p", "y")]
        [True, True, True, False, False]
    """
    return PREDICTION.fullmatch(base_name(place).lower()) is not None


def looks_constant(place: str, array: Any, *, is_input: bool) -> bool:
    """Returns whether an array is likely a constant: labels, masks, running statistics, arrays of 0 and 1.

    If it is not an input, statistics and positions count as constants too.
    """
    name = base_name(place).lower()
    if is_label_name(place) or name.startswith(("running_", "moving_")):
        return True
    if not is_input and (name in STATISTICS or name.startswith(("pos_", "position"))):
        return True
    return not is_parameter_name(place) and _is_zero_one(np.asarray(array))


def _is_zero_one(array: Array) -> bool:
    if array.dtype.kind == "c":
        return False
    first = array.reshape(-1)[:MAX_ELEMENTS].astype(np.float64)
    return first.size > 1 and bool(np.isin(first, (0.0, 1.0, -np.inf)).all()) and len(np.unique(first)) == 2
