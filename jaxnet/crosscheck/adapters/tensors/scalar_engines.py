"""Adapts engines of differentiable objects, as micrograd: inputs with `data` and `grad`, an output with `backward()`.

The number may have another name than `data`, if it is the only attribute that holds one beside the gradient. A tensor
may give its values by `numpy()` alone, as in needle, and be made of an array by its class.
"""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import Style, called, parameters_of, required_parameters_of
from jaxnet.crosscheck.adapters.tensors import tensor_containers
from jaxnet.crosscheck.inspect.copying import Template, duplicate
from jaxnet.crosscheck.inspect.errors import SubjectError, describe
from jaxnet.crosscheck.inspect.objects import STATELESS, attributes_of, safe_getattr, walk
from jaxnet.crosscheck.inspect.signatures import positional
from jaxnet.crosscheck.inspect.trees import is_float

NOTE = "{} objects are checked by their data and the grad that backward() leaves"
OF_SUM = "that of an output with several elements is the gradient of their sum"
OF_WEIGHTED_SUM = "that of an output with several elements is the gradient of a weighted sum of them"
HELD_WITHIN = "the objects that {} holds are checked after its inputs: {}"
HELD = "{} held fixed, since only such objects get a gradient"


def adapt(style: Style) -> Style | None:
    """Turns a function of objects with `data` and `grad` into a function of their numbers, with its gradient.

    Objects may lie in lists. Other arguments, as labels, are held fixed.
    """
    if tensor_containers.adapt(style) is not None:  # whose objects leave no gradient
        return None
    return _adapted(_with_held_objects(style) or style)


def _adapted(style: Style) -> Style | None:
    f, inputs = style.thing, style.inputs
    places = [i for i, arg in enumerate(inputs) if _variables_in(arg)]
    requiring = [i for i in places if any(_requires(variable) for variable in _flat(inputs[i]))]
    places = requiring or places  # if none asks for a gradient, all get one
    if not callable(f) or isinstance(f, type) or not places:
        return None
    names = parameters_of(f)[: len(inputs)]

    def with_values(values: tuple[Any, ...]) -> list[Any]:
        given = dict(zip(places, values, strict=True))
        return [_mapped(_with_data, arg, given[i]) if i in given else arg for i, arg in enumerate(inputs)]

    def value(*values: Any) -> Any:
        output = _first(f(*with_values(values)))
        return np.sum(np.asarray(_data_of(output), float) * _weights(output))

    def gradient(*values: Any) -> Any:
        made = with_values(values)
        _run_backward(_first(f(*made)))
        return tuple(_mapped(_gradient_of, made[i]) for i in places)

    if len(names) == len(inputs):
        kept = [parameter for i, parameter in enumerate(positional(f)) if i in places]
        value.__signature__ = gradient.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
    value.__name__ = getattr(f, "__name__", "f")
    numbers = tuple(_mapped(lambda variable: np.asarray(_data_of(variable), float), inputs[i]) for i in places)
    output = called(lambda: _first(f(*with_values(numbers))))
    if isinstance(output, Exception) and isinstance(error := called(f, *inputs), Exception):
        raise SubjectError(f"{value.__name__}: raised {describe(error)}")
    if not _is_variable(output):
        return None
    note = NOTE.format(type(_leftmost(inputs[places[0]])).__name__)
    if np.size(_data_of(output)) != 1:
        if not _starts_from_weights(output):
            in_total = _with_total(f)  # of an engine whose backward starts from a number alone
            total = called(in_total, *with_values(numbers))
            is_number = not isinstance(total, Exception) and _is_variable(total) and np.size(_data_of(total)) == 1
            return adapt(style._replace(thing=in_total, note=OF_WEIGHTED_SUM)) if is_number else None
        note = f"{note}; {OF_SUM if np.all(_weights(output) == 1) else OF_WEIGHTED_SUM}"
    note = f"{note}; {style.note}" if style.note else note
    if held := [name for i, name in enumerate(names) if i not in places]:
        note = f"{note}; {HELD.format(', '.join(held) + (' is' if len(held) == 1 else ' are'))}"
    return style._replace(thing=value, inputs=numbers, gradient=gradient, takes_dout=False, note=note)


