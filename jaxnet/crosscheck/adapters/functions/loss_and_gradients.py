"""Adapts functions that return their loss and its gradients together: `loss(X, y) -> (loss, grads)`."""

import functools
import inspect
from collections.abc import Mapping
from types import FunctionType
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.functions.forces import AS_FORCE, FORCE, is_force
from jaxnet.crosscheck.adapters.style import Style, called, named_gradients, parameters_of
from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.returned_names import returned_names
from jaxnet.crosscheck.inspect.trees import is_float

OTHER_SHAPE = (
    "{0}: returns its value and its gradient by {2}, of shape {1}, where {2} has shape {3}; return the gradient in the "
    "shape of {2}"
)
PASS_IT_SO = ", or pass {} of shape {}"
STEP = 2.0**-16
QUOTIENTS = 6
MIN_CORRELATION = 0.9  # of quotients and gradients, also for a gradient that is wrong by a factor or in a few elements


def adapt(style: Style) -> Style | None:
    """Separates the loss of a function of arrays from its gradients."""
    thing, inputs = style.thing, style.inputs
    if isinstance(thing, tuple | list | type) or not callable(thing) or hasattr(thing, "backward"):
        return None
    if callable(getattr(thing, "loss", None)) and hasattr(thing, "params"):  # a network
        return None
    result = called(thing, *inputs)
    places = places_of(result)
    is_mixed = places is not None and isinstance(places[1], slice) and _named(result[1:], thing, inputs) is None
    if is_mixed:
        places = _places_of_energy(thing, result, inputs) or _places_among_others(result, inputs)
    elif places is None:
        is_mixed, places = True, _places_of_energy(thing, result, inputs)
    if places is None or _named(result[places[1]], thing, inputs) is None:
        return None
    value, rest = places

    @functools.wraps(thing)
    def loss(*args: Any) -> Any:
        return thing(*args)[value]

    names = returned_names(thing, len(result), partly=True)
    value_name, name = (names[value], names[rest]) if names and isinstance(rest, int) else ("", "")
    is_force_by_text = (rest == 0 or not (value_name and name)) and is_force(thing)
    returns_force = isinstance(rest, int) and (FORCE.fullmatch(name) is not None or is_force_by_text)

    def gradient(*args: Any) -> Any:
        gradients = thing(*args)[rest]
        return _named(-gradients if returns_force else gradients, thing, args)

    gradient.__signature__ = loss.__signature__ = inspect.signature(thing)  # type: ignore[attr-defined]
    note = f"{getattr(thing, '__name__', 'f')} returns its value and its gradient together"
    if returns_force and isinstance(rest, int):
        note = AS_FORCE.format(name or "the second result", value_name or "the first")
    adapted = style._replace(thing=loss, gradient=gradient, takes_dout=False, note=note)
    return None if is_mixed and not _is_plausible(adapted) else adapted


def adapt_if_plausible(style: Style) -> Style | None:
    """Separates the loss of a function from its gradients, if these are nearly right.

    JAX can derive a function that returns a value and, say, a prediction beside it. So the second result is read as a
    gradient only if it follows the change of the value.
    """
    adapted = adapt(style)
    return adapted if adapted is not None and adapted.gradient is not None and _is_plausible(adapted) else None


def reject_other_shape(style: Style) -> None:
    """Raises a SubjectError if a function returns its value and its gradient in another shape than the argument has.

    A cost of a column theta (n, 1) may return a flat gradient (n,), as an optimizer takes it.
    """
    f, inputs = style.thing, style.inputs
    if not isinstance(f, FunctionType):
        return
    result = called(f, *inputs)
    if (places := places_of(result)) is None or isinstance(places[1], slice) or not is_float(result[places[1]]):
        return
    value, rest = places
    gradient = result[rest]
    for place, (name, arg) in enumerate(zip(parameters_of(f), inputs, strict=False)):
        if not is_float(arg) or np.size(arg) != np.size(gradient) or np.shape(arg) == np.shape(gradient):
            continue
        reshaped = np.reshape(gradient, np.shape(arg))
        if correlation(lambda *args: f(*args)[value], reshaped, inputs, place) > MIN_CORRELATION:
            again = called(f, *_replaced(inputs, place, np.reshape(arg, np.shape(gradient))))
            runs = places_of(again) == places and np.shape(again[rest]) == np.shape(gradient)
            raise SubjectError(
                OTHER_SHAPE.format(getattr(f, "__name__", "f"), np.shape(gradient), name, np.shape(arg))
                + (PASS_IT_SO.format(name, np.shape(gradient)) if runs else "")
            )


def places_of(result: Any) -> tuple[int, int | slice] | None:
    """Returns the positions of the value and of the gradients in a result of these two."""
    if isinstance(result, tuple) and len(result) > 2 and np.ndim(result[0]) == 0 and all(map(is_float, result[1:])):
        return 0, slice(1, None)
    if not isinstance(result, tuple | list) or len(result) != 2:
        return None
    scalars = [i for i in (0, 1) if isinstance(result[i], float | np.floating | np.ndarray) and np.ndim(result[i]) == 0]
    if len(scalars) != 1:
        return None
    other = result[1 - scalars[0]]
    return (scalars[0], 1 - scalars[0]) if isinstance(other, Mapping | tuple | list | np.ndarray) else None


