"""Adapts losses whose `backward(y_pred, y_true)` takes predictions and labels again, as `forward(y_pred, y_true)` does.

A backward may also take the labels alone, `backward(y_true)`, under the name that they have in forward.

The first argument of such a backward is often called `dvalues`, as if it were an upstream gradient. Difference
quotients tell what it is: the predictions, or the output that forward has stored.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.functions.loss_and_gradients import follows_change
from jaxnet.crosscheck.adapters.methods import adapt as named_as_layers_are
from jaxnet.crosscheck.adapters.style import Style, called, has_method, of_class, parameters_of, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES, is_label_name, label_rank
from jaxnet.crosscheck.inspect.signatures import positional, takes_any_number
from jaxnet.crosscheck.inspect.trees import is_float
from jaxnet.crosscheck.inspect.trial_run import INPUT_GRADIENT_ATTRIBUTES

OUTPUTS = ("output", "outputs", "out", "probs", "y")
TOTALS = ("calculate", "compute", "loss")
MAX_DIFFERENCE = 1e-3  # relative, of the gradient of a sum of losses from their number times the mean's
LABELS_ALONE = "backward takes labels alone, no upstream gradient, and is checked as the gradient of the {} loss"
NOTE = "backward takes {} and labels, no upstream gradient, and is checked as the gradient of the {} loss"


def adapt(style: Style) -> Style | None:
    """Turns a loss into a function of predictions and labels, and its backward into the gradient."""
    if not hasattr(style.thing, "forward"):
        style = named_as_layers_are(style) or style
    style = _first_output(_predictions_first(style))
    loss, inputs = style.thing, style.inputs
    if isinstance(loss, tuple | list | type) or len(inputs) != 2 or not is_float(inputs[0]):
        return None
    if isinstance(inputs[1], bool):  # a switch, such as `training`, and no label
        return None
    names, takes = _arguments_of_both(loss)
    backward: Any = getattr(loss, "backward", None)
    if not takes and callable(backward) and takes_any_number(backward):
        takes = names[:2]  # a base class passes `*args` on
    if len(names) < 2 or len(takes) != 2 or not (takes[1] == names[1] or is_label_name(takes[1])):
        return None
    losses = called(duplicate(loss).forward, *inputs)
    if not isinstance(losses, float | np.ndarray | np.floating):
        return None
    mean = _value(loss, inputs)
    for source in ("predictions", *OUTPUTS):
        gradient = _gradient(loss, names[0], source)
        if follows_change(mean, gradient, inputs):
            is_sum = mean.__name__ == "mean" and _is_of_sum(mean, gradient, inputs, np.size(losses))
            value = _reduced(loss, np.sum, "sum of the") if is_sum else mean
            return _style(style, value, gradient, NOTE.format(source.replace("_", " "), "{}"))
    upstream = np.ones_like(losses)
    if np.shape(_gradient_at(loss, names[0], inputs, lambda _: upstream)) == np.shape(inputs[0]):
        return None  # it takes an upstream gradient
    return _style(style, mean, _gradient(loss, names[0], "predictions"), NOTE.format("predictions", "{}"))


def adapt_labels_alone(style: Style) -> Style | None:
    """Turns a loss whose backward takes the labels alone into a function and its gradient.

    Such a backward can be called with an upstream gradient too, but the name of its argument is one of forward's.
    """
    loss: Any = style.thing
    if isinstance(loss, tuple | list | type) or len(style.inputs) != 2:
        return None
    names, takes = (parameters_of(getattr(loss, method, None)) for method in ("forward", "backward"))
    if len(names) != 2 or len(takes) != 1 or takes[0] not in names:
        return None
    place = names.index(takes[0])

    def ordered(y_pred: Any, y_true: Any) -> tuple[Any, Any]:
        return (y_true, y_pred) if place == 0 else (y_pred, y_true)

    def value(y_pred: Any, y_true: Any) -> Any:
        return np.mean(duplicate(loss).forward(*ordered(y_pred, y_true)))

    def gradient(y_pred: Any, y_true: Any) -> Any:
        copied = duplicate(loss)
        copied.forward(*ordered(y_pred, y_true))
        return copied.backward(y_true)

    def total(y_pred: Any, y_true: Any) -> Any:
        return np.sum(duplicate(loss).forward(*ordered(y_pred, y_true)))

    inputs = style.inputs[::-1] if place == 0 else style.inputs
    value.__name__, total.__name__ = "mean", "sum of the"
    if not is_float(inputs[0]) or not follows_change(value, gradient, inputs):
        return None
    count = np.size(called(duplicate(loss).forward, *style.inputs))
    reduced = total if _is_of_sum(value, gradient, inputs, count) else value
    return _style(style._replace(inputs=inputs), reduced, gradient, LABELS_ALONE)


def _predictions_first(style: Style) -> Style:
    """Exchanges the two arguments of a loss that takes labels first in both passes: `forward(y_true, y_pred)`."""
    kind: Any = type(style.thing)
    names, takes = _arguments_of_both(style.thing)
    if len(names) != 2 or takes != names or len(style.inputs) != 2 or label_rank(names[0]) <= label_rank(names[1]):
        return style

    def exchanged(method: str) -> Callable[..., Any]:
        return lambda self, y_pred, y_true: getattr(kind, method)(self, y_true, y_pred)

    methods = [name for name in ("forward", "backward", *TOTALS) if has_method(style.thing, name)]
    thing = with_methods(style.thing, {name: exchanged(name) for name in methods})
    return style._replace(thing=thing, inputs=style.inputs[::-1])


def _first_output(style: Style) -> Style:
    """Makes a loss that returns further values, `return loss, probs`, return the number alone."""
    names, takes = _arguments_of_both(style.thing)
    if isinstance(style.thing, tuple | list | type) or len(style.inputs) != 2 or len(names) != 2 or takes != names:
        return style
    returned = called(duplicate(style.thing).forward, *style.inputs)
    if not isinstance(returned, tuple) or not isinstance(returned[0], float | np.floating):
        return style
    kind: Any = type(style.thing)

    def forward(self: Any, y_pred: Any, y_true: Any) -> Any:
        with of_class(self, kind):
            return kind.forward(self, y_pred, y_true)[0]

    def backward(self: Any, y_pred: Any, y_true: Any) -> Any:
        with of_class(self, kind):  # it may call forward again
            return kind.backward(self, y_pred, y_true)

    forward.__signature__ = inspect.signature(kind.forward)  # type: ignore[attr-defined]
    backward.__signature__ = inspect.signature(kind.backward)  # type: ignore[attr-defined]
    return style._replace(thing=with_methods(style.thing, {"forward": forward, "backward": backward}))


def _arguments_of_both(loss: Any) -> tuple[list[str], list[str]]:
    """Returns the names of the arguments of forward and backward, without settings such as `epsilon=1e-8`."""
    methods: list[Any] = [getattr(loss, name, None) for name in ("forward", "backward")]
    names, takes = ([p.name for p in positional(method) if not isinstance(p.default, float)] for method in methods)
    return names, takes


def _style(style: Style, value: Callable[..., Any], gradient: Callable[..., Any], note: str) -> Style:
    """Returns the style of a function and its gradient; the note has a place for the name of the reduction."""
    kind = type(style.thing).__name__
    reduction, value.__name__ = value.__name__, kind
    return style._replace(
        thing=value,
        gradient=gradient,
        takes_dout=False,
        note=note.format(reduction),
    )


def _value(loss: Any, inputs: tuple[Any, ...]) -> Callable[..., Any]:
    """Returns the loss as a number: by the method that averages, or as the mean of what forward returns."""
    for method in TOTALS:
        if callable(getattr(loss, method, None)):
            total = called(getattr(duplicate(loss), method), *inputs)
            if isinstance(total, float | np.floating):

                def value(y_pred: Any, y_true: Any, method: str = method) -> Any:
                    return getattr(duplicate(loss), method)(y_pred, y_true)

                value.__name__ = method
                return value
    return _reduced(loss, np.mean, "mean")


def _reduced(loss: Any, reduce: Callable[..., Any], name: str) -> Callable[..., Any]:
    def value(y_pred: Any, y_true: Any) -> Any:
        return reduce(duplicate(loss).forward(y_pred, y_true))

    value.__name__ = name
    return value


def _gradient(loss: Any, name: str, source: str) -> Callable[..., Any]:
    def gradient(y_pred: Any, y_true: Any) -> Any:
        def first(copied: Any) -> Any:
            return y_pred if source == "predictions" else getattr(copied, source)

        return _run(loss, name, (y_pred, y_true), first)

    return gradient


def _gradient_at(loss: Any, name: str, inputs: tuple[Any, ...], first: Callable[[Any], Any]) -> Any:
    return called(lambda *args: _run(loss, name, args, first), *inputs)


def _run(loss: Any, name: str, inputs: tuple[Any, ...], first: Callable[[Any], Any]) -> Any:
    """Runs both passes on a copy, and returns the gradient of the predictions, returned or stored."""
    copied = duplicate(loss)
    copied.forward(*inputs)
    returned = copied.backward(first(copied), inputs[1])
    if returned is not None:
        return returned
    places = (*(form.format(name) for form in GRADIENT_NAMES), *INPUT_GRADIENT_ATTRIBUTES)
    return next((getattr(copied, place) for place in places if is_float(getattr(copied, place, None))), None)


def _is_of_sum(value: Callable[..., Any], gradient: Callable[..., Any], inputs: tuple[Any, ...], count: int) -> bool:
    """Returns whether a gradient is that of the sum of so many losses, and not of their mean."""
    x, h = np.asarray(inputs[0], np.float64), 2.0**-16
    g = np.asarray(gradient(*inputs), np.float64)
    ends = [float(value(x + s * h * g, inputs[1])) for s in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * h)
    return count > 1 and bool(abs(np.vdot(g, g) - count * slope) <= MAX_DIFFERENCE * abs(count * slope))
