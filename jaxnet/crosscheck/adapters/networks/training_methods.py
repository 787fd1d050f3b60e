"""Adapts networks whose backward pass is part of `fit(X, y)`, `train_step(X, y, lr)` or `gradients(X, y)`.

Such a method, run for one epoch on all samples, takes the place of a backward pass that starts from labels. If it
updates after each sample, it is run on the first one alone. If it returns its loss, that is the cost.
"""

import contextlib
import functools
import io
import re
from collections.abc import Callable, Iterator
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.methods import names_of
from jaxnet.crosscheck.adapters.networks import found_costs, outside_costs, standard_costs
from jaxnet.crosscheck.adapters.optimizers.plain_descent import COUNTS, RATES
from jaxnet.crosscheck.adapters.style import (
    Style,
    called,
    has_method,
    of_class,
    parameters_of,
    with_methods,
    with_parameters,
)
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of, walk
from jaxnet.crosscheck.inspect.role_heuristics import is_prediction_name
from jaxnet.crosscheck.inspect.signatures import positional
from jaxnet.crosscheck.inspect.trees import is_float

TRAINING = re.compile(
    r"(compute_|calc(ulate)?_|get_)?(train|fit|learn|update|step|optimi[sz]e|grad(ient)?s?|backward)(_\w+)?"
    r"|entrenar|ajustar|treinar|entra[iî]ner|addestra|trainiere\w*|lernen?"
    r"|(\w+_)(step|grads?|gradients?|descent|update)|(\w+_)?(loss|cost|value|objective)_and_\w+|forward_(and_)?back\w*",
    re.IGNORECASE,
)
ONCE = re.compile(
    r"(n|num|max)?_?(epochs?|iter(ation)?s?|steps?)|(epochs?|iter(ation)?s?|steps?)_?(n|num|count)?"
    r"|\w+_(epochs?|iter(ation)?s?)"
)
LABELS = re.compile(r"([yt]|labels?|targets?|classes|\w+_(y|labels?|targets?|classes))(_\w+)?", re.IGNORECASE)
SILENT = re.compile(r"verbose|shuffle|print_\w+|log_\w+|plot\w*|show\w*|debug")
NOTE = "{0} of {1} is run once, on {2}, as its backward pass"
OUTPUT = "the output"
EFFECTS = found_costs.EFFECTS - {"print", "write"}


def adapt(style: Style) -> Style | None:
    """Makes a backward pass of the first such method whose gradients are found, with its cost."""
    net: Any = style.thing
    if isinstance(net, FunctionType | MethodType | type | tuple | list) or len(style.inputs) != 2:
        return None
    forward, _ = names_of(net)
    if (
        not forward
        or found_costs.passes_from_labels(style) is not None
        or not any(is_float(part) and np.ndim(part) for _, part in walk(net))
    ):
        return None
    for name in _training_methods(net, forward):
        for inputs, words in _samples(style.inputs):
            if (found := _adapted(style._replace(inputs=inputs), name, forward)) is not None:
                return found._replace(note=f"{NOTE.format(name, type(net).__name__, words)}; {found.note}")
    return None


