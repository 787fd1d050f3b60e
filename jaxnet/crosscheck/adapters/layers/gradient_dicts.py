"""Adapts layers whose backward puts the gradients of parameters in a dict, which it takes or returns.

`backward(dout, gradients)` fills a dict that the caller passes in, and is recognized by that; `backward(dout)` returns
`{"W": dW, "b": db, "x": dx}`. A key is the name of a parameter or of its gradient, with a path before it or not.
"""

import functools
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxnet.crosscheck.adapters.style import (
    Style,
    called,
    has_method,
    parameters_of,
    required_parameters_of,
    with_methods,
)
from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.objects import attributes_of, layers_within
from jaxnet.crosscheck.inspect.pair import CACHE
from jaxnet.crosscheck.inspect.returned_names import owners_of_returned
from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES
from jaxnet.crosscheck.inspect.signatures import input_names
from jaxnet.crosscheck.inspect.stored_gradients import LOOSE_GRADIENT_NAMES, PARAMETER_DICTS
from jaxnet.crosscheck.inspect.trees import is_float

PARAMETERS_ALONE = "{}.backward returns the gradients of its parameters alone, so {} is not checked"
PATH = re.compile(r"[/.:]")
Owner = tuple[Any, str]


def adapt_filled(style: Style) -> Style | None:
    """Passes an empty dict to the parameter of backward that fills it, and stores its gradients in the layer."""
    layer = style.thing
    if isinstance(layer, type) or not (has_method(layer, "forward") and has_method(layer, "backward")):
        return None
    takes, inputs = required_parameters_of(layer.backward), parameters_of(layer.forward)
    free = [name for name in takes if name not in inputs and name not in CACHE]
    argument = next((name for name in free if _fills(style, name, free)), None) if len(free) in (1, 2) else None
    if argument is None:
        return None
    kind: Any = type(layer)
    rest = [name for name in takes if name != argument]

    def backward(self: Any, *values: Any, **named: Any) -> Any:
        gradients: dict[Any, Any] = {}
        returned = kind.backward(self, **dict(zip(rest, values, strict=False)), **named, **{argument: gradients})
        owners = _owners(self, gradients)
        for key, (owner, name) in owners.items():
            setattr(owner, f"d{name}", gradients[key])
        return returned

    return style._replace(thing=_with_backward(layer, backward, rest))


def adapt_filled_pair(style: Style) -> Style | None:
    """Passes a dict of zeros to the parameter of a backward function that adds the gradients of a dict to it.

    Forward takes the parameters in a dict, as `attention(x, params)`, and backward is called with a dict that has their
    names: `backward(dout, cache, grads)`.
    """
    thing, inputs = style.thing, style.inputs
    if not isinstance(thing, tuple | list) or len(thing) != 2 or not all(map(callable, thing)):
        return None
    forward, backward = thing
    named = dict(zip(parameters_of(forward), inputs, strict=False))
    dicts = [
        name for name, arg in named.items() if isinstance(arg, Mapping) and arg and all(map(is_float, arg.values()))
    ]
    free = [
        n for n in required_parameters_of(backward) if n not in named and n not in CACHE and "cache" not in n.lower()
    ]
    if len(dicts) != 1 or len(free) != 2:
        return None
    holder, others = dicts[0], [name for name, arg in named.items() if is_float(arg)]
    result = called(forward, *inputs)
    argument = next((name for name in free if _adds_to(backward, name, free, named, holder, result)), None)
    if argument is None:
        return None
    rest = [name for name in required_parameters_of(backward) if name != argument]
    shapes = {key: np.zeros_like(array) for key, array in named[holder].items()}

    def backward_into_dict(*values: Any, **by_name: Any) -> Any:
        gradients = {key: np.array(zeros) for key, zeros in shapes.items()}
        returned = backward(**dict(zip(rest, values, strict=False)), **by_name, **{argument: gradients})
        parts = returned if isinstance(returned, tuple | list) else () if returned is None else (returned,)
        owners = owners_of_returned(backward, len(parts), others) or others
        return dict(zip(owners, parts, strict=False)) | {holder: gradients}

    functools.update_wrapper(backward_into_dict, backward)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in rest])
    backward_into_dict.__signature__ = signature  # type: ignore[attr-defined]
    return style._replace(thing=(forward, backward_into_dict))


def _adds_to(backward: Any, argument: str, free: list[str], named: Mapping[str, Any], holder: str, result: Any) -> bool:
    """Returns whether backward adds gradients to this argument, if the other free one is an upstream gradient."""
    if not isinstance(result, tuple | list) or len(result) != 2:
        return False
    gradients = {key: np.zeros_like(array) for key, array in named[holder].items()}
    values = dict.fromkeys(required_parameters_of(backward), result[1]) | dict.fromkeys(free, result[0]) | dict(named)
    values[argument] = gradients
    failed = called(lambda: backward(**{name: values[name] for name in required_parameters_of(backward)}))
    is_same = gradients.keys() == named[holder].keys()
    fits = is_same and all(np.shape(gradients[key]) == np.shape(array) for key, array in named[holder].items())
    return not isinstance(failed, Exception) and fits and any(np.any(array) for array in gradients.values())