def _places_among_others(result: tuple[Any, ...], inputs: tuple[Any, ...]) -> tuple[int, int] | None:
    """Returns the positions of a value and of the only other result with the shape of the first float input."""
    shape = next((np.shape(arg) for arg in inputs if is_float(arg)), None)
    alike = [i for i, part in enumerate(result) if i and np.shape(part) == shape]
    return (0, alike[0]) if len(alike) == 1 else None


def _places_of_energy(function: Any, result: Any, inputs: tuple[Any, ...]) -> tuple[int, int] | None:
    """Returns the positions of a value and its gradient in a result with other numbers: `return forces, energy, p`.

    The value is the only number whose change the gradient follows, which is the only array of the input's shape.
    """
    shape = next((np.shape(arg) for arg in inputs if is_float(arg)), None)
    if not isinstance(result, tuple) or len(result) < 3 or not shape:
        return None
    numbers = [i for i, part in enumerate(result) if isinstance(part, float | np.floating)]
    alike = [i for i, part in enumerate(result) if is_float(part) and np.shape(part) == shape]
    if len(alike) != 1:
        return None
    places = [
        i
        for i in numbers
        if follows_change(lambda *args, i=i: function(*args)[i], lambda *args: function(*args)[alike[0]], inputs)
    ]
    return (places[0], alike[0]) if len(places) == 1 else None


def _named(gradients: Any, function: Any, args: tuple[Any, ...]) -> Any:
    """Returns gradients with the names of arguments for keys, `w` for `dw`; None if they fit no argument."""
    if isinstance(gradients, Mapping):
        return named_gradients(gradients, parameters_of(function), args)
    parts = gradients if isinstance(gradients, tuple | list) else [gradients]
    for name, arg in zip(parameters_of(function), args, strict=False):
        is_of_list = isinstance(arg, list) and arg and all(map(is_float, (*arg, *parts)))
        if is_of_list and list(map(np.shape, arg)) == list(map(np.shape, parts)):
            return {name: list(parts)}
    shapes = [np.shape(arg) for arg in args if is_float(arg)]
    return gradients if parts and all(is_float(part) and np.shape(part) in shapes for part in parts) else None


def _is_plausible(style: Style) -> bool:
    """Returns whether the gradient of a function is a gradient, right or nearly right, and no other value."""
    return follows_change(style.thing, style.gradient, style.inputs)


def follows_change(value: Any, gradient: Any, inputs: tuple[Any, ...]) -> bool:
    """Returns whether a gradient follows the change of a value along random directions of the first float input.

    Args:
        value: A function that returns a number.
        gradient: The gradient by the first float input, or several, as a function of the same arguments.
        inputs: The arguments.
    """
    gradients = called(gradient, *inputs)
    if isinstance(gradients, Mapping):
        return True
    place = next(i for i, arg in enumerate(inputs) if is_float(arg))
    x = np.asarray(inputs[place], np.float64)
    candidates = gradients if isinstance(gradients, tuple | list) else [gradients]
    first = next((np.asarray(g, np.float64) for g in candidates if is_float(g) and np.shape(g) == x.shape), None)
    if first is None:
        return not candidates or not any(isinstance(g, Exception) or g is None for g in candidates)
    return abs(correlation(value, first, inputs, place)) > MIN_CORRELATION


def correlation(value: Any, gradient: Any, inputs: tuple[Any, ...], place: int) -> float:
    """Returns the correlation of an array with the change of a value along random directions of one input.

    Args:
        value: A function that returns a number.
        gradient: An array that may be its gradient by that input.
        inputs: The arguments.
        place: The place of the input among them.

    Returns:
        1 for the gradient and its multiples, -1 for its negative; 0 if the value cannot be computed.
    """
    rng = np.random.default_rng(QUOTIENTS)
    x = np.asarray(inputs[place], np.float64)
    h, pairs = STEP * max(1.0, float(np.abs(x).max(initial=0))), []
    for _ in range(QUOTIENTS):
        direction = rng.standard_normal(x.shape)
        ends = [called(value, *_replaced(inputs, place, x + s * h * direction)) for s in (1, -1)]
        if any(isinstance(end, Exception) for end in ends):
            return 0.0
        ahead, behind = map(float, ends)
        pairs.append(((ahead - behind) / (2 * h), float(np.vdot(gradient, direction))))
    quotients, products = np.array(pairs).T
    size = float(np.linalg.norm(quotients) * np.linalg.norm(products))
    return float(quotients @ products) / size if size > 0 else 0.0


def _replaced(inputs: tuple[Any, ...], place: int, value: Any) -> tuple[Any, ...]:
    return (*inputs[:place], value, *inputs[place + 1 :])