def adapt_arrays(style: Style) -> Style | None:
    """Turns a function that makes objects of an engine from arrays, as those of DeZero, into one of such objects."""
    f: Any = style.thing
    if not callable(f) or isinstance(f, type):
        return None
    output = called(lambda *args: _first(duplicate(f)(*args)), *style.inputs)
    if isinstance(output, Exception) or not _is_variable(output):
        return None
    kind = type(output)
    objects = called(lambda: tuple(kind(np.array(x)) if is_float(x) else x for x in style.inputs))
    return None if isinstance(objects, Exception) else adapt(style._replace(inputs=objects))


def _with_held_objects(style: Style) -> Style | None:
    """Returns a module as a function of the objects that it holds too, as its weights; None if it holds none."""
    module: Any = style.thing
    if isinstance(module, STATELESS) or not callable(module) or not any(map(_variables_in, style.inputs)):
        return None
    held = {place: part for place, part in walk(module) if _is_variable(part) and _requires(part)}
    held = {
        place: part
        for place, part in held.items()
        if hasattr(part, "__dict__") and isinstance(_data_of(part), np.ndarray)
    }
    if not held:
        return None
    template = Template(module)

    def call(*args: Any) -> Any:
        *inputs, objects = args
        copied, memo = template.copy_with_memo()
        for part, given in zip(held.values(), objects, strict=True):
            memo[id(part)].__dict__ = given.__dict__  # one object, whose gradient is left in both
        return copied(*inputs)

    call.__name__ = type(module).__name__
    words = HELD_WITHIN.format(type(module).__name__, ", ".join(held))
    return style._replace(thing=call, inputs=(*style.inputs, list(held.values())), note=words)


def _first(output: Any) -> Any:
    """Returns the loss of a function that returns `(loss, probs)`."""
    return output[0] if isinstance(output, tuple | list) and output else output


