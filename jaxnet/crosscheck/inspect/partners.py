"""Finds the hand-written gradient of a function by its name, among the functions that are defined beside it."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

GRADIENT_NAMES = ("{}_gradient", "{}_grad", "gradient_of_{}", "grad_{}", "d_{}", "d{}")
FORWARD, BACKWARD = "forward", "backward"
DERIVED = "{}'s derivative was checked"
NOT_THE_GRADIENT = ", not {0}; pass gradient={0}"
NOT_THE_BACKWARD = ", not {1}; pass the pair ({0}, {1})"


def gradient_names(name: str, beside: Mapping[str, Any]) -> list[str]:
    """Returns the names of the functions that are named after the gradient of a function.

    Args:
        name: The name of the function.
        beside: The values of its module, by name.

    Examples:
        >>> gradient_names("f", {"f": lambda x: x**2, "f_grad": lambda x: 2 * x, "df": 3})
        ['f_grad']
    """
    return [
        partner
        for partner in (form.format(name) for form in GRADIENT_NAMES)
        if inspect.isfunction(beside.get(partner)) and inspect.unwrap(beside[partner]) is not beside.get(name)
    ]


def backward_name(name: str, beside: Mapping[str, Any]) -> str:
    """Returns the name of the backward pass of a forward pass, both functions, or "" if there is none.

    Args:
        name: The name of the forward pass, such as "affine_forward".
        beside: The values of its module, by name.

    Examples:
        >>> backward_name("forward", {"backward": lambda dout, cache: dout})
        'backward'
    """
    partner = name.removesuffix(FORWARD) + BACKWARD
    return partner if name.endswith(FORWARD) and inspect.isfunction(beside.get(partner)) else ""


def values_beside(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Returns the values of the module that a function is defined in; none if it is not written in Python."""
    beside: Mapping[str, Any] = getattr(inspect.unwrap(function), "__globals__", {})
    return beside


def derived_instead(name: str, function: Callable[..., Any], framework: str) -> str:
    """Returns that a framework's derivative of a function was checked, and not the gradient beside it, if there is one.

    Args:
        name: The name of the function.
        function: The function, which is passed without its gradient.
        framework: What differentiates it, such as "JAX".

    Examples:
        >>> derived_instead("abs", abs, "JAX")
        "JAX's derivative was checked"
    """
    beside = values_beside(function)
    if backward := backward_name(name, beside):
        return DERIVED.format(framework) + NOT_THE_BACKWARD.format(name, backward)
    return DERIVED.format(framework) + "".join(map(NOT_THE_GRADIENT.format, gradient_names(name, beside)[:1]))


def has_partner(name: str, function: Callable[..., Any]) -> bool:
    """Returns whether a gradient or a backward pass is named after a function of a module, and defined beside it."""
    beside = values_beside(function)
    is_of_module = beside.get(name) is function
    return is_of_module and bool(backward_name(name, beside) or gradient_names(name, beside))
