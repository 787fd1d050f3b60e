"""Adapts functions with their derivatives: `(f, f_prime)`, objects with `loss` and `loss_prime`, `f(x, deriv=True)`.

The derivative of an elementwise function may be one of its input or one of its output, as y (1 - y) for the sigmoid.
Difference quotients tell which is meant. A derivative that takes another array of this shape belongs to a loss of
labels and predictions, in either order, and is one of its inputs. Forces are minus the gradient of an energy.
"""

import functools
import inspect
import re
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.functions.forces import AS_FORCE, FORCE, is_force, name_of_force, negative
from jaxnet.crosscheck.adapters.functions.loss_and_gradients import correlation
from jaxnet.crosscheck.adapters.methods import takes_upstream
from jaxnet.crosscheck.adapters.style import (
    Style,
    called,
    has_method,
    parameters_of,
    required_parameters_of,
    undecorated,
)
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.role_heuristics import is_prediction_name, label_rank
from jaxnet.crosscheck.inspect.signatures import positional
from jaxnet.crosscheck.inspect.trees import is_float

VALUES = ("loss", "compute_loss", "cost", "compute_cost", "calculate", "forward", "fn", "func", "function", "f", "fun",
          "activate", "activation", "act", "apply", "evaluate", "compute", "value", "energy",
          "potential_energy", "potential", "call", "eval", "E", "U", "V", "__call__")  # fmt: skip
DERIVATIVES = ("gradient", "grad", "derivative", "deriv", "prime", "loss_prime", "loss_gradient", "loss_grad",
               "loss_derivative", "diff", "f_prime", "fprime", "fn_prime", "df", "dfn", "dfunc", "derivate", "jac",
               "function_prime", "function_derivative", "activation_prime", "activation_derivative", "force",
               "forces", "dE", "dU", "dV", "d")  # fmt: skip
LOSS = re.compile(r"\w+_(loss|cost|energy|error)")  # other names of a method that returns a value
FLAGS = ("deriv", "derivative", "derivate", "prime", "grad", "is_derivative", "return_derivative")
DERIVATIVE = re.compile(r"grad|deriv|prime", re.IGNORECASE)  # in the name of a method
QUOTIENT = re.compile(r"d_?(\w+?)_?d_?[a-z]\w?|d_?(\w+)", re.IGNORECASE)  # dydx, dE_dy, but not d2ydx2; dtanh
MIN_CORRELATION = 0.95  # of the values of a derivative with quotients, also where it is wrong in a few elements
STEP = 2.0**-16
MAX_DIFFERENCE = 1e-3  # relative, of a gradient of losses of samples from that of their mean
AGREEMENT = 1e-5  # of an element with its quotient, relative to 1 or to the quotient
ON_COPIES = "{} overwrites its input, so it is given a copy"
OF_MEAN = "{} takes no dout, so it is checked as the gradient of the mean of {}"
OF_INPUT = "backward takes the input of forward, no upstream gradient, and is checked as the derivative there"
OF_OUTPUT = "{} takes the output of {}, not its input"


def adapt(style: Style) -> Style | None:
    """Turns a function and its derivative into a function and its gradient."""
    functions = two_functions(style.thing, style.inputs)
    if functions is None:
        return None
    f, derivative = functions
    y = called(f, *style.inputs)
    if not is_float(y) and not isinstance(y, float):
        return None
    if is_force(derivative):
        energy = getattr(f, "__name__", "f").replace("<lambda>", "f")
        style = style._replace(note=AS_FORCE.format(name_of_force(derivative), energy))
        derivative = negative(derivative)
    if np.ndim(y) == 0:
        if (by_second := _of_second(f, derivative, style.inputs)) is not None:
            labels = parameters_of(f)[:1]
            return style._replace(thing=f, gradient=by_second, takes_dout=False, data=(*style.data, *labels))
        return style._replace(thing=f, gradient=derivative, takes_dout=False)
    x: Any = style.inputs[0] if style.inputs else None
    slopes = called(derivative, *style.inputs)
    if is_float(x) and is_float(slopes) and np.shape(slopes) == np.shape(y) + np.shape(x) != np.shape(x):
        return style._replace(thing=f, gradient=derivative)  # a Jacobian
    if _is_loss_of_samples(style, derivative, np.asarray(y)):
        return _of_samples(style, f, derivative)
    if not is_float(x) or np.shape(x) != np.shape(y) or len(required_parameters_of(derivative)) > len(style.inputs):
        return None
    of_force = bool(style.note)  # which is one of the positions, never of the energy
    return _elementwise(style, f, derivative, np.asarray(y), may_be_of_output=not of_force)