def _samples(inputs: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yields the samples and labels, and the first of them alone, after each of which a method may update."""
    yield inputs, "all samples"
    x, t = inputs
    if np.ndim(x) > 1 and np.ndim(t) and 1 < len(x) == len(t):
        yield (x[:1], t[:1]), "the first sample"


def _adapted(style: Style, name: str, forward: str) -> Style | None:
    """Returns a network with a method as its backward pass, and with its own cost, one that fits, or a usual one."""
    net: Any = style.thing
    backward, own_loss = _as_backward(net, name, forward), _own_loss(net, name, forward)
    adapted = style._replace(thing=with_methods(net, {"backward": backward}))
    with_loss = style._replace(thing=with_methods(net, {"backward": backward, "own_loss": own_loss}))
    return outside_costs.adapt_own_cost(adapted) or found_costs.adapt(with_loss) or standard_costs.adapt(adapted)


def _training_methods(net: Any, forward: str) -> Iterator[str]:
    """Yields the names of the methods that take samples and labels, and otherwise what has a known value."""
    named = [name for name in dir(type(net)) if TRAINING.fullmatch(name) and name != forward and has_method(net, name)]
    for name in named:
        method = getattr(net, name)
        if _arguments(method) is not None and not found_costs.reaches(method, type(net), EFFECTS):
            yield name


def _arguments(method: Any) -> tuple[str, str, list[str], dict[str, Any]] | None:
    """Returns the names of samples, labels and learning rates, and the values of other arguments; None if unknown.

    The value `len` stands for the number of samples, and OUTPUT for what forward returns.
    """
    data: list[str] = []
    rates, fixed = list[str](), dict[str, Any]()
    for parameter in positional(method):
        name, is_optional = parameter.name, parameter.default is not parameter.empty
        if RATES.fullmatch(name):
            rates.append(name)
        elif ONCE.fullmatch(name):
            fixed[name] = 1
        elif COUNTS.fullmatch(name):
            fixed[name] = len
        elif SILENT.fullmatch(name):
            fixed[name] = False
        elif is_prediction_name(name) and not is_optional:
            fixed[name] = OUTPUT
        elif not is_optional:
            data.append(name)
    return (data[0], data[1], rates, fixed) if len(data) == 2 and LABELS.fullmatch(data[1]) else None


def set_own_epochs(net: Any, epochs: int) -> None:
    """Sets the attributes of a network that are numbers of epochs or steps above 1, such as `n_iters`."""
    for attribute, value in attributes_of(net).items():
        if ONCE.fullmatch(attribute) and isinstance(value, int) and value > 1:
            setattr(net, attribute, epochs)


def _run(net: Any, kind: type, name: str, x: Any, t: Any, rates: dict[str, Any]) -> Any:
    """Runs a method of a network for one epoch, without what it prints. The network is changed."""
    set_own_epochs(net, 1)
    samples, labels, _, fixed = _arguments(getattr(net, name)) or ("", "", [], {})
    values = {key: len(x) if value is len else value for key, value in fixed.items()}
    if OUTPUT in fixed.values():
        output = getattr(net, names_of(net)[0])(x)
        values |= {key: output for key, value in fixed.items() if value is OUTPUT}
    with of_class(net, kind), contextlib.redirect_stdout(io.StringIO()):
        return getattr(net, name)(**{samples: x, labels: t}, **values, **rates)


def _as_backward(net: Any, name: str, forward: str) -> Callable[..., Any]:
    """Returns a backward pass that runs a method of a network."""
    samples, labels, rates = _names(net, name, forward)
    kind = type(net)

    @functools.wraps(getattr(kind, name))
    def backward(self: Any, *data: Any, **named: Any) -> Any:
        values = dict(zip([samples, labels, *rates], data, strict=False)) | named
        return _run(self, kind, name, values.pop(samples), values.pop(labels), values)

    return with_parameters(backward, ["self", samples, labels, *rates])


def _own_loss(net: Any, name: str, forward: str) -> Callable[..., Any]:
    """Returns a cost of samples and labels: the number that a method returns, or the first of those of all epochs."""
    samples, labels, rates = _names(net, name, forward)
    kind = type(net)

    def own_loss(self: Any, *data: Any, **named: Any) -> Any:
        x, t = (*data, *named.values())
        result = called(lambda: _run(duplicate(self), kind, name, x, t, dict.fromkeys(rates, 0.0)))
        parts = result if isinstance(result, tuple | list) else [result]
        numbers = [part for part in parts if isinstance(part, float | np.floating)]
        return numbers[0] if numbers else np.nan

    own_loss.__name__ = "the loss that it returns"
    return with_parameters(own_loss, ["self", samples, labels])


def _names(net: Any, name: str, forward: str) -> tuple[str, str, list[str]]:
    """Returns names by which the samples are known as the input of forward, and the labels as such; and the rates."""
    _, labels, rates, _ = _arguments(getattr(net, name)) or ("", "", [], {})
    labels = labels if outside_costs.is_of_labels(labels) else "labels"
    return parameters_of(getattr(net, forward))[0], labels, rates
