"""Pairs of functions without a cache: `sigmoid(z)` and `sigmoid_backward(dA, z)`, which takes an upstream gradient.

The second argument of backward is the input of forward or its output. Difference quotients tell which is meant.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.bound_arguments import UPSTREAM
from jaxnet.crosscheck.adapters.style import Style, called, required_parameters_of
from jaxnet.crosscheck.inspect.pair import CACHE
from jaxnet.crosscheck.inspect.trees import is_float

STEP, DIRECTIONS = 2.0**-16, 3
BY_OUTPUT = "{} takes an upstream gradient and the output of {}, not its input"


def adapt(style: Style) -> Style | None:
    """Turns such a pair into a function and its gradient."""
    thing = style.thing
    if not isinstance(thing, tuple | list) or len(thing) != 2 or not all(map(callable, thing)):
        return None
    f, backward = thing
    takes = required_parameters_of(backward)
    is_plausible = len(takes) == 2 and UPSTREAM.fullmatch(takes[0]) is not None and takes[1] not in CACHE
    if len(style.inputs) != 1 or not is_float(style.inputs[0]) or not is_plausible:
        return None
    x = np.asarray(style.inputs[0])
    y = called(f, x)
    if not is_float(y):
        return None

    def of_input(x: Any, dout: Any) -> Any:
        return backward(dout, x)

    def of_output(x: Any, dout: Any) -> Any:
        return backward(dout, f(np.array(x)))

    of_input.__name__ = of_output.__name__ = getattr(backward, "__name__", "backward")
    by_output = _error(f, of_output, x, np.asarray(y)) < _error(f, of_input, x, np.asarray(y))
    note = BY_OUTPUT.format(of_input.__name__, getattr(f, "__name__", "f")) if by_output else style.note
    return style._replace(thing=f, gradient=of_output if by_output else of_input, takes_dout=True, note=note)


def _error(f: Callable[..., Any], gradient: Callable[..., Any], x: np.ndarray, y: np.ndarray) -> float:
    """Returns the largest relative error of a gradient along random directions; infinite if it cannot be called."""
    rng, errors = np.random.default_rng(0), [0.0]
    h = STEP * max(1.0, float(np.abs(x).max(initial=0)))
    for _ in range(DIRECTIONS):
        dout, direction = rng.standard_normal(y.shape), rng.standard_normal(x.shape)
        dx = called(gradient, x, dout)
        ahead, behind = (called(f, x + s * h * direction) for s in (1, -1))
        if not is_float(dx) or np.shape(dx) != x.shape or not is_float(ahead) or not is_float(behind):
            return np.inf
        slope = float(np.vdot(dout, np.asarray(ahead) - np.asarray(behind))) / (2 * h)
        product = float(np.vdot(dx, direction))
        errors.append(abs(product - slope) / max(abs(slope), np.finfo(float).tiny))
    return float(np.nan_to_num(max(errors), nan=np.inf))