def _of_second(
    f: Callable[..., Any], derivative: Callable[..., Any], inputs: tuple[Any, ...]
) -> Callable[..., Any] | None:
    """Returns the derivative by the second argument, as of `mse(real, predicted)`, if its sign and the names say so.

    A function of the difference of its arguments has two gradients that differ in sign.
    """
    names, g = parameters_of(f), called(derivative, *inputs)
    if len(names) != 2 or len(inputs) != 2 or not (is_float(g) and all(map(is_float, inputs))):
        return None
    ranks = [label_rank(name) for name in names]
    is_named_so = ranks[0] > ranks[1] or (ranks[0] == ranks[1] and is_prediction_name(names[1]))
    if not is_named_so or not np.shape(g) == np.shape(inputs[0]) == np.shape(inputs[1]):
        return None
    if correlation(f, g, inputs, 0) > -MIN_CORRELATION or correlation(f, g, inputs, 1) < MIN_CORRELATION:
        return None

    def by_second(first: Any, second: Any) -> Any:
        return {names[1]: derivative(first, second)}

    by_second.__name__ = getattr(derivative, "__name__", "derivative")
    by_second.__signature__ = inspect.signature(f)  # type: ignore[attr-defined]
    return by_second


def _is_loss_of_samples(style: Style, derivative: Callable[..., Any], y: np.ndarray) -> bool:
    """Returns whether there is a value for each row or column of the first input, of whose shape the derivative is."""
    x = np.asarray(style.inputs[0]) if style.inputs and is_float(style.inputs[0]) else None
    if x is None or y.size == x.size or len(required_parameters_of(derivative)) > len(style.inputs):
        return False
    by_row = y.shape[:1] == x.shape[:1] and y.size == len(x)
    by_column = x.ndim == 2 and y.shape == (1, x.shape[1])
    if not by_row and not by_column:
        return False
    slopes = called(derivative, *style.inputs)
    return is_float(slopes) and np.shape(slopes) == x.shape


def _of_samples(style: Style, f: Callable[..., Any], derivative: Callable[..., Any]) -> Style:
    """Returns the sum of the losses of samples with its gradient, or their mean if the derivative fits that."""
    x, rest = np.asarray(style.inputs[0], float), style.inputs[1:]
    g = np.asarray(called(derivative, *style.inputs), float)
    h = STEP * max(1.0, float(np.abs(x).max(initial=0))) / max(float(np.linalg.norm(g)), np.finfo(float).tiny)
    ahead, behind = (np.asarray(called(f, x + s * h * g, *rest)) for s in (1, -1))
    count = np.size(ahead)
    slope = float((ahead - behind).sum()) / (2 * h) / count
    if count == 1 or abs(slope - np.vdot(g, g)) > MAX_DIFFERENCE * abs(slope):
        return style._replace(thing=f, gradient=derivative, takes_dout=False)

    @functools.wraps(f)
    def mean(*args: Any) -> Any:
        return np.mean(f(*args))

    name, derived = (getattr(function, "__name__", "f") for function in (f, derivative))
    return style._replace(thing=mean, gradient=derivative, takes_dout=False, note=OF_MEAN.format(derived, name))