def adapt_returned(style: Style) -> Style | None:
    """Stores the gradients of parameters that a dict has, and returns those of the inputs."""
    layer = style.thing
    if isinstance(layer, type) or not (has_method(layer, "forward") and has_method(layer, "backward")):
        return None
    trial: Any = duplicate(layer)
    y = called(trial.forward, *style.inputs)
    returned = called(trial.backward, y)
    if not isinstance(returned, Mapping):
        return None
    names = input_names(layer.forward, len(style.inputs))
    shapes = {name: np.shape(value) for name, value in zip(names, style.inputs, strict=True) if is_float(value)}
    inputs = _inputs(returned, shapes)
    owners = _owners(trial, {key: gradient for key, gradient in returned.items() if key not in inputs})
    rest = [key for key in returned if key not in owners and key not in inputs]
    if (
        len(rest) == 1
        and len(shapes) == 1
        and not inputs
        and np.shape(returned[rest[0]]) == next(iter(shapes.values()))
    ):
        inputs = {rest[0]: next(iter(shapes))}
    if not inputs or len(owners) + len(inputs) < len(returned):
        return None
    kind: Any = type(layer)

    def backward(self: Any, *dout: Any) -> Any:
        gradients = kind.backward(self, *dout)
        own = {key: gradient for key, gradient in gradients.items() if key not in inputs}
        for key, (owner, name) in _owners(self, own).items():
            setattr(owner, f"d{name}", own[key])
        return {name: gradients[key] for key, name in inputs.items()}

    return style._replace(thing=_with_backward(layer, backward, required_parameters_of(layer.backward)))


def adapt_lists(style: Style) -> Style | None:
    """Stores the gradients of lists of parameters, which a dict has by the names of the lists: `{"weights": [...]}`."""
    layer: Any = style.thing
    if isinstance(layer, type) or not (has_method(layer, "forward") and has_method(layer, "backward")):
        return None
    trial: Any = duplicate(layer)
    returned = called(trial.backward, called(trial.forward, *style.inputs))
    attributes = attributes_of(layer)
    if not isinstance(returned, Mapping) or not returned or {"params", "grads"} & attributes.keys():
        return None
    forms = {form.format(name): name for name in attributes for form in (*GRADIENT_NAMES, "{}")}
    lists: dict[Any, Any] = {key: attributes.get(forms.get(key, "")) for key in returned}
    if not all(isinstance(own, list) and _alike(own, returned[key]) for key, own in lists.items()):
        return None
    kind: Any = type(layer)

    def backward(self: Any, *dout: Any) -> Any:
        gradients = kind.backward(self, *dout)
        self.grads = [gradient for key in lists for gradient in gradients[key]]
        return ()

    adapted = _with_backward(layer, backward, parameters_of(layer.backward)[:1])
    adapted.params = [array for own in lists.values() for array in own]
    names = input_names(layer.forward, len(style.inputs))
    note = PARAMETERS_ALONE.format(kind.__name__, " and ".join(names))
    return style._replace(thing=adapted, note=note, data=tuple(names))


def _alike(arrays: Any, gradients: Any) -> bool:
    """Returns whether these are two lists of float arrays of the same shapes."""
    if not isinstance(gradients, tuple | list) or len(gradients) != len(arrays):
        return False
    pairs = zip(arrays, gradients, strict=True)
    return all(is_float(a) and is_float(g) and np.shape(a) == np.shape(g) for a, g in pairs)


def _fills(style: Style, argument: str, free: list[str]) -> bool:
    """Returns whether backward fills this parameter, if the other is an upstream gradient, with owned gradients."""
    trial: Any = duplicate(style.thing)
    result = called(trial.forward, *style.inputs)
    y, cache = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    gradients: dict[Any, Any] = {}
    values = dict(zip(parameters_of(trial.forward), style.inputs, strict=False)) | {argument: gradients}
    values |= {name: y for name in free if name != argument} | dict.fromkeys(CACHE, cache)
    try:
        trial.backward(*(values[name] for name in required_parameters_of(trial.backward)))
    except Exception:
        return False
    may_stay_empty = not list(_holders(trial)) and len(free) > 1  # one that is free alone is the upstream gradient
    return (bool(gradients) or may_stay_empty) and len(_owners(trial, gradients)) == len(gradients)


def _inputs(gradients: Mapping[Any, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[Any, str]:
    """Returns the inputs to which keys belong, by their names and shapes."""
    forms = {form.format(name): name for name in shapes for form in ("{}", *GRADIENT_NAMES)}
    return {key: forms[key] for key in gradients if key in forms and np.shape(gradients[key]) == shapes[forms[key]]}


def _owners(whole: Any, gradients: Mapping[Any, Any]) -> dict[Any, Owner]:
    """Returns the layer and the name of the parameter to which each key belongs."""
    arrays = {name: (layer, np.shape(array)) for layer, name, array in _holders(whole)}
    forms = {form.format(n): n for n in arrays for form in (*LOOSE_GRADIENT_NAMES, *GRADIENT_NAMES, "{}")}
    lower = (
        {key.lower(): name for key, name in forms.items()} if len({n.lower() for n in arrays}) == len(arrays) else {}
    )
    owners: dict[Any, Owner] = {}
    for key, gradient in gradients.items():
        last = PATH.split(key)[-1] if isinstance(key, str) else ""
        name = forms.get(key) or forms.get(last) or lower.get(last.lower())
        if name is not None and np.shape(gradient) == arrays[name][1]:
            owners[key] = arrays[name][0], name
    return owners


def _holders(whole: Any) -> Iterator[tuple[Any, str, Any]]:
    """Yields the float arrays that a layer and those within it hold, in attributes and in dicts of parameters."""
    for _, layer in layers_within(whole):
        for name, value in attributes_of(layer).items():
            if is_float(value):
                yield layer, name, value
            elif isinstance(value, Mapping) and PARAMETER_DICTS.fullmatch(name):
                yield from (
                    (layer, key, part) for key, part in value.items() if isinstance(key, str) and is_float(part)
                )


def _with_backward(layer: Any, backward: Any, names: list[str]) -> Any:
    functools.update_wrapper(backward, type(layer).backward)
    parameters = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in ("self", *names)]
    backward.__signature__ = inspect.Signature(parameters)
    return with_methods(layer, {"backward": backward})
