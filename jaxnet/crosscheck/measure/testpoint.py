"""What the point of a check cannot show: at some inputs, a wrong backward pass and a right one are alike."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect import Array, Checkable, CheckableLayer, attributes_of

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


def _windows_apart(attributes: dict[str, Any]) -> bool:
    sizes = [attributes[name] for name in WINDOW if isinstance(attributes.get(name), int)]
    stride = attributes.get("stride")
    return bool(sizes) and isinstance(stride, int) and stride >= max(sizes)
