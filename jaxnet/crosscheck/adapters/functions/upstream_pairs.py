"""Adapts functions without a cache: `sigmoid(z)` and `sigmoid_backward(dA, z)`, which takes an upstream gradient.

They may be methods: `forward(x)` and `gradient(x, dout)`. The upstream gradient is recognized by its name, or because
the result is linear in it alone. The other argument of backward is the input of forward or its output; difference
quotients tell which. If a function has several inputs, `linear(A, W, b)`, its backward takes all of them again,
in their order, after or before an upstream gradient: `linear_backward(dZ, A_prev, W, b)`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.functions.bound_arguments import UPSTREAM
from jaxnet.crosscheck.adapters.functions.derivatives import two_functions
from jaxnet.crosscheck.adapters.layers.unread_arguments import without_unread
from jaxnet.crosscheck.adapters.style import Style, called, required_parameters_of
from jaxnet.crosscheck.inspect.pair import CACHE
from jaxnet.crosscheck.inspect.trees import is_float

STEP, DIRECTIONS = 2.0**-16, 3
BY_OUTPUT = "{} takes an upstream gradient and the output of {}, not its input"
AS_UPSTREAM = "{} is linear in {}, so that is read as the upstream gradient"


def adapt(style: Style) -> Style | None:
    """Turns such functions into a function and its gradient."""
    functions = two_functions(style.thing, style.inputs)
    if functions is None or not style.inputs or not is_float(style.inputs[0]):
        return None
    f, backward = functions
    if len(style.inputs) > 1:
        read = without_unread(backward)  # which may lack an input, such as a bias
        return _of_several_inputs(style, f, backward) or _of_several_inputs(style, f, read)
    backward = without_unread(backward)
    takes = required_parameters_of(backward)
    x = np.asarray(style.inputs[0])
    y = called(f, x)
    if len(takes) != 2 or any(name in CACHE for name in takes) or not is_float(y):
        return None
    named = [i for i, name in enumerate(takes) if UPSTREAM.fullmatch(name)]
    places = named if len(named) == 1 else [i for i in (0, 1) if _is_linear(backward, i, x, np.asarray(y))]
    if len(places) != 1:
        return None

    def of_input(x: Any, dout: Any) -> Any:
        return backward(*((dout, x) if places[0] == 0 else (x, dout)))

    def of_output(x: Any, dout: Any) -> Any:
        return of_input(f(np.array(x)), dout)

    if called(of_input, x, np.asarray(y)) is None:  # it stores gradients, and another method returns one
        return None
    of_input.__name__ = of_output.__name__ = getattr(backward, "__name__", "backward")
    by_output = _error(f, of_output, x, np.asarray(y)) < _error(f, of_input, x, np.asarray(y))
    notes = [style.note] if style.note else []
    notes += [] if len(named) == 1 else [AS_UPSTREAM.format(of_input.__name__, takes[places[0]])]
    notes += [BY_OUTPUT.format(of_input.__name__, getattr(f, "__name__", "f"))] if by_output else []
    gradient = of_output if by_output else of_input
    return style._replace(thing=f, gradient=gradient, takes_dout=True, note="; ".join(notes))


def _of_several_inputs(style: Style, f: Callable[..., Any], backward: Callable[..., Any]) -> Style | None:
    """Returns a function whose backward takes its inputs again, after or before an upstream gradient."""
    takes, count = required_parameters_of(backward), len(style.inputs)
    named = [i for i in (0, count) if len(takes) == count + 1 and UPSTREAM.fullmatch(takes[i])]
    y = called(f, *style.inputs)
    if len(named) != 1 or any(name in CACHE for name in takes) or not is_float(y) or np.ndim(y) == 0:
        return None
    dout_first = named[0] == 0

    def gradient(*args: Any) -> Any:
        *inputs, dout = args
        return backward(dout, *inputs) if dout_first else backward(*inputs, dout)

    if isinstance(called(gradient, *style.inputs, y), Exception):
        return None
    gradient.__name__ = getattr(backward, "__name__", "backward")
    return style._replace(thing=f, gradient=gradient, takes_dout=True)


def _is_linear(backward: Callable[..., Any], place: int, x: np.ndarray, y: np.ndarray) -> bool:
    """Returns whether a function of x and an upstream gradient, which is its argument at `place`, is linear in that."""
    rng = np.random.default_rng(0)
    douts = [rng.standard_normal(y.shape) for _ in range(2)]
    results = [called(backward, *((d, x) if place == 0 else (x, d))) for d in (*douts, douts[0] + douts[1])]
    if any(not is_float(result) or np.shape(result) != x.shape for result in results):
        return False
    return bool(np.allclose(np.asarray(results[0]) + np.asarray(results[1]), results[2]))


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