def adapt_backward_of_input(style: Style) -> Style | None:
    """Turns an object whose `backward(x)` is the derivative at the input x of `forward(x)` into a function with it.

    Such a backward needs no earlier forward pass. It is told from one that takes an upstream gradient by the name of
    its argument, which is that of forward, and because it is not linear.
    """
    layer: Any = style.thing
    if isinstance(layer, tuple | list | type) or len(style.inputs) != 1 or not is_float(style.inputs[0]):
        return None
    names, takes = (parameters_of(getattr(layer, method, None)) for method in ("forward", "backward"))
    if len(names) != 1 or takes != names or _keeps_arrays(layer, style.inputs[0]):
        return None

    def slope(x: Any) -> Any:
        return duplicate(layer).backward(x)

    def forward(x: Any) -> Any:
        return duplicate(layer).forward(x)

    x = np.asarray(style.inputs[0])
    at_input, at_negative = called(slope, x), called(slope, -2 * x)
    if not (is_float(at_input) and is_float(at_negative)) or np.allclose(at_negative, -2 * np.asarray(at_input)):
        return None
    forward.__name__, slope.__name__ = type(layer).__name__, "backward"
    adapted = _elementwise(style, forward, slope, np.asarray(called(forward, x)), may_be_of_output=False)
    return adapted and adapted._replace(note="; ".join(filter(None, [OF_INPUT, adapted.note])))


def _keeps_arrays(layer: Any, x: Any) -> bool:
    """Returns whether a layer holds arrays after a forward pass, which backward may need."""
    trial = duplicate(layer)
    called(trial.forward, x)
    return any(map(is_float, attributes_of(trial).values()))


def _overwrites(f: Callable[..., Any], inputs: tuple[Any, ...]) -> bool:
    """Returns whether a function writes its result into its input, from which the derivative could not start again."""
    x = np.array(inputs[0])
    return not isinstance(called(lambda *rest: f(x, *rest), *inputs[1:]), Exception) and not np.array_equal(
        x, inputs[0], equal_nan=True
    )


def _on_copies(f: Callable[..., Any]) -> Callable[..., Any]:
    return functools.wraps(f)(lambda x, *rest: f(np.array(x), *rest))


def _elementwise(
    style: Style, f: Callable[..., Any], derivative: Callable[..., Any], y: np.ndarray, *, may_be_of_output: bool = True
) -> Style | None:
    x, rest = np.asarray(style.inputs[0]), style.inputs[1:]
    rest_of_derivative = rest[: max(0, len(parameters_of(derivative)) - 1)]
    of_input, of_output = (called(derivative, value, *rest_of_derivative) for value in (x, y))
    if any(isinstance(v, tuple | list) or np.shape(v) != y.shape for v in (of_input, of_output)):  # or gradients of all
        return None
    h = STEP * max(1.0, float(np.abs(x).max(initial=0)))
    quotient = (np.asarray(called(f, x + h, *rest)) - np.asarray(called(f, x - h, *rest))) / (2 * h)
    is_loss = any(is_float(value) and np.shape(value) == y.shape for value in rest_of_derivative)
    by_output = may_be_of_output and not is_loss and _fit(of_output, quotient) > _fit(of_input, quotient)

    def gradient(x: Any, *rest_and_dout: Any) -> Any:
        *rest, dout = rest_and_dout
        slope = derivative(f(np.array(x), *rest) if by_output else x, *rest[: len(rest_of_derivative)])
        return dout * slope

    name = getattr(f, "__name__", "f")
    notes = [style.note] if style.note else []
    notes += [OF_OUTPUT.format(getattr(derivative, "__name__", "derivative"), name)] if by_output else []
    notes += [ON_COPIES.format(name)] if (overwrites := by_output and _overwrites(f, style.inputs)) else []
    note = "; ".join(notes)
    return style._replace(thing=_on_copies(f) if overwrites else f, gradient=gradient, takes_dout=True, note=note)


def _fit(values: Any, quotient: np.ndarray) -> tuple[int, float]:
    """Returns the number of elements that agree, and minus the median error of all: kinks are few.

    A piecewise function may have a half on which both readings agree, as where it is linear, so the median is second.
    """
    errors = np.abs(np.asarray(values, float) - quotient)
    agreeing = errors <= AGREEMENT * np.maximum(1.0, np.abs(quotient))
    return int(agreeing.sum()), -float(np.median(np.where(np.isfinite(errors), errors, np.inf)))


