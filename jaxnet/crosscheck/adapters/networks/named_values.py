"""Adapts models whose methods pass values on by name: `xs, hs, ps = forward(...)`, `backward(xs, hs, ps, targets)`.

The names of what forward returns are read in its source. `loss(ps, targets)` takes some of them too, or the loss is the
only number among them. A name that is neither input nor output of forward is an input after those. Backward returns
gradients by the names of parameters, which are attributes or the entries of a dict.
"""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.functions.bound_arguments import UPSTREAM
from jaxnet.crosscheck.adapters.methods import adapt as named_as_layers_are
from jaxnet.crosscheck.adapters.methods import value_method
from jaxnet.crosscheck.adapters.style import Style, called, parameters_of, required_parameters_of
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.returned_names import owners_of_returned, returned_names
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES, is_parameter_name
from jaxnet.crosscheck.inspect.trees import distinct, is_float

NOTE = "backward of {} is checked as the gradient of {} with respect to the parameters whose gradients it returns: {}"
Values = dict[str, Any]


def adapt(style: Style) -> Style | None:
    """Turns such a model into a function of its parameters and inputs, and the gradient of that."""
    style = named_as_layers_are(style) or style
    model: Any = style.thing
    if isinstance(model, tuple | list | type) or not all(map(callable, _passes(model))):
        return None
    value = value_method(model) or _number_among_outputs(style)
    names = _names(style, value) if value is not None else []
    values = called(lambda: _passed(duplicate(model), names, style.inputs)) if names else None
    if value is None or not isinstance(values, dict) or not _is_number(called(lambda: _value(model, value, values))):
        return None
    gradients, held = _gradients(model, values), _held(model)
    arrays = {n: a for n, a in held.items() if n in gradients or (is_float(a) and is_parameter_name(n))}
    if not gradients or any(np.shape(gradients[name]) != np.shape(held[name]) for name in gradients):
        return None

    def opened(params: Mapping[str, Any]) -> Any:
        copied = duplicate(model, {id(array): params[name] for name, array in arrays.items() if is_float(array)})
        for name in (name for name, array in arrays.items() if not is_float(array)):
            setattr(copied, name, params[name])
        return copied

    def loss(params: Any, *inputs: Any) -> Any:
        copied = opened(params)
        return np.asarray(_value(copied, value, _passed(copied, names, inputs)), float).sum()

    def gradient(params: Any, *inputs: Any) -> Any:
        copied = opened(params)
        found = _gradients(copied, _passed(copied, names, inputs))
        return {name: found[name] for name in params if name in found}

    loss.__name__ = value
    note = NOTE.format(type(model).__name__, value, ", ".join(gradients))
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in distinct(["params", *names])])
    loss.__signature__ = gradient.__signature__ = signature  # type: ignore[attr-defined]
    params = {name: np.array(array, float) for name, array in arrays.items()}
    return style._replace(thing=loss, inputs=(params, *style.inputs), gradient=gradient, takes_dout=False, note=note)


def _passes(model: Any) -> list[Any]:
    return [getattr(model, name, None) for name in ("forward", "backward")]


def _held(model: Any) -> Values:
    """Returns the parameters that a model may hold: attributes, plain numbers too, and the entries of dicts."""
    held: Values = {}
    for name, value in attributes_of(model).items():
        if is_float(value) or (isinstance(value, int | float) and not isinstance(value, bool)):
            held[name] = value
        elif isinstance(value, Mapping):
            held |= {key: part for key, part in value.items() if isinstance(key, str) and is_float(part)}
    return held


def _number_among_outputs(style: Style) -> str | None:
    """Returns the name of the only number among what forward returns, as of `return logits, loss, cache`."""
    model: Any = style.thing
    result = called(duplicate(model).forward, *style.inputs)
    outputs = _outputs(model, result) if isinstance(result, tuple) else {}
    numbers = [name for name, value in outputs.items() if isinstance(value, float | np.floating)]
    return numbers[0] if len(numbers) == 1 else None


def _value(model: Any, value: str, values: Values) -> Any:
    """Returns the loss: an output of forward, or what the method of this name computes."""
    return (
        values[value]
        if value in values and not callable(getattr(model, value, None))
        else _called(model, value, values)
    )


def _names(style: Style, value: str) -> list[str]:
    """Returns the names of all inputs: those of forward, and then those that the other methods take besides; or none.

    Backward must take something that forward returns, and nothing that may be an upstream gradient.
    """
    model: Any = style.thing
    takes = [*required_parameters_of(getattr(model, value, None)), *required_parameters_of(model.backward)]
    own = parameters_of(model.forward)
    outputs = _outputs(model, called(duplicate(model).forward, *style.inputs[: len(own)]))
    others = list(dict.fromkeys(name for name in takes if name not in (*own, *outputs)))
    is_passed_on = any(name in outputs for name in required_parameters_of(model.backward))
    may_have_dout = any(UPSTREAM.fullmatch(name) for name in others)
    is_complete = len(own) + len(others) == len(style.inputs)
    return [*own, *others] if is_passed_on and is_complete and not may_have_dout else []


def _passed(model: Any, names: list[str], inputs: tuple[Any, ...]) -> Values:
    """Runs the forward pass, and returns its inputs and outputs by name."""
    result = model.forward(*inputs[: len(parameters_of(model.forward))])
    return dict(zip(names, inputs, strict=True)) | _outputs(model, result)


def _outputs(model: Any, result: Any) -> Values:
    if isinstance(result, Exception) or result is None:
        return {}
    kind: Any = type(model)
    parts = result if isinstance(result, tuple | list) else (result,)
    return dict(zip(_names_of_outputs(kind, len(parts)), parts, strict=False))


@functools.lru_cache(maxsize=16)
def _names_of_outputs(kind: Any, count: int) -> list[str]:
    return returned_names(kind.forward, count, kind)


@functools.lru_cache(maxsize=16)
def _owners(kind: Any, count: int, names: tuple[str, ...]) -> list[str]:
    return owners_of_returned(kind.backward, count, names, kind)


def _called(model: Any, method: str, values: Values) -> Any:
    function = getattr(model, method)
    return function(**{name: values[name] for name in parameters_of(function) if name in values})


def _gradients(model: Any, values: Values) -> Values:
    """Returns the gradients that backward returns, by the names of the attributes that they belong to."""
    returned = called(lambda: _called(duplicate(model), "backward", values))
    names = list(_held(model))
    if isinstance(returned, Mapping):
        forms = {form.format(name): name for name in names for form in ("{}", *GRADIENT_NAMES)}
        return {forms[key]: gradient for key, gradient in returned.items() if key in forms}
    if not isinstance(returned, tuple | list):
        return {}
    kind: Any = type(model)
    return dict(zip(_owners(kind, len(returned), tuple(names)), returned, strict=False))


def _is_number(total: Any) -> bool:
    return not isinstance(total, Exception) and is_float(np.asarray(total)) and np.size(total) == 1
