"""What the point of a check cannot show: at some inputs, a wrong backward pass and a right one are alike."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect import Array, Checkable, CheckableLayer, Leaves, attributes_of
from jaxnet.crosscheck.measure import behaviour

WINDOW = ("pool_h", "pool_w", "pool_height", "pool_width", "pool_size", "kernel_size", "size", "window")


def warnings(subject: Checkable, y: Array) -> Iterator[str]:
    """Each in a sentence: what about the inputs, and which class of bug they hide."""
    for name, array in subject.leaves.items():
        if array.size > 1 and np.ptp(array) == 0 and (array.flat[0] != 0 or array.ndim > 1):
            yield f"{name} is {array.flat[0]:g} everywhere: a gradient that forgets it as a factor may pass"
        if array.ndim == 2 and array.shape[0] == array.shape[1] > 1 and np.array_equal(array, array.T):
            yield f"{name} is symmetric: one that is transposed would pass"
    if not isinstance(subject, CheckableLayer):
        return
    inputs = {name: given for name, given in zip(subject.names, subject.inputs, strict=True) if name in subject.leaves}
    if any(given.ndim >= 2 and len(given) == 1 for given in inputs.values()):
        yield "a batch of one: a sum over the batch and its mean, or its first row, are alike"
    if not subject.parameters and len(inputs) == 1 and y.shape == next(iter(inputs.values())).shape:
        (name, x), *_ = inputs.items()
        if x.size > 1 and ((x > 0).all() or (x < 0).all()):
            yield f"{name} is {'positive' if x.flat[0] > 0 else 'negative'} everywhere: the other branch is not seen"
    for name, given in zip(subject.names, subject.inputs, strict=True):
        ids = isinstance(given, np.ndarray) and np.issubdtype(given.dtype, np.integer)
        if ids and given.size > 1 and subject.parameters and len(np.unique(given)) == given.size:
            yield f"{name} repeats no number: gradients that overwrite each other where they should add up would pass"
    if _windows_apart(attributes_of(subject.layer)):
        yield "the windows do not overlap: gradients that overwrite each other where they should add up would pass"


def without_gradient(subject: Checkable) -> tuple[list[str], list[str]]:
    """The arrays that change the output with no gradient beside them: a warning each, and the names of those in doubt.

    Beside an array that has one, most such are constants, and a warning is enough. Where no array at all has one, the
    gradients may as well be forgotten, or stand under a name that is not known here, and to PASS would be to speak of
    x alone. A layer that holds nothing but constants can say so: with a `params` that is empty, as in volume 2.
    """
    names = [name for name, array in subject.others.items() if _matters(subject, {name: array * 1.25 + 0.125})]
    text = "changes the output and has no d{} beside it: a constant, or its gradient is missing"
    known = [name for name in names if name in subject.constants]
    return [f"{n} {text.format(_last(n))}" for n in known], [n for n in names if n not in subject.constants]


def _last(place: str) -> str:
    """What an array is called where it stands: p['W'] and cell.W are W; an entry of a list has but its place."""
    key = re.search(r"""\[(['"])(.*)\1\]$""", place)
    return key[2] if key else place.rpartition(".")[2]


def _windows_apart(attributes: dict[str, Any]) -> bool:
    sizes = [attributes[name] for name in WINDOW if isinstance(attributes.get(name), int)]
    stride = attributes.get("stride")
    return bool(sizes) and isinstance(stride, int) and stride >= max(sizes)


def _matters(subject: Checkable, moved: Leaves) -> bool:
    """Whether the output changes with an array that the layer holds."""
    other = subject.open({name: array.copy() for name, array in subject.leaves.items()} | moved)
    try:
        return not behaviour.same(other.forward(), behaviour.fresh(subject).forward())
    except Exception:
        return False