def _flagged(function: Any, own: Any, flag: str, setting: bool) -> Callable[..., Any]:
    """Returns a function whose flag is set, with the signature of the one that a decorator may hide."""
    inputs = [parameter for parameter in positional(own) if parameter.name != flag]

    @functools.wraps(own)
    def flagged(*args: Any) -> Any:
        return function(*args, **{flag: setting})

    flagged.__signature__ = inspect.Signature(inputs)  # type: ignore[attr-defined]
    return flagged


def two_functions(thing: Any, inputs: tuple[Any, ...]) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """Returns a function and its derivative: a pair, two methods, or one function with a flag; None for other code.

    Args:
        thing: The pair, object, class or function.
        inputs: The inputs of the function, with which a flag without a known name is tried.
    """
    if isinstance(thing, tuple | list):
        return (thing[0], thing[1]) if len(thing) == 2 and all(map(callable, thing)) else None
    if isinstance(thing, type):
        return _static_methods(thing)
    if callable(getattr(thing, "backward", None)):
        return None
    own = undecorated(thing)
    flag = _flag(thing, own, inputs) if callable(thing) else None
    if flag is not None:
        return _flagged(thing, own, flag, False), _flagged(thing, own, flag, True)
    if hasattr(thing, "params") and hasattr(thing, "loss"):
        return None
    values, slopes = (
        [name for name in names if has_method(thing, name) or _holds_function(thing, name)]
        for names in ((*VALUES, *filter(LOSS.fullmatch, dir(type(thing)))), DERIVATIVES)
    )
    value, derivative_name = next(iter(values), None), next(iter(slopes), None)
    if len(slopes) > 1:  # one may say that it is not for this class
        runs = (name for name in slopes if not isinstance(called(getattr(duplicate(thing), name), *inputs), Exception))
        derivative_name = next(runs, derivative_name)
    derivative_name = derivative_name or _only_derivative(thing) or _force_of(thing, value)
    value = value or (_only_value(thing, derivative_name, inputs) if derivative_name else None)
    if derivative_name is None and (of_leibniz := _quotient(thing)) is not None:
        value, derivative_name = of_leibniz
    if value is None or derivative_name is None:
        return None
    return _methods(thing, value, derivative_name)


def _methods(thing: Any, value: str, derivative: str) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """Returns two methods as a function and its derivative; None if the second one is a backward pass.

    A loss may take an upstream gradient that it does not need, `gradient(prev_grad=None)`.
    """
    f, slope = getattr(thing, value), getattr(thing, derivative)
    if takes_upstream(slope) and required_parameters_of(slope):
        return None
    return (f, _after(thing, value, derivative)) if not parameters_of(slope) or takes_upstream(slope) else (f, slope)


def _holds_function(thing: Any, name: str) -> bool:
    return isinstance(attributes_of(thing).get(name), FunctionType)


def _force_of(thing: Any, value: str | None) -> str | None:
    """Returns the name of the only method that is named after a force and takes what an energy takes."""
    if value is None:
        return None
    takes = required_parameters_of(getattr(thing, value))
    named = [name for name in dir(type(thing)) if FORCE.fullmatch(name) and has_method(thing, name)]
    forces = [name for name in named if required_parameters_of(getattr(thing, name)) == takes]
    return forces[0] if len(forces) == 1 else None


def _only_derivative(thing: Any) -> str | None:
    """Returns the name of the only method that speaks of a derivative, as `compute_grad`; None if there are several."""
    named = [name for name in dir(type(thing)) if not name.startswith("_") and DERIVATIVE.search(name)]
    names = [name for name in named if has_method(thing, name)]
    return names[0] if len(names) == 1 else None


