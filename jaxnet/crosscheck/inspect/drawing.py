"""Inputs that are drawn where only their shapes are given: such as hide as little as inputs can."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.attributes import is_layer, parameters_of
from jaxnet.crosscheck.inspect.checkable import Array, input_names
from jaxnet.crosscheck.streams import Stream, stream

INTEGERS = ("t", "target", "targets", "label", "labels", "ids", "idx", "tokens", "index", "indices")
GAP = 0.1  # from 0, where ReLU has its kink


def drawn(forward: Callable[..., Any] | None, inputs: tuple[Any, ...], layer: Any, seed: int) -> tuple[Any, ...]:
    """The inputs, with an array in the place of each shape.

    Floats are normal numbers away from 0. Class numbers and ids, told by their names, lie in the range of the last
    axis of the first input, or of the rows of the first parameter, and repeat themselves; labels of the shape of the
    first input are one-hot.
    """
    if not any(is_shape(given) for given in inputs):
        return inputs
    rng = stream(Stream.INPUTS, seed)
    names = input_names(forward or (lambda: None), len(inputs))
    ready: list[Any] = []
    for name, given in zip(names, inputs, strict=True):
        if not is_shape(given):
            ready.append(given)
        elif name not in INTEGERS and not (name == "y" and ready and given == np.shape(ready[0])[:-1]):
            ready.append(off_zero(rng, given))
        elif ready and np.shape(ready[0]) == given:
            ready.append(np.eye(given[-1])[rng.integers(0, given[-1], given[:-1])])
        else:
            matrices = [a for a in parameters_of(layer).values() if a.ndim >= 2] if is_layer(layer) else []
            classes = len(matrices[0]) if matrices else np.shape(ready[0])[-1] if ready else 2
            ids = rng.integers(0, classes, given)
            if matrices and ids.size > 1:
                ids.flat[-1] = ids.flat[0]
            ready.append(ids)
    return tuple(ready)


def off_zero(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal numbers of either sign, none nearer to 0 than a tenth."""
    x = rng.standard_normal(shape)
    return np.asarray(x + GAP * np.sign(x))


def is_shape(given: Any) -> bool:
    """Whether this is a tuple of whole numbers."""
    return isinstance(given, tuple) and bool(given) and all(type(n) is int and n >= 1 for n in given)
