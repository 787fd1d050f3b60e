"""Layers whose backward updates the parameters itself, at a learning rate or by an optimizer.

The rate is an argument, `backward(dout, learning_rate)`, or an attribute, `self.lr`. An optimizer that is an argument,
`backward(dout, optimizer)`, is made of a class of plain gradient descent that belongs to the layer's code.
"""

import inspect
import re
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.plain_descent import RATES, describe_optimizer, plain_optimizer
from jaxnet.crosscheck.adapters.resets import GRADIENTS
from jaxnet.crosscheck.adapters.style import Style, called, parameters_of, with_methods
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.objects import attributes_of, layers_within
from jaxnet.crosscheck.inspect.stored_gradients import gradients_by_place
from jaxnet.crosscheck.inspect.trees import is_float

OPTIMIZERS = re.compile(r"opt(im(izer|iser)?)?", re.IGNORECASE)
OWN_RATES = re.compile(r"_?((learn(ing)?_?|l_?|training_?)rate|lr|eta|step_?size)", re.IGNORECASE)
HISTORY = re.compile(r"([vms]|vel|velocity|mom|prev)_?d?[A-Zwb]\w*|.*(velocity|momentum|history|accum).*")
DICTS = re.compile(r"_?(params?|parameters|weights)")
RATE = 1.0
NOTE = "gradients are computed from the updates that backward makes at a learning rate of 1"
NO_OPTIMIZER = (
    "{0}.{1}: takes {3}, and no class of gradient descent was loaded with {0} to make one of; pass a subclass that "
    "takes a rate, with your own optimizer: class Checked({0}): backward = lambda self, {2}, learning_rate: "
    "{0}.{1}(self, {2}, SGD(learning_rate))"
)
Backward = Callable[..., Any]


def adapt(style: Style) -> Style | None:
    """Computes the gradients of the parameters from their updates, and undoes the updates."""
    layer = style.thing
    if isinstance(layer, type) or not callable(getattr(layer, "backward", None)):
        return None
    run = _at_rate_of_one(layer)
    return adapt_own_rate(style) if run is None else _adapted(style, *run)


def adapt_own_rate(style: Style) -> Style | None:
    """Does so for a layer whose backward updates at a rate of its own, and stores no gradients of what it updates."""
    layer = style.thing
    if isinstance(layer, type) or not all(callable(getattr(layer, name, None)) for name in ("forward", "backward")):
        return None
    kind: Any = type(layer)
    attributes = attributes_of(layer).items()
    rates = [n for n, v in attributes if OWN_RATES.fullmatch(n) and isinstance(v, float | np.floating)]
    if len(parameters_of(layer.backward)) > 1 or len(rates) != 1 or not _updates(style):
        return None

    def backward(self: Any, *dout: Any) -> Any:
        rate = getattr(self, rates[0])
        setattr(self, rates[0], RATE)
        try:
            return kind.backward(self, *dout)
        finally:
            setattr(self, rates[0], rate)

    return _adapted(style, backward, NOTE)


def _adapted(style: Style, run: Backward, note: str) -> Style:
    layer = style.thing

    def backward(self: Any, *dout: Any) -> Any:
        before = [(layer, held, name, held[name], np.copy(held[name])) for layer, held, name in _arrays(self)]
        dx = run(self, *dout)
        after = [np.copy(held[name]) for _, held, name, _, _ in before]
        for (layer, held, name, array, old), new in zip(before, after, strict=True):
            if new.shape == old.shape and not np.array_equal(new, old, equal_nan=True):
                array[...] = old
                held[name] = array
                if not HISTORY.fullmatch(name):
                    setattr(layer, f"d{name}", (old - new) / RATE)
        return dx

    names = ["self", *parameters_of(layer.backward)[:1]]
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in names]
    backward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    note = "; ".join(filter(None, (style.note, note)))
    return style._replace(thing=with_methods(layer, {"backward": backward}), note=note)


def _at_rate_of_one(layer: Any) -> tuple[Backward, str] | None:
    """Returns the backward at a learning rate of 1, as a function of the layer and of dout, and a note on it."""
    kind: Any = type(layer)
    takes = parameters_of(layer.backward)
    if len(takes) == 2 and RATES.fullmatch(takes[1]):
        return (lambda self, dout: kind.backward(self, dout, RATE)), NOTE
    if len(takes) != 2 or not OPTIMIZERS.fullmatch(takes[1]):
        return None
    make = plain_optimizer(kind.backward, takes[1])
    if make is None:
        name = getattr(inspect.unwrap(kind.backward), "__name__", "backward")
        raise SubjectError(NO_OPTIMIZER.format(kind.__name__, name, *takes))
    return (lambda self, dout: kind.backward(self, dout, make())), f"{NOTE}, by {describe_optimizer(make)}"


def _updates(style: Style) -> bool:
    """Returns whether backward changes arrays of a layer, and stores no gradient of one of them."""
    trial: Any = duplicate(style.thing)
    y = called(trial.forward, *style.inputs)
    before = [(held, name, np.copy(held[name])) for _, held, name in _arrays(trial)]
    takes_dout = bool(parameters_of(trial.backward))
    if isinstance(y, Exception) or isinstance(called(trial.backward, *([y] if takes_dout else [])), Exception):
        return False
    changed = {name for held, name, old in before if name in held and not np.array_equal(held[name], old)}
    stored = {name.rpartition(".")[2] for name, gradient in gradients_by_place(trial, ()).items() if is_float(gradient)}
    return bool(changed) and not changed & stored and not any(map(GRADIENTS.fullmatch, changed))


def _arrays(whole: Any) -> Iterator[tuple[Any, MutableMapping[str, Any], str]]:
    """Yields the float arrays of a layer and of those within it, in attributes and in dicts of parameters.

    Yields the layer, the mapping that holds the array (its attributes or a dict), and the name in it.
    """
    for _, layer in layers_within(whole):
        for name, value in attributes_of(layer).items():
            if is_float(value) and not RATES.fullmatch(name):
                yield layer, vars(layer), name
            elif isinstance(value, MutableMapping) and DICTS.fullmatch(name):
                yield from ((layer, value, key) for key, part in value.items() if is_float(part))