def _quotient(thing: Any) -> tuple[str, str] | None:
    """Returns the only method that is named as a differential, or a quotient of them: `y` and `dydx`, `f` and `df`."""
    names = {name for name in dir(type(thing)) if not name.startswith("_") and has_method(thing, name)}
    named = [(match, name) for name in names if (match := QUOTIENT.fullmatch(name))]
    matches = [(value, name) for match, name in named for value in {*match.groups()} & names]
    return matches[0] if len(matches) == 1 else None


def _only_value(thing: Any, derivative: str, inputs: tuple[Any, ...]) -> str | None:
    """Returns the name of the method with the arguments of a derivative that returns a number: `objective`.

    Of several, it is the one that the derivative is named after: `log_prob` beside `grad_log_prob`. If there is none,
    it is the only one whose elements change as the derivative says, as `act` beside `derivative`.
    """
    takes = required_parameters_of(getattr(thing, derivative))
    if len(takes) != len(inputs):
        return None
    named = [name for name in dir(type(thing)) if not name.startswith("_") and name != derivative]
    alike = [
        name for name in named if has_method(thing, name) and required_parameters_of(getattr(thing, name)) == takes
    ]
    values = [name for name in alike if isinstance(called(getattr(duplicate(thing), name), *inputs), float)]
    meant = [name for name in values if name in derivative] if len(values) > 1 else values
    if not values and len(inputs) == 1 and is_float(inputs[0]):
        slope = getattr(thing, derivative)
        others = [name for name in alike if not DERIVATIVE.search(name)]
        meant = [name for name in others if _is_slope(slope, getattr(thing, name), inputs[0])]
    return meant[0] if len(meant) == 1 else None


def _flag(function: Any, own: Any, inputs: tuple[Any, ...]) -> str | None:
    """Returns the parameter that turns a function into its derivative: by name, or one with the default False.

    With the latter, the values follow the difference quotients of the function, and are not those of the function.
    """
    parameters = positional(own)
    if (known := next((p.name for p in parameters if p.name in FLAGS), None)) is not None:
        return known
    if len(inputs) != 1 or not is_float(inputs[0]):
        return None
    switches = [p.name for p in parameters if p.default is False]
    return next(
        (name for name in switches if _is_slope(_flagged(function, own, name, True), function, inputs[0])), None
    )


def _is_slope(derivative: Callable[..., Any], f: Callable[..., Any], x: Any) -> bool:
    """Returns whether the values of a function follow the quotients of another one, element by element."""
    x = np.asarray(x)
    h = STEP * max(1.0, float(np.abs(x).max(initial=0)))
    y, slopes, ahead, behind = called(f, x), called(derivative, x), called(f, x + h), called(f, x - h)
    if any(not is_float(values) or np.shape(values) != x.shape for values in (y, slopes, ahead, behind)):
        return False
    quotients = (np.asarray(ahead) - np.asarray(behind)) / (2 * h)
    size = float(np.linalg.norm(quotients) * np.linalg.norm(slopes))
    follows = size > 0 and abs(float(np.vdot(quotients, slopes))) > MIN_CORRELATION * size
    return follows and not np.allclose(y, slopes)


def _static_methods(kind: type) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """Returns a function and its derivative that a class without state holds as static methods."""
    held = {name for base in kind.__mro__ for name, value in vars(base).items() if isinstance(value, staticmethod)}
    value, derivative = (
        next((getattr(kind, name) for name in names if name in held), None)
        for names in (("forward", *VALUES), ("backward", *DERIVATIVES))
    )
    if value is None or derivative is None or len(parameters_of(value)) != len(parameters_of(derivative)):
        return None
    return (value, derivative) if "ctx" not in parameters_of(value) else None


def _after(thing: Any, value: str, derivative: str) -> Callable[..., Any]:
    """Returns the derivative of an object that remembers its inputs: `loss(a, y)`, and then `loss.gradient()`."""

    def gradient(*args: Any) -> Any:
        copied = duplicate(thing)
        getattr(copied, value)(*args)
        return getattr(copied, derivative)()

    gradient.__name__ = derivative
    gradient.__signature__ = inspect.signature(getattr(thing, value))  # type: ignore[attr-defined]
    return gradient
