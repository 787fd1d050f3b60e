"""Makes an optimizer of somebody's own class of gradient descent, whose updates at a rate of 1 are the gradients."""

import inspect
import os
import re
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

RATES = re.compile(
    r"_?(learn(ing)?_?|l_?|training_?|\w+_)?rates?|_?lr|alpha|eta|step(_?size)?|(tasa|taxa|taux)_\w+", re.IGNORECASE
)
COUNTS = re.compile(r"(mini_?)?batch_?size|(n|num)_?(samples|examples)|[mn]", re.IGNORECASE)
PLAIN = re.compile(r"(vanilla_?|plain_?|stochastic_?)*(sgd|gd|(gradient_?)?descent)(_?optimi[sz]er)?", re.IGNORECASE)


def plain_optimizer(backward: Any, name: str) -> Callable[[], Any] | None:
    """Returns what makes an optimizer of plain gradient descent at a learning rate of 1; None if there is no class.

    Momentum, decay and whatever else has a number as its default are set to 0.

    Args:
        backward: The method that takes an optimizer.
        name: The name of its argument, whose annotation may be a class.
    """
    for kind in _classes(backward, name):
        if PLAIN.fullmatch(kind.__name__) and (options := _options(kind)) is not None:
            make = partial(kind, **options)
            try:
                make()
            except Exception:  # the class expects other values
                continue
            return make
    return None


def describe_optimizer(make: Any) -> str:
    """Returns the call that makes an optimizer: `SGD(lr=1, momentum=0)`."""
    return f"{make.func.__name__}({', '.join(f'{name}={value:g}' for name, value in make.keywords.items())})"


def _classes(backward: Any, name: str) -> Iterator[type]:
    """Yields the classes that may be meant: of the annotation, of the module of backward, and of those beside it."""
    function = inspect.unwrap(backward)
    annotation = inspect.signature(function).parameters[name].annotation
    names = getattr(function, "__globals__", {})
    annotation = names.get(annotation) if isinstance(annotation, str) else annotation
    if isinstance(annotation, type) and annotation is not inspect.Parameter.empty:
        yield from _subclasses(annotation)
    home = os.path.dirname(os.path.abspath(names.get("__file__") or ""))
    beside = [m for m in list(sys.modules.values()) if isinstance(m, types.ModuleType) and _lies_beside(m, home)]
    for values in (names, *map(vars, beside)):
        yield from [value for value in list(values.values()) if isinstance(value, type)]


def _subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    yield kind
    subclasses: list[type[Any]] = kind.__subclasses__()
    for subclass in subclasses:
        yield from _subclasses(subclass)


def _lies_beside(module: types.ModuleType, home: str) -> bool:
    """Returns whether a module is the main one or lies in a folder or in one of its parts."""
    file = getattr(module, "__file__", None)
    return module.__name__ == "__main__" or (bool(file) and os.path.abspath(str(file)).startswith(home + os.sep))


def _options(kind: type) -> dict[str, float] | None:
    """Returns a rate of 1 and zeros for the other numbers that a class takes; None if it takes no rate or more."""
    options: dict[str, float] = {}
    for parameter in inspect.signature(kind).parameters.values():
        default = parameter.default
        if RATES.fullmatch(parameter.name):
            options[parameter.name] = 1.0
        elif isinstance(default, int | float) and not isinstance(default, bool):
            options[parameter.name] = type(default)(0)
        elif default is parameter.empty and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return None
    return options if any(map(RATES.fullmatch, options)) else None
