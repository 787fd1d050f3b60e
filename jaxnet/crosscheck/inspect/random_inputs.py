"""Draws inputs where only their shapes are given, so that few errors stay hidden."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.objects import is_layer
from jaxnet.crosscheck.inspect.parameters import parameters_of
from jaxnet.crosscheck.inspect.signatures import input_names
from jaxnet.crosscheck.inspect.trees import Array
from jaxnet.crosscheck.streams import Stream, stream

INTEGERS = ("t", "target", "targets", "label", "labels", "ids", "idx", "tokens", "index", "indices")
GAP = 0.1  # smallest distance from 0, where ReLU has its kink


def draw_inputs(forward: Callable[..., Any] | None, inputs: tuple[Any, ...], layer: Any, seed: int) -> tuple[Any, ...]:
    """Returns the inputs with an array in the place of each shape.

    Floats are normal, at a distance from 0. Class numbers and ids, recognized by their names, lie in the range of the
    last axis of the first input, or of the rows of the first parameter, where one of them is repeated. Labels of the
    shape of the first input are one-hot.

    Args:
        forward: The function that takes the inputs, for their names.
        inputs: The inputs, some of them shapes.
        layer: The layer that has the parameters, if there is one.
        seed: The seed.
    """
    if not any(is_shape(value) for value in inputs):
        return inputs
    rng = stream(Stream.INPUTS, seed)
    names = input_names(forward or (lambda: None), len(inputs))
    ready: list[Any] = []
    for name, value in zip(names, inputs, strict=True):
        if not is_shape(value):
            ready.append(value)
        elif name not in INTEGERS and not (name == "y" and ready and value == np.shape(ready[0])[:-1]):
            ready.append(off_zero(rng, value))
        elif ready and np.shape(ready[0]) == value:
            ready.append(np.eye(value[-1])[rng.integers(0, value[-1], value[:-1])])
        else:
            matrices = [a for a in parameters_of(layer).values() if a.ndim >= 2] if is_layer(layer) else []
            classes = len(matrices[0]) if matrices else np.shape(ready[0])[-1] if ready else 2
            ids = rng.integers(0, classes, value)
            if matrices and ids.size > 1:
                ids.flat[-1] = ids.flat[0]
            ready.append(ids)
    return tuple(ready)


def off_zero(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Returns normal numbers of either sign, none closer to 0 than a tenth."""
    x = rng.standard_normal(shape)
    return np.asarray(x + GAP * np.sign(x))


def is_shape(value: Any) -> bool:
    """Returns whether this is a tuple of positive integers."""
    integers = isinstance(value, tuple) and all(type(n) is int or isinstance(n, np.integer) for n in value)
    return integers and bool(value) and all(n >= 1 for n in value)