def _with_total(f: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of the weighted sum of the output of f, in the operations of its engine."""

    @functools.wraps(f)
    def total(*args: Any) -> Any:
        y = _first(f(*args))
        data = np.asarray(_data_of(y))
        product = y * type(y)(np.random.default_rng(0).standard_normal(data.shape).astype(data.dtype))
        return product.sum(*[None for _ in required_parameters_of(product.sum)])  # over every axis

    return total


def _weights(output: Any) -> Any:
    """Returns the upstream gradient of an output: random if `backward(grad)` takes one, else ones."""
    data = np.asarray(_data_of(output))
    takes = [p for p in positional(output.backward) if not isinstance(p.default, bool)]  # but for retain_grad=False
    if data.size == 1 or not takes or "grad" not in takes[0].name:
        return np.ones_like(data)
    return np.random.default_rng(0).standard_normal(data.shape).astype(data.dtype)


def _run_backward(output: Any) -> None:
    """Runs `backward()`, or `backward(grad)` for an output of several elements if it takes the gradient of that."""
    weights = _weights(output)
    if np.all(weights == 1):
        output.backward()
        return
    try:
        output.backward(weights)
    except (AttributeError, TypeError):  # it takes an object of the engine
        output.backward(type(output)(weights))


def _flat(arg: Any) -> list[Any]:
    return [variable for part in arg for variable in _flat(part)] if isinstance(arg, tuple | list) else [arg]


def _requires(variable: Any) -> bool:
    """Returns whether an object asks for a gradient. It does unless it says otherwise."""
    asks = safe_getattr(variable, "requires_grad")
    return asks if isinstance(asks, bool) else True


def _leftmost(arg: Any) -> Any:
    return _leftmost(arg[0]) if isinstance(arg, tuple | list) else arg


def _variables_in(arg: Any) -> bool:
    """Returns whether an argument is an object of an engine, or a list of them."""
    if isinstance(arg, tuple | list):
        return bool(arg) and all(map(_variables_in, arg))
    return _is_variable(arg)


def _mapped(function: Callable[..., Any], arg: Any, *others: Any) -> Any:
    """Returns the results of a function for an object, or for those in a list, with the values in others like it."""
    if isinstance(arg, tuple | list):
        return [_mapped(function, *parts) for parts in zip(arg, *others, strict=True)]
    return function(arg, *others)


def _gradient_of(variable: Any) -> Any:
    return np.asarray(_number(variable.grad), float)


def _starts_from_weights(output: Any) -> bool:
    """Returns whether backward gives an output of several elements the upstream gradient, or ones if it takes none."""
    try:
        _run_backward(output)
    except Exception:  # engines may take numbers only
        return False
    gradient, weights = _number(getattr(output, "grad", None)), _weights(output)
    is_plain_one = np.shape(gradient) == () and np.all(weights == 1)  # which broadcasts in what the engine does next
    return (is_plain_one or np.shape(gradient) == weights.shape) and bool(np.all(np.asarray(gradient) == weights))


def _is_variable(value: Any) -> bool:
    if is_float(value) or type(value).__module__.partition(".")[0] in ("torch", "jax", "jaxlib", "numpy"):
        return False
    has_grad = "grad" in dir(value)  # reading it may raise, before backward
    return has_grad and callable(getattr(value, "backward", None)) and _is_number(_data_of(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.ndarray | np.floating) and not isinstance(value, bool)


def _data_name(variable: Any) -> str:
    """Returns the attribute with the number: `data`, or the only other one that is a number and no gradient."""
    names = [name for name, value in attributes_of(variable).items() if is_float(value) or isinstance(value, float)]
    names = [name for name in names if "grad" not in name]
    return names[0] if len(names) == 1 and not hasattr(variable, "data") else "data"


def _data_of(variable: Any) -> Any:
    data = getattr(variable, _data_name(variable), None)
    return variable.numpy() if not _is_number(data) and callable(getattr(variable, "numpy", None)) else data


def _zeros_like(gradient: Any) -> Any:
    """Returns a gradient of zeros, in an object of the engine if the gradient is one."""
    zeros = np.zeros_like(_number(gradient))
    return _with_data(gradient, zeros) if _is_variable(gradient) else zeros[()]


def _number(gradient: Any) -> Any:
    """Returns the number of a gradient, which some engines keep in an object of their own."""
    return (
        gradient if gradient is None or is_float(gradient) or isinstance(gradient, int | float) else _data_of(gradient)
    )


def _parameter_names(kind: Any) -> list[str]:
    """Returns the names of the parameters of a class, none if it has no signature."""
    try:
        return list(inspect.signature(kind).parameters)
    except (TypeError, ValueError):
        return []


def _with_data(variable: Any, data: Any) -> Any:
    """Returns a new variable with this value and no gradient."""
    if not _is_number(getattr(variable, _data_name(variable), None)):
        takes_dtype = "dtype" in _parameter_names(type(variable))
        return type(variable)(np.array(data), **({"dtype": str(np.asarray(data).dtype)} if takes_dtype else {}))
    made = copy.copy(variable)
    setattr(made, _data_name(variable), np.array(data) if isinstance(_data_of(variable), np.ndarray) else float(data))
    gradient = safe_getattr(variable, "grad")
    if isinstance(getattr(type(variable), "grad", None), property):
        for name in (name for name in attributes_of(variable) if name.strip("_") in ("grad", "gradient")):
            setattr(made, name, None if gradient is None else np.zeros_like(gradient))
    else:
        made.grad = None if gradient is None else _zeros_like(gradient)
    if not _requires(variable):
        made.requires_grad = True
        made.grad = np.zeros_like(made.grad if made.grad is not None else np.asarray(_data_of(made)))
    return made
