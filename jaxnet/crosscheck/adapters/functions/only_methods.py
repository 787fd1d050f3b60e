"""Adapts objects with one method, which returns a loss and its gradient together: `loss.forward_and_backward(x, y)`."""

import functools
import inspect
from typing import Any

from jaxnet.crosscheck.adapters.functions import loss_and_gradients
from jaxnet.crosscheck.adapters.optimizers.plain_descent import RATES
from jaxnet.crosscheck.adapters.style import Style, has_method, parameters_of
from jaxnet.crosscheck.inspect.copying import duplicate

NOTE = "{}.{} is its only method, and is checked"


def adapt(style: Style) -> Style | None:
    """Turns such an object into the function that its method is."""
    thing: Any = style.thing
    if isinstance(thing, tuple | list | type) or callable(thing) or not hasattr(thing, "__dict__"):
        return None
    names = [name for name in dir(type(thing)) if not name.startswith("_") and has_method(thing, name)]
    if len(names) != 1:
        return None
    method = getattr(thing, names[0])
    if any(map(RATES.fullmatch, parameters_of(method))):  # it trains; what it returns beside its loss is a state
        return None

    @functools.wraps(method)
    def function(*args: Any) -> Any:
        return getattr(duplicate(thing), names[0])(*args)

    function.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    adapted = loss_and_gradients.adapt(style._replace(thing=function))
    notes = (adapted.note, NOTE.format(type(thing).__name__, names[0])) if adapted else ()
    return adapted and adapted._replace(note="; ".join(filter(None, notes)))
