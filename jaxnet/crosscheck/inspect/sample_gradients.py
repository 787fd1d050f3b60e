"""Recognizes gradients of single samples: of shape `(N, *W.shape)`, or a list of N arrays, for an optimizer to average.

The upstream gradient of each sample is a row of `dout`, so the gradient of a parameter is the sum over the samples.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.trees import Array

SUM_OF_SAMPLES = "backward computes a gradient of {} for each sample, of which the sum over {} is checked"
MEAN_OF_SAMPLES = (
    "backward computes a gradient of {} for each sample, of which the mean over {} is right, and the sum is {} times "
    "as large, so it is not certain which one is meant: sum them, or average them, in backward"
)

OR_FORGOTTEN = (
    "backward computes a gradient of {} for each sample, as a product of stacks of matrices does if the sum over the "
    "samples is forgotten: sum them in backward, as `{}.sum(axis=0)`"
)


def owners_of_sample_gradients(
    gradients: Mapping[str, Any], arrays: Mapping[str, Array], inputs: Collection[str], samples: Array, y: Array
) -> tuple[str, ...]:
    """Returns the names of the arrays of which backward computes a gradient for each sample; none if it sums one.

    A sum over the samples that is forgotten in an elementwise gradient, `db = dout`, has the shape of the output. It
    counts only beside a gradient of another shape, such as the outer products of W.

    Args:
        gradients: The gradients by name, of parameters and inputs.
        arrays: The arrays by name.
        inputs: The names of the inputs, of which those with a row for each sample have a gradient like themselves.
        samples: The first input.
        y: The output.
    """
    count = np.shape(y)[:1]
    if not count or np.shape(samples)[:1] != count:
        return ()
    shapes = {name: _shape(gradients.get(name)) for name in arrays}
    owners = tuple(name for name, array in arrays.items() if shapes[name] == count + np.shape(array))
    others = [name for name in arrays if name not in owners]
    if not all(name in inputs and np.shape(arrays[name])[:1] == count for name in others):
        return ()
    return owners if any(shapes[name] != np.shape(y) for name in owners) else ()


def may_be_forgotten(gradients: Mapping[str, Any], owners: Collection[str], samples: Array) -> bool:
    """Returns whether gradients of samples may be a sum that is forgotten: `x.transpose(0, 2, 1) @ dout` for W.

    Args:
        gradients: The gradients by name.
        owners: The names of those of samples.
        samples: The first input.
    """
    return np.ndim(samples) > 2 and not any(isinstance(gradients[name], list | tuple) for name in owners)


def _shape(gradient: Any) -> tuple[int, ...]:
    """Returns the shape of a gradient; that of a scalar if it is a list of arrays of several shapes."""
    try:
        return np.shape(gradient)
    except ValueError:
        return ()
