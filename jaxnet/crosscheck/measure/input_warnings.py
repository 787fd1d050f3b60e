"""Warns of inputs that hide bugs, because a wrong backward pass and a correct one return the same gradient there."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array, Checkable
from jaxnet.crosscheck.inspect.layer import CheckableCode, CheckableLayer
from jaxnet.crosscheck.inspect.network import EXAMPLE_STRENGTH, CheckableNetwork
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.measure.windows import windows_are_disjoint
from jaxnet.crosscheck.meter import OutOfTime

OVERWRITE = "gradients that overwrite each other instead of adding up may pass"
# Names under which layers hold the size of a window.
WINDOW_ATTRIBUTES = ("pool_h", "pool_w", "pool_height", "pool_width", "pool_size", "kernel_size", "size", "window")


def input_warnings(subject: Checkable, y: Array) -> Iterator[str]:
    """Yields a sentence for each property of the inputs that hides a class of bugs."""
    for name, array in subject.leaves.items():
        if array.size > 1 and np.ptp(array) == 0 and (array.flat[0] != 0 or array.ndim > 1):
            yield f"{name} is {array.flat[0]:g} everywhere, so a gradient that lacks it as a factor may pass: vary it"
        if array.ndim == 2 and array.shape[0] == array.shape[1] > 1 and np.array_equal(array, array.T):
            yield f"{name} is symmetric, so code that transposes it by mistake may pass: pass an asymmetric one"
    if isinstance(subject, CheckableCode) and _has_disjoint_windows(subject, y):
        yield f"the windows do not overlap: {OVERWRITE}"
    if isinstance(subject, CheckableNetwork):
        for name in subject.zero_strengths():
            value = {name: EXAMPLE_STRENGTH}
            yield f"{name} is 0, so the gradient of its term in the loss is not checked: pass named={value}"
    if isinstance(subject, CheckableLayer):
        yield from _warnings_of_layer(subject, y)


def _warnings_of_layer(subject: CheckableLayer, y: Array) -> Iterator[str]:
    inputs = {name: array for name, array in zip(subject.names, subject.inputs, strict=True) if name in subject.leaves}
    if any(array.ndim >= 2 and len(array) == 1 for array in inputs.values()):
        yield "a batch of one, where a sum over the batch equals its mean: pass several samples"
    if not subject.parameters and len(inputs) == 1 and y.shape == next(iter(inputs.values())).shape:
        (name, x), *_ = inputs.items()
        if x.size > 1 and ((x > 0).all() or (x < 0).all()):
            sign = "positive" if x.flat[0] > 0 else "negative"
            yield f"{name} is {sign} everywhere, so other branches are not checked: pass both signs"
    for name, array in zip(subject.names, subject.inputs, strict=True):
        ids = isinstance(array, np.ndarray) and np.issubdtype(array.dtype, np.integer)
        if ids and array.size > 1 and subject.parameters and len(np.unique(array)) == array.size:
            yield f"{name} repeats no number: {OVERWRITE}, so repeat one"


def _has_disjoint_windows(subject: CheckableCode, y: Array) -> bool:
    if isinstance(subject, CheckableLayer) and _is_stride_of_window(attributes_of(subject.owner)):
        return True
    inputs = [name for name in subject.names if name in subject.leaves]
    try:
        return bool(inputs) and windows_are_disjoint(subject, inputs[0], y)
    except OutOfTime:
        raise
    except Exception:  # code that rejects the values to which an element is moved
        return False


def _is_stride_of_window(attributes: dict[str, Any]) -> bool:
    sizes = [attributes[name] for name in WINDOW_ATTRIBUTES if isinstance(attributes.get(name), int)]
    stride = attributes.get("stride")
    return bool(sizes) and isinstance(stride, int) and stride >= max(sizes)
