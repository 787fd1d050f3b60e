"""Reads in the source of a function what it calls the values that it returns: `dx` and `dW` of `return dx, dW`."""

import ast
import inspect
import textwrap
from collections.abc import Sequence
from typing import Any

from jaxnet.crosscheck.inspect.role_heuristics import GRADIENT_NAMES
from jaxnet.crosscheck.inspect.stored_gradients import LOOSE_GRADIENT_NAMES

MOST_CALLS = 3  # of other methods, that a method may return the result of


def returned_names(function: Any, count: int, owner: Any = None, *, partly: bool = False) -> list[str]:
    """Returns the names in `return a, b` with so many parts in the source of a function; none if it has none.

    Args:
        function: A function or a method written in Python.
        count: The number of values that it returned.
        owner: The class of the method, to follow `return self.other(...)`. Defaults to none.
        partly: Whether the name of a part that is an expression is empty. By default, there are no names then.

    Returns:
        The names; those of attributes for `return self.a, self.b`. None if several returns differ.
    """
    for _ in range(MOST_CALLS):
        returned = _returned(function)
        parts = [v.elts for v in returned if isinstance(v, ast.Tuple | ast.List) and len(v.elts) == count]
        if count == 1 and returned and not any(isinstance(v, ast.Tuple | ast.List | ast.Call) for v in returned):
            parts = [[value] for value in returned]
        if parts:
            names = [[_name(part) for part in some] for some in parts]
            return names[0] if (partly or all(names[0])) and all(some == names[0] for some in names) else []
        calls = [name for value in returned if isinstance(value, ast.Call) and (name := _method_of_self(value.func))]
        if owner is None or len(returned) != 1 or not calls:
            return []
        function = getattr(owner, calls[0], None)
    return []


def owners_of_returned(function: Any, count: int, names: Sequence[str], owner: Any = None) -> list[str]:
    """Returns the names to which returned gradients belong by the source, `w` and `x` for `return dw, dx`.

    Args:
        function: The function that returns them.
        count: Their number.
        names: The names of which some get a gradient.
        owner: The class of a method, as for `returned_names`.

    Returns:
        A name for each gradient; none if the source does not tell all.
    """
    exact = {form.format(name): name for name in names for form in (*LOOSE_GRADIENT_NAMES, *GRADIENT_NAMES)}
    lower = {key.lower(): name for key, name in exact.items()}
    if len({name.lower() for name in names}) < len(names):
        lower = {}
    owners = [exact.get(n, lower.get(n.lower(), "")) for n in returned_names(function, count, owner)]
    return owners if all(owners) and len(set(owners)) == len(owners) else []


def _returned(function: Any) -> list[Any]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    except (OSError, TypeError, SyntaxError):
        return []
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]


def _name(part: ast.expr) -> str:
    if isinstance(part, ast.Attribute):
        return part.attr
    return part.id if isinstance(part, ast.Name) else ""


def _method_of_self(function: ast.expr) -> str:
    if not isinstance(function, ast.Attribute) or not isinstance(function.value, ast.Name):
        return ""
    return function.attr if function.value.id == "self" else ""
