"""Models whose methods pass values on by name: `forward` returns xs, hs, ps, and backward takes (xs, hs, ps, targets).

The names of what forward returns are read in its source. `loss(ps, targets)` takes some of them too. A name that is
neither input nor output of forward is an input after those. Backward returns gradients by the names of parameters.
"""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.bound_arguments import UPSTREAM
from jaxnet.crosscheck.adapters.methods import value_method
from jaxnet.crosscheck.adapters.style import Style, called, parameters_of, required_parameters_of
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of
from jaxnet.crosscheck.inspect.returned_names import owners_of_returned, returned_names
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES, is_parameter_name
from jaxnet.crosscheck.inspect.trees import distinct, is_float

NOTE = "backward of {} is checked as the gradient of {} by the parameters that it returns gradients of: {}"
Values = dict[str, Any]


def adapt(style: Style) -> Style | None:
    """Turns such a model into a function of its parameters and inputs, and the gradient of that."""
    model: Any = style.thing
    methods = [getattr(model, name, None) for name in ("forward", "backward")]
    value = value_method(model)
    if isinstance(model, tuple | list | type) or not all(map(callable, methods)) or value is None:
        return None
    names = _names(style, value)
    values = called(lambda: _passed(duplicate(model), names, style.inputs)) if names else None
    if not isinstance(values, dict) or not _is_number(called(lambda: _called(model, value, values))):
        return None
    gradients = _gradients(model, values)
    held = {name: array for name, array in attributes_of(model).items() if is_float(array)}
    arrays = {name: array for name, array in held.items() if name in gradients or is_parameter_name(name)}
    if not gradients or any(np.shape(gradients[name]) != np.shape(held[name]) for name in gradients):
        return None

    def opened(params: Mapping[str, Any]) -> Any:
        return duplicate(model, {id(array): params[name] for name, array in arrays.items()})

    def loss(params: Any, *inputs: Any) -> Any:
        copied = opened(params)
        return np.asarray(_called(copied, value, _passed(copied, names, inputs)), float).sum()

    def gradient(params: Any, *inputs: Any) -> Any:
        copied = opened(params)
        found = _gradients(copied, _passed(copied, names, inputs))
        return {name: found[name] for name in params if name in found}

    loss.__name__ = value
    note = NOTE.format(type(model).__name__, value, ", ".join(gradients))
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in distinct(["params", *names])])
    loss.__signature__ = gradient.__signature__ = signature  # type: ignore[attr-defined]
    params = {name: np.array(array) for name, array in arrays.items()}
    return style._replace(thing=loss, inputs=(params, *style.inputs), gradient=gradient, takes_dout=False, note=note)


def _names(style: Style, value: str) -> list[str]:
    """Returns the names of all inputs: those of forward, and then those that the other methods take besides; or none.

    Backward must take something that forward returns, and nothing that may be an upstream gradient.
    """
    model: Any = style.thing
    takes = [*required_parameters_of(getattr(model, value)), *required_parameters_of(model.backward)]
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
    if not isinstance(result, tuple | list):
        return {}
    kind: Any = type(model)
    return dict(zip(_names_of_outputs(kind, len(result)), result, strict=False))


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
    names = [name for name, array in attributes_of(model).items() if is_float(array)]
    if isinstance(returned, Mapping):
        forms = {form.format(name): name for name in names for form in ("{}", *GRADIENT_NAMES)}
        return {forms[key]: gradient for key, gradient in returned.items() if key in forms}
    if not isinstance(returned, tuple | list):
        return {}
    kind: Any = type(model)
    return dict(zip(_owners(kind, len(returned), tuple(names)), returned, strict=False))


def _is_number(total: Any) -> bool:
    return not isinstance(total, Exception) and is_float(np.asarray(total)) and np.size(total) == 1
