"""Tells whether a gradient may be read as that of labels: a gradient of the wrong sign is right for the other input.

A loss of y - t has opposite gradients by y and by t. So a single gradient with a wrong sign is a right one for the
labels. Labels get no gradient, so it is not read as theirs; where names do not tell which input holds the labels, the
sign is not decided.
"""

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Checkable
from jaxnet.crosscheck.inspect.role_heuristics import label_rank
from jaxnet.crosscheck.inspect.trees import Array, Leaves

STEP = 2.0**-12
MIRRORED = 1e-4  # the change along both inputs over that along one, for a function of their difference
EITHER_SIGN = (
    "the gradient that backward returns is right for {other} and has the wrong sign for {name}, and their names do not "
    "tell which of them gets it: call the labels t or y_true, or return a gradient for each input"
)


def of_labels(checkable: Checkable, reading: Checkable) -> bool:
    """Returns whether a reading assigns the gradient to labels, beside an input that holds none.

    Args:
        checkable: The code in the likeliest reading.
        reading: Another reading of what its backward returns.
    """
    if (pair := _exchanged(checkable, reading)) is None:
        return False
    name, other = pair
    if label_rank(other) <= label_rank(name):
        return False
    return label_rank(other) > 1 or _is_mirrored(checkable, reading, name, other)


def either_sign(checkable: Checkable, reading: Checkable) -> str | None:
    """Returns a sentence if the gradient may as well be one of the wrong sign; None if its input is certain."""
    if (pair := _exchanged(checkable, reading)) is None or not _is_mirrored(checkable, reading, *pair):
        return None
    return EITHER_SIGN.format(name=pair[0], other=pair[1])


def _exchanged(checkable: Checkable, reading: Checkable) -> tuple[str, str] | None:
    """Returns the leaf that a reading gives up and the one that it takes instead, if each is one of equal shape."""
    lost = [name for name in checkable.leaves if name not in reading.leaves]
    gained = [name for name in reading.leaves if name not in checkable.leaves]
    if len(lost) != 1 or len(gained) != 1 or checkable.leaves[lost[0]].shape != reading.leaves[gained[0]].shape:
        return None
    return lost[0], gained[0]


def _is_mirrored(checkable: Checkable, reading: Checkable, name: str, other: str) -> bool:
    """Returns whether the output stays when both inputs move together, as a function of their difference does."""
    x, t = checkable.leaves[name], reading.leaves[other]
    direction = np.random.default_rng(0).standard_normal(x.shape) * STEP * max(1.0, float(np.abs(x).max(initial=0)))

    def change(by_x: float, by_t: float) -> float:
        ends = [_output(checkable, {name: x + s * by_x * direction, other: t + s * by_t * direction}) for s in (1, -1)]
        return float(np.abs(ends[0] - ends[1]).max(initial=0))

    return change(1, 1) <= MIRRORED * max(change(1, 0), change(0, 1))


def _output(checkable: Checkable, moved: Leaves) -> Array:
    known = {**checkable.leaves, **{n: np.asarray(a) for n, a in checkable.others.items()}}
    leaves = {n: np.array(moved.get(n, a)) for n, a in known.items()}
    return np.asarray(checkable.forward(leaves), np.float64)
