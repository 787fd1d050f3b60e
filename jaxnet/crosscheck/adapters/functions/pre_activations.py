"""Adapts costs whose derivative also takes the input of the last activation: `fn(a, y)` with `delta(z, a, y)`.

The derivative is one by z, where a = sigmoid(z), or one by a that is multiplied by z. Difference quotients tell which.
"""

import inspect
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.functions.derivatives import DERIVATIVES, VALUES
from jaxnet.crosscheck.adapters.functions.loss_and_gradients import correlation
from jaxnet.crosscheck.adapters.style import Style, called, parameters_of
from jaxnet.crosscheck.inspect.role_heuristics import label_rank
from jaxnet.crosscheck.inspect.trees import is_float

OF_SIGMOID = "{1} is checked as the gradient of {2} by {0}, where {3} = sigmoid({0})"
TIMES = "{1} is checked as the gradient of {2} by {3}, with {0} = 1"


def adapt(style: Style) -> Style | None:
    """Turns a cost and its derivative into a function of z and the labels, or of a, and its gradient."""
    functions = _functions(style.thing)
    if functions is None or len(style.inputs) != 2 or not all(map(is_float, style.inputs)):
        return None
    cost, derivative = functions
    names, takes = parameters_of(cost), parameters_of(derivative)
    extra = [name for name in takes if name not in names]
    if len(names) != 2 or len(takes) != 3 or len(extra) != 1 or np.ndim(called(cost, *style.inputs)) != 0:
        return None
    (z,) = extra
    of_a = 0 if label_rank(names[0]) <= label_rank(names[1]) else 1
    a, y = names[of_a], names[1 - of_a]
    at, labels = np.asarray(style.inputs[of_a], float), style.inputs[1 - of_a]

    def value(a_value: Any, y_value: Any) -> Any:
        return cost(**{a: a_value, y: y_value})

    def value_of_z(z_value: Any, y_value: Any) -> Any:
        return value(_sigmoid(z_value), y_value)

    def gradient(a_value: Any, y_value: Any) -> Any:
        return derivative(**{z: np.ones_like(a_value), a: a_value, y: y_value})

    def gradient_of_z(z_value: Any, y_value: Any) -> Any:
        return derivative(**{z: z_value, a: _sigmoid(z_value), y: y_value})

    is_of_activation = bool(((at > 0) & (at < 1)).all())
    at_z = np.log(at / (1 - at)) if is_of_activation else at
    by_a, by_z = (called(f, x, labels) for f, x in ((gradient, at), (gradient_of_z, at_z)))
    if not all(is_float(g) and np.shape(g) == at.shape for g in (by_a, by_z)):
        return None
    fit_of_z, fit_of_a = (
        abs(correlation(f, g, (x, labels), 0)) for f, g, x in ((value_of_z, by_z, at_z), (value, by_a, at))
    )
    words = (z, getattr(derivative, "__name__", "the derivative"), getattr(cost, "__name__", "the cost"), a)
    thing, of, x, note = (
        (value_of_z, gradient_of_z, at_z, OF_SIGMOID) if fit_of_z >= fit_of_a else (value, gradient, at, TIMES)
    )
    thing.__name__ = words[2]
    leaf = z if thing is value_of_z else a
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in (leaf, y)])
    thing.__signature__ = of.__signature__ = signature  # type: ignore[union-attr]
    adapted = style._replace(thing=thing, inputs=(x, labels), gradient=of, takes_dout=False)
    return adapted._replace(note=note.format(*words), data=(y,))


def _functions(thing: Any) -> tuple[Any, Any] | None:
    """Returns a pair of functions, or the methods of an object or class with the names of a cost and its derivative."""
    if isinstance(thing, tuple | list):
        return (thing[0], thing[1]) if len(thing) == 2 and all(map(callable, thing)) else None
    if isinstance(thing, type):
        static = {name for kind in thing.__mro__ for name, part in vars(kind).items() if isinstance(part, staticmethod)}
    else:
        static = {name for name in dir(type(thing)) if callable(getattr(thing, name, None))}
    value, derivative = (
        next((getattr(thing, name) for name in names if name in static), None)
        for names in (VALUES, ("delta", *DERIVATIVES))
    )
    return (value, derivative) if value and derivative else None


def _sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))
