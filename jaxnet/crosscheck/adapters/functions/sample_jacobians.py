"""Adapts functions whose derivative is a Jacobian for each sample: `softmax(z)` (N, n), `softmax_prime(z)` (N, n, n).

The derivative may also take the output. A vector of a sample may be a column, (N, n, 1).
"""

import functools
from types import FunctionType
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, called, required_parameters_of
from jaxnet.crosscheck.inspect.trees import is_float

NOTE = "{} returns a Jacobian for each sample, so its products with upstream gradients are checked"


def adapt(style: Style) -> Style | None:
    """Multiplies the Jacobians by an upstream gradient: dx[i, j] = sum_k dout[i, k] dy[i, k] / dx[i, j]."""
    pair: Any = style.thing
    is_pair = isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(f, FunctionType) for f in pair)
    if not is_pair or len(style.inputs) != 1 or not is_float(x := style.inputs[0]) or np.ndim(x) not in (2, 3):
        return None
    f, derivative = pair
    count, n = np.shape(x)[:2]
    takes = len(required_parameters_of(derivative))
    if n < 2 or takes not in (1, 2) or np.shape(x)[2:] not in ((), (1,)):
        return None

    def jacobians(x: Any) -> Any:
        return derivative(x) if takes == 1 else derivative(x, f(x))

    y, found = called(f, x), called(jacobians, x)
    if not (is_float(y) and is_float(found)) or np.shape(y) != np.shape(x) or np.shape(found) != (count, n, n):
        return None

    @functools.wraps(f)
    def forward(x: Any) -> Any:
        return f(x), x

    def backward(dout: Any, x: Any) -> Any:
        product = np.einsum("ik,ikj->ij", np.reshape(dout, (count, n)), np.reshape(jacobians(x), (count, n, n)))
        return np.reshape(product, np.shape(x))

    name = getattr(derivative, "__name__", "the derivative")
    return style._replace(thing=(forward, backward), note=NOTE.format(name))
